//! What a user writes to name a port: `KIND=VALUE[,KEY=VALUE]...`, or a PCI address or interface name with keys.
//!
//! Every [`PortSpec`] prints as the text that parses back to it, so that flags, TOML and reports agree. Keys that
//! have their default value are not printed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use drivers::bus::PciAddress;
use drivers::nic::MacAddress;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most queue pairs that a port may be asked for.
pub const MAXIMUM_QUEUES: u16 = 128;
/// Shortest frame that a generator makes: the shortest that Ethernet carries, without frame check sequence.
pub const MINIMUM_FRAME: u16 = 60;
/// Longest frame that a generator makes: an MTU of 1500 and the Ethernet header.
pub const MAXIMUM_FRAME: u16 = 1514;
/// Most flows that one generator makes: each has an IPv4 address of its own in a /16.
pub const MAXIMUM_FLOWS: u32 = 65_536;

/// One port of the forwarder, as named by the user.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum PortSpec {
    /// A network card that is bound to vfio-pci.
    Pci(PciSpec),
    /// A Linux tap interface.
    Tap(TapSpec),
    /// Frames from a capture file, and to one.
    Pcap(PcapSpec),
    /// Receives nothing, and frees what is sent to it.
    Null,
    /// Makes numbered, time-stamped frames and checks those that arrive.
    Generator(GeneratorSpec),
}

/// `0000:00:03.0[,queues=N][,ring=auto|split|packed][,vfio=auto|type1|iommufd][,mac=..][,promiscuous=on|off]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciSpec {
    /// Which device.
    pub device: PciName,
    /// Queue pairs to use; `None` leaves it at one.
    pub queues: Option<u16>,
    /// Layout of the virtqueues, for devices that have any.
    pub ring: RingChoice,
    /// Kernel interface to take the device by.
    pub vfio: VfioChoice,
    /// Ethernet address to set instead of the device's own.
    pub mac: Option<MacAddress>,
    /// Whether to receive frames for every address. On unless said otherwise, because a forwarder needs it.
    pub promiscuous: bool,
}

impl PciSpec {
    /// The device with everything at its default.
    #[must_use]
    pub const fn new(device: PciName) -> Self {
        Self { device, queues: None, ring: RingChoice::Auto, vfio: VfioChoice::Auto, mac: None, promiscuous: true }
    }
}

/// How the user named a PCI device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PciName {
    /// By its address.
    Address(PciAddress),
    /// By the name of the kernel's interface on it. Such a name only exists while a kernel driver holds the device.
    Interface(String),
}

impl fmt::Display for PciName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
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

const KINDS: &str = "a PCI address (0000:00:03.0), an interface name, tap=NAME, pcap=FILE, gen=RATE or null";

/// The keys of one text: every one must be taken, and is there once.
struct Keys<'a> {
    spec: &'a str,
    kind: &'static str,
    allowed: &'static str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Keys<'a> {
    fn new(
        spec: &'a str,
        rest: Option<&'a str>,
        kind: &'static str,
        allowed: &'static [&'static str],
        list: &'static str,
    ) -> Result<Self, SpecError> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for item in rest.into_iter().flat_map(|rest| rest.split(',')) {
            let (key, value) = item.split_once('=').unwrap_or((item, ""));
            if !allowed.contains(&key) {
                return Err(SpecError::UnknownKey { spec: spec.into(), key: key.into(), kind, allowed: list });
            }
            if pairs.iter().any(|(known, _)| *known == key) {
                return Err(SpecError::Twice { spec: spec.into(), key: key.into() });
            }
            pairs.push((key, value));
        }
        Ok(Self { spec, kind, allowed: list, pairs })
    }

    fn bad(&self, key: &str, value: &str, expected: &'static str) -> SpecError {
        debug_assert!(self.allowed.contains(key) || self.kind == key);
        SpecError::Value { spec: self.spec.into(), key: key.into(), value: value.into(), expected }
    }

    /// The value of `key` as `read` understands it; `None` when the key is absent.
    fn take<T>(
        &self,
        key: &str,
        expected: &'static str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SpecError> {
        let Some((_, value)) = self.pairs.iter().find(|(known, _)| *known == key) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| self.bad(key, value, expected))
    }

    fn queues(&self) -> Result<Option<u16>, SpecError> {
        self.take("queues", "a number from 1 to 128", |value| whole(value).filter(|n| (1..=MAXIMUM_QUEUES).contains(n)))
    }
}

/// Digits alone, without a sign.
fn whole<T: FromStr>(text: &str) -> Option<T> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Whether Linux would take `name` for an interface (`dev_valid_name`), and it can be written in a spec.
fn is_interface_name(name: &str) -> bool {
    let forbidden = |c: char| matches!(c, '/' | ':' | ',' | '=' | '%') || c.is_whitespace() || c.is_control();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden)
}

impl FromStr for PortSpec {
    type Err = SpecError;

    fn from_str(spec: &str) -> Result<Self, SpecError> {
        let (head, rest) = match spec.split_once(',') {
            Some((head, rest)) => (head, Some(rest)),
            None => (spec, None),
        };
        let unknown = |reason: String| SpecError::Kind { spec: spec.into(), reason };
        match head.split_once('=') {
            Some(("tap", name)) => tap(spec, name, rest),
            Some(("pcap", path)) => pcap(spec, path, rest),
            Some(("gen", rate)) => generator(spec, rate, rest),
            Some((kind, _)) => Err(unknown(format!("there is no kind `{kind}=`"))),
            None if head == "null" => Keys::new(spec, rest, "null", &[], "no keys").map(|_| Self::Null),
            None if matches!(head, "tap" | "pcap" | "gen") => Err(unknown(format!("`{head}` lacks its value"))),
            None => {
                let device = if head.contains(':') {
                    PciName::Address(head.parse().map_err(|error| unknown(format!("`{head}`: {error}")))?)
                } else if is_interface_name(head) {
                    PciName::Interface(head.into())
                } else if head.is_empty() {
                    return Err(unknown("nothing is named".into()));
                } else {
                    return Err(unknown(format!("`{head}` is neither a PCI address nor an interface name")));
                };
                pci(spec, device, rest)
            }
        }
    }
}

fn pci(spec: &str, device: PciName, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    const LIST: &str = "queues=N, ring=auto|split|packed, vfio=auto|type1|iommufd, mac=ADDRESS and promiscuous=on|off";
    let keys = Keys::new(spec, rest, "a PCI device", &["queues", "ring", "vfio", "mac", "promiscuous"], LIST)?;
    let ring = keys.take("ring", "auto, split or packed", |value| match value {
        "auto" => Some(RingChoice::Auto),
        "split" => Some(RingChoice::Split),
        "packed" => Some(RingChoice::Packed),
        _ => None,
    })?;
    let vfio = keys.take("vfio", "auto, type1 or iommufd", |value| match value {
        "auto" => Some(VfioChoice::Auto),
        "type1" => Some(VfioChoice::Type1),
        "iommufd" => Some(VfioChoice::Iommufd),
        _ => None,
    })?;
    let mac = keys.take("mac", "a unicast Ethernet address such as 52:54:00:12:34:56", |value| {
        value.parse::<MacAddress>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6])
    })?;
    let promiscuous = keys.take("promiscuous", "on or off", |value| match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    })?;
    Ok(PortSpec::Pci(PciSpec {
        device,
        queues: keys.queues()?,
        ring: ring.unwrap_or_default(),
        vfio: vfio.unwrap_or_default(),
        mac,
        promiscuous: promiscuous.unwrap_or(true),
    }))
}

fn tap(spec: &str, name: &str, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    let keys = Keys::new(spec, rest, "tap", &["queues"], "queues=N")?;
    if !is_interface_name(name) {
        return Err(keys.bad("tap", name, "an interface name of 1 to 15 characters, without `/`, `:`, `%` or blanks"));
    }
    Ok(PortSpec::Tap(TapSpec { name: name.into(), queues: keys.queues()?.unwrap_or(1) }))
}

fn pcap(spec: &str, path: &str, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    let keys = Keys::new(spec, rest, "pcap", &["out", "loop"], "out=FILE and loop=N")?;
    let output = keys.take("out", "a file name", |value| (!value.is_empty()).then(|| PathBuf::from(value)))?;
    let input = (!path.is_empty()).then(|| PathBuf::from(path));
    if input.is_none() && output.is_none() {
        return Err(keys.bad("pcap", path, "a capture file to read (or `pcap=,out=FILE` to only write one)"));
    }
    let repeat = keys.take("loop", "how often to play the input, a whole number (0 for ever)", whole)?;
    Ok(PortSpec::Pcap(PcapSpec { input, output, repeat: repeat.unwrap_or(1) }))
}

fn generator(spec: &str, rate: &str, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    const LIST: &str = "size=BYTES or size=FROM-TO, count=N, flows=N and queues=N";
    let keys = Keys::new(spec, rest, "gen", &["size", "count", "flows", "queues"], LIST)?;
    let rate = rate.parse().map_err(|NotRate| {
        keys.bad("gen", rate, "packets a second: `max`, or a number of at least 1 such as 1000, 500k, 1.5M or 1G")
    })?;
    let size = keys.take("size", "a frame length from 60 to 1514 bytes, or a range such as 64-1514", |value| {
        let (shortest, longest) = value.split_once('-').unwrap_or((value, value));
        let size = FrameSize { shortest: whole(shortest)?, longest: whole(longest)? };
        let possible = size.shortest >= MINIMUM_FRAME && size.longest <= MAXIMUM_FRAME && size.shortest <= size.longest;
        possible.then_some(size)
    })?;
    let count = keys.take("count", "a whole number of at least 1", |value| whole(value).filter(|n| *n > 0))?;
    let flows = keys.take("flows", "a whole number from 1 to 65536", |value| {
        whole(value).filter(|n| (1..=MAXIMUM_FLOWS).contains(n))
    })?;
    Ok(PortSpec::Generator(GeneratorSpec {
        rate,
        size: size.unwrap_or(FrameSize { shortest: 64, longest: 64 }),
        count,
        flows: flows.unwrap_or(1),
        queues: keys.queues()?,
    }))
}

/// The text was no rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a rate (expected `max`, or packets a second such as 1000, 500k, 1.5M or 1G)")]
pub struct NotRate;

impl FromStr for Rate {
    type Err = NotRate;

    fn from_str(text: &str) -> Result<Self, NotRate> {
        if text == "max" {
            return Ok(Self::Maximum);
        }
        let (digits, places) = match text.as_bytes().last() {
            Some(b'k') => (&text[..text.len() - 1], 3),
            Some(b'M') => (&text[..text.len() - 1], 6),
            Some(b'G') => (&text[..text.len() - 1], 9),
            _ => (text, 0),
        };
        let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if integer.is_empty() || fraction.len() > places || (digits.contains('.') && fraction.is_empty()) {
            return Err(NotRate);
        }
        // 1.5M is the integer 15 with five zeros: no floating point, so nothing is rounded.
        let zeros = "0".repeat(places - fraction.len());
        let rate = whole::<u64>(&format!("{integer}{fraction}{zeros}")).filter(|rate| *rate > 0).ok_or(NotRate)?;
        Ok(Self::PerSecond(rate))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Maximum => f.write_str("max"),
            Self::PerSecond(rate) if rate % 1_000_000 == 0 => write!(f, "{}M", rate / 1_000_000),
            Self::PerSecond(rate) if rate % 1_000 == 0 => write!(f, "{}k", rate / 1_000),
            Self::PerSecond(rate) => rate.fmt(f),
        }
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shortest == self.longest {
            self.shortest.fmt(f)
        } else {
            write!(f, "{}-{}", self.shortest, self.longest)
        }
    }
}

impl fmt::Display for RingChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Split => "split",
            Self::Packed => "packed",
        })
    }
}

impl fmt::Display for VfioChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        })
    }
}

impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(pci) => pci.fmt(f),
            Self::Tap(tap) => tap.fmt(f),
            Self::Pcap(pcap) => pcap.fmt(f),
            Self::Null => f.write_str("null"),
            Self::Generator(generator) => generator.fmt(f),
        }
    }
}

impl fmt::Display for PciSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)?;
        if let Some(queues) = self.queues {
            write!(f, ",queues={queues}")?;
        }
        if self.ring != RingChoice::Auto {
            write!(f, ",ring={}", self.ring)?;
        }
        if self.vfio != VfioChoice::Auto {
            write!(f, ",vfio={}", self.vfio)?;
        }
        if let Some(mac) = self.mac {
            write!(f, ",mac={mac}")?;
        }
        if self.promiscuous { Ok(()) } else { f.write_str(",promiscuous=off") }
    }
}

impl fmt::Display for TapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tap={}", self.name)?;
        if self.queues == 1 { Ok(()) } else { write!(f, ",queues={}", self.queues) }
    }
}

impl fmt::Display for PcapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pcap=")?;
        if let Some(input) = &self.input {
            write!(f, "{}", input.display())?;
        }
        if let Some(output) = &self.output {
            write!(f, ",out={}", output.display())?;
        }
        if self.repeat == 1 { Ok(()) } else { write!(f, ",loop={}", self.repeat) }
    }
}

impl fmt::Display for GeneratorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen={}", self.rate)?;
        if self.size != (FrameSize { shortest: 64, longest: 64 }) {
            write!(f, ",size={}", self.size)?;
        }
        if let Some(count) = self.count {
            write!(f, ",count={count}")?;
        }
        if self.flows != 1 {
            write!(f, ",flows={}", self.flows)?;
        }
        match self.queues {
            Some(queues) => write!(f, ",queues={queues}"),
            None => Ok(()),
        }
    }
}

impl Serialize for PortSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text may come borrowed or owned, depending on the format.
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
