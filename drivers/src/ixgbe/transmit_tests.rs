//! Sending to a card that follows a script, honest or not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::vec::Vec;

use hugemem::{Metadata, PacketPool, Segmentation, SegmentationKind};

use super::*;
use crate::ixgbe::scripted::{Bench, Registers, TAIL, words, write_back};
use crate::nic::Offloads;

const SIZE: u16 = 64;
const ALL: Offloads =
    Offloads::TX_CHECKSUM.union(Offloads::TSO4).union(Offloads::TSO6).union(Offloads::USO).union(Offloads::VLAN_INSERT);

/// A packet as the card sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Sent {
    bytes: Vec<u8>,
    /// Upper words of its data descriptors without length, PAYLEN and done bit.
    commands: Vec<u64>,
    payload: u64,
    /// The context that came right before it.
    context: Option<[u64; 2]>,
    /// The last descriptor.
    end: u16,
}

/// A queue, and the card's side of it.
struct Card {
    bench: Bench,
    pool: PacketPool,
    tx: Tx<Registers>,
    head: u16,
}

impl Card {
    fn new(room: usize) -> Self {
        let bench = Bench::new();
        let pool = bench.pool(300, room);
        let mut tx = Tx::new(&bench.region, SIZE, bench.health.clone(), 1).unwrap();
        tx.reset(&Stopped::confirmed(), TransmitSetup { offloads: ALL, longest: 1522 });
        tx.begin(bench.doorbell());
        Self { bench, pool, tx, head: 0 }
    }

    fn packet(&mut self, bytes: &[u8]) -> Packet {
        let mut packet = self.pool.take().unwrap();
        packet.write(bytes).unwrap();
        packet
    }

    fn chain(&mut self, pieces: &[&[u8]]) -> Packet {
        let mut packet = self.packet(pieces[0]);
        for piece in &pieces[1..] {
            let next = self.packet(piece);
            packet.append(next).unwrap();
        }
        packet
    }

    fn transmit(&mut self, packets: Vec<Packet>) -> Batch {
        let mut batch = Batch::new(packets.len());
        packets.into_iter().for_each(|packet| batch.push(packet).unwrap());
        self.tx.transmit(&mut batch);
        batch
    }

    /// Everything up to the tail, as the card would send it. It does not report.
    fn fetch(&mut self) -> Vec<Sent> {
        let tail = self.bench.registers.get(TAIL.offset()).unwrap_or(0) as u16;
        let mut sent: Vec<Sent> = Vec::new();
        let mut context = None;
        let mut open: Option<Sent> = None;
        while self.head != tail {
            let [low, high] = words(self.tx.ring.get(self.head).unwrap());
            assert_eq!(high & (1 << 29 | data::DD), 1 << 29, "advanced format, done bit clear");
            match high >> 20 & 0xf {
                2 => context = Some([low, high]),
                3 => {
                    let length = (high & 0xffff) as usize;
                    assert!(length > 0);
                    let packet = open.get_or_insert_with(|| Sent {
                        bytes: Vec::new(),
                        commands: Vec::new(),
                        payload: high >> 46,
                        context: context.take(),
                        end: 0,
                    });
                    packet.bytes.extend(self.bench.read(low, length));
                    packet.commands.push(high & ((1 << 46) - 1) & !0xffff);
                    if high & data::EOP != 0 {
                        sent.extend(open.take().map(|packet| Sent { end: self.head, ..packet }));
                    }
                }
                kind => panic!("no such descriptor: {kind}"),
            }
            self.head = (self.head + 1) % SIZE;
        }
        assert!(open.is_none() && context.is_none(), "the tail cuts no packet");
        sent
    }

    /// Reports what was asked for among `sent`.
    fn report(&self, sent: &[Sent]) {
        for packet in sent.iter().filter(|packet| packet.commands.last().unwrap() & data::RS != 0) {
            write_back(self.tx.ring.get(packet.end).unwrap(), [0, data::DD]);
        }
    }
}

/// A frame that no other has.
fn frame(number: usize) -> Vec<u8> {
    (0..60 + number % 1400).map(|index| (number * 7 + index) as u8).collect()
}

/// TCP or UDP in IPv4 or IPv6 with `payload` bytes; the checksum field holds the pseudo header's sum.
fn segment(ipv4: bool, tcp: bool, payload: usize) -> (Vec<u8>, u16) {
    let transport = if tcp { 20 } else { 8 } + payload;
    let mut bytes = std::vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let protocol = if tcp { 6 } else { 17 };
    let addresses: Vec<u8> = if ipv4 { (1..=8).collect() } else { (1..=32).collect() };
    let [high, low] = (transport as u16).to_be_bytes();
    if ipv4 {
        let [total_high, total_low] = (transport as u16 + 20).to_be_bytes();
        bytes.extend([8, 0, 0x45, 0, total_high, total_low, 0, 7, 0x40, 0, 64, protocol, 0x77, 0x77]);
    } else {
        bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, high, low, protocol, 64]);
    }
    bytes.extend(&addresses);
    let start = bytes.len() as u16;
    let pseudo = sum(addresses.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])));
    let pseudo = sum([pseudo, protocol.into(), transport as u16].into_iter());
    if tcp {
        bytes.extend([0, 1, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0x50, 0x18, 1, 0]);
        bytes.extend(pseudo.to_be_bytes());
        bytes.extend([0, 0]);
    } else {
        bytes.extend([0, 1, 0, 2, high, low]);
        bytes.extend(pseudo.to_be_bytes());
    }
    bytes.extend((0..payload).map(|index| index as u8));
    (bytes, start)
}

fn sum(words: impl Iterator<Item = u16>) -> u16 {
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn partial(tcp: bool, start: u16) -> Checksum {
    Checksum::Partial { start, offset: if tcp { 16 } else { 6 } }
}

#[test]
fn packets_leave_in_order_around_the_ring_and_come_back_as_they_are_reported() {
    let mut card = Card::new(2048);
    let (mut number, mut bytes) = (0, 0);
    for turn in 0..100 {
        let count = 1 + turn % 63;
        let packets: Vec<_> = (number..number + count).map(|number| card.packet(&frame(number))).collect();
        bytes += packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
        assert!(card.transmit(packets).is_empty(), "turn {turn}");
        let sent = card.fetch();
        assert_eq!(sent.len(), count);
        for (sent, number) in sent.iter().zip(number..) {
            assert_eq!((&sent.bytes, sent.payload), (&frame(number), frame(number).len() as u64));
            assert!(sent.context.is_none() && sent.commands[0] & !data::RS == data::BASE | data::EOP);
        }
        let asked = sent.iter().filter(|packet| packet.commands[0] & data::RS != 0).count();
        assert_eq!(asked, count.div_ceil(REPORT.into()), "few reports");
        assert_eq!(card.tx.reclaim(), count, "nothing is reported yet");
        card.report(&sent);
        assert_eq!(card.tx.reclaim(), 0);
        assert_eq!(card.pool.available(), 300);
        number += count;
    }
    let counters = card.tx.counters();
    assert_eq!((counters.packets, counters.bytes, counters.dropped_total()), (number as u64, bytes, 0));
}

#[test]
fn what_does_not_fit_stays_in_the_batch_until_the_card_has_sent() {
    let mut card = Card::new(2048);
    let packets: Vec<_> = (0..100).map(|number| card.packet(&frame(number))).collect();
    let mut batch = card.transmit(packets);
    assert_eq!(batch.len(), 37, "one descriptor stays free");
    let sent = card.fetch();
    assert_eq!(card.tx.transmit(&mut batch), 0);
    // The card is done with part of it only, and its reports do not overtake each other.
    write_back(card.tx.ring.get(sent[62].end).unwrap(), [0, data::DD]);
    assert_eq!(card.tx.transmit(&mut batch), 0);
    card.report(&sent[..32]);
    assert_eq!(card.tx.transmit(&mut batch), 37);
    let more = card.fetch();
    assert_eq!(more.last().unwrap().bytes, frame(99));
    card.report(&more);
    assert_eq!(card.tx.reclaim(), 0);
}

#[test]
fn a_card_that_never_reports_is_seen_by_the_watchdog_and_gives_everything_back_when_reset() {
    let mut card = Card::new(2048);
    let before: Vec<_> = card.bench.health.progress().collect();
    let packets: Vec<_> = (0..10).map(|number| card.packet(&frame(number))).collect();
    assert!(card.transmit(packets).is_empty());
    for _ in 0..5 {
        assert_eq!(card.tx.reclaim(), 10);
    }
    let mut looked = Progress::default();
    (0..5).for_each(|_| looked.looked(0));
    assert_eq!(card.bench.health.progress().collect::<Vec<_>>(), [before[0], looked]);
    card.tx.reset(&Stopped::confirmed(), TransmitSetup { offloads: ALL, longest: 1522 });
    assert_eq!(card.pool.available(), 300);
    let mut batch = Batch::new(1);
    batch.push(card.packet(&frame(0))).unwrap();
    assert_eq!(
        (card.tx.transmit(&mut batch), card.tx.reclaim()),
        (1, 0),
        "a halted queue takes packets and drops them"
    );
    assert_eq!(card.tx.counters().dropped(DropReason::Stopped), 1);
    assert_eq!(card.pool.available(), 300);
}

#[test]
fn reports_that_nobody_asked_for_return_nothing() {
    let mut card = Card::new(2048);
    let packets: Vec<_> = (0..20).map(|number| card.packet(&frame(number))).collect();
    assert!(card.transmit(packets).is_empty());
    let sent = card.fetch();
    for index in (0..SIZE).filter(|index| *index != sent[19].end) {
        write_back(card.tx.ring.get(index).unwrap(), [u64::MAX; 2]);
    }
    assert_eq!(card.tx.reclaim(), 20);
    card.report(&sent);
    assert_eq!(card.tx.reclaim(), 0);
    // Stale done bits of the last time round are not taken for new ones.
    for _ in 0..10 {
        let packets: Vec<_> = (0..20).map(|number| card.packet(&frame(number))).collect();
        assert!(card.transmit(packets).is_empty());
        assert_eq!(card.tx.reclaim(), 20);
        let sent = card.fetch();
        card.report(&sent);
        assert_eq!(card.tx.reclaim(), 0);
    }
}

#[test]
fn a_packet_of_several_buffers_is_one_descriptor_for_each_and_large_buffers_are_several() {
    let mut card = Card::new(40_000);
    card.tx.setup.longest = 70_000;
    let long: Vec<u8> = (0..39_000).map(|index| (index % 253) as u8).collect();
    let packets = std::vec![
        card.chain(&[&[1; 100], &[], &[2; 50], &[3; 7]]),
        card.packet(&long),
        card.chain(&[&[], &[4; 60]]),
        card.packet(&[5; 60]),
    ];
    assert!(card.transmit(packets).is_empty());
    let sent = card.fetch();
    let seen: Vec<_> = sent.iter().map(|packet| (packet.bytes.len(), packet.commands.len(), packet.payload)).collect();
    assert_eq!(seen, [(157, 3, 157), (39_000, 3, 39_000), (60, 1, 60), (60, 1, 60)]);
    assert_eq!(sent[1].bytes, long);
    for packet in &sent {
        let (last, rest) = packet.commands.split_last().unwrap();
        assert!(rest.iter().all(|command| *command == data::BASE) && last & data::EOP != 0);
    }
    card.report(&sent);
    assert_eq!((card.tx.reclaim(), card.pool.available()), (0, 300));
}

#[test]
fn packets_that_can_never_be_sent_are_dropped_and_counted() {
    let mut card = Card::new(2048);
    let many: Vec<&[u8]> = std::vec![&[9; 20]; MOST_PIECES + 1];
    let mut tagged = card.packet(&frame(0));
    tagged.metadata_mut().vlan = Some(3);
    card.tx.setup.offloads = Offloads::empty();
    let mut large = card.packet(&segment(true, true, 1000).0);
    large.metadata_mut().checksum = partial(true, 34);
    large.metadata_mut().segmentation =
        Some(Segmentation { kind: SegmentationKind::TcpV4, size: 100, header_len: 54, ecn: false });
    let mut outside = card.packet(&frame(0));
    outside.metadata_mut().checksum = Checksum::Partial { start: 59, offset: 16 };
    let packets = std::vec![
        card.packet(&[0; 13]),
        card.packet(&[0; 1523]),
        card.chain(&many),
        tagged,
        large,
        outside,
        card.packet(&frame(7)),
    ];
    assert!(card.transmit(packets).is_empty());
    let sent = card.fetch();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].bytes, frame(7));
    let counters = card.tx.counters();
    let reasons = [DropReason::BadLength, DropReason::TooLong, DropReason::NoOffload, DropReason::BadHeader];
    assert_eq!(reasons.map(|reason| counters.dropped(reason)), [1, 2, 2, 1]);
    card.report(&sent);
    assert_eq!((card.tx.reclaim(), card.pool.available()), (0, 300));
}

#[test]
fn a_packet_too_short_for_the_card_is_padded() {
    let mut card = Card::new(2048);
    let packets = std::vec![card.packet(&[7; 14]), card.chain(&[&[8; 10], &[8; 6]]), card.packet(&[9; 17])];
    assert!(card.transmit(packets).is_empty());
    let sent: Vec<_> = card.fetch().into_iter().map(|packet| packet.bytes).collect();
    let padded = |value: u8, length| (0..17).map(|index| if index < length { value } else { 0 }).collect::<Vec<u8>>();
    assert_eq!(sent, [padded(7, 14), padded(8, 16), padded(9, 17)]);
}

#[test]
fn a_partial_checksum_is_left_to_the_card_with_a_context_that_is_sent_once() {
    let mut card = Card::new(2048);
    let kinds = [(true, true), (true, false), (false, true), (true, true), (true, true), (true, false)];
    let packets: Vec<_> = kinds
        .into_iter()
        .map(|(ipv4, tcp)| {
            let (bytes, start) = segment(ipv4, tcp, 50);
            let mut packet = card.packet(&bytes);
            packet.metadata_mut().checksum = partial(tcp, start);
            packet
        })
        .collect();
    assert!(card.transmit(packets).is_empty());
    let sent = card.fetch();
    // MACLEN 14; IPLEN 20 or 40; IPV4 bit 10; TCP bit 11; context type and DEXT; index.
    let context = |ip: u64, kind: u64, index: u64| Some([14 << 9 | ip, 2 << 20 | 1 << 29 | kind << 10 | index << 36]);
    let contexts: Vec<_> = sent.iter().map(|packet| packet.context).collect();
    // There are two places: the third kind takes that of the first, which comes again in place of the second.
    let expected =
        [context(20, 3, 0), context(20, 1, 1), context(40, 2, 0), context(20, 3, 1), None, context(20, 1, 0)];
    assert_eq!(contexts, expected);
    for (packet, index) in sent.iter().zip([0, 1, 0, 1, 1, 0]) {
        let offload = data::TXSM | data::CC | index << 36;
        assert_eq!(packet.commands[0] & !data::RS, data::BASE | data::EOP | offload);
        assert_eq!(packet.payload, packet.bytes.len() as u64);
    }
    assert_eq!(sent[0].bytes, segment(true, true, 50).0, "the bytes are as they were");
}

#[test]
fn a_checksum_that_the_card_does_not_know_is_completed_here() {
    let mut card = Card::new(2048);
    let (bytes, start) = segment(true, false, 51);
    let mut odd = card.packet(&bytes);
    odd.metadata_mut().checksum = Checksum::Partial { start, offset: 4 };
    let mut unknown = bytes.clone();
    unknown[12] = 0x99;
    let mut foreign = card.packet(&unknown);
    foreign.metadata_mut().checksum = partial(false, start);
    assert!(card.transmit(std::vec![odd, foreign]).is_empty());
    for (packet, field) in card.fetch().iter().zip([4, 6]) {
        assert!(packet.context.is_none() && packet.commands[0] & !data::RS == data::BASE | data::EOP);
        let words = packet.bytes[start.into()..].chunks(2);
        let total = sum(words.map(|pair| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
        let field = usize::from(start) + field;
        // The field's own value was replaced by the complement of the sum with that value in.
        let old = u16::from_be_bytes([bytes[field], bytes[field + 1]]);
        let rest = checksum_without(total, packet.bytes[field], packet.bytes[field + 1]);
        assert_eq!(sum([rest, old].into_iter()), !u16::from_be_bytes([packet.bytes[field], packet.bytes[field + 1]]));
    }
}

fn checksum_without(total: u16, high: u8, low: u8) -> u16 {
    sum([total, !u16::from_be_bytes([high, low])].into_iter())
}

#[test]
fn a_large_packet_is_laid_out_for_cutting() {
    let kinds = [
        (true, true, SegmentationKind::TcpV4, 20_u64, 20_u64, 3_u64),
        (false, true, SegmentationKind::TcpV6, 40, 20, 2),
        (true, false, SegmentationKind::Udp, 20, 8, 1),
        (false, false, SegmentationKind::Udp, 40, 8, 0),
    ];
    for (ipv4, tcp, kind, ip, transport, bits) in kinds {
        let mut card = Card::new(2048);
        let (bytes, start) = segment(ipv4, tcp, 5000);
        let pieces: Vec<_> = bytes.chunks(2000).collect();
        let mut packet = card.chain(&pieces);
        packet.metadata_mut().checksum = partial(tcp, start);
        packet.metadata_mut().segmentation = Some(Segmentation { kind, size: 1400, header_len: 0, ecn: false });
        packet.metadata_mut().vlan = Some(0x6007);
        assert!(card.transmit(std::vec![packet]).is_empty());
        let sent = card.fetch().remove(0);
        let low = 0x6007 << 16 | 14 << 9 | ip;
        let high = 1400 << 48 | transport << 40 | 2 << 20 | 1 << 29 | bits << 10;
        assert_eq!(sent.context, Some([low, high]));
        assert_eq!(sent.payload, 5000);
        let mut command = data::BASE | data::TSE | data::VLE | data::TXSM | data::CC;
        if ipv4 {
            command |= data::IXSM;
        }
        assert_eq!(sent.commands, [command, command, command | data::EOP | data::RS]);
        // What the card builds segments from: no lengths, no IP checksum, and a pseudo header without length.
        let (mut expected, _) = segment(ipv4, tcp, 5000);
        let zeroed: &[usize] = if ipv4 { &[16, 17, 24, 25] } else { &[18, 19] };
        zeroed.iter().for_each(|place| expected[*place] = 0);
        let field = usize::from(start) + if tcp { 16 } else { 6 };
        let old = u16::from_be_bytes([expected[field], expected[field + 1]]);
        let length = 5000 + transport as u16;
        expected[field..field + 2].copy_from_slice(&sum([old, !length].into_iter()).to_be_bytes());
        assert_eq!(sent.bytes, expected);
    }
}

#[test]
fn large_packets_whose_headers_make_no_sense_are_dropped() {
    let (bytes, start) = segment(true, true, 3000);
    let large = |card: &mut Card, change: &dyn Fn(&mut [u8], &mut Metadata)| {
        card.tx.setup.longest = 1522;
        let mut bytes = bytes.clone();
        let mut metadata = Metadata {
            checksum: partial(true, start),
            segmentation: Some(Segmentation { kind: SegmentationKind::TcpV4, size: 1400, header_len: 0, ecn: false }),
            ..Metadata::default()
        };
        change(&mut bytes, &mut metadata);
        let pieces: Vec<_> = bytes.chunks(2000).collect();
        let mut packet = card.chain(&pieces);
        *packet.metadata_mut() = metadata;
        assert!(card.transmit(std::vec![packet]).is_empty());
        card.tx.counters().dropped_total() == 1 && card.fetch().is_empty()
    };
    let cut = |metadata: &mut Metadata, size, kind, ecn| {
        metadata.segmentation = Some(Segmentation { kind, size, header_len: 0, ecn });
    };
    let v4 = SegmentationKind::TcpV4;
    type Change<'a> = &'a dyn Fn(&mut [u8], &mut Metadata);
    let changes: [Change<'_>; 10] = [
        &|_, metadata| cut(metadata, 0, v4, false),
        &|_, metadata| cut(metadata, 1500, v4, false),
        &|_, metadata| cut(metadata, 1400, SegmentationKind::TcpV6, false),
        &|_, metadata| cut(metadata, 1400, SegmentationKind::Udp, false),
        &|_, metadata| cut(metadata, 1400, v4, true),
        &|_, metadata| metadata.checksum = Checksum::Unknown,
        &|_, metadata| metadata.checksum = partial(true, 36),
        &|bytes, _| bytes[46] = 0x10,
        &|bytes, _| bytes[14] = 0x46,
        &|bytes, _| bytes[12] = 0x99,
    ];
    assert!(!large(&mut Card::new(2048), &|_, _| ()), "unchanged it is sent");
    for (number, change) in changes.iter().enumerate() {
        assert!(large(&mut Card::new(2048), change), "change {number}");
    }
}

#[test]
fn a_tag_to_insert_goes_into_the_context_and_tags_in_the_frame_are_part_of_its_header() {
    let mut card = Card::new(2048);
    let mut plain = card.packet(&frame(1));
    plain.metadata_mut().vlan = Some(0x2001);
    let (mut bytes, start) = segment(true, true, 10);
    bytes.splice(12..12, [0x81, 0, 0, 5]);
    let mut tagged = card.packet(&bytes);
    tagged.metadata_mut().checksum = partial(true, start + 4);
    assert!(card.transmit(std::vec![plain, tagged]).is_empty());
    let sent = card.fetch();
    assert_eq!(sent[0].context.unwrap()[0], 0x2001 << 16 | 14 << 9);
    assert_eq!(sent[0].commands[0], data::BASE | data::EOP | data::VLE | data::CC);
    assert_eq!(sent[1].context.unwrap()[0], 18 << 9 | 20);
    assert!(sent[1].commands[0] & data::VLE == 0);
}

#[test]
fn packets_of_all_kinds_that_fill_the_ring_leave_in_order() {
    let mut card = Card::new(2048);
    let mut number = 0;
    let mut expected: Vec<Vec<u8>> = Vec::new();
    let mut seen: Vec<Vec<u8>> = Vec::new();
    let mut batch = Batch::new(64);
    while expected.len() < 2000 {
        while batch.room() > 0 && card.pool.available() > 8 {
            number += 1;
            let mut packet = match number % 7 {
                0 => card.chain(&[&frame(number), &frame(number + 1)[..50]]),
                _ => card.packet(&frame(number)),
            };
            if number % 5 == 0 {
                packet.metadata_mut().vlan = Some((number % 50) as u16);
            }
            let mut bytes = std::vec![0; packet.len()];
            packet.copy_to(0, &mut bytes);
            expected.push(bytes);
            batch.push(packet).unwrap();
        }
        card.tx.transmit(&mut batch);
        let sent = card.fetch();
        seen.extend(sent.iter().map(|packet| packet.bytes.clone()));
        card.report(&sent);
    }
    assert!(seen.len() > 1000 && seen == expected[..seen.len()]);
    assert_eq!(card.tx.reclaim(), 0);
    batch.clear();
    assert_eq!(card.pool.available(), 300);
}
