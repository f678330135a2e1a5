//! What a frame's headers say: one bounded pass over Ethernet, VLAN tags, ARP, IPv4, IPv6 with its extension headers and fragments, and
//! the transport header; and the tunnel header behind a UDP header, if there is one.
//!
//! [`parse`] is total: any bytes give [`Headers`], and what is wrong with them is a named reason in [`Headers::malformed`]. It reads each byte at
//! most once or twice, loops only over the bounded number of tags and extension headers, and neither allocates nor panics.
//!
//! A frame in a tunnel is parsed by calling [`parse`] again on the bytes from [`Tunnel::inner_at`] on. Checksums are not looked at here.

mod parse;
#[cfg(test)]
mod tests;
mod tunnel;

pub use parse::parse;
pub(crate) use parse::parse_into;
pub use tunnel::{BadTunnel, GENEVE_PORT, Tunnel, TunnelKind, VXLAN_PORT, tunnel};

use std::fmt;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// VLAN tags that are looked behind: a customer's and a provider's (IEEE 802.1ad).
pub const MOST_TAGS: usize = 2;
/// IPv6 extension headers that are looked behind.
pub const MOST_EXTENSIONS: usize = 8;

/// EtherTypes that are told apart.
pub mod ether_type {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// ARP.
    pub const ARP: u16 = 0x0806;
    /// A customer's VLAN tag (IEEE 802.1Q).
    pub const VLAN: u16 = 0x8100;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// A provider's VLAN tag (IEEE 802.1ad).
    pub const PROVIDER_VLAN: u16 = 0x88a8;
    /// A provider's VLAN tag as it was before the standard.
    pub const OLD_PROVIDER_VLAN: u16 = 0x9100;
}

/// IP protocol numbers that are told apart.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// What lies behind the Ethernet header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum NetworkKind {
    /// Anything else.
    #[default]
    None,
    /// ARP for IPv4 on Ethernet.
    Arp,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

/// Which part of an IP packet this is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Fragment {
    /// All of it (an IPv6 fragment header that says "first and last" included).
    #[default]
    Whole,
    /// The first fragment, which has the transport header.
    First,
    /// A later fragment, which has none.
    Later,
}

/// What lies behind the IP header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum TransportKind {
    /// Anything else, or a later fragment.
    #[default]
    None,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// ICMP behind IPv4.
    Icmp,
    /// ICMPv6 behind IPv6.
    Icmpv6,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Malformed {
    /// Shorter than an Ethernet header.
    Runt,
    /// More VLAN tags than [`MOST_TAGS`].
    TooManyTags,
    /// The frame, or the IP packet, ends inside a header.
    Truncated,
    /// Headers go on behind the bytes that were given to look at.
    BeyondView,
    /// An ARP packet for something else than IPv4 on Ethernet.
    BadArp,
    /// The version is not the one that the EtherType says.
    BadVersion,
    /// The IPv4 header says to be shorter than it can be.
    BadHeaderLength,
    /// The IP packet says to be longer than the frame, or shorter than its header; or it is a jumbogram.
    BadTotalLength,
    /// More extension headers than [`MOST_EXTENSIONS`].
    TooManyExtensions,
    /// An extension header where none may be: a second fragment header, or hop-by-hop options that do not come first.
    BadExtension,
    /// Offset and length of a fragment make no packet: beyond 65,535 bytes, of no whole multiple of eight bytes, or without any.
    BadFragment,
    /// A fragment so small that headers which rules look at are in another one (RFC 1858, RFC 3128, RFC 7112).
    TinyFragment,
    /// The TCP header says to be shorter than it can be, or longer than the packet.
    BadTcpLength,
    /// The UDP length is shorter than its header, or longer than the packet.
    BadUdpLength,
}

impl Malformed {
    /// All reasons, in the order of [`Malformed::number`].
    pub const ALL: [Self; 14] = [
        Self::Runt,
        Self::TooManyTags,
        Self::Truncated,
        Self::BeyondView,
        Self::BadArp,
        Self::BadVersion,
        Self::BadHeaderLength,
        Self::BadTotalLength,
        Self::TooManyExtensions,
        Self::BadExtension,
        Self::BadFragment,
        Self::TinyFragment,
        Self::BadTcpLength,
        Self::BadUdpLength,
    ];

    /// Its place in [`Malformed::ALL`], for arrays of counters.
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The name that counters have.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runt => "runt",
            Self::TooManyTags => "too_many_tags",
            Self::Truncated => "truncated",
            Self::BeyondView => "beyond_view",
            Self::BadArp => "bad_arp",
            Self::BadVersion => "bad_version",
            Self::BadHeaderLength => "bad_header_length",
            Self::BadTotalLength => "bad_total_length",
            Self::TooManyExtensions => "too_many_extensions",
            Self::BadExtension => "bad_extension",
            Self::BadFragment => "bad_fragment",
            Self::TinyFragment => "tiny_fragment",
            Self::BadTcpLength => "bad_tcp_length",
            Self::BadUdpLength => "bad_udp_length",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the headers of one frame say. Offsets count bytes from the frame's first.
///
/// With [`Headers::malformed`] set, the fields hold what was read before the fault, and the rest their defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Headers {
    /// The EtherType behind all tags. Below 0x0600 it is a length (IEEE 802.3).
    pub ether_type: u16,
    /// Tag control information of the outer and the inner VLAN tag, as many as [`Headers::tags`].
    pub vlan: [u16; MOST_TAGS],
    /// Number of VLAN tags.
    pub tags: u8,
    /// What lies behind the Ethernet header.
    pub network: NetworkKind,
    /// Which part of an IP packet this is.
    pub fragment: Fragment,
    /// What lies behind the IP header.
    pub transport: TransportKind,
    /// IP protocol, for IPv6 the one behind the extension headers. For ARP the low byte of the operation.
    pub protocol: u8,
    /// Time to live, or IPv6's hop limit.
    pub ttl: u8,
    /// Where the ARP, IPv4 or IPv6 header starts: behind the Ethernet header and its tags.
    pub network_at: u16,
    /// Where the transport header starts; of a later fragment, its payload.
    pub transport_at: u16,
    /// Where the payload starts that is behind all headers looked at.
    pub payload_at: u16,
    /// Where the IP packet ends; behind that comes Ethernet padding. Of other frames, the frame's length.
    pub end: u32,
    /// What is wrong with the frame; `None` when nothing is.
    pub malformed: Option<Malformed>,
}

impl Headers {
    /// VLAN identifier (12 bits) of the outer tag. `None` without a tag, and for tags that carry a priority alone (identifier 0).
    #[must_use]
    #[inline]
    pub const fn vlan_id(&self) -> Option<u16> {
        let id = self.vlan[0] & 0xfff;
        if self.tags > 0 && id > 0 { Some(id) } else { None }
    }
}
