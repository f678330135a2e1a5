//! What a queue does: take a descriptor, or the next one of a batch, carry it out, report it.

use super::config::Config;
use super::descriptor::{BYTES, Descriptor, Flags, Operation};
use super::fault::Fault;
use super::general::{General, ResetKind, State};
use super::moving::Piece;
use super::pci::Capabilities;
use super::queue::Queue;
use super::report::Outcome;
use super::status::Status;
use super::{Fate, Tricks};
use crate::card::{Bus, Dma, Hint};

/// Where a stray access goes.
const STRAY: u64 = 0xdead_d000;

/// What a queue works with.
pub(super) struct Around<'a> {
    pub(super) bus: &'a mut Bus,
    pub(super) tricks: &'a mut Tricks,
    pub(super) general: &'a mut General,
    pub(super) config: &'a Config,
    pub(super) pci: &'a Capabilities,
    pub(super) scratch: &'a mut [Vec<u8>; 2],
}

/// A descriptor that is being carried out.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) descriptor: Descriptor,
    pub(super) operation: Operation,
    /// Its place in the batch.
    pub(super) member: Option<u16>,
    /// Bytes done.
    pub(super) moved: u32,
    pub(super) fate: Option<Fate>,
    /// Its completion was written before its bytes.
    pub(super) announced: bool,
}

/// A batch whose descriptors are being carried out.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) parent: Descriptor,
    fate: Option<Fate>,
    announced: bool,
    next: u32,
    /// One of them did not succeed.
    pub(super) failed: bool,
}

/// What a queue may still do in this poll, and what it did.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) descriptors: usize,
    pub(super) bytes: u64,
    pub(super) done: u32,
    pub(super) moved: u64,
    /// A completion that was kept back was written.
    pub(super) delivered: bool,
}

/// A step of a queue's work.
enum Step {
    /// There may be more.
    Went,
    /// Not now.
    Wait,
}

impl Job {
    pub(super) fn new(descriptor: Descriptor, operation: Operation) -> Self {
        Self { descriptor, operation, member: None, moved: 0, fate: None, announced: false }
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.fate.as_ref().is_some_and(|fate| fate.has(fault))
    }

    /// How far its bytes are moved: all the way, or half.
    fn end(&self) -> u32 {
        let half = self.has(Fault::CopyPartial) || self.has(Fault::HaltPartial);
        if half { self.descriptor.size() / 2 } else { self.descriptor.size() }
    }
}

impl Queue {
    /// Goes on until there is nothing to do, the turn is over, or something is in the way.
    pub(super) fn run(&mut self, around: &mut Around<'_>, turn: &mut Turn) {
        turn.delivered |= self.deliver(around);
        while matches!(around.general.state, State::Enabled | State::Draining)
            && !self.hangs
            && turn.descriptors > 0
            && turn.bytes > 0
        {
            let step = match (self.job.take(), &self.batch) {
                (Some(job), _) => self.work(around, turn, job),
                (None, Some(_)) => self.next_member(around, turn),
                (None, None) => self.next_entry(around, turn),
            };
            if matches!(step, Step::Wait) {
                break;
            }
        }
    }

    fn next_entry(&mut self, around: &mut Around<'_>, turn: &mut Turn) -> Step {
        let Some(descriptor) = self.entries.pop_front() else { return Step::Wait };
        if self.occupancy_reached() {
            around.general.queue_emptied(around.bus, around.tricks);
        }
        self.open(around, turn, descriptor, None)
    }

    /// Fetches the next descriptor of the batch, or ends it.
    fn next_member(&mut self, around: &mut Around<'_>, turn: &mut Turn) -> Step {
        let Some(batch) = &self.batch else { return Step::Went };
        let (next, count, failed) = (batch.next, batch.parent.size(), batch.failed);
        let address = batch.parent.source().wrapping_add(u64::from(next) * BYTES);
        let cut = batch.fate.as_ref().is_some_and(|fate| fate.has(Fault::ErrorBatchPageFault)) && next == count / 2;
        if next == count || cut {
            if !self.members_are_told(around) {
                return Step::Wait;
            }
            let lies = self
                .batch
                .as_ref()
                .and_then(|batch| batch.fate.as_ref())
                .is_some_and(|fate| fate.has(Fault::ErrorBatch));
            let outcome = match () {
                () if cut => Outcome::fault(Status::BATCH_PAGE_FAULT, next, address, false),
                () if failed || lies => Outcome::new(Status::BATCH, next),
                () => Outcome::new(Status::SUCCESS, next),
            };
            return self.end_batch(around, turn, outcome);
        }
        let mut bytes = [0; 64];
        match around.bus.read(&mut self.list_hint, address, &mut bytes) {
            Ok(()) => {}
            Err(Dma::Pending) => return Step::Wait,
            Err(Dma::Refused) => {
                if !self.members_are_told(around) {
                    return Step::Wait;
                }
                return self.end_batch(around, turn, Outcome::fault(Status::BATCH_PAGE_FAULT, next, address, false));
            }
        }
        let descriptor = Descriptor::from_bytes(&bytes);
        if descriptor.flags().contains(Flags::FENCE) {
            if !self.members_are_told(around) {
                return Step::Wait;
            }
            if failed {
                around.bus.commit();
                return self.end_batch(around, turn, Outcome::new(Status::BATCH, next));
            }
        }
        around.bus.commit();
        if let Some(batch) = &mut self.batch {
            batch.next += 1;
        }
        self.open(around, turn, descriptor, Some(u16::try_from(next).unwrap_or(u16::MAX)))
    }

    /// All completions of the batch so far are written.
    fn members_are_told(&mut self, around: &mut Around<'_>) -> bool {
        self.flush(around);
        !self.held.iter().any(|held| held.member.is_some())
    }

    fn end_batch(&mut self, around: &mut Around<'_>, turn: &mut Turn, outcome: Outcome) -> Step {
        if let Some(batch) = self.batch.take() {
            let job = Job { fate: batch.fate, announced: batch.announced, ..Job::new(batch.parent, Operation::Batch) };
            self.end(around, turn, &job, outcome);
        }
        Step::Went
    }

    /// A descriptor has come.
    fn open(&mut self, around: &mut Around<'_>, turn: &mut Turn, descriptor: Descriptor, member: Option<u16>) -> Step {
        let fate = around.tricks.descriptor(self.number);
        let job = Job { member, fate, ..Job::new(descriptor, Operation::Nothing) };
        if !descriptor.record_is_aligned() {
            self.end(around, turn, &job, Outcome::new(Status::RECORD_ALIGNMENT, 0));
            return Step::Went;
        }
        let of = self.batch.as_ref().map_or(descriptor, |batch| batch.parent);
        let rules = self.rules(around.config, around.pci, around.general, &descriptor, &of, member.is_some());
        match descriptor.check(&rules) {
            Ok(operation) => self.job = Some(Job { operation, ..job }),
            Err(refusal) => {
                let outcome = Outcome { flags: refusal.flags, ..Outcome::new(refusal.status, 0) };
                self.end(around, turn, &job, outcome);
            }
        }
        Step::Went
    }

    fn end(&mut self, around: &mut Around<'_>, turn: &mut Turn, job: &Job, outcome: Outcome) {
        turn.descriptors = turn.descriptors.saturating_sub(1);
        turn.done += 1;
        self.finish(around, job, outcome);
    }

    /// Carries a descriptor out, as far as that goes now.
    fn work(&mut self, around: &mut Around<'_>, turn: &mut Turn, mut job: Job) -> Step {
        if job.moved == 0 && !job.announced && job.fate.is_some() {
            match self.strike(around, turn, job) {
                Ok(back) => job = back,
                Err(step) => return step,
            }
        }
        match job.operation {
            Operation::Nothing => {}
            Operation::Drain => {
                self.flush(around);
                if !self.held.is_empty() {
                    self.job = Some(job);
                    return Step::Wait;
                }
            }
            Operation::Batch => {
                let Job { descriptor, fate, announced, .. } = job;
                self.batch = Some(Batch { parent: descriptor, fate, announced, next: 0, failed: false });
                return Step::Went;
            }
            _ => return self.transfer(around, turn, job),
        }
        let outcome = Outcome::new(late_error(&job).unwrap_or(Status::SUCCESS), 0);
        self.end(around, turn, &job, outcome);
        Step::Went
    }

    /// Moves, writes or compares bytes.
    fn transfer(&mut self, around: &mut Around<'_>, turn: &mut Turn, mut job: Job) -> Step {
        let end = if job.has(Fault::CopySkipped) { 0 } else { job.end() };
        while job.moved < end {
            match self.piece(around, &job, end, turn.bytes) {
                Piece::Moved(bytes) => {
                    job.moved += bytes;
                    turn.bytes = turn.bytes.saturating_sub(bytes.into());
                    turn.moved += u64::from(bytes);
                    if turn.bytes == 0 && job.moved < end {
                        self.job = Some(job);
                        return Step::Wait;
                    }
                }
                Piece::Wait => {
                    self.job = Some(job);
                    return Step::Wait;
                }
                Piece::Fault { address, of_write } => {
                    let blocks = job.descriptor.flags().contains(Flags::BLOCK_ON_FAULT);
                    let status = if blocks { Status::PAGE_RESPONSE } else { Status::PAGE_FAULT };
                    let outcome = Outcome::fault(status, job.moved, address, of_write);
                    let result = u8::from(job.is_backwards());
                    self.end(around, turn, &job, Outcome { result, ..outcome });
                    return Step::Went;
                }
                Piece::Differs(matching) => {
                    let done = job.moved.saturating_add(matching);
                    self.compared(around, turn, &job, 1, done);
                    return Step::Went;
                }
            }
        }
        if job.has(Fault::HaltPartial) {
            around.general.halt(around.bus, around.tricks, ResetKind::Software, false);
            return Step::Wait;
        }
        if job.has(Fault::CopyPartial) {
            let address = job.descriptor.target().wrapping_add(job.moved.into());
            self.end(around, turn, &job, Outcome::fault(Status::PAGE_FAULT, job.moved, address, true));
            return Step::Went;
        }
        if job.has(Fault::CopyWrong) {
            spoil(around, &job);
        }
        match job.operation {
            Operation::Compare | Operation::ComparePattern => {
                self.compared(around, turn, &job, 0, job.descriptor.size())
            }
            _ => {
                let status = late_error(&job).unwrap_or(Status::SUCCESS);
                let address = if status == Status::RECORD_PAGE_FAULT { job.descriptor.record() } else { 0 };
                // What succeeds reports no bytes: they are all there.
                self.end(around, turn, &job, Outcome::fault(status, 0, address, false));
            }
        }
        Step::Went
    }

    /// A comparison has a result.
    fn compared(&mut self, around: &mut Around<'_>, turn: &mut Turn, job: &Job, result: u8, done: u32) {
        let checked = job.descriptor.flags().contains(Flags::CHECK_RESULT);
        let unexpected = checked && job.descriptor.expected() != result;
        let status = if unexpected { Status::FALSE_PREDICATE } else { Status::SUCCESS };
        let status = late_error(job).unwrap_or(status);
        self.end(around, turn, job, Outcome { result, ..Outcome::new(status, done) });
    }

    /// Faults before the first byte. The descriptor comes back when it is to be carried out all the same.
    fn strike(&mut self, around: &mut Around<'_>, turn: &mut Turn, mut job: Job) -> Result<Job, Step> {
        if job.has(Fault::Removed) {
            around.bus.remove();
            return Err(Step::Wait);
        }
        if job.has(Fault::Hang) {
            (self.hangs, self.job) = (true, Some(job));
            return Err(Step::Wait);
        }
        if job.has(Fault::ResetSpontaneous) {
            // The device as a whole follows once this queue has returned.
            around.general.state = State::Disabled;
            return Err(Step::Wait);
        }
        if job.has(Fault::QueueDisabled) {
            self.abort();
            self.disable();
            return Err(Step::Wait);
        }
        for (fault, needs) in [
            (Fault::Halt, ResetKind::Software),
            (Fault::HaltFunction, ResetKind::Function),
            (Fault::HaltSilent, ResetKind::Software),
        ] {
            if job.has(fault) {
                around.general.halt(around.bus, around.tricks, needs, fault == Fault::HaltSilent);
                return Err(Step::Wait);
            }
        }
        if job.has(Fault::DescriptorLost) {
            if job.member.is_none() {
                self.retired += 1;
            }
            return Err(Step::Went);
        }
        if job.has(Fault::DmaStray) {
            let _stray = around.bus.read(&mut Hint::default(), STRAY, &mut [0; 8]);
        }
        if job.has(Fault::CompleteEarly) {
            self.announce(around, &job);
            job.announced = true;
            // The bytes follow in the next poll.
            self.job = Some(job);
            return Err(Step::Wait);
        }
        let error = job.fate.as_ref().and_then(Fate::error).filter(|(fault, _)| is_at_start(*fault, job.operation));
        let Some((fault, status)) = error else { return Ok(job) };
        let outcome = match fault {
            Fault::ErrorPageFaultWrite => Outcome::fault(status, 0, job.descriptor.target(), true),
            Fault::ErrorFlags => Outcome { flags: job.descriptor.raw_flags(), ..Outcome::new(status, 0) },
            _ if matches!(status, Status::PAGE_FAULT | Status::PAGE_RESPONSE) => {
                Outcome::fault(status, 0, job.descriptor.source(), false)
            }
            _ => Outcome::new(status, 0),
        };
        self.end(around, turn, &job, outcome);
        Err(Step::Went)
    }
}

/// An error that strikes before the descriptor is carried out.
fn is_at_start(fault: Fault, operation: Operation) -> bool {
    match fault {
        Fault::CopyPartial | Fault::ErrorPredicate | Fault::ErrorRecordPageFault | Fault::ErrorRecordAlignment => {
            operation == Operation::Batch && fault == Fault::CopyPartial
        }
        Fault::ErrorBatch | Fault::ErrorBatchPageFault => operation != Operation::Batch,
        _ => true,
    }
}

/// An error that strikes once it is carried out.
fn late_error(job: &Job) -> Option<Status> {
    let (fault, status) = job.fate.as_ref().and_then(Fate::error)?;
    (!is_at_start(fault, job.operation) && fault != Fault::CopyPartial).then_some(status)
}

/// Makes the last byte wrong.
fn spoil(around: &mut Around<'_>, job: &Job) {
    if !matches!(job.operation, Operation::Move | Operation::Fill | Operation::Dualcast) {
        return;
    }
    let last = job.descriptor.target().wrapping_add(u64::from(job.descriptor.size() - 1));
    let mut byte = [0];
    if around.bus.read(&mut Hint::default(), last, &mut byte).is_ok() {
        let [byte] = byte;
        let _written = around.bus.write(&mut Hint::default(), last, &[!byte]);
    }
}
