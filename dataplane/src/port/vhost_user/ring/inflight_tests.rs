//! In-flight regions, and devices that die at every store.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::super::packed::driver::{BUFFERS, Driver, Part};
use super::super::packed::tests::START;
use super::super::{Base, Chains, Packed, Ring};
use super::*;
use crate::guest::testing;

thread_local! {
    /// Stores until this thread's device dies.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// What a device dies of.
struct Killed;

/// Counts a store; the device dies instead of the last.
pub(super) fn step() {
    let left = LEFT.get();
    if left == 0 {
        LEFT.set(u64::MAX);
        resume_unwind(Box::new(Killed));
    }
    LEFT.set(left - 1);
}

/// Runs `work` until it has done `stores` stores. `None` when it was killed then.
fn until<T>(stores: u64, work: impl FnOnce() -> T) -> Option<T> {
    LEFT.set(stores);
    let result = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(u64::MAX);
    match result {
        Ok(done) => Some(done),
        Err(reason) if reason.is::<Killed>() => None,
        Err(reason) => resume_unwind(reason),
    }
}

fn written(id: u16) -> u32 {
    1000 + u32::from(id)
}

fn buffer(index: u64, parts: u64) -> Vec<Part> {
    (0..parts).map(|part| (BUFFERS + 64 * (8 * index + part), 60, true)).collect()
}

/// Whether a driver that has `posted` these got all of them back, in order, each once and with the right length. A device that has no
/// region may return the first of a batch empty.
fn all_came_back(posted: &[u16], back: &[(u16, u32)], in_order: bool, region: bool) -> Result<(), String> {
    let ids: Vec<u16> = back.iter().map(|(id, _)| *id).collect();
    let right = if in_order { posted.last() == ids.last() } else { posted == ids };
    let lengths =
        back.iter().all(|(id, len)| *len == if in_order { 0 } else { written(*id) } || (!region && *len == 0));
    if right && lengths { Ok(()) } else { Err(format!("posted {posted:?}, came back {back:?}")) }
}

/// One life of a device: it starts, takes all, and gives it back in batches of `batch`.
fn live(driver: &Driver, base: Base, inflight: Option<Inflight>, batch: usize, in_order: bool) {
    let mut ring = Packed::new(&driver.memory, driver.layout(base, inflight)).unwrap();
    let mut chains = Chains::default();
    loop {
        ring.look(&driver.memory, batch, &mut chains).unwrap();
        if chains.len() == 0 {
            return;
        }
        ring.take(&chains, chains.len());
        for chain in chains.as_slice() {
            ring.give_back(chain.id, chain.descriptors, if in_order { 0 } else { written(chain.id) });
        }
        ring.publish();
    }
}

/// Kills a device at each of its stores in turn, twice when `twice`, and lets another one finish. How many stores there were.
fn kill_everywhere(size: u16, parts: u64, in_order: bool, region: bool, rounds: u64, twice: bool) -> u64 {
    for stores in 0.. {
        let mut driver = Driver::new(size, in_order);
        let kept = Region::create(Format::Packed, 1, size).unwrap().0;
        let inflight = || region.then(|| kept.queue(0).unwrap());
        // Some rounds in peace, to get to an arbitrary place. What the frontend says is out of date.
        let mut base = START;
        for _ in 0..rounds {
            base = Base(driver.used_place().into());
            driver.post(&buffer(0, 1), false).unwrap();
            live(&driver, base, inflight(), 1, in_order);
            driver.drain();
        }
        let mut posted = Vec::new();
        // In a full ring in which one used descriptor stands for many, the ring alone cannot tell.
        let most = if region || !in_order { usize::from(size) } else { usize::from(size / 2) };
        while posted.len() < most
            && let Some(id) = driver.post(&buffer(posted.len() as u64, parts), false)
        {
            posted.push(id);
        }
        let mut back = Vec::new();
        let done = until(stores, || live(&driver, base, inflight(), 3, in_order)).is_some();
        // The driver may look now, and post again, or only later.
        if stores % 2 == 0 {
            back.extend(driver.drain());
            let more = driver.post(&buffer(77, 1), false);
            posted.extend(more);
        }
        if twice {
            let _ = until(stores / 2, || live(&driver, base, inflight(), 2, in_order));
            back.extend(driver.drain());
        }
        live(&driver, base, inflight(), 4, in_order);
        back.extend(driver.drain());
        let outcome = all_came_back(&posted, &back, in_order, region);
        assert_eq!(
            outcome,
            Ok(()),
            "killed at store {stores}, size {size}, chains of {parts}, in order {in_order}, after {rounds}"
        );
        assert!(driver.outstanding().is_empty());
        if done {
            return stores;
        }
    }
    unreachable!("a device comes to an end")
}

#[test]
fn a_packed_ring_loses_nothing_and_returns_nothing_twice_wherever_the_device_is_killed() {
    for (size, parts) in [(8, 1), (7, 1), (12, 3), (1, 1), (5, 2)] {
        for in_order in [false, true] {
            for rounds in [0, 1, 5, 13] {
                for twice in [false, true] {
                    let stores = kill_everywhere(size, parts, in_order, true, rounds, twice);
                    assert!(stores > 2, "the device was killed at {stores} stores only");
                }
            }
        }
    }
}

#[test]
fn a_packed_ring_without_region_goes_on_wherever_the_device_is_killed() {
    // Of single descriptors the ring itself tells where the device was.
    for size in [8, 7, 5] {
        for in_order in [false, true] {
            for rounds in [0, 1, 5, 13] {
                assert!(kill_everywhere(size, 1, in_order, false, rounds, false) > 0);
            }
        }
    }
}

#[test]
fn a_region_of_a_guest_that_was_restarted_is_not_believed() {
    let mut driver = Driver::new(8, false);
    let region = Region::create(Format::Packed, 1, 8).unwrap().0;
    for _ in 0..5 {
        driver.post(&buffer(0, 1), false).unwrap();
        live(&driver, START, region.queue(0), 1, false);
        driver.drain();
    }
    // As new, and the device was not there to see it.
    let mut driver = Driver::new(8, false);
    let posted: Vec<u16> = (0..3).map(|index| driver.post(&buffer(index, 1), false).unwrap()).collect();
    live(&driver, START, region.queue(0), 4, false);
    assert_eq!(all_came_back(&posted, &driver.drain(), false, true), Ok(()));
    assert_eq!(region.queue(0).unwrap().resume_packed(8).unwrap().unwrap().to, 0x8003);
}

#[test]
fn regions_have_the_specified_layout() {
    for (format, header, entry) in [(Format::Split, 16, 16), (Format::Packed, 32, 32)] {
        for size in [1_u64, 2, 255, 256, 1024] {
            let part = Region::len(format, 1, size as u16).unwrap();
            assert_eq!(part, (header + entry * size).next_multiple_of(64));
            let (region, _, len) = Region::create(format, 4, size as u16).unwrap();
            assert_eq!(len, 4 * part);
            assert!(region.queue(3).is_some());
            assert!(region.queue(4).is_none());
        }
    }
    let (region, file, len) = Region::create(Format::Split, 2, 256).unwrap();
    region.queue(1).unwrap().resume_split(256, 7).unwrap();
    region.queue(1).unwrap().published_split(0x1234);
    let other = Memory::empty().with(testing::spec(0, len), file, &MapOptions::default()).unwrap();
    let bytes = |at: u64, count: usize| {
        let words =
            other.words::<std::sync::atomic::AtomicU8>(GuestAddress(len / 2 + at), count, Access::Read).unwrap();
        words.iter().map(|byte| byte.load(Ordering::Relaxed)).collect::<Vec<_>>()
    };
    // Features, version, number of descriptors, last batch, used index.
    assert_eq!(bytes(0, 16), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0x34, 0x12]);
}

#[test]
fn regions_that_cannot_be_are_refused() {
    for (queues, size) in [(0, 256), (1025, 256), (1, 0), (1, 32769)] {
        let refused = Region::create(Format::Packed, queues, size);
        assert!(matches!(refused, Err(InflightError::Geometry { .. })), "{refused:?}");
    }
    let adopt = |len: u64, claimed: u64, offset: u64| {
        Region::adopt(testing::file(len).into(), offset, claimed, Format::Split, 2, 256, &MapOptions::default())
    };
    assert!(adopt(16384, 16384, 0).is_ok());
    assert!(matches!(adopt(16384, 4096, 0), Err(InflightError::TooSmall { len: 4096, .. })));
    assert!(matches!(adopt(4096, 16384, 0), Err(InflightError::Memory(GuestError::TooShort { .. }))));
    assert!(matches!(adopt(16384, 16384, u64::MAX - 4096), Err(InflightError::Memory(_))));
    let device = File::open("/dev/zero").unwrap().into();
    let refused = Region::adopt(device, 0, 16384, Format::Split, 2, 256, &MapOptions::default());
    assert!(matches!(refused, Err(InflightError::Memory(GuestError::NotMemory { .. }))));
}

#[test]
fn a_region_of_another_ring_is_a_fault() {
    let fault = |region: &Region, size: u16| region.queue(0).unwrap().resume_packed(size).err();
    let (split, ..) = Region::create(Format::Split, 1, 8).unwrap();
    assert!(matches!(fault(&split, 8), Some(RingFault::BadInflight { .. })));
    let (packed, ..) = Region::create(Format::Packed, 1, 8).unwrap();
    assert_eq!(fault(&packed, 8), None);
    assert!(matches!(fault(&packed, 16), Some(RingFault::BadInflight { .. })));
    for about in [2, 1 | 7 << 16, 0xffff] {
        packed.queue(0).unwrap().store(ABOUT, about);
        assert!(matches!(fault(&packed, 8), Some(RingFault::BadInflight { .. })), "{about:x}");
    }
    assert_eq!(fault(&packed, 4).is_some(), fault(&packed, 8).is_some());
}

#[test]
fn whatever_a_region_says_a_ring_starts() {
    let mut shuffle = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        shuffle ^= shuffle << 13;
        shuffle ^= shuffle >> 7;
        shuffle ^= shuffle << 17;
        shuffle
    };
    for _ in 0..2000 {
        let mut driver = Driver::new(5, false);
        for index in 0..next() % 6 {
            driver.post(&buffer(index, 1), false);
        }
        let (region, ..) = Region::create(Format::Packed, 1, 5).unwrap();
        let inflight = region.queue(0).unwrap();
        for index in 2..24 {
            inflight.store(index, next() & next());
        }
        inflight.store(ABOUT, inflight.about());
        let mut ring = Packed::new(&driver.memory, driver.layout(START, Some(inflight))).unwrap();
        let _ = ring.look(&driver.memory, 64, &mut Chains::default());
    }
}
