#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use proptest::prelude::*;

use super::super::Chain;
use super::super::testing::{BUFFER, Driver, INDIRECT, NEXT, WRITE};
use super::*;

fn layout(driver: &Driver) -> Layout {
    Layout {
        size: driver.size,
        addresses: driver.addresses(),
        base: Base(0),
        event_index: false,
        indirect: true,
        skip_used: false,
        reads_only: false,
        inflight: None,
    }
}

fn ring(driver: &Driver) -> Split {
    Split::new(&driver.memory, layout(driver)).unwrap()
}

/// What one look gives: address, length, direction of each element of each chain.
fn look(driver: &Driver, ring: &mut Split, chains: &mut Chains) -> Result<(), RingFault> {
    ring.look(&driver.memory, 256, chains)
}

fn elements(chains: &Chains, chain: &Chain) -> Vec<(u64, u32, bool)> {
    let readable = chains.readable(chain).iter().map(|element| (element.address, element.len, false));
    readable.chain(chains.writable(chain).iter().map(|element| (element.address, element.len, true))).collect()
}

#[test]
fn chains_come_in_order_and_go_back_in_order() {
    let mut driver = Driver::new(8, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    for round in 0..5000_u64 {
        let buffer = driver.buffer(round % 8);
        let head = (round * 3 % 8) as u16;
        driver.offer_chain(head, &[(buffer, 12, 0), (buffer + 12, 100, WRITE)]);
        look(&driver, &mut ring, &mut chains).unwrap();
        let [chain] = chains.as_slice() else { panic!("one chain was offered: {chains:?}") };
        assert_eq!((chain.id, chain.descriptors), (head, 2));
        assert_eq!(elements(&chains, chain), [(buffer, 12, false), (buffer + 12, 100, true)]);
        let chain = *chain;
        ring.take(&chains, 1);
        ring.give_back(chain.id, chain.descriptors, 77);
        assert_eq!(driver.take_used(), None);
        assert!(ring.publish());
        assert_eq!(driver.take_used(), Some((head.into(), 77)));
    }
    assert_eq!(ring.base(), Base(5000));
}

#[test]
fn what_is_not_taken_stays_as_it_was_read_once() {
    let driver = Driver::new(8, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    driver.offer_chain(0, &[(driver.buffer(0), 60, 0)]);
    driver.offer_chain(1, &[(driver.buffer(1), 60, 0)]);
    look(&driver, &mut ring, &mut chains).unwrap();
    ring.take(&chains, 1);
    driver.describe(1, driver.buffer(2), 90, 0, 0);
    look(&driver, &mut ring, &mut chains).unwrap();
    assert_eq!(elements(&chains, &chains.as_slice()[0]), [(driver.buffer(1), 60, false)]);
    assert_eq!(chains.len(), 1);
    // Unless it is forgotten, as when memory changes.
    chains.clear();
    look(&driver, &mut ring, &mut chains).unwrap();
    assert_eq!(elements(&chains, &chains.as_slice()[0]), [(driver.buffer(2), 90, false)]);
    assert_eq!(chains.len(), 1);
}

#[test]
fn single_chains_are_read_ahead_and_come_in_order() {
    let driver = Driver::new(256, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    for head in 0..200 {
        driver.offer_chain(head, &[(driver.buffer(0), 60, 0)]);
    }
    let mut seen = Vec::new();
    for (limit, count) in [(8, 5), (8, 8), (70, 70), (4, 0), (256, 117), (8, 0)] {
        ring.look(&driver.memory, limit, &mut chains).unwrap();
        assert!(chains.len() <= limit);
        assert!(chains.with_ahead().len() <= limit + AHEAD);
        let taken = chains.as_slice().get(..count).unwrap();
        seen.extend(taken.iter().map(|chain| chain.id));
        for chain in taken {
            ring.give_back(chain.id, chain.descriptors, 0);
        }
        ring.take(&chains, count);
    }
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
    assert_eq!(chains.with_ahead().len(), 0);
}

#[test]
fn what_is_broken_ahead_shows_when_its_turn_comes() {
    let driver = Driver::new(64, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    for head in [0, 1, 2, 99] {
        driver.offer(head);
    }
    for head in 0..3 {
        driver.describe(head, driver.buffer(0), 60, 0, 0);
    }
    ring.look(&driver.memory, 2, &mut chains).unwrap();
    assert_eq!((chains.len(), chains.with_ahead().len()), (2, 3));
    ring.take(&chains, 2);
    let broken = ring.look(&driver.memory, 2, &mut chains);
    assert_eq!(broken, Err(RingFault::NoSuchDescriptor { index: 99, size: 64 }));
    assert_eq!(chains.len(), 1);
}

#[test]
fn every_rule_that_a_driver_breaks_is_a_fault_of_its_own() {
    let size = 8;
    type Break = fn(&Driver) -> RingFault;
    let table: [(&str, Break); 15] = [
        ("an index too far ahead", |driver| {
            driver.available[1].store(9, Ordering::Relaxed);
            RingFault::IndexJump { from: 0, to: 9, size: 8 }
        }),
        ("an index that goes back", |driver| {
            driver.available[1].store(u16::MAX, Ordering::Relaxed);
            RingFault::IndexJump { from: 0, to: u16::MAX, size: 8 }
        }),
        ("a head beyond the ring", |driver| {
            driver.offer(8);
            RingFault::NoSuchDescriptor { index: 8, size: 8 }
        }),
        ("a next beyond the ring", |driver| {
            driver.describe(3, driver.buffer(0), 60, NEXT, 500);
            driver.offer(3);
            RingFault::NoSuchDescriptor { index: 500, size: 8 }
        }),
        ("a descriptor that is its own next", |driver| {
            driver.describe(3, driver.buffer(0), 60, NEXT, 3);
            driver.offer(3);
            RingFault::ChainTooLong { head: 3, size: 8 }
        }),
        ("a cycle", |driver| {
            driver.describe(0, driver.buffer(0), 60, NEXT, 1);
            driver.describe(1, driver.buffer(0), 60, NEXT, 0);
            driver.offer(0);
            RingFault::ChainTooLong { head: 0, size: 8 }
        }),
        ("a buffer to read behind one to write", |driver| {
            driver.offer_chain(2, &[(driver.buffer(0), 60, WRITE), (driver.buffer(1), 60, 0)]);
            RingFault::Direction { head: 2 }
        }),
        ("a table of no multiple of 16 bytes", |driver| {
            driver.describe(0, driver.buffer(0), 24, INDIRECT, 0);
            driver.offer(0);
            RingFault::TableLength { len: 24 }
        }),
        ("an empty table", |driver| {
            driver.describe(0, driver.buffer(0), 0, INDIRECT, 0);
            driver.offer(0);
            RingFault::TableLength { len: 0 }
        }),
        ("a table longer than the ring", |driver| {
            driver.describe(0, driver.buffer(0), 9 * 16, INDIRECT, 0);
            driver.offer(0);
            RingFault::ChainTooLong { head: 0, size: 8 }
        }),
        ("a table that goes on in the ring", |driver| {
            driver.describe(0, driver.buffer(0), 16, INDIRECT | NEXT, 1);
            driver.offer(0);
            RingFault::BadFlags { head: 0, flags: INDIRECT | NEXT }
        }),
        ("a table in a table", |driver| {
            driver.table(driver.buffer(0), &[(driver.buffer(1), 16, INDIRECT, 0)]);
            driver.describe(0, driver.buffer(0), 16, INDIRECT, 0);
            driver.offer(0);
            RingFault::NestedTable { head: 0 }
        }),
        ("a next beyond the table", |driver| {
            driver.table(driver.buffer(0), &[(driver.buffer(1), 60, NEXT, 2), (driver.buffer(1), 60, 0, 0)]);
            driver.describe(0, driver.buffer(0), 32, INDIRECT, 0);
            driver.offer(0);
            RingFault::NoSuchDescriptor { index: 2, size: 2 }
        }),
        ("a cycle in a table", |driver| {
            driver.table(driver.buffer(0), &[(driver.buffer(1), 60, NEXT, 1), (driver.buffer(1), 60, NEXT, 0)]);
            driver.describe(0, driver.buffer(0), 32, INDIRECT, 0);
            driver.offer(0);
            RingFault::ChainTooLong { head: 0, size: 8 }
        }),
        ("a table that is not in memory", |driver| {
            driver.describe(0, 1 << 40, 32, INDIRECT, 0);
            driver.offer(0);
            RingFault::BadAddress { address: 1 << 40, len: 32 }
        }),
    ];
    for (name, break_rule) in table {
        let driver = Driver::new(size, 8);
        let (mut ring, mut chains) = (ring(&driver), Chains::default());
        // A good chain is found in front of the bad one.
        driver.offer_chain(5, &[(driver.buffer(5), 60, 0)]);
        look(&driver, &mut ring, &mut chains).unwrap();
        ring.take(&chains, 1);
        ring.give_back(5, 1, 0);
        ring.publish();
        let expected = match break_rule(&driver) {
            RingFault::IndexJump { from, to, size } => {
                // One chain is behind us.
                driver.available[1].store(to.wrapping_add(1), Ordering::Relaxed);
                RingFault::IndexJump { from: from + 1, to: to.wrapping_add(1), size }
            }
            fault => fault,
        };
        assert_eq!(look(&driver, &mut ring, &mut chains), Err(expected), "{name}");
        assert_eq!(chains.len(), 0, "{name}");
    }
}

#[test]
fn good_chains_in_front_of_a_bad_one_are_found() {
    let driver = Driver::new(8, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    driver.offer_chain(0, &[(driver.buffer(0), 60, 0)]);
    driver.offer_chain(1, &[(driver.buffer(1), 60, WRITE), (driver.buffer(1), 60, 0)]);
    driver.offer_chain(3, &[(driver.buffer(0), 60, 0)]);
    assert_eq!(look(&driver, &mut ring, &mut chains), Err(RingFault::Direction { head: 1 }));
    assert_eq!(chains.as_slice().iter().map(|chain| chain.id).collect::<Vec<_>>(), [0]);
}

#[test]
fn taken_and_available_chains_together_fill_the_ring_at_most() {
    let driver = Driver::new(8, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    for head in 0..8 {
        driver.offer_chain(head, &[(driver.buffer(0), 60, 0)]);
    }
    look(&driver, &mut ring, &mut chains).unwrap();
    ring.take(&chains, 8);
    driver.offer(0);
    let fault = RingFault::IndexJump { from: 8, to: 9, size: 8 };
    assert_eq!(look(&driver, &mut ring, &mut chains), Err(fault));
}

#[test]
fn a_ring_that_cannot_be_is_refused() {
    let driver = Driver::new(8, 1);
    for size in [0, 3, 12, 40_000] {
        let refused = Split::new(&driver.memory, Layout { size, ..layout(&driver) });
        assert_eq!(refused.unwrap_err(), RingFault::BadSize { size });
    }
    let outside = 1 << 50;
    let areas: [fn(&mut Addresses, u64); 3] =
        [|to, at| to.descriptors = at, |to, at| to.driver = at, |to, at| to.device = at];
    for set in areas {
        for address in [outside, driver.addresses().descriptors + 1, u64::MAX] {
            let mut addresses = driver.addresses();
            set(&mut addresses, address);
            let refused = Split::new(&driver.memory, Layout { addresses, ..layout(&driver) });
            assert!(matches!(refused, Err(RingFault::BadAddress { .. })), "{addresses:?}: {refused:?}");
        }
    }
}

#[test]
fn a_long_chain_is_cut_and_said_to_be() {
    let driver = Driver::new(256, 8);
    let (mut ring, mut chains) = (ring(&driver), Chains::default());
    let parts = vec![(driver.buffer(0), 1, 0); 200];
    driver.offer_chain(0, &parts);
    // A large table of which only two entries are used.
    let mut entries = vec![(0, 0, 0, 0); 256];
    entries[0] = (driver.buffer(1), 60, NEXT, 255);
    entries[255] = (driver.buffer(2), 60, 0, 0);
    driver.table(driver.buffer(4), &entries);
    driver.describe(201, driver.buffer(4), 256 * 16, INDIRECT, 0);
    driver.offer(201);
    look(&driver, &mut ring, &mut chains).unwrap();
    let [long, short] = chains.as_slice() else { panic!("{chains:?}") };
    assert!(long.cut && long.descriptors == 200 && chains.readable(long).len() == 72);
    assert!(!short.cut && short.descriptors == 1);
    assert_eq!(elements(&chains, short), [(driver.buffer(1), 60, false), (driver.buffer(2), 60, false)]);
}

#[test]
fn without_the_feature_there_are_no_tables() {
    let driver = Driver::new(8, 1);
    let mut ring = Split::new(&driver.memory, Layout { indirect: false, ..layout(&driver) }).unwrap();
    driver.describe(0, driver.buffer(0), 16, INDIRECT, 0);
    driver.offer(0);
    let found = look(&driver, &mut ring, &mut Chains::default());
    assert_eq!(found, Err(RingFault::BadFlags { head: 0, flags: INDIRECT }));
}

/// Passes `count` chains; gives how often the driver was to be signalled.
fn pass(driver: &Driver, ring: &mut Split, count: u16) -> bool {
    let mut chains = Chains::default();
    for head in 0..count {
        driver.offer_chain(head % driver.size, &[(driver.buffer(0), 60, 0)]);
    }
    look(driver, ring, &mut chains).unwrap();
    ring.take(&chains, usize::from(count));
    for chain in chains.as_slice() {
        ring.give_back(chain.id, chain.descriptors, 0);
    }
    ring.publish()
}

#[test]
fn signals_follow_the_drivers_flag() {
    let driver = Driver::new(8, 1);
    let mut ring = ring(&driver);
    assert!(pass(&driver, &mut ring, 3));
    assert!(!ring.is_unsettled());
    driver.silence();
    assert!(!pass(&driver, &mut ring, 3));
    // The wish comes after publishing: it is seen at rest, once.
    driver.listen(None);
    assert!(ring.is_unsettled() && ring.settle());
    assert!(!ring.is_unsettled());
}

#[test]
fn signals_follow_the_drivers_event() {
    let driver = Driver::new(8, 1);
    let mut ring = Split::new(&driver.memory, Layout { event_index: true, ..layout(&driver) }).unwrap();
    driver.listen(Some(5));
    assert!(!pass(&driver, &mut ring, 4));
    assert!(pass(&driver, &mut ring, 2));
    assert!(!pass(&driver, &mut ring, 8));
    // Index 6 was published and the driver asks for it only now.
    driver.listen(Some(6));
    assert!(ring.settle());
    driver.listen(Some(3));
    for _ in 0..10_000 {
        // 80,000 chains: the index wraps, and index 3 is passed exactly once.
        if pass(&driver, &mut ring, 8) {
            return;
        }
    }
    panic!("the event was never seen");
}

#[test]
fn kicks_are_wanted_only_while_armed() {
    for event_index in [false, true] {
        let driver = Driver::new(8, 1);
        let mut ring = Split::new(&driver.memory, Layout { event_index, ..layout(&driver) }).unwrap();
        let wants =
            |driver: &Driver, next| if event_index { driver.kick_event() == next } else { !driver.is_kick_off() };
        assert!(!wants(&driver, 0));
        assert!(ring.arm());
        assert!(wants(&driver, 0));
        ring.disarm();
        assert!(!wants(&driver, 0));
        pass(&driver, &mut ring, 2);
        driver.offer(0);
        assert!(!ring.arm(), "something is available");
        assert!(wants(&driver, 2));
    }
}

#[test]
fn one_entry_stands_for_a_run_when_chains_are_used_in_order() {
    let mut driver = Driver::new(8, 1);
    let mut ring = Split::new(&driver.memory, Layout { skip_used: true, ..layout(&driver) }).unwrap();
    assert!(pass(&driver, &mut ring, 5));
    assert_eq!(driver.used_index(), 5);
    // The head of the last chain stands where the first entry would.
    assert_eq!(driver.take_used(), Some((4, 0)));
}

#[test]
fn a_ring_goes_on_where_the_used_index_says() {
    let driver = Driver::new(8, 1);
    let mut first = ring(&driver);
    pass(&driver, &mut first, 3);
    let mut chains = Chains::default();
    driver.offer_chain(6, &[(driver.buffer(0), 60, 0)]);
    look(&driver, &mut first, &mut chains).unwrap();
    // Taken and never given back, as by a process that was killed.
    first.take(&chains, 1);
    assert_eq!(first.base(), Base(3));
    let mut second = Split::new(&driver.memory, Layout { base: Base(4), ..layout(&driver) }).unwrap();
    look(&driver, &mut second, &mut chains).unwrap();
    assert_eq!(chains.as_slice().iter().map(|chain| chain.id).collect::<Vec<_>>(), [6]);
}

#[test]
fn the_log_is_told_what_was_written() {
    let driver = Driver::new(8, 1);
    let mut ring = ring(&driver);
    pass(&driver, &mut ring, 6);
    let mut written = Vec::new();
    ring.take_written(|offset, len| written.push((offset, len)));
    assert_eq!(written, [(4, 48), (4, 0), (0, 4)]);
    pass(&driver, &mut ring, 4);
    written.clear();
    ring.take_written(|offset, len| written.push((offset, len)));
    assert_eq!(written, [(52, 16), (4, 16), (0, 4)]);
    written.clear();
    ring.take_written(|offset, len| written.push((offset, len)));
    assert_eq!(written, []);
}

proptest! {
    /// Chains of any shape, direct, in tables and both, in and out of order of their descriptors.
    #[test]
    fn any_chain_is_read_as_it_was_written(
        shapes in prop::collection::vec((1_usize..5, 0_usize..5, any::<bool>()), 1..8),
        lengths in prop::collection::vec(0_u32..5000, 8 * 8),
        shuffle in any::<prop::sample::Selector>(),
    ) {
        let driver = Driver::new(64, 16);
        let (mut ring, mut chains) = (ring(&driver), Chains::default());
        let mut free: Vec<u16> = (0..64).collect();
        let mut lengths = lengths.into_iter();
        let mut expected = Vec::new();
        for (readable, writable, indirect) in shapes {
            let take = |free: &mut Vec<u16>| {
                let at = *shuffle.select(&*free);
                free.retain(|one| *one != at);
                at
            };
            let parts: Vec<(u64, u32, bool)> = (0..readable + writable)
                .map(|index| (driver.buffer(index as u64 % 8), lengths.next().unwrap_or(1), index >= readable))
                .collect();
            let flags = |write: bool| if write { WRITE } else { 0 };
            let head = take(&mut free);
            if indirect {
                let at = driver.buffer(8) + u64::from(head) * 160;
                let last = parts.len() - 1;
                let entries: Vec<_> = parts.iter().enumerate().map(|(index, (address, len, write))| {
                    (*address, *len, flags(*write) | if index < last { NEXT } else { 0 }, index as u16 + 1)
                }).collect();
                driver.table(at, &entries);
                driver.describe(head, at, 16 * parts.len() as u32, INDIRECT, 0);
            } else {
                let mut index = head;
                for (step, (address, len, write)) in parts.iter().enumerate() {
                    if step + 1 < parts.len() {
                        let next = take(&mut free);
                        driver.describe(index, *address, *len, flags(*write) | NEXT, next);
                        index = next;
                    } else {
                        driver.describe(index, *address, *len, flags(*write), 0);
                    }
                }
            }
            driver.offer(head);
            expected.push((head, parts));
        }
        look(&driver, &mut ring, &mut chains).unwrap();
        let found: Vec<_> = chains.as_slice().iter().map(|chain| (chain.id, elements(&chains, chain))).collect();
        prop_assert_eq!(found, expected);
    }

    /// Whatever is in the ring: a look ends, and gives no more than the ring holds.
    #[test]
    fn no_ring_is_too_wild(
        words in prop::collection::vec((0_u64..16 * BUFFER, 0_u32..70_000, 0_u16..8, 0_u16..20), 16),
        heads in prop::collection::vec(0_u16..18, 16),
        index in any::<u16>(),
        tables in prop::collection::vec(any::<u8>(), 4096),
    ) {
        let driver = Driver::new(16, 16);
        let (mut ring, mut chains) = (ring(&driver), Chains::default());
        driver.write(driver.buffer(0), &tables);
        for (at, (address, len, flags, next)) in (0..).zip(&words) {
            driver.describe(at, driver.buffer(0) + *address, *len, *flags, *next);
        }
        for (place, head) in driver.available[2..].iter().zip(&heads) {
            place.store(*head, Ordering::Relaxed);
        }
        driver.available[1].store(index % 20, Ordering::Relaxed);
        let _ = look(&driver, &mut ring, &mut chains);
        prop_assert!(chains.len() <= 16);
    }
}
