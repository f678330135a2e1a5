//! The outer headers of a tunnel, made once.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use drivers::nic::MacAddress;

use super::TunnelKind;
use crate::checksum::{pseudo_header, sum};
use crate::headers::{ETHERNET, GENEVE_PORT, VXLAN_PORT, ether_type, protocol};

/// Bytes of the longest outer headers: Ethernet with a VLAN tag, IPv6, UDP, VXLAN or Geneve.
pub const LONGEST: usize = ETHERNET + TAG + IPV6 + UDP + TUNNEL;

const TAG: usize = 4;
const IPV6: usize = 40;
pub(super) const UDP: usize = 8;
/// VXLAN's header, and that of Geneve without options.
const TUNNEL: usize = 8;
/// Smallest packet that an IPv6 link carries (RFC 8200, section 5), and smallest that IPv4 hosts take whole (RFC 791, section 3.1).
const LEAST_IPV6: usize = 1280;
const LEAST_IPV4: usize = 576;

/// The two ends of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Addresses {
    /// Over IPv4.
    V4 {
        /// This host.
        local: Ipv4Addr,
        /// The other.
        remote: Ipv4Addr,
    },
    /// Over IPv6.
    V6 {
        /// This host.
        local: Ipv6Addr,
        /// The other.
        remote: Ipv6Addr,
    },
}

impl Addresses {
    /// Both ends. `None` when one is of IPv4 and the other of IPv6.
    #[must_use]
    pub const fn new(local: IpAddr, remote: IpAddr) -> Option<Self> {
        match (local, remote) {
            (IpAddr::V4(local), IpAddr::V4(remote)) => Some(Self::V4 { local, remote }),
            (IpAddr::V6(local), IpAddr::V6(remote)) => Some(Self::V6 { local, remote }),
            _ => None,
        }
    }

    /// This host and the other.
    #[must_use]
    pub const fn ends(self) -> (IpAddr, IpAddr) {
        match self {
            Self::V4 { local, remote } => (IpAddr::V4(local), IpAddr::V4(remote)),
            Self::V6 { local, remote } => (IpAddr::V6(local), IpAddr::V6(remote)),
        }
    }
}

/// What a tunnel looks like on the network between hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encapsulation {
    /// Its protocol.
    pub kind: TunnelKind,
    /// Virtual network identifier, 24 bits.
    pub vni: u32,
    /// Both ends.
    pub addresses: Addresses,
    /// Ethernet address of the port that it leaves through.
    pub source: MacAddress,
    /// Ethernet address of the other host, or of the router on the way.
    pub destination: MacAddress,
    /// VLAN of the network between hosts: 16 bits of tag control information.
    pub vlan: Option<u16>,
    /// UDP destination port.
    pub port: u16,
    /// Time to live, or hop limit.
    pub hop_limit: u8,
    /// Differentiated services code point, 6 bits; `None` copies that of the inner packet.
    pub dscp: Option<u8>,
    /// Whether datagrams have a UDP checksum. Without one they must be expected at the other end, over IPv6 (RFC 6935, section 5).
    pub checksum: bool,
    /// Bytes of the longest IP packet that the network between hosts carries.
    pub mtu: u16,
}

/// The description of a tunnel makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadEncapsulation {
    /// VNI too large.
    #[error("VNI {vni} has more than 24 bits; give one up to 16777215")]
    Vni {
        /// What was given.
        vni: u32,
    },
    /// DSCP too large.
    #[error("DSCP {dscp} has more than 6 bits; give one up to 63")]
    Dscp {
        /// What was given.
        dscp: u8,
    },
    /// No datagram would arrive.
    #[error("datagrams with a hop limit of 0 go nowhere; give 1 to 255, usually 64")]
    HopLimit,
    /// No datagram would arrive.
    #[error("UDP port 0 is no port; the usual ones are 4789 (VXLAN) and 6081 (Geneve)")]
    Port,
    /// MTU too small for IP.
    #[error("an MTU of {mtu} bytes is too small between hosts; the least is {least}")]
    Mtu {
        /// What was given.
        mtu: u16,
        /// What is needed.
        least: usize,
    },
}

impl Encapsulation {
    /// A tunnel with what is usual: the protocol's port, hop limit 64, DSCP copied, a UDP checksum over IPv6 alone, an MTU of 1500 bytes.
    #[must_use]
    pub const fn new(
        kind: TunnelKind,
        vni: u32,
        addresses: Addresses,
        source: MacAddress,
        destination: MacAddress,
    ) -> Self {
        let port = match kind {
            TunnelKind::Vxlan => VXLAN_PORT,
            TunnelKind::Geneve => GENEVE_PORT,
        };
        Self {
            kind,
            vni,
            addresses,
            source,
            destination,
            vlan: None,
            port,
            hop_limit: 64,
            dscp: None,
            checksum: matches!(addresses, Addresses::V6 { .. }),
            mtu: 1500,
        }
    }

    /// Makes the outer headers.
    ///
    /// # Errors
    /// What makes no sense.
    pub fn template(&self) -> Result<Template, BadEncapsulation> {
        let Self { vni, port, hop_limit, mtu, .. } = *self;
        if vni >> 24 != 0 {
            return Err(BadEncapsulation::Vni { vni });
        }
        if let Some(dscp) = self.dscp.filter(|dscp| *dscp >= 64) {
            return Err(BadEncapsulation::Dscp { dscp });
        }
        if hop_limit == 0 {
            return Err(BadEncapsulation::HopLimit);
        }
        if port == 0 {
            return Err(BadEncapsulation::Port);
        }
        let ipv4 = matches!(self.addresses, Addresses::V4 { .. });
        let least = if ipv4 { LEAST_IPV4 } else { LEAST_IPV6 };
        if usize::from(mtu) < least {
            return Err(BadEncapsulation::Mtu { mtu, least });
        }
        let mut bytes = Bytes { all: [0; LONGEST], len: 0 };
        bytes.put(&self.destination.0);
        bytes.put(&self.source.0);
        if let Some(tag) = self.vlan {
            bytes.put(&ether_type::VLAN.to_be_bytes());
            bytes.put(&tag.to_be_bytes());
        }
        bytes.put(&if ipv4 { ether_type::IPV4 } else { ether_type::IPV6 }.to_be_bytes());
        let network = bytes.len;
        let (header_sum, pseudo_sum) = match self.addresses {
            Addresses::V4 { local, remote } => {
                // Don't fragment; so there is no identification either (RFC 6864, section 4.1).
                let fixed = [0x45, 0, 0, 0, 0, 0, 0x40, 0, hop_limit, protocol::UDP, 0, 0];
                let addresses = [local.octets(), remote.octets()].concat();
                bytes.put(&fixed);
                bytes.put(&addresses);
                (sum(&fixed) + sum(&addresses), pseudo_header(&addresses, protocol::UDP, 0))
            }
            Addresses::V6 { local, remote } => {
                let addresses = [local.octets(), remote.octets()].concat();
                bytes.put(&[0x60, 0, 0, 0, 0, 0, protocol::UDP, hop_limit]);
                bytes.put(&addresses);
                (0, pseudo_header(&addresses, protocol::UDP, 0))
            }
        };
        let udp = bytes.len;
        bytes.put(&[0, 0]);
        bytes.put(&port.to_be_bytes());
        bytes.put(&[0; 4]);
        let [_, high, middle, low] = vni.to_be_bytes();
        match self.kind {
            TunnelKind::Vxlan => bytes.put(&[0x08, 0, 0, 0, high, middle, low, 0]),
            // Version 0, no options; an Ethernet frame follows.
            TunnelKind::Geneve => bytes.put(&[0, 0, 0x65, 0x58, high, middle, low, 0]),
        }
        let Bytes { all, len } = bytes;
        let room = usize::from(mtu) - (len - network);
        let dscp = self.dscp.map(|dscp| dscp << 2);
        Ok(Template {
            bytes: all,
            len,
            network,
            udp,
            ipv4,
            header_sum,
            pseudo_sum,
            checksum: self.checksum,
            dscp,
            room,
        })
    }
}

/// Bytes that are put one behind the other.
struct Bytes {
    all: [u8; LONGEST],
    len: usize,
}

impl Bytes {
    /// All headers together have [`LONGEST`] bytes at most.
    fn put(&mut self, bytes: &[u8]) {
        for (to, from) in self.all.iter_mut().skip(self.len).zip(bytes) {
            *to = *from;
        }
        self.len = (self.len + bytes.len()).min(LONGEST);
    }
}

/// The outer headers of a tunnel, but for what differs from packet to packet.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    pub(super) bytes: [u8; LONGEST],
    pub(super) len: usize,
    /// Where the IP header begins, and where the UDP header does.
    pub(super) network: usize,
    pub(super) udp: usize,
    pub(super) ipv4: bool,
    /// Sum of the IPv4 header without length and traffic class, and of the pseudo header without length.
    pub(super) header_sum: u64,
    pub(super) pseudo_sum: u64,
    pub(super) checksum: bool,
    /// The code point at its place in the traffic class.
    pub(super) dscp: Option<u8>,
    pub(super) room: usize,
}

impl Template {
    /// The outer headers, without what differs from packet to packet.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Bytes of the longest frame that fits, from its Ethernet header on.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.room
    }

    /// Bytes of the longest IP packet that fits behind an Ethernet header without tags: the MTU of the network inside.
    #[must_use]
    pub const fn inner_mtu(&self) -> usize {
        self.room - ETHERNET
    }
}
