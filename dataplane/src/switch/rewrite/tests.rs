#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "tests")]

use std::net::IpAddr;

use hugemem::{Checksum, Iova, Region, Segmentation, SegmentationKind};
use proptest::prelude::*;

use super::*;
use crate::flow::Rewrite;
use crate::headers::parse;
use crate::switch::nat::{Endpoint, Translation};

/// The sum of RFC 1071, word by word.
fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0_u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tcp,
    Udp,
    Icmp,
}

const KINDS: [Kind; 3] = [Kind::Tcp, Kind::Udp, Kind::Icmp];

impl Kind {
    fn protocol(self, v6: bool) -> u8 {
        match (self, v6) {
            (Self::Tcp, _) => 6,
            (Self::Udp, _) => 17,
            (Self::Icmp, false) => 1,
            (Self::Icmp, true) => 58,
        }
    }

    fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
            Self::Icmp => 2,
        }
    }
}

/// Where the network header starts behind a tag, and the transport header.
const NETWORK: usize = 18;

fn transport_at(v6: bool) -> usize {
    NETWORK + if v6 { 40 } else { 20 }
}

/// The pseudo header; ICMP over IPv4 has none.
fn pseudo(frame: &[u8], kind: Kind, v6: bool) -> Vec<u8> {
    if kind == Kind::Icmp && !v6 {
        return Vec::new();
    }
    let addresses = if v6 { &frame[NETWORK + 8..NETWORK + 40] } else { &frame[NETWORK + 12..NETWORK + 20] };
    let len = frame.len() - transport_at(v6);
    [addresses, &[0, kind.protocol(v6)], &(len as u16).to_be_bytes()].concat()
}

/// A tagged frame with right checksums, or with a partial one.
fn frame(kind: Kind, v6: bool, payload: &[u8], partial: bool) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 5];
    let header: Vec<u8> = match kind {
        Kind::Tcp => vec![0, 80, 1, 187, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x10, 1, 0, 0, 0, 0, 0],
        Kind::Udp => {
            let [high, low] = (8 + payload.len() as u16).to_be_bytes();
            vec![0, 80, 1, 187, high, low, 0, 0]
        }
        Kind::Icmp => vec![if v6 { 128 } else { 8 }, 0, 0, 0, 0, 80, 0, 1],
    };
    let len = (header.len() + payload.len()) as u16;
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([kind.protocol(true), 64]);
        frame.extend(1..=32);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((len + 20).to_be_bytes());
        frame.extend([0, 7, 0, 0, 64, kind.protocol(false), 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let checksum = !sum(&frame[NETWORK..NETWORK + 20]);
        frame[NETWORK + 10..NETWORK + 12].copy_from_slice(&checksum.to_be_bytes());
    }
    frame.extend(header);
    frame.extend(payload);
    let pseudo = pseudo(&frame, kind, v6);
    let field = transport_at(v6) + kind.checksum_at();
    let checksum = if partial { sum(&pseudo) } else { !sum(&[&pseudo, &frame[transport_at(v6)..]].concat()) };
    frame[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn packet(frame: &[u8]) -> Packet {
    let mut packet = Region::on_heap(8192, Iova::new(0)).unwrap().packets(1, 2048).unwrap().take().unwrap();
    packet.write(frame).unwrap();
    packet
}

fn apply(packet: &mut Packet, rewrite: &Rewrite, translation: &Translation) -> Result<(), Impossible> {
    let table = NatTable::new(1);
    table.set(0, translation);
    let headers = parse(packet.bytes(), packet.len());
    assert_eq!(headers.malformed, None);
    super::rewrite(packet, &headers, rewrite, &table)
}

fn translating() -> Rewrite {
    Rewrite { translation: Some(0), decrement_ttl: true, ..Rewrite::default() }
}

fn endpoint(v6: bool) -> impl Strategy<Value = Option<Endpoint>> {
    let address =
        any::<u128>().prop_map(move |bits| if v6 { IpAddr::V6(bits.into()) } else { IpAddr::V4((bits as u32).into()) });
    prop::option::of(
        (address, prop_oneof![Just(0), any::<u16>()]).prop_map(|(address, port)| Endpoint { address, port }),
    )
}

proptest! {
    #[test]
    fn translated_packets_have_right_checksums(
        kind in prop::sample::select(&KINDS[..]),
        (v6, translation) in any::<bool>().prop_flat_map(|v6| {
            let both = (endpoint(v6), endpoint(v6));
            (Just(v6), both.prop_map(|(source, destination)| Translation { source, destination }))
        }),
        payload in prop::collection::vec(any::<u8>(), 0..60),
        partial in any::<bool>(),
    ) {
        let partial = partial && kind != Kind::Icmp;
        let before = frame(kind, v6, &payload, partial);
        let mut packet = packet(&before);
        if partial {
            let (start, offset) = (transport_at(v6) as u16, kind.checksum_at() as u16);
            packet.metadata_mut().checksum = Checksum::Partial { start, offset };
        }
        apply(&mut packet, &translating(), &translation).unwrap();
        let after = packet.bytes();
        let transport = transport_at(v6);
        if !v6 {
            prop_assert_eq!(sum(&after[NETWORK..NETWORK + 20]), 0xffff);
        }
        let pseudo = pseudo(after, kind, v6);
        if partial {
            let field = transport + kind.checksum_at();
            // Two numbers stand for zero.
            let same = |number: u16| if number == 0xffff { 0 } else { number };
            let kept = u16::from_be_bytes([after[field], after[field + 1]]);
            prop_assert_eq!(same(kept), same(sum(&pseudo)));
        } else {
            prop_assert_eq!(sum(&[&pseudo, &after[transport..]].concat()), 0xffff);
        }
        // What was asked for is there, and nothing else.
        let (sources, len) = if v6 { (NETWORK + 8, 16) } else { (NETWORK + 12, 4) };
        let identifier = if kind == Kind::Icmp { [4, 4] } else { [0, 2] };
        let mut expected = before.clone();
        expected[if v6 { NETWORK + 7 } else { NETWORK + 8 }] = 63;
        for (number, endpoint) in [translation.source, translation.destination].into_iter().enumerate() {
            let Some(Endpoint { address, port }) = endpoint else { continue };
            let octets = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            expected[sources + number * len..][..len].copy_from_slice(&octets);
            if port != 0 {
                expected[transport + identifier[number]..][..2].copy_from_slice(&port.to_be_bytes());
            }
        }
        for field in [NETWORK + 10, transport + kind.checksum_at()] {
            if field != NETWORK + 10 || !v6 {
                expected[field..field + 2].copy_from_slice(&after[field..field + 2]);
            }
        }
        prop_assert_eq!(after, &expected[..]);
    }

    #[test]
    fn tags_move_what_metadata_points_to(tag in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..60)) {
        let before = frame(Kind::Tcp, false, &payload, true);
        let mut packet = packet(&before);
        let segmentation = Segmentation { kind: SegmentationKind::TcpV4, size: 10, header_len: 58, ecn: false };
        packet.metadata_mut().checksum = Checksum::Partial { start: 38, offset: 16 };
        packet.metadata_mut().segmentation = Some(segmentation);
        packet.metadata_mut().inner = std::num::NonZeroU16::new(18);
        let known = *packet.metadata();
        retag(&mut packet, VlanRewrite::Push(tag)).unwrap();
        prop_assert_eq!(packet.metadata().checksum, Checksum::Partial { start: 42, offset: 16 });
        prop_assert_eq!(packet.metadata().segmentation.unwrap().header_len, 62);
        prop_assert_eq!(packet.metadata().inner.unwrap().get(), 22);
        prop_assert_eq!(&packet.bytes()[12..16], &[0x81, 0, (tag >> 8) as u8, tag as u8]);
        prop_assert_eq!(&packet.bytes()[16..], &before[12..]);
        retag(&mut packet, VlanRewrite::Set(!tag)).unwrap();
        prop_assert_eq!(&packet.bytes()[14..16], &(!tag).to_be_bytes());
        retag(&mut packet, VlanRewrite::Pop).unwrap();
        prop_assert_eq!(packet.bytes(), &before[..]);
        prop_assert_eq!(*packet.metadata(), known);
    }
}

#[test]
fn a_datagram_without_checksum_stays_so() {
    let mut before = frame(Kind::Udp, false, b"hi", false);
    before[44..46].fill(0);
    let mut packet = packet(&before);
    let source = Some(Endpoint { address: IpAddr::from([1, 2, 3, 4]), port: 5 });
    apply(&mut packet, &translating(), &Translation { source, destination: None }).unwrap();
    assert_eq!(packet.bytes()[44..46], [0, 0]);
    assert_eq!(packet.bytes()[38..40], [0, 5]);
}

#[test]
fn a_later_fragment_has_its_addresses_changed_alone() {
    let mut before = frame(Kind::Udp, false, &[9; 40], false);
    before[NETWORK + 6..NETWORK + 8].copy_from_slice(&[0, 5]);
    before[NETWORK + 10..NETWORK + 12].fill(0);
    let checksum = !sum(&before[NETWORK..NETWORK + 20]);
    before[NETWORK + 10..NETWORK + 12].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = packet(&before);
    let source = Some(Endpoint { address: IpAddr::from([1, 2, 3, 4]), port: 5 });
    apply(&mut packet, &translating(), &Translation { source, destination: None }).unwrap();
    assert_eq!(packet.bytes()[NETWORK + 20..], before[NETWORK + 20..]);
    assert_eq!(sum(&packet.bytes()[NETWORK..NETWORK + 20]), 0xffff);
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let v4 = || Endpoint { address: IpAddr::from([1, 2, 3, 4]), port: 5 };
    let translation = Translation { source: Some(v4()), destination: None };
    let six = packet(&frame(Kind::Tcp, true, b"", false));
    let mut six = six;
    assert_eq!(apply(&mut six, &translating(), &translation), Err(Impossible));
    // SCTP sums over its ports.
    let mut sctp = frame(Kind::Tcp, false, b"", false);
    sctp[NETWORK + 9] = 132;
    assert_eq!(apply(&mut packet(&sctp), &translating(), &translation), Err(Impossible));
    // An error message has no identifier.
    let mut unreachable = frame(Kind::Icmp, false, b"", false);
    unreachable[38] = 3;
    assert_eq!(apply(&mut packet(&unreachable), &translating(), &translation), Err(Impossible));
    // ARP takes no hops, and there may be no tag, no headroom.
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    assert_eq!(apply(&mut packet(&arp), &translating(), &Translation::default()), Err(Impossible));
    assert_eq!(retag(&mut packet(&arp), VlanRewrite::Pop), Err(Impossible));
    assert_eq!(retag(&mut packet(&arp), VlanRewrite::Set(1)), Err(Impossible));
    let mut crowded = packet(&arp);
    let headroom = crowded.headroom();
    assert!(crowded.prepend(headroom - 3).is_some());
    assert_eq!(retag(&mut crowded, VlanRewrite::Push(1)), Err(Impossible));
}
