//! What tells flows apart.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drivers::nic::MacAddress;

use crate::headers::{ETHERNET, Fragment, Headers, NetworkKind, TransportKind, ether_type};

/// Where a frame comes from: a VM's port, or the tunnel that it comes out of. Frames of different domains are never in one flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Domain(u32);

impl Domain {
    const TUNNEL: u32 = 1 << 31;

    /// The domain of a port's frames. The top bit of `number` is not looked at.
    #[must_use]
    pub const fn port(number: u32) -> Self {
        Self(number & !Self::TUNNEL)
    }

    /// The domain of frames out of a tunnel. The top bit of `number` is not looked at.
    #[must_use]
    pub const fn tunnel(number: u32) -> Self {
        Self(number | Self::TUNNEL)
    }

    /// Number of the port or of the tunnel.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0 & !Self::TUNNEL
    }

    /// It is a tunnel.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        self.0 & Self::TUNNEL != 0
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_tunnel() { "tunnel" } else { "port" };
        write!(f, "{kind} {}", self.number())
    }
}

/// No VLAN identifier, which has 12 bits.
const NO_VLAN: u16 = 0xffff;

const WIDE: u8 = 1 << 2;
const LATER: u8 = 1 << 3;
const KIND: u8 = 0b11;

/// Everything that a decision about a frame may rest on, in eight words:
///
/// | word | bits 0..16 | 16..32 | 32..48 | 48..56 | 56..64 |
/// |---|---|---|---|---|---|
/// | 0 | domain | domain | outer VLAN identifier | EtherType | EtherType |
/// | 1 | destination MAC | | | protocol | kind |
/// | 2 | source MAC | | | inner VLAN identifier | |
/// | 3 | source port | destination port | | | |
/// | 4, 5 | source address | | | | |
/// | 6, 7 | destination address | | | | |
///
/// Addresses and ports lie as on the wire. IPv4 addresses fill the first four of sixteen bytes. For ARP, the addresses are the sender's and the
/// target's protocol address followed by the hardware address, so that the key holds all that an ARP packet says. The source port
/// of ICMP is type and code; frames that have no ports, later fragments too, have zeroes.
///
/// Because domain, MACs and VLAN are part of it, nothing is forwarded by a decision that was made for something else.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C, align(64))]
pub struct FlowKey(pub(super) [u64; 8]);

impl FlowKey {
    /// The key of nothing.
    pub(crate) const NONE: Self = Self([0; 8]);

    /// Key of the frame whose first bytes are `view`, and whose headers, read from these bytes, are `headers`: all fields ("narrow", the 5-tuple).
    ///
    /// Any arguments give some key. That of a malformed frame holds what was read before the fault.
    #[must_use]
    #[inline]
    pub fn of(headers: &Headers, view: &[u8], domain: Domain) -> Self {
        let mut key = Self::NONE;
        key.become_of(headers, view, domain);
        key
    }

    /// Becomes the key of a frame, as [`FlowKey::of`] makes it, in its place: a key that is made word by word and then copied in larger pieces
    /// waits for the processor's stores.
    #[inline(always)]
    pub(crate) fn become_of(&mut self, headers: &Headers, view: &[u8], domain: Domain) {
        match Self::of_plain(headers, view, domain) {
            Some(key) => *self = key,
            None => *self = Self::of_any(headers, view, domain),
        }
    }

    /// The key of the most common frames, IPv4 without options or tags and with ports, whose fields are all at fixed places. `None` for any
    /// other frame.
    #[inline(always)]
    fn of_plain(headers: &Headers, view: &[u8], domain: Domain) -> Option<Self> {
        const TRANSPORT: usize = ETHERNET + 20;
        let is_plain = headers.network == NetworkKind::Ipv4
            && usize::from(headers.network_at) == ETHERNET
            && usize::from(headers.transport_at) == TRANSPORT
            && matches!(headers.transport, TransportKind::Tcp | TransportKind::Udp);
        let first: &[u8; TRANSPORT + 4] = view.first_chunk().filter(|_| is_plain)?;
        // The EtherType is IPv4's, and there is no tag in front of a header that begins there.
        let tags = u64::from(NO_VLAN) << 32 | u64::from(ether_type::IPV4) << 48;
        Some(Self([
            u64::from(domain.0) | tags,
            mac(first, 0) | u64::from(headers.protocol) << 48 | 1 << 56,
            mac(first, 6) | u64::from(NO_VLAN) << 48,
            half_word(first, 34),
            half_word(first, 26),
            0,
            half_word(first, 30),
            0,
        ]))
    }

    #[inline(never)]
    fn of_any(headers: &Headers, view: &[u8], domain: Domain) -> Self {
        let Some(ethernet) = view.first_chunk::<ETHERNET>() else {
            return Self([u64::from(domain.0), 0, 0, 0, 0, 0, 0, 0]);
        };
        let network = view.get(usize::from(headers.network_at)..).unwrap_or_default();
        let mut kind = 0;
        let mut addresses = [0; 4];
        match headers.network {
            NetworkKind::Ipv4 => {
                kind = 1;
                if let Some(&[_, _, _, _, _, _, _, _, _, _, _, _, ref pair @ ..]) = network.first_chunk::<20>() {
                    let [a, b, c, d, e, f, g, h] = *pair;
                    addresses = [low32([a, b, c, d]), 0, low32([e, f, g, h]), 0];
                }
            }
            NetworkKind::Ipv6 => {
                kind = 2;
                if let Some(ip) = network.first_chunk::<40>() {
                    addresses = [word(ip, 8), word(ip, 16), word(ip, 24), word(ip, 32)];
                }
            }
            NetworkKind::Arp => {
                kind = 3;
                if let Some(arp) = network.first_chunk::<28>() {
                    addresses = [word(arp, 14) & 0xffff_ffff, mac(arp, 8), word(arp, 20) >> 32, mac(arp, 18)];
                }
            }
            NetworkKind::None => {}
        }
        if headers.fragment == Fragment::Later {
            kind |= LATER;
        }
        let ports = match headers.transport {
            TransportKind::None => 0,
            kind => {
                let transport = view.get(usize::from(headers.transport_at)..).and_then(<[u8]>::first_chunk);
                let ports = transport.map_or(0, |bytes| low32(*bytes));
                if matches!(kind, TransportKind::Icmp | TransportKind::Icmpv6) { ports & 0xffff } else { ports }
            }
        };
        let vlan = if headers.tags > 0 { headers.vlan[0] & 0xfff } else { NO_VLAN };
        let inner = if headers.tags > 1 { headers.vlan[1] & 0xfff } else { NO_VLAN };
        let [first, second, third, fourth] = addresses;
        Self([
            u64::from(domain.0) | u64::from(vlan) << 32 | u64::from(headers.ether_type) << 48,
            mac(ethernet, 0) | u64::from(headers.protocol) << 48 | u64::from(kind) << 56,
            mac(ethernet, 6) | u64::from(inner) << 48,
            ports,
            first,
            second,
            third,
            fourth,
        ])
    }

    /// The same without ports and without a difference between whole packets and fragments: the 3-tuple, for decisions that do not rest on ports.
    #[must_use]
    #[inline(always)]
    pub const fn wide(&self) -> Self {
        let [zero, one, two, _, addresses @ ..] = self.0;
        let [first, second, third, fourth] = addresses;
        let kind = WIDE as u64;
        Self([zero, one & !((LATER as u64) << 56) | kind << 56, two, 0, first, second, third, fourth])
    }

    /// They are the same: as `==`, without a branch for each word.
    #[inline(always)]
    pub(super) fn is(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |all, (one, other)| all | one ^ other) == 0
    }

    const fn kind(&self) -> u8 {
        self.0[1].to_le_bytes()[7]
    }

    /// It is a 3-tuple.
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        self.kind() & WIDE != 0
    }

    /// It is of fragments without a transport header.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.kind() & LATER != 0
    }

    /// What lies behind the Ethernet header.
    #[must_use]
    pub const fn network(&self) -> NetworkKind {
        match self.kind() & KIND {
            0 => NetworkKind::None,
            1 => NetworkKind::Ipv4,
            2 => NetworkKind::Ipv6,
            _ => NetworkKind::Arp,
        }
    }

    /// It is of an IP packet.
    #[must_use]
    pub const fn is_ip(&self) -> bool {
        matches!(self.network(), NetworkKind::Ipv4 | NetworkKind::Ipv6)
    }

    /// Where the frame comes from.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub const fn domain(&self) -> Domain {
        Domain(self.0[0] as u32)
    }

    /// Identifiers of the outer and the inner VLAN tag. `None` without the tag; 0 is a priority alone.
    #[must_use]
    pub fn vlans(&self) -> [Option<u16>; 2] {
        let [_, _, _, _, low, high, _, _] = self.0[0].to_le_bytes();
        let [_, _, _, _, _, _, inner_low, inner_high] = self.0[2].to_le_bytes();
        [u16::from_le_bytes([low, high]), u16::from_le_bytes([inner_low, inner_high])]
            .map(|id| (id != NO_VLAN).then_some(id))
    }

    /// The EtherType behind all tags.
    #[must_use]
    pub const fn ether_type(&self) -> u16 {
        (self.0[0] >> 48) as u16
    }

    /// IP protocol; of ARP, the operation.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.0[1].to_le_bytes()[6]
    }

    /// Source MAC address.
    #[must_use]
    pub fn source_mac(&self) -> MacAddress {
        mac_of(self.0[2])
    }

    /// Destination MAC address.
    #[must_use]
    pub fn destination_mac(&self) -> MacAddress {
        mac_of(self.0[1])
    }

    /// Source address, of ARP the sender's. `None` of what is neither IP nor ARP.
    #[must_use]
    pub fn source(&self) -> Option<IpAddr> {
        self.address(4)
    }

    /// Destination address, of ARP the target's. `None` of what is neither IP nor ARP.
    #[must_use]
    pub fn destination(&self) -> Option<IpAddr> {
        self.address(6)
    }

    fn address(&self, first: usize) -> Option<IpAddr> {
        let words = [*self.0.get(first)?, *self.0.get(first + 1)?];
        match self.network() {
            NetworkKind::None => None,
            NetworkKind::Ipv4 | NetworkKind::Arp => {
                let [a, b, c, d, ..] = words[0].to_le_bytes();
                Some(Ipv4Addr::new(a, b, c, d).into())
            }
            NetworkKind::Ipv6 => {
                let all = u128::from(words[0]) | u128::from(words[1]) << 64;
                Some(Ipv6Addr::from(all.to_le_bytes()).into())
            }
        }
    }

    /// Hardware addresses that an ARP packet says its sender and its target have. `None` of what is no ARP.
    #[must_use]
    pub fn arp_hardware(&self) -> Option<[MacAddress; 2]> {
        (self.network() == NetworkKind::Arp).then(|| [mac_of(self.0[5]), mac_of(self.0[7])])
    }

    /// Source port; of ICMP, type (high byte) and code; 0 where there is none, and in wide keys.
    #[must_use]
    pub fn source_port(&self) -> u16 {
        let [high, low, ..] = self.0[3].to_le_bytes();
        u16::from_be_bytes([high, low])
    }

    /// Destination port; 0 where there is none, and in wide keys.
    #[must_use]
    pub fn destination_port(&self) -> u16 {
        let [_, _, high, low, ..] = self.0[3].to_le_bytes();
        u16::from_be_bytes([high, low])
    }

    /// The key as words, in the order that the type documents.
    #[must_use]
    pub const fn words(&self) -> [u64; 8] {
        self.0
    }
}

#[inline(always)]
fn low32(bytes: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(bytes))
}

/// The eight bytes from `at` on, the first lowest.
#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word))
}

/// The four bytes from `at` on, the first lowest.
#[inline(always)]
fn half_word<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| low32(*word))
}

/// The six bytes from `at` on, the first lowest.
#[inline(always)]
fn mac<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    word(bytes, at) & 0xffff_ffff_ffff
}

fn mac_of(word: u64) -> MacAddress {
    let [a, b, c, d, e, f, ..] = word.to_le_bytes();
    MacAddress([a, b, c, d, e, f])
}

/// A key to be made by hand: for those who know the flow but have no frame of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyFields {
    /// Where its frames come from.
    pub domain: Domain,
    /// Destination MAC address.
    pub destination_mac: MacAddress,
    /// Source MAC address.
    pub source_mac: MacAddress,
    /// Identifiers of the outer and the inner VLAN tag.
    pub vlans: [Option<u16>; 2],
    /// EtherType behind all tags.
    pub ether_type: u16,
    /// Source and destination address, of one family; `None` for a flow that is neither IPv4 nor IPv6.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// IP protocol.
    pub protocol: u8,
    /// Source port; of ICMP, type and code.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Fragments without a transport header.
    pub later_fragment: bool,
}

impl From<&KeyFields> for FlowKey {
    /// The narrow key. Addresses of two families count as IPv6, the IPv4 one mapped into it.
    fn from(fields: &KeyFields) -> Self {
        let pack = |ip: Ipv6Addr| {
            let all = u128::from_le_bytes(ip.octets());
            #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
            let halves = [all as u64, (all >> 64) as u64];
            halves
        };
        let (kind, [first, second], [third, fourth]) = match fields.addresses {
            None => (0, [0; 2], [0; 2]),
            Some((IpAddr::V4(source), IpAddr::V4(destination))) => {
                (1, [low32(source.octets()), 0], [low32(destination.octets()), 0])
            }
            Some((source, destination)) => {
                let v6 = |address| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped(),
                    IpAddr::V6(address) => address,
                };
                (2, pack(v6(source)), pack(v6(destination)))
            }
        };
        let kind = kind | if fields.later_fragment { LATER } else { 0 };
        let [outer, inner] = fields.vlans.map(|id| u64::from(id.map_or(NO_VLAN, |id| id & 0xfff)));
        let mac = |MacAddress([a, b, c, d, e, f])| u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        let [[a, b], [c, d]] = [fields.source_port, fields.destination_port].map(u16::to_be_bytes);
        Self([
            u64::from(fields.domain.0) | outer << 32 | u64::from(fields.ether_type) << 48,
            mac(fields.destination_mac) | u64::from(fields.protocol) << 48 | u64::from(kind) << 56,
            mac(fields.source_mac) | inner << 48,
            low32([a, b, c, d]),
            first,
            second,
            third,
            fourth,
        ])
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}>{}", self.domain(), self.source_mac(), self.destination_mac())?;
        for vlan in self.vlans().into_iter().flatten() {
            write!(f, " vlan {vlan}")?;
        }
        match (self.source(), self.destination()) {
            (Some(source), Some(destination)) => {
                let name = if self.network() == NetworkKind::Arp { "arp" } else { "protocol" };
                write!(f, " {source}>{destination} {name} {}", self.protocol())?;
            }
            _ => write!(f, " ether_type {:#06x}", self.ether_type())?,
        }
        if self.is_wide() {
            f.write_str(" wide")
        } else if self.is_later_fragment() {
            f.write_str(" later fragment")
        } else {
            write!(f, " ports {}>{}", self.source_port(), self.destination_port())
        }
    }
}
