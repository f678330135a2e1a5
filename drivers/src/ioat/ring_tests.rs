#![allow(clippy::unwrap_used, reason = "tests")]

use alloc::vec::Vec;

use hugemem::{Iova, IovaSpace, MemoryRequest, PageChoice};
use proptest::prelude::*;

use super::*;

const UNIT: u32 = 4096;

fn ring(underway: u16) -> Ring {
    let request = MemoryRequest { bytes: 1 << 16, page: PageChoice::Size4K, node: None };
    let region = request.allocate(&mut IovaSpace::unlimited()).unwrap().region;
    Ring::new(&region, underway, UNIT).unwrap()
}

fn job(token: u64, length: u32) -> CopyJob {
    CopyJob::new(Iova::new(0x1000), Iova::new(0x10_0000), length, token).unwrap()
}

fn told(ring: &mut Ring) -> Vec<(u64, bool)> {
    let mut done = Vec::with_capacity(64);
    ring.tell(&mut done);
    done.iter().map(|done| (done.token, done.outcome == CopyOutcome::Copied)).collect()
}

#[test]
fn only_what_is_underway_can_be_done() {
    let mut ring = ring(16);
    (0..4).for_each(|token| ring.push(job(token, 100), false).unwrap());
    assert!(!ring.prove(ring.address(0)), "not submitted");
    ring.issue();
    ring.push(job(4, 100), false).unwrap();
    for wrong in [0, !0x3f, ring.address(0) - 64, ring.address(0) + 8, ring.address(4), ring.address(31)] {
        assert!(!ring.prove(wrong), "{wrong:#x}");
    }
    assert!(ring.prove(ring.address(1)));
    for old in [0, 1] {
        assert!(!ring.prove(ring.address(old)), "done before");
    }
    assert_eq!(told(&mut ring), [(0, true), (1, true)]);
    ring.fail_one(CopyFailure::Source);
    assert_eq!(told(&mut ring), [(2, false)]);
    assert!(!ring.prove(ring.address(2)), "given back as failed");
    assert!(ring.prove(ring.address(3)));
    assert_eq!(told(&mut ring), [(3, true)]);
}

#[test]
fn a_job_of_several_pieces_comes_back_once_and_only_when_all_are_done() {
    let mut ring = ring(16);
    ring.push(job(7, 3 * UNIT + 1), false).unwrap();
    ring.push(job(8, 0), false).unwrap();
    assert_eq!((ring.room(), ring.jobs()), (11, 2));
    assert_eq!(ring.push(job(9, 12 * UNIT), false), Err(job(9, 12 * UNIT)));
    ring.issue();
    assert!(ring.prove(ring.address(2)));
    assert_eq!(told(&mut ring), []);
    ring.fail_one(CopyFailure::Target);
    assert_eq!(told(&mut ring), [(7, false)]);
    assert!(ring.prove(ring.address(4)));
    assert_eq!(told(&mut ring), [(8, true)]);
    assert_eq!((ring.room(), ring.jobs()), (16, 0));
}

#[test]
fn what_does_not_fit_is_told_later() {
    let mut ring = ring(16);
    (0..5).for_each(|token| ring.push(job(token, 1), false).unwrap());
    ring.issue();
    assert!(ring.prove(ring.address(4)));
    let mut done = Vec::with_capacity(3);
    assert_eq!((ring.tell(&mut done), ring.is_told()), (3, false));
    assert_eq!(told(&mut ring), [(3, true), (4, true)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is proven or fails, each job comes back once, in order, with what became of it.
    #[test]
    fn each_job_comes_back_once(steps in prop::collection::vec((0_u8..4, 0_u64..6), 1..400)) {
        let mut ring = ring(16);
        let (mut next, mut expected, mut came) = (0, Vec::new(), Vec::new());
        // Tokens underway, with the position behind each.
        let mut underway: Vec<(u64, u64)> = Vec::new();
        for (step, amount) in steps {
            match step {
                0 => {
                    let length = u32::try_from(amount).unwrap() * UNIT;
                    if ring.push(job(next, length), false).is_ok() {
                        underway.push((next, ring.written));
                        next += 1;
                    }
                }
                1 => {
                    ring.issue();
                }
                2 if ring.is_underway() => {
                    let last = ring.settled + amount.min(ring.issued - ring.settled - 1);
                    prop_assert!(ring.prove(ring.address(last)));
                    let done = underway.iter().take_while(|(_, end)| *end <= last + 1).count();
                    expected.extend(underway.drain(..done).map(|(token, _)| (token, true)));
                }
                3 if ring.is_underway() => {
                    ring.fail_one(CopyFailure::Unproven);
                    expected.push((underway.remove(0).0, false));
                }
                _ => {}
            }
            came.extend(told(&mut ring));
            prop_assert!(ring.is_told());
            prop_assert_eq!(&came, &expected);
            prop_assert_eq!(ring.jobs(), underway.len());
        }
    }
}
