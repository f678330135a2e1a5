#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use hugemem::{Foreign, Iova, Region, Segmentation};

pub(super) const V4: SegmentationKind = SegmentationKind::TcpV4;
pub(super) const V6: SegmentationKind = SegmentationKind::TcpV6;
pub(super) const UDP: SegmentationKind = SegmentationKind::Udp;
pub(super) const VM: Gives = Gives { foreign: true, large: true, tunnels: true };
pub(super) const CARD: Gives = Gives { foreign: false, large: true, tunnels: false };

pub(super) fn pool(count: usize, room: usize) -> PacketPool {
    Region::on_heap(count * (room + 256) + 4096, Iova::new(0)).unwrap().packets(count, room).unwrap()
}

pub(super) fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

/// A frame with headers of an odd length in front of `payload`, and where its transport header starts.
pub(super) fn frame(kind: SegmentationKind, v6: bool, payload: &[u8]) -> (Vec<u8>, u16) {
    let mut frame = [[2; 6], [4; 6]].concat();
    let transport: &[u8] = match kind {
        // With 12 bytes of options. Flags: FIN, PSH, ACK, CWR.
        V4 | V6 => &[
            1, 2, 3, 4, 0xff, 0xff, 0xfe, 0, 5, 6, 7, 8, 0x80, 0x99, 0x20, 0, 0xde, 0xad, 0, 0, 1, 1, 8, 10, 1, 2, 3,
            4, 5, 6, 7, 8,
        ],
        UDP => &[1, 2, 3, 4, 0, 0, 0xde, 0xad],
    };
    let number = if kind == UDP { 17 } else { 6 };
    if v6 {
        frame.extend([0x81, 0, 0, 5, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, number, 64]);
        frame.extend(1..=32);
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, number, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    let start = u16::try_from(frame.len()).unwrap();
    frame.extend(transport);
    frame.extend(payload);
    (frame, start)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The sum of RFC 1071, folded; all ones when a checksum in `bytes` is right.
fn sum(bytes: &[u8], more: u32) -> u32 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let mut total = words.sum::<u32>() + more;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

pub(super) fn large(packet: &mut Packet, kind: SegmentationKind, size: u16, start: u16) {
    let offset = if kind == UDP { 6 } else { 16 };
    packet.metadata_mut().checksum = Checksum::Partial { start, offset };
    packet.metadata_mut().segmentation = Some(Segmentation { kind, size, header_len: 0, ecn: kind != UDP });
}

/// Buffers that no device reaches.
fn machine_pool(count: usize) -> PacketPool {
    Region::on_heap(count * 2304 + 65_536, Iova::new(0)).unwrap().packets_with_foreign(count, 2048, 1).unwrap()
}

/// A packet of several buffers.
pub(super) fn packet(pool: &mut PacketPool, frame: &[u8]) -> Packet {
    let mut chunks = frame.chunks(pool.room());
    let mut whole = pool.take().unwrap();
    whole.write(chunks.next().unwrap()).unwrap();
    for chunk in chunks {
        let mut part = pool.take().unwrap();
        part.write(chunk).unwrap();
        whole.append(part).unwrap();
    }
    whole
}

/// A packet with the first bytes of `frame` of its own and the rest in pieces elsewhere.
#[expect(unsafe_code, reason = "pieces are addresses")]
pub(super) fn foreign(region: &Region, frame: &[u8], own: usize, piece: usize) -> (PacketPool, Packet) {
    let mut pool = region.packets_with_foreign(4, 128, 64).unwrap();
    let mut packet = pool.take().unwrap();
    let (own, rest) = frame.split_at(own.min(frame.len()));
    packet.write(own).unwrap();
    for part in rest.chunks(piece) {
        let bytes: &'static mut [u8] = Box::leak(part.to_vec().into_boxed_slice());
        let len = u32::try_from(bytes.len()).unwrap();
        // SAFETY: the bytes are never freed.
        let part = unsafe { Foreign::new(std::ptr::NonNull::from(bytes).cast(), len) };
        assert!(packet.attach(part));
    }
    (pool, packet)
}

pub(super) fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = vec![0; packet.len()];
    assert_eq!(whole::read(packet, 0, &mut bytes), packet.len());
    bytes
}

/// Adapts everything, with `limit` packets staged at a time that go away at once; gives what was staged.
pub(super) fn adapt(
    adapter: &mut Adapter,
    backlog: &mut Backlog,
    limit: usize,
    offloads: Offloads,
    statistics: &mut QueueStatistics,
) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for _ in 0..10_000 {
        if backlog.is_empty() {
            return all;
        }
        adapter.adapt(backlog, limit, offloads, statistics);
        assert!(backlog.stage.len() <= limit);
        all.extend(backlog.stage.iter().map(bytes_of));
        backlog.stage.clear();
    }
    panic!("it never ends");
}

fn check_segments(kind: SegmentationKind, v6: bool, size: usize, data: &[u8], pieces: &[Vec<u8>]) {
    let (whole, start) = frame(kind, v6, data);
    let start = usize::from(start);
    let network = if v6 { 18 } else { 14 };
    let headers = whole.len() - data.len();
    assert_eq!(pieces.len(), data.len().div_ceil(size));
    for (index, piece) in pieces.iter().enumerate() {
        let (at, last) = (index * size, index + 1 == pieces.len());
        assert_eq!(piece[headers..], data[at..(at + size).min(data.len())], "payload of segment {index}");
        let datagram = u32::try_from(piece.len() - start).unwrap();
        let protocol: u32 = if kind == UDP { 17 } else { 6 };
        let addresses = if v6 {
            assert_eq!(usize::from(word(piece, network + 4)), piece.len() - network - 40);
            network + 8..network + 40
        } else {
            assert_eq!(usize::from(word(piece, network + 2)), piece.len() - network);
            assert_eq!(word(piece, network + 4), 0xffff_u16.wrapping_add(u16::try_from(index).unwrap()));
            assert_eq!(sum(&piece[network..start], 0), 0xffff, "IPv4 header checksum");
            network + 12..network + 20
        };
        let pseudo = sum(&piece[addresses], protocol + datagram);
        assert_eq!(sum(&piece[start..], pseudo), 0xffff, "transport checksum of segment {index}");
        if kind == UDP {
            assert_eq!(u32::from(word(piece, start + 4)), datagram);
        } else {
            let sequence = (u32::from(word(piece, start + 4)) << 16) | u32::from(word(piece, start + 6));
            assert_eq!(sequence, 0xffff_fe00_u32.wrapping_add(u32::try_from(at).unwrap()));
            let expected = 0x10 | if last { 0x09 } else { 0 } | if index == 0 { 0x80 } else { 0 };
            assert_eq!(piece[start + 13], expected, "flags of segment {index}");
        }
    }
}

#[test]
fn large_packets_become_the_segments_that_a_card_would_send() {
    for (kind, v6) in [(V4, false), (V6, true), (UDP, false), (UDP, true)] {
        // Segments shorter and longer than a buffer, odd ones, and one that is all.
        for (len, size) in [(4000, 1448), (65_000, 1400), (9000, 3001), (100, 100), (101, 100), (5, 1)] {
            let data = payload(len);
            let (frame, start) = frame(kind, v6, &data);
            let mut source = pool(64, 2048);
            let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
            let (_slots, from_vm) = foreign(&region, &frame, 128, 4096);
            for (mut packet, gives) in [(packet(&mut source, &frame), CARD), (from_vm, VM)] {
                large(&mut packet, kind, u16::try_from(size).unwrap(), start);
                packet.metadata_mut().vlan = Some(7);
                let mut backlog = Backlog::new(4, gives);
                backlog.batch.push(packet).unwrap();
                // Few buffers, so that cutting has to wait and go on.
                let mut adapter = Adapter::new(false, Some(pool(7, 2048)));
                let mut statistics = QueueStatistics::default();
                let pieces = adapt(&mut adapter, &mut backlog, 5, Offloads::empty(), &mut statistics);
                check_segments(kind, v6, size, &data, &pieces);
                assert_eq!(statistics.cut, pieces.len() as u64 - 1);
                assert_eq!(statistics.counters.dropped_total(), 0);
            }
        }
    }
}

#[test]
fn a_queue_that_completes_checksums_gets_partial_ones() {
    let data = payload(3000);
    let (frame, start) = frame(V4, false, &data);
    let mut source = pool(8, 2048);
    let mut large_one = packet(&mut source, &frame);
    large(&mut large_one, V4, 1000, start);
    let mut backlog = Backlog::new(4, CARD);
    backlog.batch.push(large_one).unwrap();
    let mut adapter = Adapter::new(false, Some(pool(8, 2048)));
    assert!(!adapter.fits(&backlog.batch, CARD, Offloads::TX_CHECKSUM));
    assert!(adapter.fits(&backlog.batch, CARD, Offloads::all()));
    adapter.adapt(&mut backlog, 64, Offloads::TX_CHECKSUM, &mut QueueStatistics::default());
    assert_eq!(backlog.stage.len(), 3);
    for piece in &backlog.stage {
        assert_eq!(piece.metadata().checksum, Checksum::Partial { start, offset: 16 });
        assert_eq!(piece.metadata().segmentation, None);
        let bytes = bytes_of(piece);
        let pseudo = sum(&bytes[26..34], 6 + u32::try_from(bytes.len() - usize::from(start)).unwrap());
        assert_eq!(u32::from(word(&bytes, usize::from(start) + 16)), pseudo, "the sum of the pseudo header alone");
    }
}

#[test]
fn packets_of_a_vm_are_made_whole_for_queues_that_do_not_take_them() {
    for len in [14, 60, 128, 129, 1514, 9000, 65_000] {
        let frame = payload(len);
        let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
        for (own, piece) in [(128, 1100), (64, 1500), (len, 1)] {
            if own > 128 {
                continue;
            }
            let (_slots, mut packet) = foreign(&region, &frame, own, piece);
            packet.metadata_mut().hash = Some(5);
            let mut backlog = Backlog::new(4, VM);
            backlog.batch.push(packet).unwrap();
            let mut adapter = Adapter::new(false, Some(pool(40, 2048)));
            assert!(!adapter.fits(&backlog.batch, VM, Offloads::all()));
            assert!(adapter.adapt(&mut backlog, 64, Offloads::all(), &mut QueueStatistics::default()));
            let whole = &backlog.stage.as_slice()[0];
            assert!(whole.foreign().is_empty());
            assert_eq!((bytes_of(whole), whole.metadata().hash), (frame.clone(), Some(5)));
            assert!(backlog.batch.is_empty());
        }
    }
}

#[test]
fn packets_wait_for_buffers_in_order_and_none_is_lost() {
    let mut source = machine_pool(16);
    let mut backlog = Backlog::new(16, VM);
    for number in 0..16 {
        backlog.batch.push(packet(&mut source, &[number; 60])).unwrap();
    }
    let mut adapter = Adapter::new(false, Some(pool(3, 2048)));
    let mut statistics = QueueStatistics::default();
    assert!(!adapter.adapt(&mut backlog, 64, Offloads::all(), &mut statistics));
    assert_eq!((backlog.stage.len(), backlog.batch.len()), (3, 13));
    assert!(!adapter.adapt(&mut backlog, 64, Offloads::all(), &mut statistics), "nothing comes from nowhere");
    assert_eq!((backlog.stage.len(), backlog.batch.len()), (3, 13));
    let all = adapt(&mut adapter, &mut backlog, 3, Offloads::all(), &mut statistics);
    let order: Vec<u8> = all.iter().map(|bytes| bytes[0]).collect();
    assert_eq!(order, (0..16).collect::<Vec<u8>>());
    assert_eq!(statistics, QueueStatistics::default());
}

#[test]
fn what_can_never_be_sent_is_dropped_by_name() {
    let (whole, start) = frame(V4, false, &payload(3000));
    let mut source = machine_pool(64);
    let mut drop_of = |change: &dyn Fn(&mut Packet), pool: Option<PacketPool>, gives: Gives| {
        let mut bad = packet(&mut source, &whole);
        large(&mut bad, V4, 1000, start);
        change(&mut bad);
        let mut backlog = Backlog::new(4, gives);
        backlog.batch.push(bad).unwrap();
        backlog.batch.push(packet(&mut source, &[9; 60])).unwrap();
        let mut statistics = QueueStatistics::default();
        let mut adapter = Adapter::new(false, pool);
        let pieces = adapt(&mut adapter, &mut backlog, 64, Offloads::empty(), &mut statistics);
        let sent = pieces.len() as u64;
        assert_eq!(2 + statistics.cut, sent + statistics.counters.dropped_total(), "conserved");
        DropReason::ALL.into_iter().filter(|reason| statistics.counters.dropped(*reason) > 0).collect::<Vec<_>>()
    };
    let buffers = || Some(pool(16, 2048));
    assert_eq!(drop_of(&|_| {}, buffers(), CARD), [], "the packet that is changed is good");
    let changes: [&dyn Fn(&mut Packet); 8] = [
        &|packet| packet.metadata_mut().checksum = Checksum::Unknown,
        &|packet| packet.metadata_mut().checksum = Checksum::Partial { start: 34, offset: 6 },
        &|packet| packet.metadata_mut().checksum = Checksum::Partial { start: 10, offset: 16 },
        &|packet| packet.metadata_mut().checksum = Checksum::Partial { start: u16::MAX, offset: 16 },
        &|packet| large(packet, V4, 0, 34),
        &|packet| large(packet, V6, 1000, 34),
        // A header that is longer than it says, and one that is shorter than possible.
        &|packet| packet.bytes_mut()[14] = 0x46,
        &|packet| packet.bytes_mut()[46] = 0x40,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(drop_of(change, buffers(), CARD), [DropReason::BadHeader], "change {index}");
    }
    assert_eq!(drop_of(&|packet| packet.truncate(66), buffers(), CARD), [DropReason::BadHeader], "no payload");
    assert_eq!(drop_of(&|_| {}, None, CARD), [DropReason::NoOffload]);
    assert_eq!(drop_of(&|_| {}, None, VM), [DropReason::NoBuffer, DropReason::NoOffload]);
    let uncut: &dyn Fn(&mut Packet) = &|packet| *packet.metadata_mut() = hugemem::Metadata::default();
    assert_eq!(drop_of(uncut, Some(pool(1, 2048)), VM), [DropReason::NoBuffer], "longer than all buffers together");
    let outside: &dyn Fn(&mut Packet) = &|packet| {
        packet.metadata_mut().segmentation = None;
        packet.metadata_mut().checksum = Checksum::Partial { start: 3000, offset: 100 };
    };
    assert_eq!(drop_of(outside, buffers(), CARD), [DropReason::BadHeader]);
}

#[test]
fn checksums_are_completed_in_bytes_of_ours() {
    let (whole, start) = frame(UDP, false, &payload(301));
    let region = Region::on_heap(1 << 16, Iova::new(0)).unwrap();
    let (_slots, mut from_vm) = foreign(&region, &whole, 128, 100);
    from_vm.metadata_mut().checksum = Checksum::Partial { start, offset: 6 };
    let mut backlog = Backlog::new(4, VM);
    backlog.batch.push(from_vm).unwrap();
    // A queue to another VM, which does not want partial checksums.
    let mut adapter = Adapter::new(true, Some(pool(4, 2048)));
    assert!(adapter.fits(&backlog.batch, VM, Offloads::all()));
    assert!(!adapter.fits(&backlog.batch, VM, Offloads::empty()));
    adapter.adapt(&mut backlog, 64, Offloads::empty(), &mut QueueStatistics::default());
    let sent = &backlog.stage.as_slice()[0];
    assert!(sent.foreign().is_empty());
    assert_eq!(sent.metadata().checksum, Checksum::Verified);
    let bytes = bytes_of(sent);
    // The field was 0xdead, which stands for the sum of the pseudo header.
    assert_eq!(sum(&bytes[usize::from(start)..], 0xdead), 0xffff);
}
