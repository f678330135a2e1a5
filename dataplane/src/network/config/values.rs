//! Values that are written as text: Ethernet addresses, IP prefixes, ranges of ports, protocols, bit rates.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use drivers::nic::MacAddress;

/// Gives a type that reads and prints as text its form in files, in the API and in the schema.
macro_rules! written_as_text {
    ($type:ident, $expected:literal, $pattern:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(Text)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern, "description": $expected })
            }
        }
    };
}
pub(super) use written_as_text;

/// A value that was written wrongly: what stands there, and what was expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct NotValue {
    text: String,
    expected: &'static str,
}

fn not(text: &str, expected: &'static str) -> NotValue {
    NotValue { text: text.chars().take(80).collect(), expected }
}

/// An Ethernet address of one station, such as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The broadcast address.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the address is of a group of stations, broadcast included.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        MacAddress(self.0).fmt(f)
    }
}

impl FromStr for Mac {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        let expected = "the Ethernet address of a station (expected 52:54:00:12:34:56)";
        let mac = text.parse::<MacAddress>().map(|mac| Self(mac.0)).map_err(|_| not(text, expected))?;
        if mac.is_group() || mac.0 == [0; 6] { Err(not(text, expected)) } else { Ok(mac) }
    }
}

written_as_text!(Mac, "an Ethernet address such as 52:54:00:12:34:56", "^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$");

/// A range of IP addresses, such as `10.0.0.0/24`; an address without a length is itself alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Prefix {
    /// The first address.
    pub address: IpAddr,
    /// Number of bits that count: up to 32, or 128.
    pub length: u8,
}

impl Prefix {
    /// One address.
    #[must_use]
    pub const fn host(address: IpAddr) -> Self {
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The range with this length that the address lies in. Longer than an address is as long as one.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let length = length.min(Self::host(address).length);
        let address = match address {
            IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask_v4(length))),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask_v6(length))),
        };
        Self { address, length }
    }

    /// Whether the address lies in the range.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()) & mask_v4(self.length) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()) & mask_v6(self.length) == 0,
            _ => false,
        }
    }

    /// The one address, when the range is no larger.
    #[must_use]
    pub fn single(&self) -> Option<IpAddr> {
        (*self == Self::host(self.address)).then_some(self.address)
    }

    /// First and last address as numbers.
    #[must_use]
    pub fn bounds(&self) -> (u128, u128) {
        match self.address {
            IpAddr::V4(address) => {
                let first = address.to_bits();
                (first.into(), (first | !mask_v4(self.length)).into())
            }
            IpAddr::V6(address) => (address.to_bits(), address.to_bits() | !mask_v6(self.length)),
        }
    }
}

fn mask_v4(length: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(length.into())).unwrap_or(0)
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128_u32.saturating_sub(length.into())).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(address) => address.fmt(f),
            None => write!(f, "{}/{}", self.address, self.length),
        }
    }
}

impl FromStr for Prefix {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        let expected = "an IP prefix (expected 10.0.0.0/24, fd00::/64 or one address)";
        if !text.contains('/') {
            return text.parse().map(Self::host).map_err(|_| not(text, expected));
        }
        let (address, prefix) = address_in_prefix(text).map_err(|_| not(text, expected))?;
        if prefix.address == address {
            Ok(prefix)
        } else {
            Err(not(text, "an IP prefix: it has bits behind its length (10.0.0.0/24 and not 10.0.0.7/24)"))
        }
    }
}

/// Reads an address with the length of its prefix, such as `10.0.0.1/24`.
pub(super) fn address_in_prefix(text: &str) -> Result<(IpAddr, Prefix), NotValue> {
    let wrong = || not(text, "an address with the length of its prefix (expected 10.0.0.1/24)");
    let (address, length) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let longest = Prefix::host(address).length;
    let length: u8 = length.parse().ok().filter(|length| *length <= longest).ok_or_else(wrong)?;
    Ok((address, Prefix::of(address, length)))
}

written_as_text!(Prefix, "an IP prefix such as 10.0.0.0/24, or an address", "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$");

/// A range of TCP, UDP or SCTP ports, both ends in it, such as `80` or `8000-8999`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self { first: 0, last: u16::MAX };

    /// Whether the port lies in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

impl FromStr for PortRange {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        let expected = "a range of ports (expected 80 or 8000-8999)";
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| if text.starts_with('+') { None } else { text.parse::<u16>().ok() };
        match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(not(text, expected)),
        }
    }
}

written_as_text!(PortRange, "a port or a range of ports such as 80 or 8000-8999", "^[0-9]{1,5}(-[0-9]{1,5})?$");

/// An IP protocol by name or number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Protocol(pub u8);

impl Protocol {
    /// The Internet control message protocol of IPv4.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// The Internet control message protocol of IPv6.
    pub const ICMPV6: Self = Self(58);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    const NAMES: [(&'static str, Self); 5] =
        [("icmp", Self::ICMP), ("tcp", Self::TCP), ("udp", Self::UDP), ("icmpv6", Self::ICMPV6), ("sctp", Self::SCTP)];

    /// Whether its packets have ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }

    /// Whether its packets have types and codes.
    #[must_use]
    pub const fn has_types(self) -> bool {
        matches!(self, Self::ICMP | Self::ICMPV6)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(_, protocol)| protocol == self) {
            Some((name, _)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for Protocol {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        let named = Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
        named
            .or_else(|| text.parse().ok().map(Self))
            .ok_or_else(|| not(text, "a protocol (expected tcp, udp, sctp, icmp, icmpv6 or its number)"))
    }
}

written_as_text!(
    Protocol,
    "tcp, udp, sctp, icmp, icmpv6, or the number of an IP protocol",
    "^(tcp|udp|sctp|icmp|icmpv6|[0-9]{1,3})$"
);

/// A rate in bits a second, such as `10G`, `250M` or `64K`, decimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BitRate(pub u64);

impl fmt::Display for BitRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, suffix) in [(1_000_000_000, 'G'), (1_000_000, 'M'), (1_000, 'K')] {
            if self.0.is_multiple_of(unit) {
                return write!(f, "{}{suffix}", self.0 / unit);
            }
        }
        self.0.fmt(f)
    }
}

impl FromStr for BitRate {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        let (digits, unit) = match text.as_bytes().last() {
            Some(b'K' | b'k') => (&text[..text.len() - 1], 1_000),
            Some(b'M' | b'm') => (&text[..text.len() - 1], 1_000_000),
            Some(b'G' | b'g') => (&text[..text.len() - 1], 1_000_000_000),
            _ => (text, 1),
        };
        let number = digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .and_then(|number| number.checked_mul(unit))
            .filter(|rate| *rate > 0)
            .map(Self)
            .ok_or_else(|| not(text, "a rate in bits a second (expected 10G, 250M or 64K)"))
    }
}

written_as_text!(BitRate, "a rate in bits a second such as 10G, 250M or 64K", "^[1-9][0-9]*[KMGkmg]?$");
