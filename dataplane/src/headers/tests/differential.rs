//! A million mutated frames, read by us and by an independent parser.

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};

use super::super::*;
use super::check;
use super::frames::frames;
use crate::flow::{Domain, FlowKey};

/// Frames that are compared.
const FRAMES: u32 = 1_000_000;

/// A generator of random numbers that begins where it is told to (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
}

/// Changes a few bytes, mostly where headers are, to values that mean something; now and then cuts or lengthens the frame.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u8; 20] = [0, 1, 4, 5, 6, 8, 17, 20, 40, 43, 44, 50, 51, 58, 59, 60, 0x45, 0x81, 0xdd, 0xff];
    for _ in 0..random.below(4) {
        let reach = if random.below(4) > 0 { bytes.len().min(64) } else { bytes.len() };
        if reach == 0 {
            return;
        }
        let place = random.below(reach);
        let value = u8::try_from(random.next() & 0xff).unwrap();
        bytes[place] = match random.below(3) {
            0 => TELLING[random.below(TELLING.len())],
            1 => bytes[place] ^ 1 << (value & 7),
            _ => value,
        };
    }
    match random.below(12) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.resize(bytes.len() + random.below(40), 0),
        _ => {}
    }
}

/// What both have to say alike.
fn compare(bytes: &[u8], ours: &Headers, theirs: &SlicedPacket<'_>) {
    assert_eq!(usize::from(ours.tags), theirs.link_exts.len());
    for (ours, theirs) in ours.vlan.iter().zip(theirs.vlan_ids()) {
        assert_eq!(ours & 0xfff, theirs.value());
    }
    let key = FlowKey::of(ours, bytes, Domain::port(1));
    match &theirs.net {
        None => assert_eq!(ours.network, NetworkKind::None),
        Some(NetSlice::Arp(arp)) => {
            assert_eq!(ours.network, NetworkKind::Arp);
            assert_eq!(u16::from(ours.protocol), arp.operation().0 & 0xff);
            let address = |address: Option<std::net::IpAddr>| match address {
                Some(std::net::IpAddr::V4(address)) => address.octets(),
                other => panic!("{other:?}"),
            };
            assert_eq!(address(key.source()), arp.sender_protocol_addr());
            assert_eq!(address(key.destination()), arp.target_protocol_addr());
            let [sender, target] = key.arp_hardware().unwrap();
            assert_eq!((sender.0.as_slice(), target.0.as_slice()), (arp.sender_hw_addr(), arp.target_hw_addr()));
        }
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            assert_eq!((ours.network, ours.ttl, ours.protocol), (NetworkKind::Ipv4, header.ttl(), header.protocol().0));
            assert_eq!(key.source(), Some(header.source_addr().into()));
            assert_eq!(key.destination(), Some(header.destination_addr().into()));
            let fragmented = ours.fragment != Fragment::Whole;
            assert_eq!(fragmented, header.is_fragmenting_payload());
            assert_eq!(ours.fragment == Fragment::Later, header.fragments_offset().value() > 0);
            assert_eq!(usize::from(ours.transport_at), usize::from(ours.network_at) + header.slice().len());
            assert_eq!(ours.end, u32::from(ours.network_at) + u32::from(header.total_len()));
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            assert_eq!((ours.network, ours.ttl), (NetworkKind::Ipv6, header.hop_limit()));
            assert_eq!(key.source(), Some(header.source_addr().into()));
            assert_eq!(key.destination(), Some(header.destination_addr().into()));
            assert_eq!(ours.end, u32::from(ours.network_at) + 40 + u32::from(header.payload_length()));
            assert_eq!(ours.fragment != Fragment::Whole, ip.is_payload_fragmented());
            if ours.fragment != Fragment::Later {
                assert_eq!(ours.protocol, ip.payload().ip_number.0);
                let extensions = ip.extensions().slice().len();
                assert_eq!(usize::from(ours.transport_at), usize::from(ours.network_at) + 40 + extensions);
            }
        }
    }
    let ports = (key.source_port(), key.destination_port());
    match &theirs.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            assert_eq!((ours.transport, ports), (TransportKind::Tcp, (tcp.source_port(), tcp.destination_port())));
            assert_eq!(usize::from(ours.payload_at - ours.transport_at), tcp.header_slice().len());
        }
        Some(TransportSlice::Udp(udp)) => {
            assert_eq!((ours.transport, ports), (TransportKind::Udp, (udp.source_port(), udp.destination_port())));
        }
        Some(TransportSlice::Icmpv4(icmp)) if ours.network == NetworkKind::Ipv4 => {
            let types = u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]);
            assert_eq!((ours.transport, ports), (TransportKind::Icmp, (types, 0)));
        }
        Some(TransportSlice::Icmpv6(icmp)) if ours.network == NetworkKind::Ipv6 => {
            let types = u16::from_be_bytes([icmp.type_u8(), icmp.code_u8()]);
            assert_eq!((ours.transport, ports), (TransportKind::Icmpv6, (types, 0)));
        }
        // It reads no SCTP, and no transport header of fragments.
        _ => {
            let fragment = ours.fragment == Fragment::First;
            let unread = matches!(ours.transport, TransportKind::None | TransportKind::Sctp);
            assert!(fragment || unread, "{ours:?}");
        }
    }
}

/// Where the other parser means to read something that we leave alone, or takes as given what is for us to say: its errors say nothing about our answer.
fn leaves_open(bytes: &[u8], ours: &Headers) -> bool {
    const MACSEC: u16 = 0x88e5;
    const AUTHENTICATION: u8 = 51;
    let network = bytes.get(usize::from(ours.network_at)..).unwrap_or_default();
    let transport = bytes.get(usize::from(ours.transport_at)..).unwrap_or_default();
    let strict_icmp = ours.transport == TransportKind::Icmp && matches!(transport.first(), Some(13 | 14));
    let igmp = ours.protocol == IpNumber::IGMP.0;
    let other_icmp =
        ours.transport == TransportKind::None && matches!(ours.protocol, protocol::ICMP | protocol::ICMPV6);
    let old_authentication = ours.network == NetworkKind::Ipv4 && ours.protocol == AUTHENTICATION;
    let fragment = ours.network == NetworkKind::Ipv6 && ours.fragment == Fragment::Later;
    let length_zero = ours.network == NetworkKind::Ipv6 && network.get(4..6) == Some(&[0, 0]);
    ours.ether_type == MACSEC
        || strict_icmp
        || igmp
        || other_icmp
        || old_authentication
        || fragment
        || length_zero
        || rare_extension(bytes, ours)
}

/// We looked behind, or at, an extension header that the other parser takes for payload: mobility, host identity, shim6.
fn rare_extension(bytes: &[u8], ours: &Headers) -> bool {
    let start = usize::from(ours.network_at);
    let (mut next, mut at) = (bytes.get(start + 6).copied().unwrap_or(0), start + 40);
    if ours.network != NetworkKind::Ipv6 {
        return false;
    }
    loop {
        match (next, bytes.get(at..at + 2)) {
            (135 | 139 | 140, _) => return true,
            (44, Some([after, _])) => (next, at) = (*after, at + 8),
            (51, Some([after, units])) => (next, at) = (*after, at + (usize::from(*units) + 2) * 4),
            (0 | 43 | 60, Some([after, units])) => (next, at) = (*after, at + (usize::from(*units) + 1) * 8),
            _ => return false,
        }
    }
}

#[test]
fn a_million_mutated_frames_are_read_as_by_an_independent_parser() {
    let kinds = frames();
    let mut random = Random(0x0dd_ba11);
    let (mut both, mut compared, mut neither, mut only_we, mut only_they) = (0, 0, 0, 0, 0);
    let mut bytes = Vec::new();
    for _ in 0..FRAMES {
        bytes.clone_from(&kinds[random.below(kinds.len())].bytes);
        mutate(&mut bytes, &mut random);
        let ours = check(&bytes, bytes.len());
        match (ours.malformed, SlicedPacket::from_ethernet(&bytes)) {
            (None, Ok(theirs)) => {
                both += 1;
                let vlan_only = theirs.link_exts.iter().all(|ext| matches!(ext, etherparse::LinkExtSlice::Vlan(_)));
                if vlan_only && !leaves_open(&bytes, &ours) {
                    compared += 1;
                    compare(&bytes, &ours, &theirs);
                }
            }
            (None, Err(error)) => {
                only_we += 1;
                assert!(leaves_open(&bytes, &ours), "{ours:?}\n{error}\n{bytes:02x?}");
            }
            (Some(reason), Ok(theirs)) => {
                only_they += 1;
                // What it does not look at, or takes more generously.
                let zero_udp = matches!(&theirs.transport, Some(TransportSlice::Udp(udp)) if udp.length() == 0);
                let length_zero = matches!(&theirs.net, Some(NetSlice::Ipv6(ip)) if ip.header().payload_length() == 0);
                let fragmented = theirs.is_ip_payload_fragmented();
                let rare = rare_extension(&bytes, &ours);
                let other_arp = matches!(&theirs.net, Some(NetSlice::Arp(arp)) if arp.hw_addr_size() != 6 || arp.proto_addr_size() != 4);
                let unread = match reason {
                    Malformed::TooManyTags
                    | Malformed::BadArp
                    | Malformed::TooManyExtensions
                    | Malformed::BadExtension
                    | Malformed::BadFragment
                    | Malformed::TinyFragment => true,
                    Malformed::BadUdpLength => zero_udp || fragmented || rare,
                    Malformed::BadTcpLength => fragmented || rare,
                    Malformed::Truncated => {
                        length_zero || fragmented || rare || other_arp || ours.protocol == protocol::SCTP
                    }
                    _ => false,
                };
                assert!(unread, "{reason}: {ours:?}\n{theirs:?}\n{bytes:02x?}");
            }
            (Some(_), Err(_)) => neither += 1,
        }
        // Seen in part, a frame is read the same, or its headers go on behind what is seen.
        let seen = random.below(bytes.len() + 1);
        let part = check(&bytes[..seen], bytes.len());
        assert!(
            part == ours || matches!(part.malformed, Some(Malformed::BeyondView | Malformed::Runt)),
            "{part:?} {ours:?}"
        );
    }
    // The comparison means something: most frames are read by both, and many by neither.
    let counts =
        format!("{both} both, {compared} compared, {neither} neither, {only_we} only we, {only_they} only they");
    assert!(compared > FRAMES / 3 && neither > FRAMES / 20, "{counts}");
    assert!(only_we < FRAMES / 20, "{counts}");
}
