//! Descriptors that are right.

use std::time::{Duration, Instant};

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::mini::{COMPLETE, DATA, FILL, HALTED, IDLE, INTERRUPT, Mini, NULL, RING, SUSPENDED, at};
use crate::Random;
use crate::card::Options;
use crate::ioat::{Config, Doorbells};

#[test]
fn copies_of_any_length_and_alignment_arrive() {
    for (doorbells, message_dma) in [(Doorbells::Shared, false), (Doorbells::Trapped, false), (Doorbells::Shared, true)]
    {
        let config = Config { doorbells, ..Config::default() };
        let mut mini = Mini::with(config, Options { message_dma, ..Options::default() });
        mini.start(0);
        let mut random = Random::new(3);
        let target = DATA + (2 << 20);
        for round in 0..60 {
            let bytes = if round % 9 == 0 { 1 + random.below(1 << 20) } else { 1 + random.below(5000) };
            let (from, to) = (DATA + random.below(100), target + random.below(100));
            mini.fill(DATA, (bytes + 200) & !7, round);
            mini.fill(target, 256, round + 1000);
            let before = mini.bytes(target, 100);
            let at = mini.push(0, bytes, COMPLETE, from, to);
            mini.ring(0);
            mini.settle();
            assert_eq!(mini.completion(0), at | IDLE);
            assert_eq!(mini.status(0), at | IDLE);
            assert_eq!(mini.bytes(from, bytes), mini.bytes(to, bytes), "{bytes} bytes");
            let untouched = usize::try_from(to - target).unwrap();
            assert_eq!(mini.bytes(target, to - target), before[..untouched]);
        }
        assert!(mini.is_clean(), "{:?}", mini.control.violations());
        assert_eq!(mini.control.with(|chip, _| chip.counts().descriptors), 60);
    }
}

#[test]
fn a_pattern_fills_any_length() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    let pattern = 0xfedc_ba98_7654_3210_u64 | 0xffff << 48;
    for bytes in [1, 7, 8, 9, 4095, 4096, 4097, 20_003] {
        mini.fill(DATA, 20_480, bytes);
        let after = mini.bytes(DATA + 3 + bytes, 8);
        mini.push(0, bytes, FILL | COMPLETE, pattern, DATA + 3);
        mini.ring(0);
        mini.settle();
        let expected: Vec<u8> =
            pattern.to_le_bytes().into_iter().cycle().take(usize::try_from(bytes).unwrap()).collect();
        assert_eq!(mini.bytes(DATA + 3, bytes), expected);
        assert_eq!(mini.bytes(DATA + 3 + bytes, 8), after);
    }
    assert!(mini.is_clean());
}

#[test]
fn broken_pages_and_null_descriptors() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 0x8000, 1);
    let at = mini.push(0, 600, 0xc0 | COMPLETE, DATA + 0x1000 - 100, DATA + 0x10_3000 - 300);
    mini.put(at + 32, DATA + 0x5000);
    mini.put(at + 40, DATA + 0x10_8000);
    let last = mini.push(0, 1, NULL | COMPLETE, u64::MAX, u64::MAX);
    mini.ring(0);
    mini.settle();
    let source = [mini.bytes(DATA + 0x1000 - 100, 100), mini.bytes(DATA + 0x5000, 500)].concat();
    let target = [mini.bytes(DATA + 0x10_3000 - 300, 300), mini.bytes(DATA + 0x10_8000, 300)].concat();
    assert_eq!(source, target);
    assert_eq!(mini.completion(0), last | IDLE);
    assert!(mini.is_clean());
}

#[test]
fn the_ring_goes_round_and_the_count_wraps() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 64, 1);
    let mut last = 0;
    for _ in 0..(70_000 / RING) {
        for _ in 0..RING {
            last = mini.push(0, 8, COMPLETE, DATA, DATA + 64);
        }
        mini.ring(0);
        while !mini.device.poll().is_idle() {}
        assert_eq!(mini.completion(0), last | IDLE);
    }
    assert_eq!(mini.control.with(|chip, _| chip.counts().descriptors), 70_000);
    assert_eq!(mini.bytes(DATA, 8), mini.bytes(DATA + 64, 8));
}

#[test]
fn only_what_was_counted_is_done_and_only_what_asks_reports() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 64, 1);
    let silent = mini.push(0, 8, 0, DATA, DATA + 64);
    mini.ring(0);
    mini.push(0, 8, COMPLETE, DATA, DATA + 128);
    mini.settle();
    assert_eq!((mini.completion(0), mini.status(0)), (0, silent | IDLE));
    assert_eq!(mini.get(DATA + 64), mini.get(DATA));
    assert_eq!(mini.get(DATA + 128), 0);
}

#[test]
fn channels_are_apart() {
    let mut mini = Mini::new(Config { channels: 4, ..Config::default() });
    let mut interrupts = mini.function.interrupts(4).unwrap();
    mini.bar.store(0x03, 0x09_u8);
    mini.fill(DATA, 64, 1);
    let channels = [0_u8, 1, 2, 3];
    let ends = channels.map(|channel| {
        mini.start(channel);
        let target = DATA + 64 + 64 * u64::from(channel);
        (0..channel + 1).map(|_| mini.push(channel, 8, COMPLETE | INTERRUPT, DATA, target)).last().unwrap()
    });
    channels.iter().filter(|channel| **channel != 2).for_each(|channel| mini.ring(*channel));
    mini.settle();
    for (channel, end) in channels.into_iter().zip(ends) {
        let rung = channel != 2;
        assert_eq!(mini.completion(channel), if rung { end | IDLE } else { 0 });
        let copied = mini.get(DATA + 64 + 64 * u64::from(channel)) == mini.get(DATA);
        assert_eq!(copied, rung);
        assert_eq!(interrupts[usize::from(channel)].wait(Duration::ZERO).unwrap(), rung);
    }
}

#[test]
fn a_channel_is_suspended_and_resumed() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 1 << 20, 1);
    // One that takes several polls: it is not cut short.
    let first = mini.push(0, 1 << 20, COMPLETE, DATA, DATA + (1 << 20));
    let second = mini.push(0, 8, COMPLETE, DATA, DATA + (2 << 20));
    mini.ring(0);
    mini.device.poll();
    mini.bar.store(at::CHANCMD, 0x04_u8);
    mini.settle();
    assert_eq!(mini.status(0), first | SUSPENDED);
    assert_eq!(mini.completion(0), first);
    assert_eq!(mini.bytes(DATA, 1 << 20), mini.bytes(DATA + (1 << 20), 1 << 20));
    mini.ring(0);
    mini.settle();
    assert_eq!(mini.status(0), first | SUSPENDED, "a doorbell does not resume");
    mini.bar.store(at::CHANCMD, 0x10_u8);
    mini.settle();
    assert_eq!(mini.completion(0), second | IDLE);
    mini.bar.store(at::CHANCMD, 0x04_u8);
    assert_eq!(mini.status(0), second | SUSPENDED);
    // From there a new chain starts too.
    mini.start(0);
    let third = mini.push(0, 8, COMPLETE, DATA, DATA + (2 << 20) + 8);
    mini.ring(0);
    mini.settle();
    assert_eq!(mini.completion(0), third | IDLE);
    assert!(mini.is_clean());
}

#[test]
fn an_aborted_or_reset_channel_is_halted_and_starts_again() {
    for command in [0x08_u8, 0x20] {
        let mut mini = Mini::new(Config::default());
        mini.start(0);
        mini.fill(DATA, 1 << 20, 1);
        mini.push(0, 1 << 20, COMPLETE, DATA, DATA + (1 << 20));
        mini.ring(0);
        mini.device.poll();
        mini.bar.store(at::CHANCMD, command);
        mini.settle();
        assert_eq!((mini.status(0), mini.errors(0)), (HALTED, 0));
        assert_eq!(mini.completion(0), if command == 0x08 { HALTED } else { 0 }, "a reset reports nothing");
        assert_eq!(mini.get(DATA + (2 << 20) - 8), 0, "the rest of the copy did not take place");
        mini.recover(0);
        let at = mini.push(0, 8, COMPLETE, DATA, DATA + (1 << 20));
        mini.ring(0);
        mini.settle();
        assert_eq!(mini.completion(0), at | IDLE);
        assert!(mini.is_clean());
    }
}

#[test]
fn an_engine_on_its_own_thread_copies_while_the_driver_does_not_wait() {
    let mut mini = Mini::new(Config::default());
    mini.start(0);
    mini.fill(DATA, 1 << 16, 1);
    let spare = Mini::new(Config::default()).device;
    let running = std::mem::replace(&mut mini.device, spare).run().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    const BATCH: u64 = RING - 1;
    for round in 0..2000_u64 {
        let target = DATA + (1 << 20) + 64 * (round % 8);
        let mut last = 0;
        // Not the whole ring: its last completion is another one each time.
        for _ in 0..BATCH {
            last = mini.push(0, 1 << 12, COMPLETE, DATA + 64 * (round % 16), target);
        }
        mini.ring(0);
        while mini.completion(0) & !0x3f != last {
            assert!(Instant::now() < deadline, "the engine stands still at {round}");
            std::hint::spin_loop();
        }
        assert_eq!(mini.get(target + 4088), mini.get(DATA + 64 * (round % 16) + 4088));
    }
    assert_eq!(running.control().with(|chip, _| chip.counts().bytes), (2000 * BATCH) << 12);
    let mut device = running.stop().unwrap();
    assert!(device.poll().is_idle());
    assert!(mini.is_clean());
}
