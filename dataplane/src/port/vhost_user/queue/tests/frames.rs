//! Whole frames, frames in pieces, and frames that cannot be.

use super::*;
use hugemem::{Checksum, Segmentation, SegmentationKind};
use proptest::prelude::*;

const PLAIN_HEADER: [u8; HEADER] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

#[test]
fn frames_of_all_sizes_arrive_byte_for_byte_and_their_buffers_go_back_in_order() {
    for features in [USUAL, USUAL - Features::MRG_RXBUF, USUAL | Features::EVENT_IDX] {
        let (mut from, mut to) = pair(features);
        let sizes = [14, 15, 60, 64, 65, 127, 128, 129, 191, 192, 193, 1514, 1518, 4000, 4084];
        to.offer(64, BUFFER as u32);
        for (head, len) in (0..).zip(sizes) {
            from.send(head, head.into(), [0; HEADER], &frame(len, head as u8));
        }
        assert_eq!(forward(&mut from, &mut to), sizes.len());
        assert_eq!(from.driver.take_used(), None, "buffers go back when the frames have gone");
        for (head, len) in (0..).zip(sizes) {
            assert_eq!(to.take(), Some((PLAIN_HEADER.to_vec(), frame(len, head))), "{len} bytes");
        }
        assert_eq!(from.receive(&mut Batch::new(8)), 0);
        for head in 0..sizes.len() as u32 {
            assert_eq!(from.driver.take_used(), Some((head, 0)));
        }
        let bytes = sizes.iter().sum::<usize>() as u64;
        for counters in [from.queue.counters(), to.counters()] {
            assert_eq!((counters.packets, counters.bytes, counters.dropped_total()), (15, bytes, 0));
        }
    }
}

#[test]
fn a_large_frame_is_spread_over_as_many_buffers_as_it_takes() {
    let (mut from, mut to) = pair(USUAL);
    // 65,549 bytes in one chain of 17 buffers.
    let sent = frame(65_537, 3);
    let bytes = [&[0; HEADER][..], &sent].concat();
    from.driver.write(from.driver.buffer(0), &bytes);
    let parts: Vec<_> = bytes
        .chunks(BUFFER as usize)
        .zip(0..)
        .map(|(part, index)| (from.driver.buffer(index), part.len() as u32, 0))
        .collect();
    from.driver.offer_chain(0, &parts);
    to.offer(40, 1600);
    let mut batch = Batch::new(8);
    assert_eq!(from.receive(&mut batch), 1);
    assert_eq!(batch.as_slice()[0].len(), sent.len());
    assert_eq!(to.queue.transmit(&mut batch), 0, "40 buffers do not hold it: it waits");
    for head in 40..60 {
        to.driver.offer_chain(head, &[(to.driver.buffer(head.into()), 1600, WRITE)]);
    }
    assert_eq!(to.queue.transmit(&mut batch), 1);
    assert_eq!(to.driver.used_index(), 41);
    let (header, arrived) = to.take().unwrap();
    assert_eq!(header[10..], [41, 0]);
    assert!(arrived == sent);
}

#[test]
fn a_frame_that_no_buffer_can_ever_hold_is_dropped_and_those_behind_it_go_on() {
    let (mut from, mut to) = pair(USUAL - Features::MRG_RXBUF);
    to.offer(4, 1000);
    from.send(0, 0, [0; HEADER], &frame(989, 1));
    from.send(1, 1, [0; HEADER], &frame(988, 2));
    assert_eq!(forward(&mut from, &mut to), 2);
    assert_eq!(to.counters().dropped(DropReason::TooLong), 1);
    assert_eq!(to.take().unwrap().1, frame(988, 2));
    assert_eq!(to.take(), None);
}

#[test]
fn a_frame_larger_than_all_buffers_of_a_ring_together_does_not_wait_for_them() {
    let (mut from, _) = pair(USUAL);
    let mut to = to_vm(Driver::new(4, BUFFERS), USUAL);
    to.offer(4, 500);
    from.send(0, 0, [0; HEADER], &frame(1989, 1));
    from.send(1, 1, [0; HEADER], &frame(1988, 2));
    assert_eq!(forward(&mut from, &mut to), 2);
    assert_eq!(to.counters().dropped(DropReason::TooLong), 1);
    assert_eq!(to.take().unwrap().1, frame(1988, 2));
}

#[test]
fn frames_wait_in_the_batch_while_the_guest_has_no_buffers() {
    let (mut from, mut to) = pair(USUAL);
    to.offer(2, 2000);
    for head in 0..5 {
        from.send(head, head.into(), [0; HEADER], &frame(300, head as u8));
    }
    let mut batch = Batch::new(8);
    assert_eq!(from.receive(&mut batch), 5);
    assert_eq!(to.queue.transmit(&mut batch), 2);
    assert_eq!((batch.len(), to.queue.transmit(&mut batch)), (3, 0));
    // The two that went have given their buffers back, the three that wait have not.
    from.receive(&mut Batch::new(1));
    assert_eq!(from.driver.used_index(), 2);
    for head in 2..5 {
        to.driver.offer_chain(head, &[(to.driver.buffer(head.into()), 2000, WRITE)]);
    }
    assert_eq!(to.queue.transmit(&mut batch), 3);
    for head in 0..5 {
        assert_eq!(to.take().unwrap().1, frame(300, head));
    }
}

#[test]
fn buffers_go_back_in_order_even_when_frames_leave_in_another() {
    let (mut from, _) = pair(USUAL);
    for head in 0..4 {
        from.send(head, head.into(), [0; HEADER], &frame(300, 0));
    }
    let mut batch = Batch::new(8);
    from.receive(&mut batch);
    let mut packets: Vec<_> = batch.drain_front(4).collect();
    drop(packets.remove(2));
    from.receive(&mut batch);
    assert_eq!(from.driver.used_index(), 0);
    drop(packets.remove(0));
    from.receive(&mut batch);
    assert_eq!(from.driver.used_index(), 1);
    drop(packets);
    from.receive(&mut batch);
    assert_eq!((0..4).map(|_| from.driver.take_used().unwrap().0).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn a_buffer_that_is_used_again_before_its_chain_went_back_keeps_nobody_waiting() {
    let (mut from, _) = pair(USUAL);
    for head in 0..2 {
        from.send(head, head.into(), [0; HEADER], &frame(300, 0));
    }
    let mut batch = Batch::new(8);
    from.receive(&mut batch);
    let mut packets: Vec<_> = batch.drain_front(2).collect();
    // The second frame leaves first. The third gets its buffer.
    let second = packets.remove(1);
    let slot = second.slot();
    drop(second);
    from.receive(&mut batch);
    from.send(2, 2, [0; HEADER], &frame(300, 0));
    from.receive(&mut batch);
    assert_eq!(batch.as_slice()[0].slot(), slot);
    drop(packets);
    from.receive(&mut batch);
    assert_eq!(from.driver.used_index(), 2);
    batch.clear();
    from.receive(&mut batch);
    assert_eq!((0..3).map(|_| from.driver.take_used().unwrap().0).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn frames_that_cannot_be_are_dropped_by_name_and_their_buffers_go_back() {
    let (mut from, mut to) = pair(USUAL | Features::CSUM | Features::HOST_TSO4);
    to.offer(8, 2000);
    let at = from.driver.buffer(0);
    let mut bad = [0; HEADER];
    let offers = [
        (DropReason::BadLength, vec![(at, 0, 0)]),
        (DropReason::BadLength, vec![(at, 11, 0)]),
        (DropReason::BadLength, vec![(at, 25, 0)]),
        (DropReason::BadLength, vec![(at, 2000, WRITE)]),
        (DropReason::TooLong, vec![(at, 40_000, 0), (at, 40_000, 0)]),
        // More pieces than a packet has room for, and more than are looked at.
        (DropReason::TooLong, vec![(at, 12, 0); 100]),
    ];
    let mut head = 0;
    for (reason, parts) in offers {
        let before = from.dropped(reason);
        from.driver.offer_chain(head, &parts);
        head += parts.len() as u16;
        assert_eq!(forward(&mut from, &mut to), 0);
        assert_eq!(from.dropped(reason), before + 1, "{parts:?}");
    }
    let mut seventy = vec![(at, HEADER as u32 + 128, 0)];
    seventy.extend(vec![(at, 10, 0); 65]);
    from.driver.offer_chain(head, &seventy);
    assert_eq!(forward(&mut from, &mut to), 0);
    assert_eq!(from.dropped(DropReason::TooLong), 3);
    // A checksum behind the end of the frame; cutting without checksum; cutting into pieces of nothing; a kind that was not negotiated.
    let headers = [
        [1, 0, 0, 0, 0, 0, 90, 0, 16, 0],
        [0, 1, 54, 0, 100, 0, 34, 0, 16, 0],
        [1, 1, 54, 0, 0, 0, 34, 0, 16, 0],
        [1, 4, 54, 0, 100, 0, 34, 0, 16, 0],
    ];
    for (number, header) in (1..).zip(headers) {
        bad[..10].copy_from_slice(&header);
        from.send(0, 0, bad, &frame(100, 0x50));
        assert_eq!(forward(&mut from, &mut to), 0);
        assert_eq!(from.dropped(DropReason::BadHeader), number);
    }
    from.send(0, 0, [0; HEADER], &frame(100, 9));
    assert_eq!(forward(&mut from, &mut to), 1);
    assert_eq!(to.take().unwrap().1, frame(100, 9));
    from.receive(&mut Batch::new(1));
    assert_eq!(from.driver.used_index(), from.driver.index());
    assert_eq!(from.vring.fault(), None);
}

#[test]
fn offload_requests_travel_from_guest_to_guest() {
    let both = Features::CSUM | Features::HOST_TSO4 | Features::GUEST_CSUM | Features::GUEST_TSO4;
    let (mut from, mut to) = pair(USUAL | both);
    to.offer(8, 4000);
    let mut sent = frame(3000, 7);
    // TCP data offset: 5 words.
    sent[34 + 12] = 0x50;
    let header = [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    from.send(0, 0, header, &sent);
    let mut batch = Batch::new(4);
    from.receive(&mut batch);
    let metadata = *batch.as_slice()[0].metadata();
    assert_eq!(metadata.checksum, Checksum::Partial { start: 34, offset: 16 });
    let expected = Segmentation { kind: SegmentationKind::TcpV4, size: 1460, header_len: 54, ecn: false };
    assert_eq!(metadata.segmentation, Some(expected));
    to.queue.transmit(&mut batch);
    let (arrived, bytes) = to.take().unwrap();
    assert_eq!(arrived, [1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 1, 0]);
    assert!(bytes == sent);
    assert_eq!(to.queue.offloads(), drivers::nic::Offloads::TX_CHECKSUM | drivers::nic::Offloads::TSO4);
    // A guest that did not ask for such frames gets none.
    let mut plain = to_vm(Driver::new(SIZE, BUFFERS), USUAL);
    plain.offer(8, 4000);
    from.send(1, 0, header, &sent);
    assert_eq!(forward(&mut from, &mut plain), 1);
    assert_eq!(plain.counters().dropped(DropReason::NoOffload), 1);
    assert_eq!(plain.take(), None);
    assert!(plain.queue.offloads().is_empty());
}

#[test]
fn a_header_that_is_there_already_is_not_written_again() {
    let (mut from, mut to) = pair(USUAL);
    let stale = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
    to.driver.write(to.driver.buffer(0), &stale);
    to.driver.write(to.driver.buffer(1), &PLAIN_HEADER);
    to.offer(2, 2000);
    for head in 0..2 {
        from.send(head, head.into(), [0; HEADER], &frame(60, 1));
    }
    assert_eq!(forward(&mut from, &mut to), 2);
    for _ in 0..2 {
        assert_eq!(to.take().unwrap().0, PLAIN_HEADER);
    }
}

proptest! {
    /// However a frame is cut on one side and spread on the other, with pieces of all sizes.
    #[test]
    fn any_layout_carries_any_frame(
        len in 14_usize..9000,
        cuts in prop::collection::vec(1_usize..3000, 0..20),
        rooms in prop::collection::vec((1_u32..4000, 0_u32..2000), 80),
        mergeable: bool,
        seed: u8,
    ) {
        let features = if mergeable { USUAL } else { USUAL - Features::MRG_RXBUF };
        let (mut from, mut to) = pair(features);
        let sent = frame(len, seed);
        let bytes = [&[0; HEADER][..], &sent].concat();
        from.driver.write(from.driver.buffer(0), &bytes);
        let (mut parts, mut at) = (Vec::new(), 0);
        for cut in cuts {
            let part = cut.min(bytes.len() - at - 1);
            parts.push((from.driver.buffer(0) + at as u64, part as u32, 0));
            at += part;
        }
        parts.push((from.driver.buffer(0) + at as u64, (bytes.len() - at) as u32, 0));
        from.driver.offer_chain(0, &parts);
        // Chains of two buffers each; when one has to do, the second makes up for the first.
        let mut places = Vec::new();
        for (index, (first, second)) in (0..).zip(&rooms) {
            let first = *first;
            let second = if mergeable { (*second).max(12) } else { 9100 };
            let second = second.min(BUFFER as u32 * 3);
            // Buffers may overlap those of later chains, which are not used by then.
            let base = to.driver.buffer(if mergeable { index } else { 4 });
            places.push([(base, first.min(2000)), (base + 2000, if mergeable { second.min(2000) } else { second })]);
            let [one, two] = places[index as usize];
            to.driver.offer_chain(2 * index as u16, &[(one.0, one.1, WRITE), (two.0, two.1, WRITE)]);
        }
        prop_assert_eq!(forward(&mut from, &mut to), 1);
        prop_assert_eq!(to.counters().dropped_total(), 0);
        let mut arrived = Vec::new();
        let mut chains = 0_u16;
        while let Some((head, written)) = to.driver.take_used() {
            let mut left = written as usize;
            for (address, room) in places[head as usize / 2] {
                let part = left.min(room as usize);
                arrived.extend(to.driver.read(address, part));
                left -= part;
            }
            prop_assert_eq!(left, 0);
            chains += 1;
        }
        prop_assert_eq!(&arrived[10..12], &chains.to_le_bytes());
        prop_assert!(arrived[..10] == [0; 10]);
        prop_assert!(arrived[HEADER..] == sent);
    }
}
