//! Which descriptors are whose: the driver's own record of a work queue, whatever way leads to the queue.
//!
//! Positions count copies since the queue was made and never go back: `told` ≤ `settled` ≤ `issued` ≤ `submitted` ≤ `written`, at most half of the ring
//! apart. Before `told` all jobs have been given back; up to `settled` it is known what became of them; up to `issued` they are the device's; up to `submitted`
//! they are to be, when the work queue has room; up to `written` the caller has not submitted them. Nothing that the device could change is read back, but
//! for completion records.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hugemem::{DmaArray, Iova, OutOfMemory, Region};

use super::descriptor::{self, Answer, Block, CompletionRecord, Descriptor, Style};
use super::portal::Portal;
use super::report::{Cause, Report};
use super::status::{Status, Verdict};
use crate::copy_engine::{CopyDone, CopyFailure, CopyJob, CopyOutcome};

/// Descriptors that are offered to a portal at once, when they cannot travel as a batch.
const GATHER: usize = 16;

/// How a queue is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Copies that may be underway: a power of two.
    pub depth: u16,
    /// Descriptors that the work queue holds; a batch is one.
    pub entries: u16,
    /// Copies in a batch, at most. 1 for a device or a portal that takes no batches.
    pub batch: u32,
    /// Bytes that one descriptor copies, at most.
    pub unit: u32,
    /// The device can write to the processor's cache.
    pub cache: bool,
    /// What is added to the address of the queue's own memory for the device: 0 when that is the IOVA.
    pub shift: u64,
}

impl Shape {
    /// Bytes of memory that a queue of this shape takes, at most.
    #[must_use]
    pub fn memory(&self) -> usize {
        // Twice as many descriptors as may be underway, each with its record, and as many records of batches.
        usize::from(self.depth) * 2 * (64 + 32 + 32) + 3 * 64
    }
}

/// What the driver knows about one descriptor.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    addresses: [u64; 2],
    token: u64,
    length: u32,
    /// The last one of its job.
    ends: bool,
    /// Why it failed, once it is settled.
    failure: Option<CopyFailure>,
}

impl Slot {
    /// Whether either end of the copy has bytes in the page of an address.
    fn touches_page_of(&self, address: u64) -> bool {
        const PAGE: u64 = !0xfff;
        let last = u64::from(self.length).saturating_sub(1);
        self.addresses.iter().any(|start| (start & PAGE..=start.saturating_add(last)).contains(&(address & PAGE)))
    }
}

/// One thing that was put into the work queue: a copy, or several.
#[derive(Clone, Copy, Default, Debug)]
struct Entry {
    start: u64,
    count: u64,
}

/// Copies on their way through one work queue.
#[derive(Debug)]
pub struct Queue {
    shape: Shape,
    /// Copies in a batch, at most, for the portal in use.
    batch: u32,
    style: Style,
    descriptors: DmaArray<Descriptor>,
    records: DmaArray<CompletionRecord>,
    batch_records: DmaArray<CompletionRecord>,
    slots: Box<[Slot]>,
    entries: Box<[Entry]>,
    blocks: Box<[Block]>,
    told: u64,
    settled: u64,
    issued: u64,
    submitted: u64,
    written: u64,
    /// Entries that are over, and entries that there were, since the queue was made.
    over: u64,
    entered: u64,
    /// Why an earlier piece of the job that is told next failed.
    broken: Option<CopyFailure>,
    /// A record was written that was not due.
    suspect: bool,
    /// Jobs that were pushed and have not come back.
    jobs: usize,
}

/// The place of a position in a ring whose size is a power of two.
#[inline(always)]
fn place(position: u64, size: usize) -> usize {
    usize::try_from(position & (size as u64 - 1)).unwrap_or(0)
}

impl Queue {
    /// A queue of this shape, with memory of `memory`.
    ///
    /// # Errors
    /// When that has too little left.
    pub fn new(memory: &Region, shape: Shape) -> Result<Self, OutOfMemory> {
        let shape = Shape { depth: 1 << shape.depth.clamp(2, 1 << 14).ilog2(), ..shape };
        let size = usize::from(shape.depth) * 2;
        let records = |alignment| memory.array::<CompletionRecord>(size, alignment);
        Ok(Self {
            shape: Shape { entries: shape.entries.clamp(1, shape.depth), batch: shape.batch.max(1), ..shape },
            batch: shape.batch.max(1),
            style: Style { cache: shape.cache, interrupt: None },
            descriptors: memory.array::<Descriptor>(size, 64)?,
            records: records(64)?,
            batch_records: records(64)?,
            slots: core::iter::repeat_n(Slot::default(), size).collect(),
            entries: core::iter::repeat_n(Entry::default(), size).collect(),
            blocks: core::iter::repeat_n([0; 8], GATHER).collect(),
            told: 0,
            settled: 0,
            issued: 0,
            submitted: 0,
            written: 0,
            over: 0,
            entered: 0,
            broken: None,
            suspect: false,
            jobs: 0,
        })
    }

    /// The interrupt that the last copy of each submission makes, by its handle.
    pub fn set_interrupt(&mut self, handle: Option<u16>) {
        self.style.interrupt = handle;
    }

    /// Whether copies travel as batches, where the shape allows them. Nothing may be underway.
    pub fn set_batches(&mut self, batches: bool) {
        self.batch = if batches { self.shape.batch } else { 1 };
    }

    /// Each submission makes an interrupt.
    #[must_use]
    pub fn interrupts(&self) -> bool {
        self.style.interrupt.is_some()
    }

    /// Bytes that a descriptor copies.
    #[must_use]
    pub fn unit(&self) -> u32 {
        self.shape.unit
    }

    /// Bytes of the longest job.
    #[must_use]
    pub fn longest(&self) -> u32 {
        u32::try_from(u64::from(self.shape.depth) * u64::from(self.shape.unit)).unwrap_or(u32::MAX)
    }

    /// Descriptors that can be written now.
    #[must_use]
    pub fn room(&self) -> u64 {
        u64::from(self.shape.depth).saturating_sub(self.written - self.told)
    }

    /// Jobs that were pushed and have not been told.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// The device has copies that are not settled.
    #[inline(always)]
    #[must_use]
    pub fn is_underway(&self) -> bool {
        self.issued != self.settled || self.over != self.entered
    }

    /// There are copies to be issued.
    #[inline(always)]
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.issued != self.submitted
    }

    /// Nothing was said about the oldest copy that the device has.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.issued != self.settled && self.record(self.settled).is_none_or(|record| Answer::read(record).is_none())
    }

    /// Copies that are settled, since the queue was made.
    #[inline(always)]
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.settled
    }

    fn record(&self, position: u64) -> Option<&CompletionRecord> {
        self.records.get(place(position, self.slots.len()))
    }

    fn batch_record(&self, entry: u64) -> Option<&CompletionRecord> {
        self.batch_records.get(place(entry, self.entries.len()))
    }

    /// An address of the queue's memory, as the device has it.
    fn address(&self, address: Option<Iova>) -> u64 {
        address.map_or(0, Iova::raw).wrapping_add(self.shape.shift)
    }

    /// Takes a job.
    ///
    /// # Errors
    /// Hands it back when there is no room for it.
    #[inline(always)]
    pub fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        let pieces = u64::from(job.length().div_ceil(self.shape.unit).max(1));
        if pieces > self.room() {
            return Err(job);
        }
        let (mut source, mut target, mut left) = (job.source().raw(), job.target().raw(), job.length());
        for piece in 1..=pieces {
            let length = left.min(self.shape.unit);
            // Records were cleared when they were looked at last.
            self.suspect |= self.record(self.written).and_then(Answer::read).is_some();
            let at = place(self.written, self.slots.len());
            if let Some(slot) = self.slots.get_mut(at) {
                let (token, ends) = (job.token(), piece == pieces);
                *slot = Slot { addresses: [source, target], token, length, ends, failure: None };
            }
            // The job's ends lie in the address space.
            source = source.wrapping_add(length.into());
            target = target.wrapping_add(length.into());
            left -= length;
            self.written += 1;
        }
        self.jobs += 1;
        Ok(())
    }

    /// All that was pushed is to be issued.
    #[inline(always)]
    pub fn submit(&mut self) {
        self.submitted = self.written;
    }

    /// The copy at a position as a descriptor.
    #[inline(always)]
    fn copy(&self, position: u64, interrupts: bool) -> Block {
        let at = place(position, self.slots.len());
        let Slot { addresses, length, .. } = self.slots.get(at).copied().unwrap_or_default();
        let record = self.address(self.records.iova_of(at));
        descriptor::copy(self.style, record, addresses, length, interrupts)
    }

    /// Issues what was submitted, as far as the work queue has room. `false` when it took nothing although there was something to take.
    #[inline]
    pub fn issue(&mut self, portal: &mut impl Portal) -> bool {
        let before = self.issued;
        let had_reason = self.is_waiting() && self.entered - self.over < u64::from(self.shape.entries);
        while self.is_waiting() {
            let free = u64::from(self.shape.entries).saturating_sub(self.entered - self.over);
            if free == 0 || !(if self.batch == 1 { self.issue_single(portal, free) } else { self.issue_run(portal) }) {
                break;
            }
        }
        self.issued != before || !had_reason
    }

    /// Issues the next copies as one entry, which is a batch when there are several. Whether it was taken.
    #[inline]
    fn issue_run(&mut self, portal: &mut impl Portal) -> bool {
        let size = self.slots.len();
        let to_end = (size - place(self.issued, size)) as u64;
        let count = (self.submitted - self.issued).min(to_end).min(self.batch.into());
        let block = if count == 1 {
            self.copy(self.issued, true)
        } else {
            for position in self.issued..self.issued + count {
                if let Some(descriptor) = self.descriptors.get(place(position, size)) {
                    descriptor::write(descriptor, &self.copy(position, false));
                }
            }
            self.suspect |= self.batch_record(self.entered).and_then(Answer::read).is_some();
            let record = self.address(self.batch_records.iova_of(place(self.entered, size)));
            let list = self.address(self.descriptors.iova_of(place(self.issued, size)));
            descriptor::batch(self.style, record, list, u32::try_from(count).unwrap_or(u32::MAX))
        };
        let taken = portal.offer(&[block]) == 1;
        if taken {
            self.enter(count);
        }
        taken
    }

    /// Issues the next copies as entries of their own, offered together. Whether all were taken.
    fn issue_single(&mut self, portal: &mut impl Portal, free: u64) -> bool {
        let count = (self.submitted - self.issued).min(free).min(GATHER as u64);
        for (ahead, index) in (0..count).zip(0..GATHER) {
            let block = self.copy(self.issued + ahead, ahead + 1 == count);
            if let Some(place) = self.blocks.get_mut(index) {
                *place = block;
            }
        }
        let offered = usize::try_from(count).ok().and_then(|count| self.blocks.get(..count)).unwrap_or_default();
        let taken = portal.offer(offered).min(offered.len());
        (0..taken).for_each(|_| self.enter(1));
        taken as u64 == count
    }

    fn enter(&mut self, count: u64) {
        let at = place(self.entered, self.entries.len());
        if let Some(entry) = self.entries.get_mut(at) {
            *entry = Entry { start: self.issued, count };
        }
        self.entered += 1;
        self.issued += count;
    }

    /// Looks what became of the copies that the device has, oldest first. Whether there was anything new.
    ///
    /// # Errors
    /// When the work queue has to be stopped, and why.
    #[inline]
    pub fn look(&mut self, report: &Report) -> Result<bool, Cause> {
        if self.suspect {
            return Err(Cause::Lied);
        }
        let before = (self.settled, self.over);
        while self.over != self.entered {
            let at = place(self.over, self.entries.len());
            let Some(Entry { start, count }) = self.entries.get(at).copied() else { break };
            let end = start + count;
            self.settle(end, report)?;
            if count > 1 {
                let Some(answer) = self.batch_record(self.over).and_then(Answer::read) else { break };
                // All records of a batch are written before its own is.
                self.settle(end, report)?;
                self.judge_batch(answer, count, self.settled == end, report)?;
                if let Some(record) = self.batch_record(self.over) {
                    descriptor::clear(record);
                }
            } else if self.settled != end {
                break;
            }
            self.over += 1;
        }
        Ok(before != (self.settled, self.over))
    }

    /// Settles copies up to `end` for as long as there are answers.
    #[inline(always)]
    fn settle(&mut self, end: u64, report: &Report) -> Result<(), Cause> {
        while self.settled != end {
            let Some(record) = self.record(self.settled) else { return Ok(()) };
            let Some(answer) = Answer::read(record) else { return Ok(()) };
            let slot = self.slots.get(place(self.settled, self.slots.len())).copied().unwrap_or_default();
            let failure = judge(answer, record, &slot, report)?;
            descriptor::clear(record);
            self.settle_as(failure);
        }
        Ok(())
    }

    #[inline(always)]
    fn settle_as(&mut self, failure: Option<CopyFailure>) {
        let at = place(self.settled, self.slots.len());
        if let Some(slot) = self.slots.get_mut(at) {
            slot.failure = failure;
        }
        self.settled += 1;
    }

    /// A batch is over. `whole`: all of its copies have said what became of them.
    fn judge_batch(&self, answer: Answer, count: u64, whole: bool, report: &Report) -> Result<(), Cause> {
        let status = answer.status();
        if u64::from(answer.amount()) > count {
            return Err(Cause::Lied);
        }
        if status == Status::SUCCESS {
            return if whole { Ok(()) } else { Err(Cause::Lied) };
        }
        if whole && status == Status::BATCH_FAILED {
            return Ok(());
        }
        if !status.can_end_batch() {
            return Err(Cause::Lied);
        }
        let address = self.batch_record(self.over).map_or(0, descriptor::fault_address);
        report.saw(status, address);
        // Copies that were never begun; those behind them in other batches are asked what became of them once the queue has stopped.
        Err(Cause::BatchFailed)
    }

    /// The work queue has stopped: what said nothing failed for this reason. Without `credible` what it said does not count either. Whether any copy was done.
    pub fn stopped(&mut self, credible: bool, failure: CopyFailure, report: &Report) -> bool {
        let mut worked = false;
        while self.settled != self.issued {
            let answer = self.record(self.settled).and_then(|record| Some((Answer::read(record)?, record)));
            let outcome = match answer.filter(|_| credible) {
                None => Some(failure),
                Some((answer, record)) => {
                    let slot = self.slots.get(place(self.settled, self.slots.len())).copied().unwrap_or_default();
                    judge(answer, record, &slot, report).unwrap_or(Some(CopyFailure::Unproven))
                }
            };
            worked |= outcome.is_none();
            self.settle_as(outcome);
        }
        self.over = self.entered;
        self.suspect = false;
        self.records.iter().chain(self.batch_records.iter()).for_each(descriptor::clear);
        worked
    }

    /// What waits for the work queue fails, for it takes nothing. Does nothing while the device has anything.
    pub fn refuse(&mut self) {
        if self.is_underway() {
            return;
        }
        while self.issued != self.submitted {
            self.issued += 1;
            self.settle_as(Some(CopyFailure::Refused));
        }
    }

    /// The device has stopped for good: all jobs fail but those that are done, also those that it was never told of.
    pub fn fail_all(&mut self, credible: bool, report: &Report) {
        self.stopped(credible, CopyFailure::Unproven, report);
        while self.settled != self.written {
            self.settle_as(Some(CopyFailure::Unproven));
        }
        (self.issued, self.submitted) = (self.written, self.written);
    }

    /// Gives back what is settled, as far as there is room for it.
    #[inline(always)]
    pub fn tell(&mut self, done: &mut Vec<CopyDone>) -> usize {
        let before = done.len();
        while self.told != self.settled && done.len() < done.capacity() {
            let at = place(self.told, self.slots.len());
            let Slot { token, ends, failure, .. } = self.slots.get(at).copied().unwrap_or_default();
            self.told += 1;
            self.broken = self.broken.or(failure);
            if ends {
                // A job of which only parts are done is not done.
                let outcome = self.broken.take().map_or(CopyOutcome::Copied, CopyOutcome::Failed);
                done.push(CopyDone { token, outcome });
                self.jobs = self.jobs.saturating_sub(1);
            }
        }
        done.len() - before
    }
}

/// What became of a copy: `None` when it is done.
#[inline(always)]
fn judge(
    answer: Answer,
    record: &CompletionRecord,
    slot: &Slot,
    report: &Report,
) -> Result<Option<CopyFailure>, Cause> {
    // No copy can have moved more than it was to.
    match answer.status() {
        _ if answer.amount() > slot.length => Err(Cause::Lied),
        Status::SUCCESS => Ok(None),
        status => judge_failure(status, record, slot, report).map(Some),
    }
}

/// What became of a copy that did not succeed.
#[cold]
fn judge_failure(
    status: Status,
    record: &CompletionRecord,
    slot: &Slot,
    report: &Report,
) -> Result<CopyFailure, Cause> {
    match status.verdict() {
        Verdict::Failed(failure) => {
            // An address that the copy has nothing to do with is nobody's fault, and not worth telling.
            let address = descriptor::fault_address(record);
            report.copy_failed(status, if slot.touches_page_of(address) { address } else { 0 });
            Ok(failure)
        }
        Verdict::Misconfigured => {
            report.saw(status, 0);
            Err(Cause::Misconfigured)
        }
        // Success was looked for before.
        Verdict::Done | Verdict::Impossible => Err(Cause::Lied),
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
