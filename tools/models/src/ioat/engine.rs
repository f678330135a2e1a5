//! What a channel does: fetch a descriptor, move its bytes, report it.

use std::time::Duration;

use super::Fate;
use super::channel::{Channel, State, Surroundings};
use super::descriptor::{self, Control, Descriptor, Operation};
use super::errors::Errors;
use super::fault::Fault;
use super::report::Held;
use crate::card::{Dma, Hint};
use crate::memory::Access;

/// Most bytes between two looks at the rest of the world.
const PIECE: u32 = 64 << 10;
/// How late a late completion is, and for how many descriptors a burst waits.
const LATE: Duration = Duration::from_millis(1);
const BURST: usize = 16;
/// Where a stray access goes.
const STRAY: u64 = 0xdead_d000;
/// Pattern bytes that are written at once.
const PATTERN: usize = 4096;

/// A descriptor that is being processed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) at: u64,
    descriptor: Descriptor,
    moved: u32,
    fate: Option<Fate>,
    /// Its completion was written before its bytes.
    announced: bool,
}

/// What a channel may still do in this poll, and what it did.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) descriptors: usize,
    pub(super) bytes: u64,
    pub(super) done: u32,
    pub(super) moved: u64,
    /// A completion that was kept back was written.
    pub(super) delivered: bool,
}

/// A step of a channel's work.
enum Step {
    /// There may be more.
    Went,
    /// Not now.
    Wait,
}

impl Channel {
    /// Goes on until there is nothing to do, the turn is over, or something is in the way.
    pub(super) fn run(&mut self, around: &mut Surroundings<'_>, turn: &mut Turn, longest: u32, scratch: &mut Vec<u8>) {
        self.deliver(around, turn);
        while self.state == State::Active && !self.hangs && turn.descriptors > 0 && turn.bytes > 0 {
            let step = if self.job.is_some() { self.work(around, turn, scratch) } else { self.begin(around, longest) };
            if matches!(step, Step::Wait) {
                break;
            }
        }
    }

    /// Completions whose time has come.
    fn deliver(&mut self, around: &mut Surroundings<'_>, turn: &mut Turn) {
        let now = around.bus.now();
        while let Some(held) = self.held.front().copied().filter(|held| held.due <= now) {
            self.held.pop_front();
            turn.delivered = true;
            self.complete(around, held);
        }
    }

    /// Fetches the next descriptor, if the driver has handed one over.
    fn begin(&mut self, around: &mut Surroundings<'_>, longest: u32) -> Step {
        if std::mem::take(&mut self.suspending) {
            self.state = State::Suspended;
            return Step::Wait;
        }
        if self.count == self.done {
            self.state = State::Idle;
            return Step::Wait;
        }
        if descriptor::is_illegal(self.next) {
            let error = if self.is_first { Errors::CHAIN_ADDRESS } else { Errors::NEXT_ADDRESS };
            self.halt(around, error);
            return Step::Wait;
        }
        let mut bytes = [0; 64];
        match around.bus.read(&mut self.descriptor_hint, self.next, &mut bytes) {
            Ok(()) => around.bus.commit(),
            Err(Dma::Pending) => return Step::Wait,
            Err(Dma::Refused) => {
                self.halt(around, Errors::READ);
                return Step::Wait;
            }
        }
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.try_into().map_or(0, u64::from_le_bytes);
        }
        match Descriptor::decode(&words, longest) {
            Ok(descriptor) => {
                let fate = around.tricks.descriptor(self.number);
                self.job = Some(Job { at: self.next, descriptor, moved: 0, fate, announced: false });
                Step::Went
            }
            Err(errors) => {
                self.halt(around, errors);
                Step::Wait
            }
        }
    }

    /// Moves bytes, and reports when all are moved.
    fn work(&mut self, around: &mut Surroundings<'_>, turn: &mut Turn, scratch: &mut Vec<u8>) -> Step {
        let Some(mut job) = self.job.take() else { return Step::Wait };
        if let Some(fate) = &job.fate {
            let fate = fate.clone();
            if let Some(step) = self.strike(around, &mut job, &fate) {
                return step;
            }
        }
        let skipped = job.fate.as_ref().is_some_and(|fate| fate.has(Fault::CopySkipped));
        if !skipped && job.descriptor.operation != Operation::Null {
            let end = job.end();
            while job.moved < end {
                match self.step(around, &job, end, turn, scratch) {
                    Ok(bytes) => {
                        job.moved += bytes;
                        turn.bytes = turn.bytes.saturating_sub(bytes.into());
                        turn.moved += u64::from(bytes);
                        if turn.bytes == 0 && job.moved < end {
                            self.job = Some(job);
                            return Step::Wait;
                        }
                    }
                    Err((_, Dma::Pending)) => {
                        self.job = Some(job);
                        return Step::Wait;
                    }
                    Err((access, Dma::Refused)) => {
                        let errors = if access == Access::Read { Errors::READ } else { Errors::WRITE };
                        self.halt(around, errors);
                        return Step::Wait;
                    }
                }
            }
            if job.fate.as_ref().is_some_and(|fate| fate.has(Fault::CopyWrong)) {
                spoil(around, &job);
            }
        }
        if let Some(step) = self.strike_before_end(around, &job) {
            return step;
        }
        turn.descriptors -= 1;
        turn.done += 1;
        self.finish(around, &job)
    }

    /// Moves a piece; how many bytes.
    fn step(
        &mut self,
        around: &mut Surroundings<'_>,
        job: &Job,
        end: u32,
        turn: &Turn,
        scratch: &mut Vec<u8>,
    ) -> Result<u32, (Access, Dma)> {
        let stretch = job.descriptor.stretch(job.moved);
        let most = u32::try_from(turn.bytes).unwrap_or(u32::MAX).min(PIECE);
        let bytes = stretch.bytes.min(end - job.moved).min(most);
        let len = usize::try_from(bytes).unwrap_or(0);
        let bus = &mut *around.bus;
        let moved = match job.descriptor.operation {
            Operation::Copy => bus.copy(&mut self.data_hints, stretch.source, stretch.target, len, scratch)?,
            Operation::Fill(pattern) => {
                let len = len.min(PATTERN);
                let shift = usize::try_from(job.moved % 8).unwrap_or(0);
                scratch.clear();
                scratch.extend(pattern.iter().cycle().skip(shift).take(len));
                let [_, hint] = &mut self.data_hints;
                bus.write(hint, stretch.target, scratch).map_err(|error| (Access::Write, error))?;
                len
            }
            Operation::Null => len,
        };
        bus.commit();
        Ok(u32::try_from(moved).unwrap_or(bytes))
    }

    /// Faults at the start of a descriptor. `Some` when that was all for now.
    fn strike(&mut self, around: &mut Surroundings<'_>, job: &mut Job, fate: &Fate) -> Option<Step> {
        if job.moved != 0 || job.announced {
            return self.strike_halfway(around, job, fate);
        }
        if fate.has(Fault::Removed) {
            around.bus.remove();
            return Some(Step::Wait);
        }
        if fate.has(Fault::Hang) {
            self.hangs = true;
            return Some(Step::Wait);
        }
        if fate.has(Fault::ResetSpontaneous) {
            self.reset(around);
            return Some(Step::Wait);
        }
        if fate.has(Fault::DmaStray) {
            let _stray = around.bus.read(&mut Hint::default(), STRAY, &mut [0; 8]);
        }
        if fate.has(Fault::ErrorSoft) {
            self.note(around, Errors::SOFT);
        }
        if fate.has(Fault::CompleteEarly) {
            job.announced = true;
            let held = job.report();
            self.complete(around, held);
            // The bytes follow in the next poll.
            self.job = Some(Job { fate: job.fate.take(), ..*job });
            return Some(Step::Wait);
        }
        if fate.has(Fault::HaltSilent) {
            self.stop();
            return Some(Step::Wait);
        }
        match fate.error()? {
            (fault, errors) if is_at_start(fault) => {
                self.halt(around, errors);
                Some(Step::Wait)
            }
            (Fault::ErrorUnaffiliated, errors) if self.unaffiliated(around) => {
                self.halt(around, errors);
                Some(Step::Wait)
            }
            _ => self.strike_halfway(around, job, fate),
        }
    }

    /// Faults in the middle of a descriptor that have come to their place, which [`Job::end`] says.
    fn strike_halfway(&mut self, around: &mut Surroundings<'_>, job: &Job, fate: &Fate) -> Option<Step> {
        let (fault, errors) = fate.error()?;
        if !is_halfway(fault) || job.moved < job.end() {
            return None;
        }
        self.halt(around, errors);
        Some(Step::Wait)
    }

    /// Faults once all bytes are there.
    fn strike_before_end(&mut self, around: &mut Surroundings<'_>, job: &Job) -> Option<Step> {
        let fate = job.fate.as_ref()?;
        let (fault, errors) = fate.error()?;
        if is_halfway(fault)
            || matches!(fault, Fault::ErrorCompletionAddress | Fault::ErrorParityP | Fault::ErrorParityQ)
        {
            self.halt(around, errors);
            return Some(Step::Wait);
        }
        None
    }

    /// A descriptor is done.
    fn finish(&mut self, around: &mut Surroundings<'_>, job: &Job) -> Step {
        self.done = self.done.wrapping_add(1);
        (self.next, self.is_first) = (job.descriptor.next, false);
        let report = job.report();
        match &job.fate {
            None if self.held.is_empty() => self.complete(around, report),
            None => self.held.push_back(report),
            Some(fate) => self.finish_wrongly(around, job, report, &fate.clone()),
        }
        if self.state == State::Active && self.count == self.done {
            self.state = if std::mem::take(&mut self.suspending) { State::Suspended } else { State::Idle };
        }
        Step::Went
    }

    fn finish_wrongly(&mut self, around: &mut Surroundings<'_>, job: &Job, report: Held, fate: &Fate) {
        let now = around.bus.now();
        if fate.has(Fault::CompleteBurst) {
            self.gather(around, Held { due: now + LATE, ..report });
        } else if fate.has(Fault::CompleteLate) || (!self.held.is_empty() && !job.announced) {
            self.held.push_back(Held { due: now + LATE, ..report });
        } else if fate.has(Fault::CompleteNever) {
            // Neither written nor signalled; the register tells.
            self.tell(job.at);
        } else if let Some(status) = lie(self, job, fate) {
            let _written = self.write_status(around, status);
            self.tell(job.at);
            self.interrupt(around);
        } else if !job.announced {
            self.complete(around, report);
        }
        match fate.error() {
            Some((Fault::ErrorNextAddress | Fault::ErrorInterrupt, errors)) if self.state != State::Halted => {
                self.halt(around, errors);
            }
            _ => {}
        }
    }

    /// Keeps a completion back until there are enough, or the first of them has waited for long; then only the last is written.
    fn gather(&mut self, around: &mut Surroundings<'_>, report: Held) {
        let first = self.held.front().copied();
        let due = first.map_or(report.due, |first| first.due);
        let gathered = self.held.len() + 1;
        let interrupt = report.interrupt || first.is_some_and(|first| first.interrupt);
        if gathered >= BURST {
            self.held.clear();
            self.complete(around, Held { interrupt, ..report });
            return;
        }
        // All but the last report nothing of their own.
        self.held.iter_mut().for_each(|held| (held.write, held.interrupt) = (false, false));
        self.held.push_back(Held { due, interrupt, ..report });
    }
}

impl Job {
    /// What is to be reported when it is done.
    fn report(&self) -> Held {
        let control = self.descriptor.control;
        Held {
            due: Duration::ZERO,
            address: self.at,
            write: control.contains(Control::COMPLETION),
            interrupt: control.contains(Control::INTERRUPT),
        }
    }

    /// How far its bytes are moved: all the way, or half.
    fn end(&self) -> u32 {
        let halfway = self.fate.as_ref().and_then(Fate::error).is_some_and(|(fault, _)| is_halfway(fault));
        if halfway { self.descriptor.bytes / 2 } else { self.descriptor.bytes }
    }
}

/// Errors before the first byte.
fn is_at_start(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::ErrorSourceAddress
            | Fault::ErrorTargetAddress
            | Fault::ErrorDescriptor
            | Fault::ErrorChainAddress
            | Fault::ErrorCommand
            | Fault::ErrorRead
            | Fault::ErrorWrite
            | Fault::ErrorControl
            | Fault::ErrorLength
            | Fault::ErrorCount
            | Fault::ErrorReserved
            | Fault::Halt
    )
}

/// Errors after half of the bytes.
fn is_halfway(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::CopyPartial | Fault::ErrorChipsetIntegrity | Fault::ErrorEngineIntegrity | Fault::HaltPartial
    )
}

/// A completion that is not true.
fn lie(channel: &Channel, job: &Job, fate: &Fate) -> Option<u64> {
    let truth = job.at | State::Active as u64;
    let lies = [
        (Fault::CompletionZero, 0),
        (Fault::CompletionWild, 0x7fff_ffff_ffc0),
        (Fault::CompletionStale, channel.status_as(State::Active)),
        (Fault::CompletionAhead, job.descriptor.next),
        (Fault::CompletionOnes, u64::MAX),
        (Fault::CompletionState, truth | 0x7),
    ];
    lies.iter().find(|(fault, _)| fate.has(*fault)).map(|(_, status)| *status)
}

/// Makes the last byte wrong.
fn spoil(around: &mut Surroundings<'_>, job: &Job) {
    let last = job.descriptor.stretch(job.descriptor.bytes - 1).target;
    let mut byte = [0];
    if around.bus.read(&mut Hint::default(), last, &mut byte).is_ok() {
        let [byte] = byte;
        let _written = around.bus.write(&mut Hint::default(), last, &[!byte]);
    }
}
