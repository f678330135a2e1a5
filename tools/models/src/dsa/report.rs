//! Completion records and interrupts.

use std::time::Duration;

use super::descriptor::{Descriptor, Flags};
use super::engine::{Around, Job};
use super::fault::Fault;
use super::general::General;
use super::queue::Queue;
use super::status::Status;

/// How late a late completion is.
pub(super) const LATE: Duration = Duration::from_millis(1);
/// Completions that are gathered before they are written.
const GATHERED: usize = 16;
/// The bit of a status that says that the page fault was one of a write.
pub(super) const OF_WRITE: u8 = 0x80;

/// What became of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outcome {
    pub(super) status: Status,
    /// The access that faulted was a write.
    pub(super) of_write: bool,
    pub(super) result: u8,
    /// Bytes, or descriptors of a batch, that were done.
    pub(super) done: u32,
    pub(super) address: u64,
    pub(super) flags: u32,
}

impl Outcome {
    pub(super) fn new(status: Status, done: u32) -> Self {
        Self { status, of_write: false, result: 0, done, address: 0, flags: 0 }
    }

    pub(super) fn fault(status: Status, done: u32, address: u64, of_write: bool) -> Self {
        Self { of_write, address, ..Self::new(status, done) }
    }

    /// The completion record.
    fn record(&self) -> [u64; 4] {
        let status = self.status.0 | if self.of_write { OF_WRITE } else { 0 };
        let head = u64::from(status) | u64::from(self.result) << 8 | u64::from(self.done) << 32;
        [head, self.address, self.flags.into(), 0]
    }
}

/// A completion, written now or later.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) due: Duration,
    /// The last of those that are gathered comes first.
    pub(super) backwards: bool,
    pub(super) descriptor: Descriptor,
    pub(super) member: Option<u16>,
    /// What is written, if anything.
    record: Option<[u64; 4]>,
    address: u64,
    error: Option<(Status, u64)>,
    vector: Option<u16>,
}

impl Queue {
    /// A descriptor is done, or cannot be: what it asked for follows.
    pub(super) fn finish(&mut self, around: &mut Around<'_>, job: &Job, outcome: Outcome) {
        let (descriptor, flags) = (job.descriptor, job.descriptor.flags());
        if let Some(batch) = self.batch.as_mut().filter(|_| job.member.is_some()) {
            batch.failed |= outcome.status != Status::SUCCESS;
        }
        let (valid, fails) = (flags.contains(Flags::RECORD_VALID), outcome.status != Status::SUCCESS);
        let untold = matches!(outcome.status, Status::RECORD_PAGE_FAULT | Status::RECORD_ALIGNMENT);
        let written = valid && !untold && (fails || flags.contains(Flags::RECORD));
        let mut held = Held {
            due: around.bus.now(),
            backwards: false,
            descriptor,
            member: job.member,
            record: written.then(|| outcome.record()),
            address: descriptor.record(),
            error: (fails && !written).then_some((outcome.status, outcome.address)),
            vector: self.vector(around, job),
        };
        match &job.fate {
            Some(_) if job.announced => {
                (held.record, held.vector) = (None, None);
                self.complete(around, held);
            }
            None => self.complete(around, held),
            Some(fate) => {
                lie(&mut held, self, |fault| fate.has(fault));
                if fate.has(Fault::CompleteReverse) {
                    held.backwards = true;
                    held.due = self.gathered().map_or(held.due + LATE, |first| first.due);
                    self.held.push_back(held);
                } else if fate.has(Fault::CompleteLate) {
                    held.due += LATE;
                    self.held.push_back(held);
                } else {
                    self.complete(around, held);
                }
            }
        }
    }

    fn vector(&self, around: &Around<'_>, job: &Job) -> Option<u16> {
        if !job.descriptor.flags().contains(Flags::INTERRUPT) {
            return None;
        }
        let of = self.batch.as_ref().filter(|_| job.member.is_some()).map_or(&job.descriptor, |batch| &batch.parent);
        around.general.vector(job.descriptor.handle(), self.pasid(of))
    }

    /// Before its bytes: what is reported afterwards.
    pub(super) fn announce(&mut self, around: &mut Around<'_>, job: &Job) {
        let outcome = Outcome::new(Status::SUCCESS, job.descriptor.size());
        let told = Job { fate: None, member: job.member, ..Job::new(job.descriptor, job.operation) };
        let retired = self.retired;
        self.finish(around, &told, outcome);
        // It is not done yet.
        self.retired = retired;
    }

    /// Writes the record and signals.
    fn complete(&mut self, around: &mut Around<'_>, held: Held) {
        let origin = self.origin(held.descriptor, held.member);
        let mut error = held.error;
        if let Some([head, rest @ ..]) = held.record {
            let mut bytes = [0; 24];
            for (part, word) in bytes.chunks_exact_mut(8).zip(rest) {
                part.copy_from_slice(&word.to_le_bytes());
            }
            // The status last.
            let hint = &mut self.record_hint;
            let written = around
                .bus
                .write(hint, held.address.wrapping_add(8), &bytes)
                .and_then(|()| around.bus.write(hint, held.address, &head.to_le_bytes()));
            if written.is_err() {
                error = Some((Status::RECORD_PAGE_FAULT, held.address));
            }
            self.last_record = held.address;
        }
        if let Some((status, address)) = error {
            around.general.report(around.bus, around.tricks, status, Some(origin), address);
        }
        if let Some(vector) = held.vector {
            General::signal(around.bus, around.tricks, vector);
        }
        if held.member.is_none() {
            self.retired += 1;
        }
    }

    /// The first of those that are gathered.
    fn gathered(&self) -> Option<&Held> {
        self.held.iter().find(|held| held.backwards)
    }

    /// Completions whose time has come. `true` when there were some.
    pub(super) fn deliver(&mut self, around: &mut Around<'_>) -> bool {
        let (now, before) = (around.bus.now(), self.held.len());
        while let Some(at) = self.held.iter().position(|held| !held.backwards && held.due <= now) {
            if let Some(held) = self.held.remove(at) {
                self.complete(around, held);
            }
        }
        let gathered = self.held.iter().filter(|held| held.backwards).count();
        if gathered >= GATHERED || self.gathered().is_some_and(|first| first.due <= now) {
            self.flush(around);
        }
        self.held.len() != before
    }

    /// Those that are gathered are written, the last one first.
    pub(super) fn flush(&mut self, around: &mut Around<'_>) {
        while let Some(at) = self.held.iter().rposition(|held| held.backwards) {
            if let Some(held) = self.held.remove(at) {
                self.complete(around, held);
            }
        }
    }
}

/// A completion that is not true.
fn lie(held: &mut Held, queue: &Queue, has: impl Fn(Fault) -> bool) {
    let Some(record) = &mut held.record else { return };
    let [head, address, ..] = record;
    if has(Fault::CompleteNever) {
        (held.record, held.vector) = (None, None);
    } else if has(Fault::CompletionZero) {
        *record = [0; 4];
    } else if has(Fault::CompletionOnes) {
        *record = [u64::MAX; 4];
    } else if has(Fault::CompletionStatus) {
        *head = *head & !0xff | 0x3f;
    } else if has(Fault::CompletionBytes) {
        *head |= 0xffff_fff0 << 32;
    } else if has(Fault::CompletionAddress) {
        *head = *head & !0xff | u64::from(Status::PAGE_FAULT.0);
        *address = 0x7fff_ffff_f000;
    } else if has(Fault::CompletionWild) {
        held.address = 0xdead_e000;
    } else if has(Fault::CompletionOther) {
        held.address = queue.last_record;
    }
}
