//! Arguments of the commands that ask a mirach that runs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which mirach to ask, and how to print what it answers.
#[derive(Args, Debug)]
pub(crate) struct AskArguments {
    /// Control socket of the mirach that runs [default: /run/mirach/control.sock for root, $XDG_RUNTIME_DIR/mirach/control.sock
    /// for others]
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ApplyArguments {
    /// TOML file with ports and networks, as `mirach run --config` takes it; - for standard input
    #[arg(value_name = "FILE.toml")]
    pub(crate) file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct FlowsArguments {
    /// Only those of this network
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Only those of packets that come from this port
    #[arg(long, value_name = "NAME")]
    pub(crate) port: Option<String>,
    /// Only those from or to this IP address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<std::net::IpAddr>,
    /// Only those of this protocol: tcp, udp, sctp, icmp, icmpv6 or its number
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<dataplane::network::config::Protocol>,
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Packets)]
    pub(crate) sort: Sort,
    /// Show so many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(..=20_000))]
    pub(crate) most: u16,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

/// Which flows come first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Sort {
    /// Those with most packets
    Packets,
    /// Those with most bytes
    Bytes,
    /// As they stand in the table
    Index,
}

pub(crate) const WHY_HELP: &str = "\
Frames:
  'tcp 10.0.0.1:1000 > 10.0.0.2:80'   words: tcp, udp, sctp, icmp or arp, from where, to where; behind them, as needed:
                                      from MAC, to MAC, vlan N, ttl N, size BYTES. `to` can stand in place of `>`. Without
                                      MACs, those that the configuration knows for these addresses are taken
  capture.pcap                        a frame of a capture file, the first or that of --index
  525400000002525400000001 0800 ...   hexadecimal digits";

#[derive(Args, Debug)]
pub(crate) struct WhyArguments {
    /// Name of the port that the frame comes from
    pub(crate) port: String,
    /// The frame
    #[arg(required = true, value_name = "FRAME")]
    pub(crate) frame: Vec<String>,
    /// Which frame of a capture file, from 1
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) index: usize,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct TraceArguments {
    /// Name of the port whose packets are followed
    pub(crate) port: String,
    /// Only those from or to this IP address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<std::net::IpAddr>,
    /// Only those of this protocol: tcp, udp, sctp, icmp, icmpv6 or its number
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<dataplane::network::config::Protocol>,
    /// Only those from or to this port of TCP, UDP or SCTP
    #[arg(long, value_name = "PORT")]
    pub(crate) transport_port: Option<u16>,
    /// Packets a second that each engine follows at most
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rate: u32,
    /// Stop after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", value_parser = super::seconds)]
    pub(crate) seconds: Option<f64>,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct CaptureArguments {
    /// Only what comes from this port, or leaves for it
    #[arg(long, value_name = "NAME")]
    pub(crate) port: Option<String>,
    /// Only what is in this network
    #[arg(long, value_name = "NAME")]
    pub(crate) network: Option<String>,
    /// Where: receive, deliver, drop, or an element for what leaves it (`mirach show graph` names them, `-` for a blank); may be
    /// given several times [default: receive, deliver and drop: each packet as it comes, and once more as it leaves or is dropped]
    #[arg(long, value_name = "POINT", value_delimiter = ',')]
    pub(crate) at: Vec<String>,
    /// Stop after so many packets
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "S", value_parser = super::seconds)]
    pub(crate) seconds: Option<f64>,
    /// Bytes of each packet that are kept
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(14..=65_536))]
    pub(crate) bytes: Option<u32>,
    /// Write a pcapng file, or with - to a pipe: mirach capture -w - | wireshark -k -i -
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct TopArguments {
    /// Seconds between two pictures
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = super::seconds)]
    pub(crate) interval: f64,
    /// Print one picture, of one interval, and nothing for terminals
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArguments {
    /// What
    #[arg(value_enum)]
    pub(crate) what: Shown,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

/// What there is to show.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Shown {
    /// The elements of the switch in order, with what each did and cost, and what was dropped
    Graph,
    /// Networks
    Networks,
    /// Ports in networks
    Ports,
    /// Slices
    Slices,
    /// Groups of rules
    Groups,
    /// Static routes
    Routes,
    /// Tunnels
    Tunnels,
    /// Mirrors
    Mirrors,
    /// Coprocessors: what each did, and the processor time that it used
    Coprocessors,
    /// Learned Ethernet addresses
    Macs,
    /// The configuration that is in force, as `mirach apply` takes it
    Config,
}

/// A kind of part of the switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Part {
    /// NAME
    Slice,
    /// NAME
    Network,
    /// NAME
    Group,
    /// NAME of an open port, and network=NAME
    Port,
    /// NETWORK PREFIX
    Route,
    /// NETWORK REMOTE
    Tunnel,
    /// NAME
    Mirror,
    /// No name
    Underlay,
}

pub(crate) const SET_HELP: &str = "\
Keys are those of the configuration file. What is not given stays as it is; KEY= takes it out.
Examples:
  mirach set slice gold flows=100000 bits-per-second=10G
  mirach set network red vni=100 slice=gold routers=10.0.0.1/24
  mirach set group web 'rules=[{ direction = \"in\", action = \"allow\", protocol = \"tcp\", ports = 80 }]'
  mirach set port vm0 network=red macs=52:54:00:00:00:01 addresses=10.0.0.2,fd00::2 groups=web
  mirach set route red 10.1.0.0/24 to=blue
  mirach set tunnel red 192.0.2.7 kind=geneve
  mirach set mirror probe port=vm0 direction=out to=tap0
  mirach set underlay port=uplink addresses=192.0.2.1/24";

#[derive(Args, Debug)]
pub(crate) struct SetArguments {
    /// What kind of thing
    #[arg(value_enum)]
    pub(crate) part: Part,
    /// What it is called, then KEY=VALUE, or all of it as one JSON object
    #[arg(value_name = "NAME|KEY=VALUE")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct UnsetArguments {
    /// What kind of thing
    #[arg(value_enum)]
    pub(crate) part: Part,
    /// What it is called; for a port also the network, if it is to stay in others
    #[arg(value_name = "NAME")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

#[derive(Args, Debug)]
pub(crate) struct SubscribeArguments {
    /// Topics
    #[arg(required = true, value_enum, value_name = "TOPIC")]
    pub(crate) topics: Vec<Topic>,
    /// Seconds between news
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = super::seconds)]
    pub(crate) interval: f64,
    /// Stop after so many news
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    #[command(flatten)]
    pub(crate) ask: AskArguments,
}

/// What there is to subscribe to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Topic {
    /// What ports have counted
    Ports,
    /// What the switch has counted, and how it fares
    Stats,
    /// Flows
    Flows,
    /// Changes of ports and of the configuration
    Changes,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaArguments {
    /// Describe the configuration file (JSON schema) in place of the control socket (OpenRPC)
    #[arg(long)]
    pub(crate) config: bool,
}

impl Topic {
    /// Its name on the control socket.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ports => "ports",
            Self::Stats => "stats",
            Self::Flows => "flows",
            Self::Changes => "changes",
        }
    }
}
