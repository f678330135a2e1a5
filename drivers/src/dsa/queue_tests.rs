#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use hugemem::{Iova, IovaSpace, MemoryRequest, PageChoice};
use proptest::prelude::*;

use super::*;

const UNIT: u32 = 4096;
const SUCCESS: u64 = 1;

/// A work queue that remembers what was put into it, and the device behind it.
#[derive(Default)]
struct Device {
    room: usize,
    entries: Vec<Block>,
}

impl Portal for Device {
    fn offer(&mut self, descriptors: &[Block]) -> usize {
        let taken = descriptors.len().min(self.room - self.entries.len());
        self.entries.extend(&descriptors[..taken]);
        taken
    }
}

fn queue(entries: u16, batch: u32) -> (Queue, Device) {
    let request = MemoryRequest { bytes: 1 << 16, page: PageChoice::Size4K, node: None };
    let region = request.allocate(&mut IovaSpace::unlimited()).unwrap().region;
    let shape = Shape { depth: 16, entries, batch, unit: UNIT, cache: false, shift: 0 };
    assert!(shape.memory() <= region.remaining());
    (Queue::new(&region, shape).unwrap(), Device { room: 100, ..Device::default() })
}

fn job(token: u64, length: u32) -> CopyJob {
    CopyJob::new(Iova::new(0x1000), Iova::new(0x10_0000), length, token).unwrap()
}

fn operation(block: &Block) -> u64 {
    block[0] >> 56
}

/// The copies of an entry, as the device reads them.
fn copies(queue: &Queue, block: &Block) -> Vec<Block> {
    if operation(block) != 1 {
        return [*block].to_vec();
    }
    let first = usize::try_from((block[2] - queue.descriptors.iova().raw()) / 64).unwrap();
    let count = usize::try_from(block[4] & 0xffff_ffff).unwrap();
    let list = &queue.descriptors[first..first + count];
    list.iter().map(|descriptor| core::array::from_fn(|word| descriptor[word].load(Ordering::Relaxed))).collect()
}

/// Writes the record of a descriptor.
fn answer(queue: &Queue, block: &Block, word: u64) {
    let find = |records: &DmaArray<CompletionRecord>| {
        let offset = block[1].checked_sub(records.iova().raw())?;
        records.get(usize::try_from(offset / 32).unwrap()).map(|record| record[0].store(word, Ordering::Release))
    };
    if operation(block) == 1 { find(&queue.batch_records) } else { find(&queue.records) }.unwrap();
}

fn told(queue: &mut Queue) -> Vec<(u64, Option<CopyFailure>)> {
    let mut done = Vec::with_capacity(64);
    queue.tell(&mut done);
    let failure = |outcome| if let CopyOutcome::Failed(failure) = outcome { Some(failure) } else { None };
    done.iter().map(|done| (done.token, failure(done.outcome))).collect()
}

#[test]
fn jobs_come_back_in_order_whatever_order_the_device_has() {
    let (mut queue, mut device) = queue(16, 1);
    let report = Report::default();
    (0..4).for_each(|token| queue.push(job(token, 100)).unwrap());
    queue.issue(&mut device);
    assert!(device.entries.is_empty(), "not submitted");
    queue.submit();
    queue.issue(&mut device);
    assert_eq!(device.entries.len(), 4);
    for index in [3, 1] {
        answer(&queue, &device.entries[index], SUCCESS);
        assert_eq!(queue.look(&report), Ok(false));
    }
    answer(&queue, &device.entries[0], 0x83 | 50 << 32);
    assert_eq!(queue.look(&report), Ok(true));
    assert_eq!(told(&mut queue), [(0, Some(CopyFailure::Target)), (1, None)]);
    answer(&queue, &device.entries[2], SUCCESS);
    queue.look(&report).unwrap();
    assert_eq!((told(&mut queue), queue.is_underway(), queue.jobs()), ([(2, None), (3, None)].to_vec(), false, 0));
    assert_eq!((report.record().failures, report.record().faults, report.record().status), (1, 1, Status(0x83)));
}

#[test]
fn what_is_submitted_together_is_one_batch_and_the_work_queue_is_never_overfull() {
    let (mut queue, mut device) = queue(2, 4);
    let report = Report::default();
    (0..11).for_each(|token| queue.push(job(token, if token == 1 { 0 } else { 100 })).unwrap());
    queue.submit();
    queue.issue(&mut device);
    // Two batches of four; the rest waits for one of them to be over.
    assert_eq!(device.entries.iter().map(|block| (operation(block), block[4])).collect::<Vec<_>>(), [(1, 4), (1, 4)]);
    let first = copies(&queue, &device.entries[0]);
    assert_eq!(first.iter().map(operation).collect::<Vec<_>>(), [3, 0, 3, 3], "no bytes are no copy");
    first.iter().for_each(|copy| answer(&queue, copy, SUCCESS));
    assert_eq!(queue.look(&report), Ok(true));
    assert_eq!(told(&mut queue).len(), 4);
    queue.issue(&mut device);
    assert_eq!(device.entries.len(), 2, "the batch itself is not over");
    answer(&queue, &device.entries[0], SUCCESS | 4 << 32);
    queue.look(&report).unwrap();
    queue.issue(&mut device);
    assert_eq!((device.entries.len(), device.entries[2][4]), (3, 3));
    for index in [1, 2] {
        copies(&queue, &device.entries[index]).iter().for_each(|copy| answer(&queue, copy, SUCCESS));
        answer(&queue, &device.entries[index], SUCCESS);
    }
    queue.look(&report).unwrap();
    assert_eq!((told(&mut queue).len(), queue.is_underway(), queue.is_waiting()), (7, false, false));
}

#[test]
fn a_batch_with_copies_that_failed_costs_those_alone() {
    let (mut queue, mut device) = queue(16, 8);
    let report = Report::default();
    (0..5).for_each(|token| queue.push(job(token, 100)).unwrap());
    queue.submit();
    queue.issue(&mut device);
    let batch = copies(&queue, &device.entries[0]);
    for (copy, status) in batch.iter().zip([1, 0x03, 1, 0x11, 1]) {
        answer(&queue, copy, status);
    }
    answer(&queue, &device.entries[0], 0x05 | 5 << 32);
    assert_eq!(queue.look(&report), Ok(true));
    let expected = [None, Some(CopyFailure::Source), None, Some(CopyFailure::Refused), None];
    assert_eq!(told(&mut queue), (0..).zip(expected).collect::<Vec<_>>());
}

#[test]
fn answers_that_cannot_be_true_are_not_believed() {
    type Lie = fn(&Queue, &Device);
    let lies: [(Lie, Cause); 8] = [
        (|queue, device| answer(queue, &copies(queue, &device.entries[0])[0], SUCCESS | 101 << 32), Cause::Lied),
        (|queue, device| answer(queue, &copies(queue, &device.entries[0])[0], 0x02), Cause::Lied),
        (|queue, device| answer(queue, &copies(queue, &device.entries[0])[0], u64::MAX), Cause::Lied),
        (|queue, device| answer(queue, &copies(queue, &device.entries[0])[0], 0x19), Cause::Misconfigured),
        (|queue, device| answer(queue, &device.entries[0], SUCCESS | 3 << 32), Cause::Lied),
        (|queue, device| answer(queue, &device.entries[0], 0x05 | 9 << 32), Cause::Lied),
        (|queue, device| answer(queue, &device.entries[0], 0x03), Cause::Lied),
        (|queue, device| answer(queue, &device.entries[0], 0x06 | 1 << 32), Cause::BatchFailed),
    ];
    for (index, (lie, cause)) in lies.into_iter().enumerate() {
        let (mut queue, mut device) = queue(16, 8);
        let report = Report::default();
        (0..3).for_each(|token| queue.push(job(token, 100)).unwrap());
        queue.submit();
        queue.issue(&mut device);
        (3..5).for_each(|token| queue.push(job(token, 100)).unwrap());
        lie(&queue, &device);
        answer(&queue, &copies(&queue, &device.entries[0])[1], SUCCESS);
        assert_eq!(queue.look(&report), Err(cause), "{index}");
        assert_eq!(told(&mut queue), [], "nothing comes back before the queue has stopped");
        let credible = cause != Cause::Lied;
        queue.stopped(credible, CopyFailure::Unproven, &report);
        let failed = Some(CopyFailure::Unproven);
        assert_eq!(told(&mut queue), [(0, failed), (1, if credible { None } else { failed }), (2, failed)], "{index}");
        // What was not submitted goes on.
        queue.submit();
        queue.issue(&mut device);
        copies(&queue, &device.entries[1]).iter().for_each(|copy| answer(&queue, copy, SUCCESS));
        answer(&queue, &device.entries[1], SUCCESS);
        queue.look(&report).unwrap();
        assert_eq!(told(&mut queue), [(3, None), (4, None)], "{index}");
    }
}

#[test]
fn a_record_that_is_written_twice_is_noticed() {
    let (mut queue, mut device) = queue(16, 1);
    let report = Report::default();
    queue.push(job(0, 100)).unwrap();
    queue.submit();
    queue.issue(&mut device);
    answer(&queue, &device.entries[0], SUCCESS);
    queue.look(&report).unwrap();
    assert_eq!(told(&mut queue), [(0, None)]);
    answer(&queue, &device.entries[0], SUCCESS);
    for token in 1..=32 {
        queue.push(job(token, 100)).unwrap();
        queue.submit();
        queue.issue(&mut device);
        answer(&queue, device.entries.last().unwrap(), SUCCESS);
        let outcome = queue.look(&report);
        assert_eq!(outcome, if token == 32 { Err(Cause::Lied) } else { Ok(true) }, "{token}");
        queue.tell(&mut Vec::with_capacity(1));
    }
}

#[test]
fn a_job_of_several_pieces_is_done_when_all_are() {
    let (mut queue, mut device) = queue(16, 8);
    let report = Report::default();
    queue.push(job(7, 3 * UNIT + 1)).unwrap();
    queue.push(job(8, 1)).unwrap();
    assert_eq!((queue.room(), queue.jobs(), queue.longest()), (11, 2, 16 * UNIT));
    assert_eq!(queue.push(job(9, 12 * UNIT)), Err(job(9, 12 * UNIT)));
    queue.submit();
    queue.issue(&mut device);
    let pieces = copies(&queue, &device.entries[0]);
    assert_eq!(
        pieces.iter().map(|copy| (copy[2], copy[4])).collect::<Vec<_>>()[2..],
        [(0x3000, 4096), (0x4000, 1), (0x1000, 1)]
    );
    for (copy, status) in pieces.iter().zip([1, 0x20, 1]) {
        answer(&queue, copy, status);
        queue.look(&report).unwrap();
        assert_eq!(told(&mut queue), [], "the last piece is underway");
    }
    pieces[3..].iter().for_each(|copy| answer(&queue, copy, SUCCESS));
    answer(&queue, &device.entries[0], 0x05);
    queue.look(&report).unwrap();
    assert_eq!(told(&mut queue), [(7, Some(CopyFailure::Integrity)), (8, None)]);
}

#[test]
fn a_queue_that_takes_nothing_refuses_in_the_end() {
    let (mut queue, mut device) = queue(16, 1);
    device.room = 2;
    (0..5).for_each(|token| queue.push(job(token, 1)).unwrap());
    queue.submit();
    assert!(queue.issue(&mut device));
    assert!(!queue.issue(&mut device), "full");
    queue.refuse();
    assert_eq!(told(&mut queue), [], "what is underway comes first");
    let entries = device.entries.clone();
    entries.iter().for_each(|entry| answer(&queue, entry, SUCCESS));
    queue.look(&Report::default()).unwrap();
    queue.refuse();
    let refused = Some(CopyFailure::Refused);
    assert_eq!(told(&mut queue), [(0, None), (1, None), (2, refused), (3, refused), (4, refused)]);
    assert_eq!((queue.room(), queue.is_waiting(), queue.is_underway()), (16, false, false));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever order descriptors are done in, whatever fails, and however small the work queue is: each job comes back once, in order, with what became of it.
    #[test]
    fn each_job_comes_back_once(
        entries in 1_u16..20, batch in 1_u32..9, steps in prop::collection::vec((0_u8..6, any::<u64>()), 1..300),
    ) {
        let (mut queue, mut device) = queue(entries, batch);
        device.room = usize::MAX;
        let report = Report::default();
        let (mut next, mut pushed, mut came) = (0, VecDeque::new(), 0);
        // Copies that the device has begun and not finished, by entry, and what became of copies by the address of their record.
        let mut running: Vec<(Block, Vec<Block>)> = Vec::new();
        let mut seen = 0;
        let mut failed = alloc::collections::BTreeSet::new();
        for (step, choice) in steps {
            let pick = usize::try_from(choice >> 8).unwrap();
            match step {
                0 | 1 if queue.push(job(next, 100)).is_ok() => {
                    pushed.push_back(next);
                    next += 1;
                }
                2 => queue.submit(),
                3 => { queue.issue(&mut device); }
                4.. if !running.is_empty() => {
                    let at = pick % running.len();
                    let (entry, copies) = &mut running[at];
                    if !copies.is_empty() {
                        let copy = copies.remove((pick / 7) % copies.len());
                        let bad = choice % 5 == 0;
                        // Tokens are as good as positions here: each job is one copy.
                        if bad { failed.insert(copy[1]); } else { failed.remove(&copy[1]); }
                        answer(&queue, &copy, if bad { 0x83 } else { SUCCESS });
                    }
                    if copies.is_empty() {
                        if operation(entry) == 1 {
                            answer(&queue, entry, 0x05);
                        }
                        running.remove(at);
                    }
                }
                _ => {}
            }
            for entry in &device.entries[seen..] {
                running.push((*entry, copies(&queue, entry)));
            }
            seen = device.entries.len();
            prop_assert!(queue.entered - queue.over <= u64::from(entries));
            queue.look(&report).unwrap();
            for (token, failure) in told(&mut queue) {
                prop_assert_eq!(pushed.pop_front(), Some(token));
                let record = queue.records.iova_of(place(token, 32)).unwrap().raw();
                prop_assert_eq!(failure.is_some(), failed.contains(&record));
                came += 1;
            }
            prop_assert_eq!(queue.jobs(), pushed.len());
            prop_assert_eq!(came + pushed.len() as u64, next);
        }
        queue.fail_all(true, &report);
        prop_assert_eq!(told(&mut queue).len(), pushed.len());
    }
}
