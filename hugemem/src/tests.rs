//! Packets, pools and batches together.

#![allow(clippy::unwrap_used, reason = "tests")]

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU8;

use proptest::prelude::*;

use super::*;

fn pool(count: usize) -> PacketPool {
    let region = Region::on_heap(count * (HEADROOM + 256) + 4096, Iova::new(0x20_0000)).unwrap();
    region.packets(count, 256).unwrap()
}

fn packet(pool: &mut PacketPool, bytes: &[u8]) -> Packet {
    let mut packet = pool.take().unwrap();
    packet.write(bytes).unwrap();
    packet
}

fn content(packet: &Packet) -> Vec<u8> {
    packet.segments().flatten().copied().collect()
}

#[test]
fn moving_a_packet_moves_one_pointer_and_its_header_fills_one_cache_line() {
    assert_eq!(size_of::<Option<Packet>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<Lent>>(), size_of::<usize>());
    assert_eq!(size_of::<crate::pool::Header>(), 64);
}

#[test]
fn a_pool_gives_out_each_buffer_once_and_gets_all_back() {
    let mut pool = pool(3);
    let packets: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
    assert_eq!(packets.len(), 3);
    let mut starts: Vec<_> = packets.iter().map(|packet| packet.bytes().as_ptr() as usize).collect();
    starts.sort_unstable();
    assert!(starts.windows(2).all(|pair| pair[1] - pair[0] == HEADROOM + 256));
    assert!(starts.iter().all(|start| start % 64 == 0));
    drop(packets);
    assert_eq!(pool.available(), 3);
}

#[test]
#[expect(unsafe_code, reason = "the test is the device, and done")]
fn buffers_lent_straight_from_the_pool_come_back_with_what_was_written_and_nothing_else_known() {
    let mut pool = pool(3);
    let mut used = packet(&mut pool, &[1; 100]);
    used.metadata_mut().hash = Some(5);
    used.prepend(20).unwrap();
    drop(used);
    let mut places: Vec<Option<Lent>> = (0..5).map(|_| None).collect();
    assert_eq!(pool.lend_to(places.iter_mut().take(2), |place, lent| *place = Some(lent)), 2);
    assert_eq!(pool.lend_to(places.iter_mut().skip(2), |place, lent| *place = Some(lent)), 1);
    assert_eq!(pool.lend_to([()], |(), _| panic!("none is left")), 0);
    let addresses: Vec<_> = places.iter().flatten().map(|lent| lent.iova().raw()).collect();
    assert_eq!(addresses.len(), 3);
    assert!(addresses.windows(2).all(|pair| pair[0].abs_diff(pair[1]) >= (HEADROOM + 256) as u64));
    for lent in places.iter_mut().filter_map(Option::take) {
        assert_eq!((lent.capacity(), lent.len()), (256, 0));
        // SAFETY: there is no device.
        let packet = unsafe { lent.reclaim_received(77) }.unwrap();
        assert_eq!((packet.len(), packet.bytes().len(), packet.headroom()), (77, 77, HEADROOM));
        assert_eq!((*packet.metadata(), packet.segment_count()), (Metadata::default(), 1));
    }
    assert_eq!(pool.available(), 3);
}

#[test]
fn packets_may_be_dropped_on_another_thread_and_after_their_pool() {
    let mut pool = pool(8);
    let packets: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
    let thread = std::thread::spawn(move || drop(packets));
    drop(pool);
    thread.join().unwrap();
}

/// For Miri: a pool that one thread drops is freed while another is still on its way out of giving the last buffer back.
#[test]
fn a_pool_may_go_while_its_last_packets_are_being_dropped() {
    for _ in 0..if cfg!(miri) { 40 } else { 500 } {
        let mut pool = pool(2);
        let (one, other) = (pool.take().unwrap(), pool.take().unwrap());
        let threads = [one, other].map(|packet| std::thread::spawn(move || drop(packet)));
        drop(pool);
        for thread in threads {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_pool_refills_while_another_thread_returns() {
    let mut pool = pool(16);
    let (sender, receiver) = std::sync::mpsc::channel::<Packet>();
    let thread =
        std::thread::spawn(move || receiver.iter().map(|packet| usize::from(packet.bytes()[0])).sum::<usize>());
    let rounds = if cfg!(miri) { 100 } else { 20_000 };
    let mut sent = 0;
    while sent < rounds {
        if let Some(mut packet) = pool.take() {
            packet.write(&[1]).unwrap();
            sender.send(packet).unwrap();
            sent += 1;
        } else {
            std::thread::yield_now();
        }
    }
    drop(sender);
    assert_eq!(thread.join().unwrap(), rounds);
    assert_eq!(pool.available(), 16);
}

#[test]
fn headers_are_added_and_removed_in_the_headroom() {
    let mut pool = pool(1);
    let mut packet = packet(&mut pool, b"payload");
    packet.prepend(4).unwrap().copy_from_slice(b"head");
    assert_eq!(packet.bytes(), b"headpayload");
    assert_eq!(packet.headroom(), HEADROOM - 4);
    assert!(packet.trim_front(4));
    assert_eq!(packet.bytes(), b"payload");
    assert!(!packet.trim_front(8));
    assert!(packet.prepend(HEADROOM + 1).is_none());
    assert_eq!(packet.resize(257), Err(TooLong { len: 257, capacity: 256 }));
}

#[test]
fn a_chain_is_one_frame_and_goes_home_whole() {
    let mut pool = pool(4);
    let mut frame = packet(&mut pool, b"first ");
    frame.append(packet(&mut pool, b"second ")).unwrap();
    let mut tail = packet(&mut pool, b"third ");
    tail.append(packet(&mut pool, b"fourth")).unwrap();
    frame.append(tail).unwrap();
    assert_eq!(content(&frame), b"first second third fourth");
    assert_eq!((frame.len(), frame.segment_count()), (25, 4));
    let mut middle = [0; 10];
    assert_eq!(frame.copy_to(3, &mut middle), 10);
    assert_eq!(&middle, b"st second ");
    assert_eq!(frame.copy_to(22, &mut middle), 3);
    assert_eq!(frame.copy_to(26, &mut middle), 0);
    assert!(frame.resize(1).is_err());
    assert_eq!(pool.available(), 0);
    drop(frame);
    assert_eq!(pool.available(), 4);
}

#[test]
fn a_chain_of_two_pools_is_refused() {
    let (mut one, mut other) = (pool(1), pool(1));
    let mut frame = packet(&mut one, b"a");
    let refused = frame.append(packet(&mut other, b"b")).unwrap_err();
    assert_eq!(refused.bytes(), b"b");
    assert_eq!(content(&frame), b"a");
}

/// A piece that lies in `bytes`.
#[expect(unsafe_code, reason = "a static is somebody else's memory that stays")]
fn foreign(bytes: &'static [u8]) -> Foreign {
    let address = core::ptr::NonNull::from(bytes).cast();
    // SAFETY: the bytes are there for ever, and nobody writes to them.
    unsafe { Foreign::new(address, u32::try_from(bytes.len()).unwrap()) }
}

fn foreign_lengths(packet: &Packet) -> Vec<u32> {
    packet.foreign().iter().map(Foreign::len).collect()
}

fn pool_with_foreign(count: usize, pieces: u16) -> PacketPool {
    let region = Region::on_heap(count * (HEADROOM + 256), Iova::new(0)).unwrap();
    region.packets_with_foreign(count, 256, pieces).unwrap()
}

#[test]
fn foreign_pieces_follow_the_bytes_of_the_frame_and_nothing_follows_them() {
    let mut pool = pool_with_foreign(3, 2);
    let (mut frame, mut other) = (packet(&mut pool, b"head"), packet(&mut pool, b"other"));
    assert!(frame.attach(foreign(b"payload")));
    assert!(frame.attach(foreign(b"more")));
    assert!(!frame.attach(foreign(b"too many")), "the pool has two places for each packet");
    assert!(other.attach(foreign(b"elsewhere")));
    assert_eq!((frame.len(), content(&frame)), (15, b"head".to_vec()));
    assert_eq!(foreign_lengths(&frame), [7, 4]);
    assert_eq!(foreign_lengths(&other), [9]);
    assert_eq!(frame.copy_to(0, &mut [0; 20]), 4, "own bytes only");
    assert!(frame.resize(5).is_err());
    assert!(frame.write(b"new").is_err());
    let plain = packet(&mut pool, b"plain");
    let mut plain = frame.append(plain).unwrap_err();
    assert!(plain.append(other).is_err(), "pieces of a tail would be lost");
    assert!(frame.trim_front(3));
    assert_eq!((frame.len(), frame.bytes()), (12, &b"d"[..]));
}

#[test]
fn a_frame_is_cut_inside_its_foreign_pieces_and_in_front_of_them() {
    let mut pool = pool_with_foreign(2, 3);
    let whole = |pool: &mut PacketPool| {
        let mut frame = packet(pool, b"head");
        assert!([&b"one"[..], b"two", b"three"].into_iter().all(|bytes| frame.attach(foreign(bytes))));
        frame
    };
    for (len, own, pieces) in [
        (15, 4, &[3, 3, 5][..]),
        (14, 4, &[3, 3, 4]),
        (10, 4, &[3, 3]),
        (5, 4, &[1]),
        (4, 4, &[]),
        (2, 2, &[]),
        (0, 0, &[]),
    ] {
        let mut frame = whole(&mut pool);
        frame.truncate(len);
        assert_eq!((frame.len(), frame.bytes().len()), (len, own));
        assert_eq!(foreign_lengths(&frame), pieces);
        drop(frame);
        pool.sweep(|_| ());
    }
    let mut chain = packet(&mut pool, b"first");
    chain.append(packet(&mut pool, b"second")).unwrap();
    assert!(chain.attach(foreign(b"third")));
    chain.truncate(7);
    assert_eq!((content(&chain), chain.len(), chain.foreign().len()), (b"firstse".to_vec(), 7, 0));
}

#[test]
fn a_pool_with_foreign_pieces_gives_a_buffer_out_again_only_when_it_was_told_of() {
    let mut pool = pool_with_foreign(4, 1);
    let packets: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
    let slots: Vec<_> = packets.iter().map(Packet::slot).collect();
    assert_eq!(slots, [0, 1, 2, 3]);
    assert!(packets.into_iter().nth(2).is_some(), "all four go home");
    assert!(pool.take().is_none());
    assert_eq!(pool.available(), 0);
    let mut told = Vec::new();
    pool.sweep(|slot| told.push(slot));
    told.sort_unstable();
    assert_eq!(told, slots);
    pool.sweep(|slot| panic!("slot {slot} was told of already"));
    assert_eq!(pool.available(), 4);
    let mut again = pool.take().unwrap();
    assert!(again.foreign().is_empty() && again.attach(foreign(b"new")));
    let slot = again.slot();
    drop(again);
    pool.sweep(|home| assert_eq!(home, slot));
    assert_eq!(pool.take().unwrap().slot(), slot, "the buffer that came home last is the first to go out");
}

#[test]
fn a_sweep_tells_every_segment_of_a_chain() {
    let mut pool = pool_with_foreign(3, 1);
    let mut frame = packet(&mut pool, b"a");
    frame.append(packet(&mut pool, b"b")).unwrap();
    drop(frame);
    let mut told = Vec::new();
    pool.sweep(|slot| told.push(slot));
    assert_eq!(told, [0, 1]);
}

#[test]
fn a_lent_packet_names_its_pieces_and_comes_back() {
    let region = Region::on_heap(4096, Iova::new(0x40_0000)).unwrap();
    let mut pool = region.packets(2, 256).unwrap();
    let mut frame = packet(&mut pool, b"abc");
    frame.append(packet(&mut pool, b"defgh")).unwrap();
    let lent = frame.lend();
    let start = 0x40_0000 + HEADROOM as u64;
    let pieces: Vec<_> = lent.pieces().map(|piece| (piece.iova.raw(), piece.len)).collect();
    assert_eq!(pieces, [(start, 3), (start + (HEADROOM + 256) as u64, 5)]);
    #[expect(unsafe_code, reason = "no device in this test")]
    // SAFETY: no device ever had it.
    let frame = unsafe { lent.reclaim_sent() };
    assert_eq!(content(&frame), b"abcdefgh");
}

#[test]
#[expect(unsafe_code, reason = "no device in this test")]
fn a_device_that_claims_too_much_gets_its_buffer_taken_away() {
    let mut pool = pool(1);
    let lent = pool.take().unwrap().lend();
    assert_eq!(lent.capacity(), 256);
    // SAFETY: no device ever had it.
    assert!(unsafe { lent.reclaim_received(257) }.is_none());
    let lent = pool.take().unwrap().lend();
    // SAFETY: as above.
    assert_eq!(unsafe { lent.reclaim_received(256) }.unwrap().len(), 256);
    let lent = pool.take().unwrap().lend();
    // SAFETY: as above.
    assert!(unsafe { lent.reclaim_received(u32::MAX) }.is_none());
}

#[test]
fn what_is_lent_and_dropped_stays_away() {
    // Leaked with the packet on purpose; a static keeps leak checkers from reporting it.
    static LEAKED: std::sync::Mutex<Vec<PacketPool>> = std::sync::Mutex::new(Vec::new());
    let mut pool = pool(2);
    drop(pool.take().unwrap().lend());
    assert_eq!(pool.available(), 1);
    LEAKED.lock().unwrap().push(pool);
}

#[test]
fn a_batch_keeps_order_and_capacity() {
    let mut pool = pool(5);
    let mut batch = Batch::new(4);
    for number in 0..4 {
        batch.push(packet(&mut pool, &[number])).unwrap();
    }
    let refused = batch.push(packet(&mut pool, &[9])).unwrap_err();
    assert_eq!(refused.bytes(), [9]);
    drop(refused);
    let first: Vec<_> = batch.drain_front(2).map(|packet| packet.bytes()[0]).collect();
    assert_eq!(first, [0, 1]);
    batch.retain(|packet| packet.bytes()[0] != 2);
    assert_eq!(batch.iter().map(|packet| packet.bytes()[0]).collect::<Vec<_>>(), [3]);
    assert_eq!((batch.len(), batch.room()), (1, 3));
    batch.push(packet(&mut pool, &[4])).unwrap();
    batch.truncate(9);
    batch.truncate(1);
    assert_eq!(batch.iter().map(|packet| packet.bytes()[0]).collect::<Vec<_>>(), [3]);
    assert_eq!(pool.available(), 4);
    batch.clear();
    assert_eq!(pool.available(), 5);
}

#[test]
fn a_batch_of_several_pools_sends_each_packet_to_its_own() {
    let (mut one, mut other) = (pool(4), pool(4));
    let mut batch = Batch::new(8);
    for number in 0..4 {
        batch.push(packet(if number % 3 == 0 { &mut one } else { &mut other }, &[number])).unwrap();
    }
    batch.as_mut_slice()[0].append(packet(&mut one, b"tail")).unwrap();
    drop(batch);
    assert_eq!((one.available(), other.available()), (4, 4));
}

#[test]
fn rings_and_buffers_of_one_region_do_not_overlap() {
    let region = Region::on_heap(2 * 4096, Iova::new(0)).unwrap();
    let before = region.array::<AtomicU8>(100, 1).unwrap();
    let mut pool = region.packets(4, 256).unwrap();
    let after = region.array::<AtomicU8>(100, 1).unwrap();
    let mut packets: Vec<_> = core::iter::from_fn(|| pool.take()).collect();
    for packet in &mut packets {
        packet.prepend(HEADROOM).unwrap().fill(0xff);
        packet.resize(HEADROOM + 256).unwrap();
        packet.bytes_mut().fill(0xff);
    }
    let untouched = |words: &[AtomicU8]| words.iter().all(|word| word.load(core::sync::atomic::Ordering::Relaxed) == 0);
    assert!(untouched(&before) && untouched(&after));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_chain_behaves_as_its_bytes(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6),
        keep in 0_usize..300, trim in 0_usize..60, offset in 0_usize..300,
    ) {
        let mut pool = pool(8);
        let mut frame = packet(&mut pool, &parts[0]);
        for part in &parts[1..] {
            frame.append(packet(&mut pool, part)).unwrap();
        }
        let mut expected = parts.concat();
        frame.truncate(keep);
        expected.truncate(keep);
        prop_assert_eq!(&content(&frame), &expected);
        if trim <= frame.bytes().len() {
            prop_assert!(frame.trim_front(trim));
            expected.drain(..trim);
        } else {
            prop_assert!(!frame.trim_front(trim));
        }
        prop_assert_eq!(frame.len(), expected.len());
        let mut copy = vec![0; 40];
        let count = frame.copy_to(offset, &mut copy);
        let rest = expected.get(offset..).unwrap_or(&[]);
        prop_assert_eq!(&copy[..count], &rest[..rest.len().min(40)]);
        drop(frame);
        prop_assert_eq!(pool.available(), 8);
    }
}
