//! Receiving from a card that follows a script, honest or not.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use hugemem::{Checksum, Metadata};
use std::vec::Vec;

use super::*;
use crate::ixgbe::registers::{EIMC, EIMS};
use crate::ixgbe::scripted::{Bench, Registers, TAIL, words, write_back};
use crate::nic::{DropReason, Offloads};

const SIZE: u16 = 64;
const DONE: u64 = ReceiveStatus::DD | ReceiveStatus::EOP;
const ALL: Offloads = Offloads::RX_CHECKSUM.union(Offloads::RSS).union(Offloads::VLAN_STRIP);

/// A queue, and the card's side of it.
struct Card {
    bench: Bench,
    rx: Rx<Registers>,
    head: u16,
}

impl Card {
    fn new(buffers: usize, longest: usize) -> Self {
        let bench = Bench::new();
        let pool = bench.pool(buffers, 2048);
        let mut rx = Rx::new(&bench.region, SIZE, pool, bench.health.clone(), 0).unwrap();
        rx.reset(&Stopped::confirmed(), ReceiveSetup { offloads: ALL, longest });
        rx.begin(bench.doorbell(), None);
        Self { bench, rx, head: 0 }
    }

    /// Buffers that the card may still fill.
    fn available(&self) -> u16 {
        let tail = self.bench.registers.get(TAIL.offset()).unwrap_or(0) as u16;
        (tail + SIZE - self.head) % SIZE
    }

    /// Fills the next buffer with `bytes` and says `length` and `status`. `false` when there is none.
    fn fill(&mut self, bytes: &[u8], length: usize, status: u64, info: u64) -> bool {
        if self.available() == 0 {
            return false;
        }
        let descriptor = self.rx.ring.get(self.head).unwrap();
        let [buffer, header] = words(descriptor);
        assert_eq!(header, 0, "the done bit is clear in a descriptor that the card holds");
        self.bench.write(buffer, bytes);
        write_back(descriptor, [info, status | (length as u64) << 32]);
        self.head = (self.head + 1) % SIZE;
        true
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        self.fill(bytes, bytes.len(), DONE, 0)
    }

    fn receive(&mut self) -> Batch {
        let mut batch = Batch::new(32);
        self.rx.receive(&mut batch);
        batch
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.rx.counters().dropped(reason)
    }
}

/// A frame that no other has.
fn frame(number: usize) -> Vec<u8> {
    (0..60 + number % 1400).map(|index| (number * 7 + index) as u8).collect()
}

#[test]
fn frames_arrive_in_order_and_whole_around_the_ring_many_times() {
    let mut card = Card::new(256, 1522);
    assert_eq!(card.available(), SIZE - 1, "a full ring is one descriptor short of its size");
    let (mut sent, mut received, mut bytes) = (0, 0, 0);
    for turn in 0..200 {
        for _ in 0..turn % 63 {
            bytes += frame(sent).len() as u64;
            assert!(card.send(&frame(sent)));
            sent += 1;
        }
        while received < sent {
            let batch = card.receive();
            assert!(!batch.is_empty());
            for packet in &batch {
                assert_eq!(packet.bytes(), frame(received));
                assert_eq!(*packet.metadata(), Metadata::default());
                received += 1;
            }
        }
    }
    assert!(sent > 10 * usize::from(SIZE));
    let counters = card.rx.counters();
    assert_eq!((counters.packets, counters.bytes, counters.dropped_total()), (sent as u64, bytes, 0));
}

#[test]
fn what_the_card_found_out_goes_into_the_metadata_as_far_as_it_was_asked_for() {
    let hashed = 0xdead_beef_0000_0001;
    let tag = 0xa123_u64 << 48 | ReceiveStatus::VP;
    let cases = [
        (0, 0, Metadata::default()),
        (ReceiveStatus::L4I, 0, Metadata { checksum: Checksum::Verified, ..Metadata::default() }),
        (ReceiveStatus::L4I | ReceiveStatus::L4E, 0, Metadata::default()),
        (ReceiveStatus::L4I | ReceiveStatus::IPE, 0, Metadata::default()),
        (ReceiveStatus::L4E, 0, Metadata::default()),
        (0, hashed, Metadata { hash: Some(0xdead_beef), ..Metadata::default() }),
        (0, hashed & !0xf, Metadata::default()),
        (tag, 0, Metadata { vlan: Some(0xa123), ..Metadata::default() }),
        (tag & !ReceiveStatus::VP, 0, Metadata::default()),
    ];
    let mut card = Card::new(256, 1522);
    for (status, info, expected) in cases {
        assert!(card.fill(&frame(0), 60, DONE | status, info));
        assert_eq!(*card.receive().as_slice()[0].metadata(), expected, "{status:#x}");
    }
    card.rx.frames.reset(ReceiveSetup { offloads: Offloads::empty(), longest: 1522 });
    assert!(card.fill(&frame(0), 60, DONE | ReceiveStatus::L4I | tag, hashed));
    assert_eq!(*card.receive().as_slice()[0].metadata(), Metadata::default());
}

#[test]
fn lengths_that_cannot_be_and_damaged_frames_are_dropped_and_counted() {
    let mut card = Card::new(128, 1522);
    for length in [0, 13, 2049, 0xffff] {
        assert!(card.fill(&[], length, DONE, 0));
    }
    assert!(card.fill(&frame(1), 61, DONE | ReceiveStatus::RXE, 0));
    assert!(card.send(&frame(2)));
    let batch = card.receive();
    assert_eq!(batch.len(), 1);
    assert_eq!(batch.as_slice()[0].bytes(), frame(2));
    assert_eq!((card.dropped(DropReason::BadLength), card.dropped(DropReason::Damaged)), (4, 1));
    assert_eq!(card.rx.counters().dropped_total(), 5);
    drop(batch);
    let outstanding = usize::from(card.rx.held);
    assert_eq!(card.rx.pool().available(), 128 - outstanding, "no buffer is lost");
}

#[test]
fn a_frame_of_several_buffers_is_one_packet_with_what_its_last_buffer_says() {
    let mut card = Card::new(256, 9022);
    let whole: Vec<u8> = (0..5000).map(|index| (index % 251) as u8).collect();
    for turn in 0..30 {
        assert!(card.fill(&whole[..2048], 2048, ReceiveStatus::DD | ReceiveStatus::L4I, 0));
        if turn % 2 == 0 {
            assert!(card.receive().is_empty(), "its end has not come");
        }
        assert!(card.fill(&whole[2048..4096], 2048, ReceiveStatus::DD, 0));
        assert!(card.fill(&whole[4096..], 904, DONE, 0x1234_5678_0000_0002));
        assert!(card.fill(&[], 0, ReceiveStatus::DD, 0), "a piece of nothing in front of the end cannot be");
        assert!(card.fill(&[1; 100], 100, DONE, 0));
        let batch = card.receive();
        assert_eq!(batch.len(), 1);
        let packet = &batch.as_slice()[0];
        let mut seen = std::vec![0; packet.len()];
        packet.copy_to(0, &mut seen);
        assert!(seen == whole && packet.segment_count() == 3);
        assert_eq!(*packet.metadata(), Metadata { hash: Some(0x1234_5678), ..Metadata::default() });
    }
    assert_eq!(card.dropped(DropReason::BadLength), 30);
    assert_eq!(card.bench.health.fault(), None, "all of them ended");
    // The check sequence alone can be in the last buffer, from which it was cut off.
    assert!(card.fill(&whole[..2048], 2048, ReceiveStatus::DD, 0) && card.fill(&[], 0, DONE, 0));
    let batch = card.receive();
    assert_eq!((batch.len(), batch.as_slice()[0].len(), batch.as_slice()[0].segment_count()), (1, 2048, 1));
}

#[test]
fn a_frame_that_never_ends_is_dropped_once_and_holds_few_buffers() {
    for length in [1, 2048] {
        let mut card = Card::new(128, 9022);
        for _ in 0..1000 {
            assert!(card.fill(&[], length, ReceiveStatus::DD, 0), "buffers stay available");
            assert!(card.receive().is_empty());
        }
        assert_eq!(card.rx.counters().dropped_total(), 1);
        let fault = card.bench.health.fault().unwrap();
        assert!(fault.contains("receive queue 0") && fault.contains("impossible number of buffers"), "{fault}");
        assert!(card.send(&frame(3)), "what ends it belongs to it");
        assert!(card.receive().is_empty());
        assert!(card.send(&frame(4)));
        assert_eq!(card.receive().as_slice()[0].bytes(), frame(4));
        let outstanding = usize::from(card.rx.held);
        assert_eq!(card.rx.pool().available(), 128 - outstanding);
    }
}

#[test]
fn a_pool_that_runs_dry_holds_frames_up_until_buffers_return() {
    // Fewer buffers than descriptors.
    let mut card = Card::new(20, 1522);
    assert_eq!(card.available(), 20);
    for round in 0..10 {
        for number in 0..20 {
            assert!(card.send(&frame(number)), "round {round}, frame {number}");
        }
        assert!(!card.send(&frame(99)));
        let batch = card.receive();
        assert_eq!(batch.len(), 20);
        assert_eq!((card.available(), card.receive().len()), (0, 0), "all buffers are away");
        drop(batch);
        assert_eq!(card.receive().len(), 0);
        assert_eq!(card.available(), 20, "and back");
    }
}

#[test]
fn a_frame_that_takes_the_last_buffers_is_given_up_for_them() {
    let mut card = Card::new(3, 9022);
    for _ in 0..3 {
        assert!(card.fill(&[], 2048, ReceiveStatus::DD, 0));
    }
    assert!(card.receive().is_empty());
    assert_eq!(card.dropped(DropReason::NoBuffer), 1);
    assert!(card.receive().is_empty());
    assert_eq!(card.available(), 3);
    assert!(card.send(&frame(1)) && card.receive().is_empty(), "its end");
    assert!(card.send(&frame(2)));
    assert_eq!(card.receive().as_slice()[0].bytes(), frame(2));
}

#[test]
fn done_bits_that_come_early_give_no_buffer_twice() {
    let mut card = Card::new(256, 1522);
    // Every descriptor is said to be done, over and over, also those that the driver has not given.
    for _ in 0..20 {
        for index in 0..SIZE {
            write_back(card.rx.ring.get(index).unwrap(), [0, DONE | 60 << 32]);
        }
        let mut places: Vec<_> = Vec::new();
        let mut batches: Vec<Batch> = Vec::new();
        for _ in 0..4 {
            let batch = card.receive();
            places.extend(batch.iter().map(|packet| packet.bytes().as_ptr()));
            batches.push(batch);
        }
        let count = places.len();
        assert!((32..=96).contains(&count));
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), count);
        assert_eq!(usize::from(card.rx.held) + count + card.rx.pool().available(), 256);
    }
}

#[test]
fn buffers_come_back_when_the_card_has_stopped_and_it_can_begin_again() {
    let mut card = Card::new(100, 9022);
    assert!(card.fill(&[], 2048, ReceiveStatus::DD, 0) && card.receive().is_empty());
    assert!(card.send(&frame(1)));
    card.rx.reset(&Stopped::confirmed(), ReceiveSetup { offloads: ALL, longest: 9022 });
    assert_eq!(card.rx.pool().available(), 100);
    assert_eq!(card.receive().len(), 0, "it is halted");
    card.rx.begin(card.bench.doorbell(), None);
    card.head = 0;
    assert!(card.send(&frame(2)));
    assert_eq!(card.receive().as_slice()[0].bytes(), frame(2));
}

#[test]
fn a_full_batch_leaves_frames_in_the_ring() {
    let mut card = Card::new(256, 1522);
    for number in 0..40 {
        assert!(card.send(&frame(number)));
    }
    let mut batch = Batch::new(3);
    assert_eq!(card.rx.receive(&mut batch), 3);
    assert_eq!(card.rx.receive(&mut batch), 0);
    batch.clear();
    let mut batch = Batch::new(64);
    assert_eq!(card.rx.receive(&mut batch), 37);
    assert_eq!(batch.as_slice()[36].bytes(), frame(39));
}

#[test]
fn the_tail_is_written_once_for_many_buffers() {
    let mut card = Card::new(256, 1522);
    card.bench.registers.take(TAIL.offset());
    for number in 0..8 {
        write_back(card.rx.ring.get(number).unwrap(), [0, DONE | 60 << 32]);
        assert_eq!(card.receive().len(), 1);
    }
    assert_eq!(card.bench.registers.get(TAIL.offset()), None);
    for number in 8..40 {
        write_back(card.rx.ring.get(number).unwrap(), [0, DONE | 60 << 32]);
    }
    assert_eq!(card.receive().len(), 32);
    assert_eq!(card.bench.registers.get(TAIL.offset()), Some(39));
}

#[test]
fn an_armed_queue_sleeps_only_when_nothing_waits_and_something_can_come() {
    let mut card = Card::new(20, 1522);
    assert!(!card.rx.arm(), "it has no interrupt");
    let registers = card.bench.registers.clone();
    card.rx.begin(card.bench.doorbell(), Some(Vector::new(registers.clone(), 3)));
    assert!(card.rx.arm());
    assert_eq!((registers.take(EIMS.offset()), registers.take(EIMC.offset())), (Some(8), None));
    card.rx.disarm();
    assert_eq!(registers.take(EIMC.offset()), Some(8));
    assert!(card.send(&frame(1)));
    assert!(!card.rx.arm(), "a frame came first");
    assert_eq!(registers.take(EIMC.offset()), Some(8));
    while card.send(&frame(2)) {}
    let batch = card.receive();
    assert_eq!(batch.len(), 20);
    assert!(!card.rx.arm(), "the card has no buffer to write to");
    drop(batch);
    assert!(card.rx.arm());
    assert_eq!(card.available(), 20);
    card.rx.reset(&Stopped::confirmed(), ReceiveSetup::default());
    assert!(!card.rx.arm());
}
