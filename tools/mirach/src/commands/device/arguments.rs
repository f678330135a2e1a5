//! The command line of `mirach device`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use drivers::nic::MacAddress;
use models::dsa;
use models::ioat::{self, Planned};
use models::ixgbe::{Doorbells, Fault, Kind as Ethernet, Module, Overrun};

use super::wire::WireSpec;

const HELP: &str = "\
Wires:
  cable                         joins the two cards of this process
  tap=NAME                      a Linux tap interface, made unless it exists
  pcap=IN[,out=OUT]             capture files; IN is played once and may be left out (pcap=,out=OUT)
  gen=RATE[,size=64][,flows=N][,count=N]
                                a generator and checking sink; RATE is packets a second (1M, 500k) or max. With one card
                                its driver has to send back what it receives, with two to pass it to the other card
  peer=SOCKET                   a card of another process that is given the same path
  loop                          what the card sends comes back to it
  null                          nobody
Words on stdin:
  fault NAME|none [CARD]        the cards, or that one of them (from 0), misbehave or behave again
  link up|down [CARD]           plugs the cable in, or pulls it
  show                          prints what was counted and recorded
  quit                          ends; so do SIGINT and SIGTERM";

const IOAT_HELP: &str = "\
When a fault strikes, counted in descriptors since it was set, of all channels or of the one named:
  NAME                          as suits it: from the start, from the sixth descriptor on, or once at that one
  NAME@17, NAME@17+             once at that one; from that one on
  NAME@every:8                  at each eighth
  NAME@random:SEED:CHANCE       at random, CHANCE of 256
Words on stdin:
  fault PLAN[,PLAN]|none [CARD] the engines, or that one of them (from 0), misbehave in these ways together, or behave again
  halt CHANNEL [CARD]           that channel halts now, and reports no error
  remove all [CARD]             pulls the engines out, or that one
  show                          prints what was counted and recorded
  quit                          ends; so do SIGINT and SIGTERM";

const DSA_HELP: &str = "\
When a fault strikes, counted in descriptors since it was set, of all queues or of the one named; a batch counts, and then its own:
  NAME                          as suits it: from the start, from the sixth descriptor on, or once at that one
  NAME@17, NAME@17+             once at that one; from that one on
  NAME@every:8                  at each eighth
  NAME@random:SEED:CHANCE       at random, CHANCE of 256
Words on stdin:
  fault PLAN[,PLAN]|none [CARD] the devices, or that one of them (from 0), misbehave in these ways together, or behave again
  halt software|function [CARD] the device halts now, until it is reset by a command or as a PCI function
  remove all [CARD]             pulls the devices out, or that one
  show                          prints what was counted and recorded
  quit                          ends; so do SIGINT and SIGTERM";

#[derive(Args, Debug)]
pub(crate) struct DeviceArguments {
    #[command(subcommand)]
    pub(super) kind: Kind,
}

#[derive(Subcommand, Debug)]
pub(super) enum Kind {
    /// Intel 82599 and kin: 10 gigabit Ethernet
    #[command(after_help = HELP)]
    Ixgbe(IxgbeArguments),
    /// Intel I/OAT (QuickData, CBDMA): a copy engine
    #[command(after_help = IOAT_HELP)]
    Ioat(IoatArguments),
    /// Intel DSA (Data Streaming Accelerator): a copy engine
    #[command(after_help = DSA_HELP)]
    Dsa(DsaArguments),
}

/// What all cards have in common.
#[derive(Args, Debug)]
pub(super) struct CommonArguments {
    /// Where a client connects to a card; once for each card
    #[arg(long = "socket", value_name = "PATH", required = true)]
    pub(super) sockets: Vec<PathBuf>,
    /// Exit code 1 when the driver broke a rule, or a card reached outside its maps
    #[arg(long)]
    pub(super) strict: bool,
    /// Stop after so many seconds [default: at SIGINT or SIGTERM, or `quit`]
    #[arg(long, value_name = "N")]
    pub(super) seconds: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Args, Debug)]
pub(super) struct IoatArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// PCI device number of the chip: 0b00 (version 3.4), 2021 (3.3) or 6f20 to 6f27 (3.2)
    #[arg(long, value_name = "NUMBER", default_value = "0b00", value_parser = ioat_kind)]
    pub(super) device: ioat::Kind,
    /// Channels of each; real ones have one
    #[arg(long, value_name = "1..8", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) channels: u8,
    /// The longest copy of one descriptor, as a power of two
    #[arg(long, value_name = "12..20", default_value_t = 20, value_parser = clap::value_parser!(u8).range(12..=20))]
    pub(super) longest: u8,
    /// How the engines misbehave, as often as wanted; a wrong name lists all
    #[arg(long = "fault", value_name = "NAME[@WHEN][#CHANNEL]")]
    pub(super) faults: Vec<Planned>,
}

fn ioat_kind(text: &str) -> Result<ioat::Kind, String> {
    let number = u16::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    number.and_then(ioat::Kind::with_device).ok_or_else(|| "give 0b00, 2021, or one of 6f20 to 6f27".to_owned())
}

#[derive(Args, Debug)]
pub(super) struct DsaArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// PCI device number of the chip: 0b25 (version 1.0) or 11fb (2.0)
    #[arg(long, value_name = "NUMBER", default_value = "0b25", value_parser = dsa_version)]
    pub(super) device: dsa::Version,
    /// Work queues of each
    #[arg(long, value_name = "1..16", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(super) queues: u8,
    /// Engines of each, and groups
    #[arg(long, value_name = "1..8", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(super) engines: u8,
    /// Entries of all queues together
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) entries: u16,
    /// The longest copy of one descriptor, as a power of two
    #[arg(long, value_name = "12..31", default_value_t = 31, value_parser = clap::value_parser!(u8).range(12..=31))]
    pub(super) longest: u8,
    /// Interrupts are named by handles that a command gives out, as in a guest of some hypervisors
    #[arg(long)]
    pub(super) interrupt_handles: bool,
    /// How the devices misbehave, as often as wanted; a wrong name lists all
    #[arg(long = "fault", value_name = "NAME[@WHEN][#QUEUE]")]
    pub(super) faults: Vec<dsa::Planned>,
}

fn dsa_version(text: &str) -> Result<dsa::Version, String> {
    let number = u16::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    number.and_then(dsa::Version::with_device).ok_or_else(|| "give 0b25 or 11fb".to_owned())
}

#[derive(Args, Debug)]
pub(super) struct IxgbeArguments {
    #[command(flatten)]
    pub(super) common: CommonArguments,
    /// What a card is plugged into; once for each card, or one cable, gen, loop or null for all
    #[arg(long = "wire", value_name = "WIRE", required = true)]
    pub(super) wires: Vec<WireSpec>,
    /// Ethernet address of the first card; those of the others count up from it
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) mac: Option<MacAddress>,
    /// Chip
    #[arg(long, value_enum, default_value_t = KindChoice::X520)]
    pub(super) kind: KindChoice,
    /// What is in the SFP+ cage
    #[arg(long, value_enum, default_value_t = ModuleChoice::Dac)]
    pub(super) module: ModuleChoice,
    /// How the driver reaches queue registers
    #[arg(long, value_enum, default_value_t = DoorbellChoice::Shared)]
    pub(super) doorbells: DoorbellChoice,
    /// What happens to frames for which the driver has no buffer
    #[arg(long, value_enum, default_value_t = OverrunChoice::Driver)]
    pub(super) overrun: OverrunChoice,
    /// How the cards misbehave; a wrong name lists all
    #[arg(long, value_name = "NAME")]
    pub(super) fault: Option<Fault>,
    /// When that begins [default: at once]
    #[arg(long, value_name = "2s|500-frames", requires = "fault")]
    pub(super) fault_after: Option<After>,
}

fn address(text: &str) -> Result<MacAddress, String> {
    let mac = text.parse::<MacAddress>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]);
    mac.ok_or_else(|| "give a unicast Ethernet address such as 02:1b:21:00:00:01".to_owned())
}

/// When a fault begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum After {
    /// After some time.
    Time(Duration),
    /// After so many frames.
    Frames(u64),
}

impl std::str::FromStr for After {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "give a time such as 2s or 1.5s, or a number of frames such as 500-frames".to_owned();
        if let Some(frames) = text.strip_suffix("-frames") {
            return frames.parse().map(Self::Frames).map_err(|_| wrong());
        }
        let seconds = text.strip_suffix('s').and_then(|seconds| seconds.parse::<f64>().ok());
        let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        time.map(Self::Time).ok_or_else(wrong)
    }
}

/// Which chip of the family.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KindChoice {
    /// 82599 with an SFP+ cage (8086:10fb)
    X520,
    /// X540 with a copper port (8086:1528)
    X540,
    /// X550 with a copper port (8086:1563)
    X550,
}

impl From<KindChoice> for Ethernet {
    fn from(choice: KindChoice) -> Self {
        match choice {
            KindChoice::X520 => Self::X520,
            KindChoice::X540 => Self::X540,
            KindChoice::X550 => Self::X550,
        }
    }
}

/// What is in the SFP+ cage.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ModuleChoice {
    /// A passive copper cable
    Dac,
    /// An optical 10GBASE-SR module
    Sr,
    /// An optical 10GBASE-LR module
    Lr,
    /// Nothing
    None,
}

impl From<ModuleChoice> for Module {
    fn from(choice: ModuleChoice) -> Self {
        match choice {
            ModuleChoice::Dac => Self::DirectAttach,
            ModuleChoice::Sr => Self::ShortRange,
            ModuleChoice::Lr => Self::LongRange,
            ModuleChoice::None => Self::Empty,
        }
    }
}

/// How the driver reaches queue registers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DoorbellChoice {
    /// As shared memory: fast
    Shared,
    /// By message: the card sees every access, and per-queue counters count
    Trapped,
}

impl From<DoorbellChoice> for Doorbells {
    fn from(choice: DoorbellChoice) -> Self {
        match choice {
            DoorbellChoice::Shared => Self::Shared,
            DoorbellChoice::Trapped => Self::Trapped,
        }
    }
}

/// What happens to a frame for which the driver has no buffer.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum OverrunChoice {
    /// What the driver configured
    Driver,
    /// It waits on the wire
    Wait,
    /// It is dropped and counted, as by the real card
    Drop,
}

impl From<OverrunChoice> for Overrun {
    fn from(choice: OverrunChoice) -> Self {
        match choice {
            OverrunChoice::Driver => Self::AsConfigured,
            OverrunChoice::Wait => Self::Wait,
            OverrunChoice::Drop => Self::Drop,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_begins_after_a_time_or_after_frames() {
        assert_eq!("2s".parse(), Ok(After::Time(Duration::from_secs(2))));
        assert_eq!("0.5s".parse(), Ok(After::Time(Duration::from_millis(500))));
        assert_eq!("500-frames".parse(), Ok(After::Frames(500)));
        for text in ["2", "s", "-1s", "frames", "x-frames", "1e400s", "NaNs"] {
            assert!(text.parse::<After>().is_err(), "{text}");
        }
    }
}
