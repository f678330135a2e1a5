//! The packed ring against an honest driver and against broken ones.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use proptest::prelude::*;

use super::driver::{BUFFERS, Driver, Part};
use super::*;

/// Index 0, wrap counter 1, for both sides.
pub(in super::super) const START: Base = Base(0x8000_8000);

fn device(driver: &Driver) -> Packed {
    Packed::new(&driver.memory, driver.layout(START, None)).unwrap()
}

fn buffer(index: u64) -> Part {
    (BUFFERS + 64 * index, 60, false)
}

/// Takes up to `limit` chains and gives them back with `written`; how many there were.
fn turn_around(ring: &mut Packed, driver: &Driver, limit: usize, written: u32) -> usize {
    let mut chains = Chains::default();
    ring.look(&driver.memory, limit, &mut chains).unwrap();
    ring.take(&chains, chains.len());
    for chain in chains.as_slice() {
        ring.give_back(chain.id, chain.descriptors, written);
    }
    chains.len()
}

/// What a look at a ring finds that `break_it` wrote to.
fn fault(size: u16, break_it: impl FnOnce(&mut Driver)) -> Option<RingFault> {
    let mut driver = Driver::new(size, false);
    let mut ring = device(&driver);
    break_it(&mut driver);
    ring.look(&driver.memory.clone(), 64, &mut Chains::default()).err()
}

#[derive(Clone, Debug)]
struct Buffer {
    parts: Vec<Part>,
    table: bool,
}

fn buffers() -> impl Strategy<Value = Vec<Buffer>> {
    let part = (0_u64..0x1000, 0_u32..4000);
    let buffer = (prop::collection::vec(part, 1..9), 0_usize..9, any::<bool>(), any::<bool>());
    let buffer = buffer.prop_map(|(parts, readable, single, table)| {
        let keep = if single { 1 } else { parts.len() };
        let parts = parts.into_iter().take(keep).enumerate();
        let parts = parts.map(|(index, (at, len))| (BUFFERS + 64 * at, len, index >= readable)).collect();
        Buffer { parts, table }
    });
    prop::collection::vec(buffer, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_buffer_is_seen_as_posted_and_comes_back_once(
        size in 1_u16..40, in_order: bool, buffers in buffers(), steps in prop::collection::vec((1_usize..9, 1_usize..9), 400),
    ) {
        let mut driver = Driver::new(size, in_order);
        let mut ring = device(&driver);
        let mut chains = Chains::default();
        let mut waiting = buffers.into_iter().filter(|buffer| buffer.parts.len() <= usize::from(size)).peekable();
        let (mut posted, mut seen, mut back) = (Vec::new(), Vec::new(), Vec::new());
        let mut taken = std::collections::VecDeque::new();
        let mut expected = Vec::new();
        for (limit, give) in steps {
            while let Some(buffer) = waiting.peek() {
                let Some(id) = driver.post(&buffer.parts, buffer.table) else { break };
                posted.push((id, buffer.parts.clone()));
                waiting.next();
            }
            ring.look(&driver.memory, limit, &mut chains).unwrap();
            prop_assert!(chains.len() <= limit);
            // Not all that was looked at is taken.
            let count = chains.len().div_ceil(2);
            ring.take(&chains, count);
            for chain in chains.as_slice().iter().take(count) {
                let part = |writable| move |element: &Element| (element.address, element.len, writable);
                let readable = chains.readable(chain).iter().map(part(false));
                let parts: Vec<Part> = readable.chain(chains.writable(chain).iter().map(part(true))).collect();
                seen.push((chain.id, parts));
                taken.push_back((chain.id, chain.descriptors));
            }
            for (number, (id, descriptors)) in taken.drain(..give.min(taken.len())).enumerate() {
                let written = if in_order { 0 } else { number as u32 * 100 };
                ring.give_back(id, descriptors, written);
                expected.push((id, written));
            }
            prop_assert!(driver.pop().is_none(), "nothing is shown before it is published");
            ring.publish();
            let base = ring.base().0;
            let all = driver.drain();
            if in_order {
                // One used descriptor says it of all.
                prop_assert!(all.len() <= 1);
                prop_assert_eq!(all.last(), expected.last());
            } else {
                back.extend(all);
            }
            prop_assert_eq!(base, u32::from(driver.used_place()) * 0x1_0001);
            if in_order { expected.clear(); }
        }
        prop_assert!(seen.len() <= posted.len());
        prop_assert_eq!(&seen[..], &posted[..seen.len()]);
        if !in_order {
            prop_assert_eq!(back, expected);
        }
    }

    #[test]
    fn a_signal_is_sent_exactly_when_the_awaited_place_is_passed(
        size in 1_u16..20, before in 0_u32..60, count in 1_u32..20, ahead in 0_u32..20,
    ) {
        let mut driver = Driver::new(size, false);
        let mut ring = device(&driver);
        driver.wish(0, 1);
        for _ in 0..before {
            driver.post(&[buffer(0)], false).unwrap();
            prop_assert_eq!(turn_around(&mut ring, &driver, 1, 0), 1);
            prop_assert!(!ring.publish());
            prop_assert_eq!(driver.drain().len(), 1);
        }
        prop_assert!(!ring.settle(), "the driver wants none");
        let count = count.min(size.into());
        let ahead = ahead % u32::from(size);
        let rounds = Rounds::new(size);
        let awaited = rounds.after(rounds.place_of(driver.used_place()).unwrap(), ahead);
        driver.wish(rounds.bits_of(awaited), 2);
        for _ in 0..count {
            driver.post(&[buffer(0)], false).unwrap();
        }
        turn_around(&mut ring, &driver, 64, 0);
        prop_assert_eq!(ring.publish(), ahead < count);
        prop_assert!(!ring.settle(), "it was sent, or is not due");
    }
}

#[test]
fn a_wish_that_raced_is_seen_when_settled() {
    let mut driver = Driver::new(8, false);
    let mut ring = device(&driver);
    let awaited = driver.used_place();
    driver.wish(0, 1);
    driver.post(&[buffer(0)], false).unwrap();
    turn_around(&mut ring, &driver, 8, 0);
    assert!(!ring.publish());
    assert!(ring.is_unsettled());
    // The driver did not see the descriptor yet when it wrote this.
    driver.wish(awaited, 2);
    assert!(ring.settle());
    assert!(!ring.is_unsettled());
    assert!(!ring.settle());
    driver.wish(0, 0);
    driver.post(&[buffer(0)], false).unwrap();
    turn_around(&mut ring, &driver, 8, 0);
    assert!(ring.publish(), "without a place, every batch is signalled");
    assert!(!ring.is_unsettled());
}

#[test]
fn kicks_are_asked_for_at_the_place_that_comes_next() {
    let mut driver = Driver::new(3, false);
    let mut ring = device(&driver);
    assert_eq!(driver.device_wish().1, 1, "off at first");
    for _ in 0..4 {
        driver.post(&[buffer(0)], false).unwrap();
        turn_around(&mut ring, &driver, 8, 0);
        ring.publish();
        driver.drain();
    }
    assert!(ring.arm());
    // Four descriptors on in a ring of three: index 1 in the second round.
    assert_eq!(driver.device_wish(), (1, 2));
    driver.post(&[buffer(0)], false).unwrap();
    assert!(!ring.arm(), "one is there");
    ring.disarm();
    assert_eq!(driver.device_wish().1, 1);
    let mut layout = driver.layout(START, None);
    layout.event_index = false;
    let mut ring = Packed::new(&driver.memory, layout).unwrap();
    ring.arm();
    assert_eq!(driver.device_wish(), (0, 0));
}

#[test]
fn a_batch_is_shown_at_once_and_told_to_the_log() {
    let mut driver = Driver::new(16, false);
    let mut ring = device(&driver);
    let mut written = Vec::new();
    for _ in 0..12 {
        driver.post(&[buffer(1)], false).unwrap();
    }
    turn_around(&mut ring, &driver, 64, 0);
    ring.publish();
    assert_eq!(driver.drain().len(), 12);
    ring.take_written(|at, len| written.push((at, len)));
    for _ in 0..9 {
        driver.post(&[buffer(1)], false).unwrap();
    }
    turn_around(&mut ring, &driver, 64, 77);
    ring.publish();
    assert_eq!(driver.drain().iter().map(|(_, len)| *len).collect::<Vec<_>>(), [77; 9]);
    ring.take_written(|at, len| written.push((at, len)));
    ring.take_written(|_, _| panic!("nothing was written since"));
    assert_eq!(written, [(0, 192), (0, 0), (192, 64), (0, 80)]);
}

#[test]
fn a_ring_that_is_used_up_shows_nothing_more_and_a_lie_about_it_is_a_fault() {
    let mut driver = Driver::new(4, false);
    let mut ring = device(&driver);
    let mut chains = Chains::default();
    for _ in 0..4 {
        driver.post(&[buffer(0)], false).unwrap();
    }
    ring.look(&driver.memory, 64, &mut chains).unwrap();
    ring.take(&chains, 4);
    ring.look(&driver.memory, 64, &mut chains).unwrap();
    assert_eq!(chains.len(), 0);
    // Available again, although none has come back.
    driver.write(0, BUFFERS, 60, 3, 0x8000);
    assert_eq!(ring.look(&driver.memory, 64, &mut chains), Err(RingFault::InUse { head: 3 }));
}

#[test]
fn good_chains_in_front_of_a_broken_one_are_given() {
    let mut driver = Driver::new(8, false);
    let mut ring = device(&driver);
    driver.post(&[buffer(0)], false).unwrap();
    driver.post(&[buffer(1), buffer(2)], false).unwrap();
    driver.write(3, BUFFERS, 60, 8, 0x80);
    let mut chains = Chains::default();
    let broken = ring.look(&driver.memory, 64, &mut chains);
    assert_eq!(broken, Err(RingFault::NoSuchDescriptor { index: 8, size: 8 }));
    assert_eq!(chains.len(), 2);
}

#[test]
fn every_broken_rule_is_a_fault_of_its_own() {
    const AVAILABLE: u16 = 0x80;
    let single = |flags: u16, len: u32| move |driver: &mut Driver| driver.write(0, BUFFERS, len, 5, AVAILABLE | flags);
    let table = |entry: u64, count: u32| {
        move |driver: &mut Driver| {
            let words = driver.memory.words::<[AtomicU64; 2]>(crate::guest::GuestAddress(BUFFERS), 64, Access::Write);
            for [_, rest] in words.unwrap().iter() {
                rest.store(entry, Ordering::Relaxed);
            }
            driver.write(0, BUFFERS, 16 * count, 5, AVAILABLE | 4);
        }
    };
    assert_eq!(fault(8, single(0, 60)), None);
    assert_eq!(fault(5, single(0, 60)), Some(RingFault::NoSuchDescriptor { index: 5, size: 5 }));
    assert_eq!(fault(5, single(4, 16)), Some(RingFault::NoSuchDescriptor { index: 5, size: 5 }));
    assert_eq!(fault(8, single(1, 60)), Some(RingFault::ChainCutOff { place: 0 }));
    assert_eq!(fault(8, single(4 | 1, 64)), Some(RingFault::BadFlags { head: 5, flags: AVAILABLE | 5 }));
    for len in [0, 15, 17, 100] {
        assert_eq!(fault(8, single(4, len)), Some(RingFault::TableLength { len }));
    }
    assert_eq!(fault(8, single(4, 16 * 9)), Some(RingFault::ChainTooLong { head: 5, size: 8 }));
    assert_eq!(fault(8, single(4, u32::MAX - 15)), Some(RingFault::ChainTooLong { head: 5, size: 8 }));
    assert_eq!(fault(8, table(60, 3)), None);
    assert_eq!(fault(8, table(60 | 4 << 48, 3)), Some(RingFault::NestedTable { head: 5 }));
    let outside = |driver: &mut Driver| driver.write(0, 0x80_0000 - 16, 32, 5, AVAILABLE | 4);
    assert_eq!(fault(8, outside), Some(RingFault::BadAddress { address: 0x80_0000 - 16, len: 32 }));
    let endless = |driver: &mut Driver| (0..8).for_each(|index| driver.write(index, BUFFERS, 60, 5, AVAILABLE | 1));
    assert_eq!(fault(8, endless), Some(RingFault::ChainTooLong { head: 5, size: 8 }));
    let backwards = |driver: &mut Driver| {
        driver.write(1, BUFFERS, 60, 5, AVAILABLE);
        driver.write(0, BUFFERS, 60, 5, AVAILABLE | 1 | 2);
    };
    assert_eq!(fault(8, backwards), Some(RingFault::Direction { head: 5 }));
    let table_in_chain = |driver: &mut Driver| {
        driver.write(1, BUFFERS, 16, 5, AVAILABLE | 4);
        driver.write(0, BUFFERS, 60, 5, AVAILABLE | 1);
    };
    assert_eq!(fault(8, table_in_chain), Some(RingFault::BadFlags { head: 5, flags: AVAILABLE | 4 }));
}

#[test]
fn a_table_is_read_no_further_than_a_frame_can_be_long() {
    let mut driver = Driver::new(256, false);
    let mut ring = device(&driver);
    let parts: Vec<Part> = (0..200).map(buffer).collect();
    driver.post(&parts[..LONGEST_CHAIN], true).unwrap();
    driver.post(&parts, true).unwrap();
    let mut chains = Chains::default();
    ring.look(&driver.memory, 64, &mut chains).unwrap();
    assert_eq!(chains.as_slice().iter().map(|chain| chain.cut).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn what_was_not_negotiated_is_a_fault_and_so_is_a_ring_that_cannot_be() {
    let mut driver = Driver::new(8, false);
    let mut layout = driver.layout(START, None);
    layout.indirect = false;
    let mut ring = Packed::new(&driver.memory, layout).unwrap();
    driver.post(&[buffer(0)], true).unwrap();
    let broken = ring.look(&driver.memory, 64, &mut Chains::default());
    assert!(matches!(broken, Err(RingFault::BadFlags { .. })), "{broken:?}");
    for size in [0, 32769] {
        let layout = Layout { size, ..driver.layout(START, None) };
        assert_eq!(Packed::new(&driver.memory, layout).err(), Some(RingFault::BadSize { size }));
    }
    let mut layout = driver.layout(START, None);
    layout.addresses.descriptors += 4;
    assert!(matches!(Packed::new(&driver.memory, layout).err(), Some(RingFault::BadAddress { .. })));
}

#[test]
fn a_ring_goes_on_where_it_was_whatever_the_frontend_says() {
    // Single descriptors as Linux and DPDK post them, and runs behind one used descriptor.
    for (in_order, rounds) in [(false, 0), (false, 1), (false, 37), (true, 23)] {
        for out in [0, 1, 5, 8] {
            let mut driver = Driver::new(8, in_order);
            let mut ring = device(&driver);
            for turn in 0..rounds {
                for _ in 0..(turn % 3) + 1 {
                    driver.post(&[buffer(0)], false).unwrap();
                }
                turn_around(&mut ring, &driver, 64, 0);
                ring.publish();
                driver.drain();
            }
            let mut ids = Vec::new();
            for _ in 0..out {
                ids.push(driver.post(&[buffer(0)], false).unwrap());
            }
            // Some are taken, and lost with the device.
            let mut chains = Chains::default();
            ring.look(&driver.memory, 3, &mut chains).unwrap();
            ring.take(&chains, chains.len());
            let right = ring.base();
            // In a full ring in which one used descriptor stands for many, the frontend is believed.
            if in_order && out == 8 {
                continue;
            }
            for base in [right, START, Base(0x0003_0003), Base(0x8007_8007)] {
                let mut next = Packed::new(&driver.memory, driver.layout(base, None)).unwrap();
                assert_eq!(next.base(), right, "told {base:x?}, {rounds} rounds, {out} out, in order {in_order}");
                next.look(&driver.memory, 64, &mut chains).unwrap();
                assert_eq!(chains.as_slice().iter().map(|chain| chain.id).collect::<Vec<_>>(), ids);
            }
        }
    }
}

#[test]
fn the_frontend_is_believed_about_chains_of_which_the_rest_looks_available() {
    let mut driver = Driver::new(8, false);
    let mut ring = device(&driver);
    for _ in 0..11 {
        driver.post(&[buffer(0), buffer(1), buffer(2)], false).unwrap();
        turn_around(&mut ring, &driver, 64, 0);
        ring.publish();
        driver.drain();
        driver.post(&[buffer(0)], false).unwrap();
        let next = Packed::new(&driver.memory, driver.layout(ring.base(), None)).unwrap();
        assert_eq!(next.base(), ring.base());
        turn_around(&mut ring, &driver, 64, 0);
        ring.publish();
        driver.drain();
    }
}

#[test]
fn all_comes_back_from_a_device_that_died_in_the_middle_of_a_batch() {
    // With single descriptors alone, and in a ring in which chains of three have left their traces.
    for (chained, rounds) in [(false, 0), (false, 5), (true, 1), (true, 6)] {
        for (count, given_back) in [(1, 1), (4, 1), (4, 2), (6, 5), (7, 7)] {
            let mut driver = Driver::new(16, false);
            let mut ring = device(&driver);
            for _ in 0..rounds {
                let parts = [buffer(0), buffer(1), buffer(2)];
                driver.post(if chained { &parts } else { &parts[..1] }, false).unwrap();
                turn_around(&mut ring, &driver, 64, 0);
                ring.publish();
                driver.drain();
            }
            let mut posted: Vec<u16> = (0..count).map(|_| driver.post(&[buffer(0)], false).unwrap()).collect();
            let mut chains = Chains::default();
            ring.look(&driver.memory, 64, &mut chains).unwrap();
            ring.take(&chains, chains.len());
            for chain in chains.as_slice().iter().take(given_back) {
                ring.give_back(chain.id, chain.descriptors, 0);
            }
            drop(ring);
            let mut next = Packed::new(&driver.memory, driver.layout(START, None)).unwrap();
            turn_around(&mut next, &driver, 64, 0);
            next.publish();
            let mut came: Vec<u16> = driver.drain().into_iter().map(|(id, _)| id).collect();
            came.sort_unstable();
            posted.sort_unstable();
            assert_eq!(came, posted, "chained {chained}, {rounds} rounds, {given_back} of {count} given back");
        }
    }
}
