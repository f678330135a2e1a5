//! Reads specs.

use std::path::PathBuf;
use std::str::FromStr;

use drivers::nic::{FlowControl, MacAddress};
use serde::{Deserialize, Deserializer};

use super::{
    FrameSize, GeneratorSpec, MAXIMUM_FLOWS, MAXIMUM_FRAME, MAXIMUM_QUEUES, MINIMUM_FRAME, NotRate, PcapSpec, PciName,
    PciSpec, PortSpec, Rate, RingChoice, SpecError, TapSpec, VfioChoice, VhostUserSpec, VirtioUserSpec,
};

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

    fn ring(&self) -> Result<Option<RingChoice>, SpecError> {
        self.take("ring", "auto, split or packed", |value| match value {
            "auto" => Some(RingChoice::Auto),
            "split" => Some(RingChoice::Split),
            "packed" => Some(RingChoice::Packed),
            _ => None,
        })
    }

    fn mac(&self) -> Result<Option<MacAddress>, SpecError> {
        self.take("mac", "a unicast Ethernet address such as 52:54:00:12:34:56", |value| {
            value.parse::<MacAddress>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6])
        })
    }

    fn mtu(&self) -> Result<Option<u16>, SpecError> {
        self.take("mtu", "a number from 68 to 9710", |value| whole(value).filter(|mtu| MTU.contains(mtu)))
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, SpecError> {
        self.take(key, "on or off", |value| match value {
            "on" => Some(true),
            "off" => Some(false),
            _ => None,
        })
    }
}

/// Payloads that a port may be asked to carry: from the least that IPv4 lets a link have (RFC 791) to the longest frame of the
/// cards that have drivers here.
const MTU: std::ops::RangeInclusive<u16> = 68..=9710;

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
            Some((kind @ ("vfio-user" | "vhost-user" | "virtio-user"), "")) => {
                Err(unknown(format!("`{kind}=` lacks its socket")))
            }
            Some(("vhost-user", socket)) => vhost_user(spec, socket, rest),
            Some(("virtio-user", socket)) => virtio_user(spec, socket, rest),
            Some(("vfio-user", socket)) => pci(spec, PciName::Socket(socket.into()), rest),
            Some((kind, _)) => Err(unknown(format!("there is no kind `{kind}=`"))),
            None if head == "null" => Keys::new(spec, rest, "null", &[], "no keys").map(|_| Self::Null),
            None if matches!(head, "tap" | "pcap" | "gen" | "vfio-user" | "vhost-user" | "virtio-user") => {
                Err(unknown(format!("`{head}` lacks its value")))
            }
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
    const KEYS: [&str; 7] = ["queues", "ring", "mac", "mtu", "pause", "promiscuous", "vfio"];
    const LIST: &str = "queues=N, ring=auto|split|packed, mac=ADDRESS, mtu=BYTES, pause=on|off|rx|tx, promiscuous=on|off and \
                        vfio=auto|type1|iommufd";
    const SOCKET_KEYS: &[&str] = KEYS.split_at(6).0;
    const SOCKET_LIST: &str =
        "queues=N, ring=auto|split|packed, mac=ADDRESS, mtu=BYTES, pause=on|off|rx|tx and promiscuous=on|off";
    let keys = match device {
        PciName::Socket(_) => Keys::new(spec, rest, "vfio-user", SOCKET_KEYS, SOCKET_LIST)?,
        _ => Keys::new(spec, rest, "a PCI device", &KEYS, LIST)?,
    };
    let vfio = keys.take("vfio", "auto, type1 or iommufd", |value| match value {
        "auto" => Some(VfioChoice::Auto),
        "type1" => Some(VfioChoice::Type1),
        "iommufd" => Some(VfioChoice::Iommufd),
        _ => None,
    })?;
    let pause = keys.take("pause", "on, off, rx or tx", |value| match value {
        "on" => Some(FlowControl { rx: true, tx: true }),
        "off" => Some(FlowControl { rx: false, tx: false }),
        "rx" => Some(FlowControl { rx: true, tx: false }),
        "tx" => Some(FlowControl { rx: false, tx: true }),
        _ => None,
    })?;
    Ok(PortSpec::Pci(PciSpec {
        device,
        queues: keys.queues()?,
        ring: keys.ring()?.unwrap_or_default(),
        vfio: vfio.unwrap_or_default(),
        mac: keys.mac()?,
        mtu: keys.mtu()?,
        pause,
        promiscuous: keys.switch("promiscuous")?.unwrap_or(true),
    }))
}

fn vhost_user(spec: &str, socket: &str, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    const LIST: &str = "queues=N, client=on|off, prefault=on|off, mtu=BYTES and dma-threshold=BYTES|auto|off";
    let allowed = &["queues", "client", "prefault", "mtu", "dma-threshold"];
    let keys = Keys::new(spec, rest, "vhost-user", allowed, LIST)?;
    Ok(PortSpec::VhostUser(VhostUserSpec {
        socket: socket.into(),
        queues: keys.queues()?.unwrap_or(1),
        client: keys.switch("client")?.unwrap_or(true),
        prefault: keys.switch("prefault")?.unwrap_or(false),
        mtu: keys.mtu()?,
        dma_threshold: keys
            .take("dma-threshold", "auto, off, or bytes from 256 to 65550", |value| value.parse().ok())?,
    }))
}

fn virtio_user(spec: &str, socket: &str, rest: Option<&str>) -> Result<PortSpec, SpecError> {
    const LIST: &str = "queues=N, server=on|off, ring=auto|split|packed, mac=ADDRESS and mtu=BYTES";
    let keys = Keys::new(spec, rest, "virtio-user", &["queues", "server", "ring", "mac", "mtu"], LIST)?;
    Ok(PortSpec::VirtioUser(VirtioUserSpec {
        socket: socket.into(),
        queues: keys.queues()?,
        server: keys.switch("server")?.unwrap_or(false),
        ring: keys.ring()?.unwrap_or_default(),
        mac: keys.mac()?,
        mtu: keys.mtu()?,
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
    let size = keys.take("size", "a frame length from 60 to 1518 bytes, or a range such as 64-1514", |value| {
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

impl<'de> Deserialize<'de> for PortSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text may come borrowed or owned, depending on the format.
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
