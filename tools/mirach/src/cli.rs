//! The command line.

mod switch;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use dataplane::config::{ByteSize, ControlSocket, CoreList, PageSize, Poll, Scheduler};
use dataplane::control::MetricsAddress;
use dataplane::copy::{DmaName, Threshold};
use dataplane::port::{MAXIMUM_FRAME, MINIMUM_FRAME, NamedSpec, PortName, PortSpec};

use crate::embedded::Driver;

pub(crate) use switch::{
    ApplyArguments, CaptureArguments, FlowsArguments, Part, SchemaArguments, SetArguments, ShowArguments, Shown, Sort,
    SubscribeArguments, TopArguments, TraceArguments, UnsetArguments, WhyArguments,
};

use crate::commands::bench::ladder::{Mode, SUBCOMMAND};
use crate::commands::device::DeviceArguments;

/// Lengths of frames.
const FRAMES: std::ops::RangeInclusive<i64> = MINIMUM_FRAME as i64..=MAXIMUM_FRAME as i64;

const PORTS_HELP: &str = "\
Ports:
  0000:00:03.0[,queues=N][,mac=ADDRESS][,mtu=BYTES][,promiscuous=on|off][,vfio=auto|type1|iommufd]
                                a network card bound to vfio-pci; 00:03.0 and the kernel's interface name work too;
                                virtio cards take ring=auto|split|packed, ixgbe cards pause=on|off|rx|tx
  vfio-user=SOCKET[,...]        a card behind a socket, such as those of `mirach device`; keys as above, but vfio
  vhost-user=SOCKET[,queues=N][,client=on|off][,prefault=on|off][,mtu=BYTES][,dma-threshold=BYTES|auto|off]
                                a virtual machine or container; the emulator listens and mirach connects, client=off
                                turns that round; prefault=on takes all of its memory at once; frames of dma-threshold
                                bytes and more are copied to it by the device of --dma
  virtio-user=SOCKET[,queues=N][,server=on|off][,ring=auto|split|packed][,mac=ADDRESS][,mtu=BYTES]
                                the other side of a vhost-user socket: a switch (OVS, VPP, DPDK) or another mirach
  tap=NAME[,queues=N]           a Linux tap interface
  pcap=IN[,out=OUT][,loop=N]    capture files; IN may be left out (pcap=,out=OUT); loop=0 plays IN for ever
  gen=RATE[,size=64|64-1514][,count=N][,flows=N][,queues=N]
                                a generator and checking sink; RATE is packets a second (1M, 500k) or max;
                                size is without frame check sequence, 60 to 1518
  null                          discards what it is sent
Every port takes name=NAME.";

/// A host network dataplane: takes network cards from the kernel, drives them itself and moves packets between them.
#[derive(Parser, Debug)]
#[command(name = "mirach", version, max_term_width = 120, propagate_version = true)]
pub(crate) struct Arguments {
    /// Say more on stderr; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Open ports and move packets between them: pairwise, or through the networks of a configuration file
    #[command(after_help = PORTS_HELP)]
    Run(RunArguments),
    /// Add, remove and show ports of a mirach that runs
    #[command(after_help = PORTS_HELP)]
    Port(PortArguments),
    /// Make a mirach that runs what a configuration file says, with the least change, all or nothing
    Apply(ApplyArguments),
    /// Show networks, slices, rules, routes, tunnels, learned addresses, or the elements of the switch
    Show(ShowArguments),
    /// Add or change one network, slice, port of a network, group of rules, route, tunnel or mirror
    #[command(after_help = switch::SET_HELP)]
    Set(SetArguments),
    /// Take out what `mirach set` or a configuration file put in
    Unset(UnsetArguments),
    /// Show flows of the switch
    Flows(FlowsArguments),
    /// Say what would happen to a frame in the switch, element by element, and why
    #[command(after_help = switch::WHY_HELP)]
    Why(WhyArguments),
    /// Follow some packets of a port through the switch, element by element, as they pass
    Trace(TraceArguments),
    /// Capture packets anywhere in the switch, with the reasons for drops
    Capture(CaptureArguments),
    /// Watch ports, engines, elements, flows and drops
    Top(TopArguments),
    /// Print news of a mirach that runs, one JSON object a line
    Subscribe(SubscribeArguments),
    /// Print the description of the control socket, or of the configuration file
    Schema(SchemaArguments),
    /// Show the forwarder at work, with no hardware, no root and no huge pages
    Demo(DemoArguments),
    /// Measure what one queue costs per packet, by burst and frame size
    #[command(after_help = PORTS_HELP)]
    Bench(BenchArguments),
    /// List network cards and DMA engines, who drives them and what mirach can do with them
    Devices(DevicesArguments),
    /// Take devices from their kernel driver and give them to vfio-pci
    Bind(BindArguments),
    /// Give devices back to their kernel driver
    Unbind(UnbindArguments),
    /// Serve software network cards to emulators and drivers on vfio-user sockets
    Device(DeviceArguments),
    /// Say what this machine has and lacks for mirach, and what mends it
    Doctor(DoctorArguments),
    /// Print what lets a shell complete mirach's commands and flags
    Completions(CompletionsArguments),
}

#[derive(Args, Debug)]
pub(crate) struct RunArguments {
    /// A port. Those that no network of the configuration file has are joined: the first two, then the next two, and so on.
    /// More can be added later with `mirach port add`
    #[arg(long = "port", value_name = "SPEC")]
    pub(crate) ports: Vec<NamedSpec>,
    /// TOML file that says the same as the flags; flags win
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Cores for the engines, such as 1-3,8 [default: all but the first]
    #[arg(long, value_name = "LIST")]
    pub(crate) cores: Option<CoreList>,
    /// Memory for packets and rings, taken as it is needed [default: 64M, and 12M for each core]
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Page size of that memory: 1G, 2M or 4K [default: the largest that fits and is free]
    #[arg(long, value_name = "SIZE")]
    pub(crate) huge_page_size: Option<PageSize>,
    /// Use 4 KiB pages, no huge pages
    #[arg(long)]
    pub(crate) no_huge: bool,
    /// NUMA node of that memory [default: the system chooses]
    #[arg(long, value_name = "N")]
    pub(crate) node: Option<u32>,
    /// Poll without end (always), or sleep while there is nothing to do (adaptive) [default: adaptive]
    #[arg(long, value_name = "MODE")]
    pub(crate) poll: Option<Poll>,
    /// Most packets received at once, 1 to 128 [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) burst: Option<usize>,
    /// To whom packets are delivered first when several ports wait: the one that used the least processor time of late
    /// (least-cpu), or all in the order of arrival (off) [default: least-cpu]
    #[arg(long, value_name = "MODE")]
    pub(crate) scheduler: Option<Scheduler>,
    /// Device that copies large frames from virtual machine to virtual machine: the PCI address of an Intel I/OAT or DSA,
    /// vfio-user=SOCKET, or cpu for threads that copy [default: none, engines copy themselves]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) dma: Option<DmaName>,
    /// From which length on frames are left to that device: bytes, auto (from where it costs an engine less, as measured
    /// at the start) or off; ports may say something else with dma-threshold= [default: auto]
    #[arg(long, value_name = "BYTES|auto|off")]
    pub(crate) dma_threshold: Option<Threshold>,
    /// Unix socket on which the other commands ask and change this run, or none [default: /run/mirach/control.sock for root,
    /// $XDG_RUNTIME_DIR/mirach/control.sock for others]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<ControlSocket>,
    /// Group whose members may ask there what there is, and change nothing
    #[arg(long, value_name = "NAME")]
    pub(crate) control_group: Option<String>,
    /// Serve metrics for Prometheus at an address such as 127.0.0.1:9100, or on a Unix socket (a path with a /) [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<MetricsAddress>,
    /// Most flows that the switch keeps [default: 131072]
    #[arg(long, value_name = "N")]
    pub(crate) flows: Option<u32>,
    /// Stop after so many seconds [default: at SIGINT or SIGTERM, or when all sources have ended]
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<u64>,
    /// How long packets wait for room on a full port before they are dropped, in milliseconds, at most 500 [default: 100]
    #[arg(long, value_name = "N")]
    pub(crate) hold_milliseconds: Option<u64>,
    /// Print one JSON object a line: statistics once a second, then a summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PortArguments {
    #[command(subcommand)]
    pub(crate) command: PortCommand,
    /// Control socket of the mirach that runs [default: /run/mirach/control.sock for root, $XDG_RUNTIME_DIR/mirach/control.sock
    /// for others]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum PortCommand {
    /// Open a port; the traffic of all others goes on
    Add(AddArguments),
    /// Part a port from its partner and close it; the traffic of all others goes on
    Del {
        /// Name of the port
        name: String,
    },
    /// Join two ports that are joined to none
    Join {
        /// Name of a port
        name: String,
        /// Name of the other one
        join: String,
    },
    /// Show all ports
    List,
    /// Show what was counted, and what share of the processor each port had
    Stats {
        /// Name of the port [default: all]
        name: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct AddArguments {
    /// The port
    pub(crate) spec: NamedSpec,
    /// Its name [default: that of the device, or a number behind the kind]
    #[arg(long)]
    pub(crate) name: Option<PortName>,
    /// Name of the port to join it to; without it, the port waits for another to be joined to it
    #[arg(long, value_name = "PORT")]
    pub(crate) join: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArguments {
    /// Show so many emulated virtual machines, which talk to each other in pairs: an even number, up to 32
    #[arg(long, value_name = "N", conflicts_with = "driver", value_parser = machines)]
    pub(crate) vms: Option<u16>,
    /// How long to show it
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Length of the frames, 60 to 1518 bytes, not counting the frame check sequence of 4 bytes
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u16).range(FRAMES))]
    pub(crate) size: u16,
    /// Most packets received at once
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub(crate) burst: u16,
    /// Driver to show, with the software card that goes with it
    #[arg(long, value_enum, default_value_t = Driver::Ixgbe)]
    pub(crate) driver: Driver,
    /// Print one JSON object a line: statistics once a second, then a summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(crate) what: Option<BenchCommand>,
    /// Port to measure [default: the forwarder's own floor, and each driver on a card model]
    #[arg(long, value_name = "SPEC", conflicts_with = "driver")]
    pub(crate) port: Option<PortSpec>,
    /// Drivers to measure, on card models that work on another core
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) driver: Vec<Driver>,
    /// How long to measure each case, over all its runs
    #[arg(long, value_name = "SECONDS", default_value_t = 0.05, value_parser = seconds)]
    pub(crate) seconds_per_case: f64,
    /// Bursts to measure, in packets, up to 256
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,2,4,8,16,32,64,128,256",
          value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) burst: Vec<u16>,
    /// Frame lengths to measure, 60 to 1518 bytes, not counting the frame check sequence of 4 bytes
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,256,1518",
          value_parser = clap::value_parser!(u16).range(FRAMES))]
    pub(crate) size: Vec<u16>,
    /// Core to measure on [default: the last that this process may use]
    #[arg(long, value_name = "CORE")]
    pub(crate) core: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// Measure what a frame between virtual machines costs an engine when a device copies it, and when the engine does
    Copy(CopyArguments),
    /// Measure the same traffic between two emulated virtual machines through the kernel, through a helper process, and directly:
    /// throughput, round trips and cycles of the host, as multiples of the first
    Ladder(LadderArguments),
    /// The process in the middle of the ladder
    #[command(name = SUBCOMMAND, hide = true)]
    LadderProcess {
        /// Core to run on
        core: usize,
        /// Looks at empty rings before it sleeps
        patience: u32,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CopyArguments {
    /// Device that copies: the PCI address of an Intel I/OAT or DSA, vfio-user=SOCKET, or cpu [default: a software I/OAT on
    /// another core]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) dma: Option<DmaName>,
    /// Frame lengths to measure, 512 to 65000 bytes; those longer than 9018 are to be cut by whoever gets them
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1518,9000,65000",
          value_parser = clap::value_parser!(u32).range(512..=65000))]
    pub(crate) size: Vec<u32>,
    /// How long to measure each length, each way
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Core to measure on [default: the last that this process may use]
    #[arg(long, value_name = "CORE")]
    pub(crate) core: Option<usize>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LadderArguments {
    /// Modes to measure [default: all, dma with --dma alone; kernel needs root]
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',')]
    pub(crate) mode: Vec<Mode>,
    /// DMA engine for the last mode: a PCI address, vfio-user=SOCKET, an idxd work queue such as /dev/dsa/wq0.0, or cpu for a thread
    #[arg(long, value_name = "DEVICE")]
    pub(crate) dma: Option<DmaName>,
    /// How long to measure each length, and round trips, in each mode
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = seconds)]
    pub(crate) seconds: f64,
    /// Draw a picture (SVG)
    #[arg(long, value_name = "FILE")]
    pub(crate) svg: Option<PathBuf>,
    /// Write what is printed for people into a file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) table: Option<PathBuf>,
    /// Print one JSON object a line: one for each mode, then a summary
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DevicesArguments {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// List all PCI devices
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args, Debug)]
pub(crate) struct BindArguments {
    /// Devices: PCI addresses or names of kernel interfaces
    #[arg(required = true, value_name = "PCI")]
    pub(crate) devices: Vec<String>,
    /// Also take interfaces that carry addresses or routes
    #[arg(long)]
    pub(crate) force: bool,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct UnbindArguments {
    /// Devices: PCI addresses
    #[arg(required = true, value_name = "PCI")]
    pub(crate) devices: Vec<String>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArguments {
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionsArguments {
    /// The shell. For bash: mirach completions bash > ~/.local/share/bash-completion/completions/mirach
    pub(crate) shell: clap_complete::Shell,
}

fn machines(text: &str) -> Result<u16, String> {
    match text.parse::<u16>() {
        Ok(number) if (2..=32).contains(&number) && number.is_multiple_of(2) => Ok(number),
        _ => Err("give an even number from 2 to 32".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give seconds from 0.001 to 3600".to_owned()),
    }
}
