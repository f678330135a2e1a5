//! Frames from words: Ethernet, a VLAN tag, ARP or IP, and what lies behind, with checksums.

use std::net::{IpAddr, Ipv4Addr};

use drivers::nic::MacAddress;

/// What a frame carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Tcp,
    Udp,
    Sctp,
    /// An echo request, of ICMP or ICMPv6.
    Ping,
    /// A request.
    Arp,
}

impl Kind {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "sctp" => Self::Sctp,
            "icmp" | "icmpv6" | "icmp6" | "ping" => Self::Ping,
            "arp" => Self::Arp,
            _ => return None,
        })
    }

    pub(super) fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::Sctp)
    }

    /// Bytes of its header.
    pub(super) fn header(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Sctp => 12,
            Self::Udp | Self::Ping | Self::Arp => 8,
        }
    }

    /// Number of the protocol, and where in the header the Internet checksum is, if there is one.
    fn protocol(self, v6: bool) -> (u8, Option<usize>) {
        match self {
            Self::Tcp => (6, Some(16)),
            Self::Udp => (17, Some(6)),
            Self::Sctp => (132, None),
            Self::Ping | Self::Arp => (if v6 { 58 } else { 1 }, Some(2)),
        }
    }
}

/// A frame.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Frame(Vec<u8>);

impl Frame {
    /// The Ethernet header as far as the EtherType, which it ends before.
    pub(super) fn ethernet(from: [u8; 6], to: [u8; 6], vlan: Option<u16>) -> Self {
        let mut bytes = [to, from].concat();
        if let Some(vlan) = vlan {
            bytes.extend([0x8100_u16, vlan].map(u16::to_be_bytes).concat());
        }
        bytes.extend([0, 0]);
        Self(bytes)
    }

    fn ether_type(&mut self, ether_type: u16) {
        let place = self.0.len().saturating_sub(2);
        self.0.truncate(place);
        self.0.extend(ether_type.to_be_bytes());
    }

    /// Asks who has `destination`.
    pub(super) fn arp(mut self, from: [u8; 6], source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        self.ether_type(0x0806);
        self.0.extend([0, 1, 8, 0, 6, 4, 0, 1]);
        self.0.extend(from);
        self.0.extend(source.octets());
        self.0.extend([0; 6]);
        self.0.extend(destination.octets());
        self
    }

    /// An IP packet with `payload` bytes behind the headers.
    pub(super) fn ip(
        mut self,
        kind: Kind,
        (source, destination): (IpAddr, IpAddr),
        (source_port, destination_port): (u16, u16),
        ttl: u8,
        payload: usize,
    ) -> Self {
        let v6 = source.is_ipv6();
        let (protocol, checksum_at) = kind.protocol(v6);
        let mut transport: Vec<u8> = match kind {
            Kind::Tcp | Kind::Udp | Kind::Sctp => [source_port, destination_port].map(u16::to_be_bytes).concat(),
            Kind::Ping | Kind::Arp => vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1],
        };
        let length = kind.header() + payload;
        match kind {
            // Sequence and acknowledgement 0; five words, SYN; a window.
            Kind::Tcp => transport.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]),
            Kind::Udp => transport.extend([short(length), 0].map(u16::to_be_bytes).concat()),
            Kind::Sctp => transport.extend([0; 8]),
            Kind::Ping | Kind::Arp => {}
        }
        transport.resize(length, 0);
        let addresses = octets(source).into_iter().chain(octets(destination)).collect::<Vec<u8>>();
        if kind == Kind::Sctp {
            let sum = crc32c(&transport).to_le_bytes();
            transport.iter_mut().skip(8).zip(sum).for_each(|(place, byte)| *place = byte);
        } else if let Some(at) = checksum_at {
            // ICMP for IPv4 is the one that covers no addresses.
            let pseudo = if kind == Kind::Ping && !v6 {
                Vec::new()
            } else {
                [&addresses[..], &[0, protocol], &short(length).to_be_bytes()].concat()
            };
            let sum = match checksum(&[pseudo, transport.clone()].concat()) {
                // Zero means that there is none.
                0 if kind == Kind::Udp => 0xffff,
                sum => sum,
            };
            transport.iter_mut().skip(at).zip(sum.to_be_bytes()).for_each(|(place, byte)| *place = byte);
        }
        self.ether_type(if v6 { 0x86dd } else { 0x0800 });
        if v6 {
            self.0.extend([0x60, 0, 0, 0]);
            self.0.extend(short(length).to_be_bytes());
            self.0.extend([protocol, ttl]);
            self.0.extend(addresses);
        } else {
            let mut header = vec![0x45, 0];
            header.extend(short(20 + length).to_be_bytes());
            header.extend([0, 0, 0x40, 0, ttl, protocol, 0, 0]);
            header.extend(addresses);
            let sum = checksum(&header);
            header.iter_mut().skip(10).zip(sum.to_be_bytes()).for_each(|(place, byte)| *place = byte);
            self.0.extend(header);
        }
        self.0.extend(transport);
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn destination(&self) -> String {
        self.mac(0)
    }

    pub(super) fn source(&self) -> String {
        self.mac(6)
    }

    fn mac(&self, at: usize) -> String {
        let bytes = self.0.get(at..).and_then(|bytes| bytes.first_chunk::<6>());
        MacAddress(bytes.copied().unwrap_or_default()).to_string()
    }
}

fn short(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let words = pairs.iter().copied().chain(rest.first().map(|byte| [*byte, 0]));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use dataplane::headers::{Fragment, NetworkKind, TransportKind, parse};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    #[test]
    fn the_switch_reads_what_is_made() {
        let v4: (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let v6: (IpAddr, IpAddr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        for (kind, transport, protocol) in [
            (Kind::Tcp, TransportKind::Tcp, 6),
            (Kind::Udp, TransportKind::Udp, 17),
            (Kind::Sctp, TransportKind::Sctp, 132),
            (Kind::Ping, TransportKind::Icmp, 1),
        ] {
            for payload in [0, 1, 16, 1000] {
                let frame = Frame::ethernet(MAC, MAC, Some(5)).ip(kind, v4, (1, 2), 64, payload).into_bytes();
                let headers = parse(&frame, frame.len());
                assert_eq!(headers.malformed, None, "{kind:?} {payload}");
                assert_eq!(
                    (headers.network, headers.transport, headers.protocol),
                    (NetworkKind::Ipv4, transport, protocol)
                );
                assert_eq!((headers.vlan_id(), headers.fragment, headers.ttl), (Some(5), Fragment::Whole, 64));
                assert_eq!(frame.len(), 18 + 20 + kind.header() + payload);
                assert_eq!(checksum(&frame[18..38]), 0, "the header's checksum");
                let frame = Frame::ethernet(MAC, MAC, None).ip(kind, v6, (1, 2), 9, payload).into_bytes();
                let headers = parse(&frame, frame.len());
                assert_eq!((headers.malformed, headers.network, headers.ttl), (None, NetworkKind::Ipv6, 9));
                if kind != Kind::Sctp {
                    let length = u16::try_from(frame.len() - 54).unwrap().to_be_bytes();
                    let pseudo = [&frame[22..54], &[0, headers.protocol], &length, &frame[54..]].concat();
                    assert_eq!(checksum(&pseudo), 0, "{kind:?} {payload}");
                }
            }
        }
        let frame =
            Frame::ethernet(MAC, [0xff; 6], None).arp(MAC, Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let headers = parse(frame.bytes(), frame.bytes().len());
        assert_eq!((headers.malformed, headers.network, headers.protocol), (None, NetworkKind::Arp, 1));
        // The example of RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
