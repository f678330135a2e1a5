//! How descriptors come in: at once or in pieces, to dedicated and shared queues.
#![allow(clippy::unwrap_used, reason = "tests")]

use drivers::bus::{Bar, PciFunction};

use super::mini::{Mini, TOLD, command, operation};
use crate::dsa::{Config, Fault};

fn noop(number: u64) -> [u64; 8] {
    Mini::descriptor(number, operation::NOOP, TOLD, 0, 0, 0)
}

#[test]
fn a_descriptor_may_come_in_pieces() {
    let mut mini = Mini::lying(&[]);
    // Two at the same time, in turns, and backwards.
    let (one, other) = (noop(1), noop(2));
    for word in 0..8_u32 {
        mini.portals.store(8 * word, one[word as usize]);
        mini.portals.store(0x40 + 8 * (7 - word), other[7 - word as usize]);
    }
    // Words of four bytes.
    for (index, word) in (0_u32..).zip(noop(3)) {
        let halves = word.to_le_bytes();
        let half = |at: usize| u32::from_le_bytes([halves[at], halves[at + 1], halves[at + 2], halves[at + 3]]);
        mini.portals.store(0x1f80 + 8 * index, half(0));
        mini.portals.store(0x1f84 + 8 * index, half(4));
    }
    // A part is none.
    mini.portals.store(0x80, noop(4)[0]);
    mini.settle();
    assert_eq!([1, 2, 3, 4].map(|number| mini.status(number)), [1, 1, 1, 0]);
    assert_eq!(mini.control.with(|chip, _| chip.counts().descriptors), 3);
    assert!(mini.is_clean());
}

#[test]
fn a_full_dedicated_queue_drops() {
    let mut mini = Mini::new(Config::default());
    mini.start(&[4]);
    (0..6).for_each(|number| mini.submit(0, &noop(number)));
    mini.submit(1, &noop(7));
    mini.settle();
    assert_eq!((0..8).map(|number| mini.status(number)).collect::<Vec<_>>(), [1, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(mini.control.with(|chip, _| chip.counts().dropped), 3);
    let violations = mini.control.violations();
    assert!(violations.len() == 2 && violations[0].contains("was full") && violations[1].contains("not enabled"));
    assert!(!mini.portals.enqueue_block(0, &noop(8)), "it takes no deferrable writes");
    assert_eq!(mini.control.violations().len(), 3);
}

/// A shared queue of 8 entries, of which 3 may be taken by the limited portal.
fn shared(config: Config) -> Mini {
    let mut mini = Mini::new(config);
    if mini.control.with(|chip, _| chip.config().shared_needs_pasid) {
        mini.function.write_config(0x114, 1 << 16).unwrap();
    }
    mini.configure(&[8]);
    mini.bar.store(mini.queue(0) + 4, 3_u32);
    let pasid = if mini.control.with(|chip, _| chip.config().shared_needs_pasid) { 1 << 28 } else { 0 };
    mini.bar.store(mini.queue(0) + 8, pasid | 0x10_u32);
    assert_eq!(mini.command(command::ENABLE_DEVICE, 0), 0);
    assert_eq!(mini.command(command::ENABLE_WQ, 0), 0);
    mini
}

#[test]
fn a_shared_queue_says_whether_it_took_a_descriptor() {
    for shared_needs_pasid in [true, false] {
        let mut mini = shared(Config { shared_needs_pasid, ..Config::default() });
        let offer =
            |mini: &Mini, portal: u32, number| mini.portals.enqueue_block(0x1000 * portal + 0x40, &noop(number));
        assert_eq!((0..5).map(|number| offer(&mini, 1, number)).collect::<Vec<_>>(), [true, true, true, false, false]);
        assert!((5..10).all(|number| offer(&mini, 0, number)), "the unlimited portal has all entries");
        assert!(!offer(&mini, 0, 10));
        mini.settle();
        assert!(offer(&mini, 1, 3), "there is room again");
        mini.settle();
        assert_eq!((0..11).map(|number| mini.status(number)).collect::<Vec<_>>(), [1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0]);
        assert_eq!(mini.control.with(|chip, _| (chip.counts().retries, chip.counts().dropped)), (3, 0));
        assert!(mini.is_clean());
        mini.submit(0, &noop(12));
        mini.settle();
        assert_eq!((mini.status(12), mini.control.violations().len()), (0, 1), "it takes no posted writes");
        mini.control.with(|chip, _| chip.set_faults(&[Fault::PortalRetry.into()]));
        assert!(!offer(&mini, 1, 0));
    }
}

#[test]
fn a_privileged_descriptor_needs_permission() {
    let mut mini = shared(Config::default());
    let mut privileged = noop(0);
    privileged[0] |= 1 << 31 | 5;
    assert!(mini.portals.enqueue_block(0x1000, &privileged));
    mini.settle();
    assert_eq!(mini.status(0), 0x1d);
    mini.function.write_config(0x114, 5 << 16).unwrap();
    assert!(mini.portals.enqueue_block(0x1000, &privileged));
    mini.settle();
    assert_eq!(mini.status(0), 1);
}

#[test]
fn posted_writes_arrive_in_order_and_before_registers_are_read() {
    let mut mini = Mini::new(Config { entries: 2000, ..Config::default() });
    mini.start(&[2000]);
    // More than may be under way: the device takes them though nobody polls it.
    (0..1500).for_each(|number| mini.submit(0, &noop(number % 64)));
    assert_eq!(mini.bar.load::<u32>(mini.queue(0) + 24) & 0xffff, 1500);
    mini.settle();
    assert_eq!(mini.control.with(|chip, _| chip.counts().descriptors), 1500);
    assert!(mini.is_clean());
}
