//! What a user writes to name a port: `KIND=VALUE[,KEY=VALUE]...`, or a PCI address or interface name with keys.
//!
//! Every [`PortSpec`] prints as the text that parses back to it, so that flags, TOML and reports agree. Keys that
//! have their default value are not printed. Where ports have names, a [`NamedSpec`] takes `name=NAME` beside the other keys.

use std::path::PathBuf;

use drivers::bus::PciAddress;
use drivers::nic::{FlowControl, MacAddress};

use super::PortKind;
use crate::copy::Threshold;

mod named;
mod parse;
mod print;

pub use named::{NamedSpec, NotPortName, PortName};

/// Most queue pairs that a port may be asked for.
pub const MAXIMUM_QUEUES: u16 = 128;
/// Shortest frame that a generator makes: the shortest that Ethernet carries, without frame check sequence.
pub const MINIMUM_FRAME: u16 = 60;
/// Longest frame that a generator makes, without frame check sequence: an MTU of 1500, the Ethernet header and the four
/// bytes of a VLAN tag.
pub const MAXIMUM_FRAME: u16 = 1518;
/// Most flows that one generator makes: each has an IPv4 address of its own in a /16.
pub const MAXIMUM_FLOWS: u32 = 65_536;

/// One port of the forwarder, as named by the user.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortSpec {
    /// A network card that is bound to vfio-pci, or a software model of one behind a socket.
    Pci(PciSpec),
    /// A Linux tap interface.
    Tap(TapSpec),
    /// Frames from a capture file, and to one.
    Pcap(PcapSpec),
    /// Receives nothing, and frees what is sent to it.
    Null,
    /// Makes numbered, time-stamped frames and checks those that arrive.
    Generator(GeneratorSpec),
    /// A virtual machine or container: the device side of virtio-net on a vhost-user socket.
    VhostUser(VhostUserSpec),
    /// The driver side of virtio-net on a vhost-user socket: a switch or another mirach.
    VirtioUser(VirtioUserSpec),
}

impl PortSpec {
    /// What kind of port it is.
    #[must_use]
    pub const fn kind(&self) -> PortKind {
        match self {
            Self::Pci(_) => PortKind::Nic,
            Self::Tap(_) => PortKind::Tap,
            Self::Pcap(_) => PortKind::Pcap,
            Self::Null => PortKind::Null,
            Self::Generator(_) => PortKind::Generator,
            Self::VhostUser(_) => PortKind::VhostUser,
            Self::VirtioUser(_) => PortKind::VirtioUser,
        }
    }
}

/// `0000:00:03.0[,queues=N][,ring=auto|split|packed][,vfio=auto|type1|iommufd][,mac=..][,mtu=N][,pause=on|off|rx|tx]`
/// `[,promiscuous=on|off]`, or `vfio-user=SOCKET` with the same keys but `vfio`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciSpec {
    /// Which device.
    pub device: PciName,
    /// Queue pairs to use; `None` leaves it at one.
    pub queues: Option<u16>,
    /// Layout of the virtqueues, for devices that have any; an error for others unless it is left to them.
    pub ring: RingChoice,
    /// Kernel interface to take the device by.
    pub vfio: VfioChoice,
    /// Ethernet address to set instead of the device's own.
    pub mac: Option<MacAddress>,
    /// Largest payload of a frame in bytes; `None` keeps the device's own.
    pub mtu: Option<u16>,
    /// Pause frames to offer to the other end of the link, for devices that have them; `None` leaves that to the driver.
    pub pause: Option<FlowControl>,
    /// Whether to receive frames for every address. On unless said otherwise, because a forwarder needs it.
    pub promiscuous: bool,
}

impl PciSpec {
    /// The device with everything at its default.
    #[must_use]
    pub const fn new(device: PciName) -> Self {
        Self {
            device,
            queues: None,
            ring: RingChoice::Auto,
            vfio: VfioChoice::Auto,
            mac: None,
            mtu: None,
            pause: None,
            promiscuous: true,
        }
    }
}

/// How the user named a PCI device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PciName {
    /// By its address.
    Address(PciAddress),
    /// By the name of the kernel's interface on it. Such a name only exists while a kernel driver holds the device.
    Interface(String),
    /// By the Unix socket of a vfio-user server, such as `mirach device`.
    Socket(PathBuf),
}

/// Layout of virtqueues (virtio 1.3, sections 2.7 and 2.8).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum RingChoice {
    /// Packed when the device offers it.
    #[default]
    Auto,
    /// Split rings.
    Split,
    /// Packed rings; an error when the device lacks them.
    Packed,
}

/// Kernel interface by which a device is taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum VfioChoice {
    /// iommufd when the kernel has it.
    #[default]
    Auto,
    /// Group and container, type1v2.
    Type1,
    /// iommufd and the device's character device.
    Iommufd,
}

/// `tap=NAME[,queues=N]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TapSpec {
    /// Interface name, at most 15 bytes.
    pub name: String,
    /// Queue pairs.
    pub queues: u16,
}

/// `pcap=in.pcap[,out=out.pcap][,loop=N]`. An empty input (`pcap=,out=out.pcap`) only writes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PcapSpec {
    /// Capture file to read frames from. The path has no comma.
    pub input: Option<PathBuf>,
    /// Capture file to write frames to; without it, they are freed. The path has no comma.
    pub output: Option<PathBuf>,
    /// How often the input is played; 0 is for ever.
    pub repeat: u64,
}

/// `gen=RATE[,size=64|64-1514][,count=N][,flows=N][,queues=N]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GeneratorSpec {
    /// How fast frames are made, over all queues.
    pub rate: Rate,
    /// Frame lengths in bytes, without frame check sequence.
    pub size: FrameSize,
    /// Frames to make in all; `None` goes on for ever.
    pub count: Option<u64>,
    /// Flows over which the frames are spread in turn.
    pub flows: u32,
    /// Queue pairs; `None` makes as many as the port on the other side has.
    pub queues: Option<u16>,
}

/// `vhost-user=SOCKET[,queues=N][,client=on|off][,prefault=on|off][,mtu=N][,dma-threshold=BYTES|auto|off]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VhostUserSpec {
    /// The Unix socket. The path has no comma.
    pub socket: PathBuf,
    /// Most queue pairs that the other side may use.
    pub queues: u16,
    /// Whether the other side listens and this one connects, again and again. On unless said otherwise, as the virtual machine
    /// then survives this process.
    pub client: bool,
    /// Whether all memory of the virtual machine is touched when it is attached, instead of page by page under traffic.
    pub prefault: bool,
    /// Largest payload of a frame in bytes, which the virtual machine is told; `None` leaves that to it.
    pub mtu: Option<u16>,
    /// From which length on frames to it are copied by the copy engine, where there is one; `None` leaves it at what holds for all.
    pub dma_threshold: Option<Threshold>,
}

impl VhostUserSpec {
    /// A port on `socket` with everything else at its default.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), queues: 1, client: true, prefault: false, mtu: None, dma_threshold: None }
    }
}

/// `virtio-user=SOCKET[,queues=N][,server=on|off][,ring=auto|split|packed][,mac=..][,mtu=N]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VirtioUserSpec {
    /// The Unix socket. The path has no comma.
    pub socket: PathBuf,
    /// Queue pairs to use; `None` leaves it at one.
    pub queues: Option<u16>,
    /// Whether this side listens. Off unless said otherwise: it connects.
    pub server: bool,
    /// Layout of the virtqueues.
    pub ring: RingChoice,
    /// Ethernet address of the port; `None` makes one up.
    pub mac: Option<MacAddress>,
    /// Largest payload of a frame in bytes; `None` keeps what the other side says.
    pub mtu: Option<u16>,
}

impl VirtioUserSpec {
    /// A port on `socket` with everything else at its default.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), queues: None, server: false, ring: RingChoice::Auto, mac: None, mtu: None }
    }
}

/// Packets a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// As fast as they are taken.
    Maximum,
    /// So many a second, at least one.
    PerSecond(u64),
}

/// Lengths of frames, both ends included; equal ends make all frames alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameSize {
    /// Shortest, in bytes.
    pub shortest: u16,
    /// Longest, in bytes.
    pub longest: u16,
}

/// The text names no port.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// It does not begin with a kind that exists.
    #[error("port `{spec}`: {reason}; a port is {KINDS}")]
    Kind {
        /// The whole text.
        spec: String,
        /// What is wrong with its beginning.
        reason: String,
    },
    /// A key that this kind of port lacks.
    #[error("port `{spec}`: unknown key `{key}`; {kind} takes {allowed}")]
    UnknownKey {
        /// The whole text.
        spec: String,
        /// The key.
        key: String,
        /// Kind of the port.
        kind: &'static str,
        /// The keys that exist.
        allowed: &'static str,
    },
    /// A key is given more than once.
    #[error("port `{spec}`: the key `{key}` is given twice; keep one")]
    Twice {
        /// The whole text.
        spec: String,
        /// The key.
        key: String,
    },
    /// The value of a key makes no sense.
    #[error("port `{spec}`: `{key}={value}` is not usable: give {expected}")]
    Value {
        /// The whole text.
        spec: String,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

const KINDS: &str = "a PCI address (0000:00:03.0), an interface name, vfio-user=SOCKET, vhost-user=SOCKET, virtio-user=SOCKET, tap=NAME, \
     pcap=FILE, gen=RATE or null";

/// The text was no rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a rate (expected `max`, or packets a second such as 1000, 500k, 1.5M or 1G)")]
pub struct NotRate;
