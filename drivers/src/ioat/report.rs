//! What a channel, which runs on another thread, tells the owner of the engine.

use alloc::string::String;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::errors::Errors;

/// Why a channel had to be reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// It halted; CHANERR says why, or nothing.
    Halted,
    /// It had work and did none of it.
    Hung,
    /// It named a descriptor that is not underway.
    Lied,
}

/// How a channel came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// Nobody answers any more.
    Gone,
    /// A reset never ended.
    Unstoppable,
    /// It does not start again.
    Unstartable,
    /// It failed again and again with nothing done in between.
    Hopeless,
}

impl End {
    const ALL: [Self; 4] = [Self::Gone, Self::Unstoppable, Self::Unstartable, Self::Hopeless];

    fn reason(self) -> &'static str {
        match self {
            Self::Gone => "its registers read as all ones",
            Self::Unstoppable => "a reset of it never ended",
            Self::Unstartable => "it stays halted after a reset",
            Self::Hopeless => "it failed again and again with nothing done in between",
        }
    }
}

/// What happened to a channel since the engine was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Times that it halted.
    pub halts: u64,
    /// Times that it hung.
    pub hangs: u64,
    /// Completions that could not be true.
    pub lies: u64,
    /// What CHANERR had at the last halt.
    pub errors: Errors,
}

/// The channel's side writes, the owner's side reads. One for each channel, so it also tells whose a channel is.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// 0 while it works, else the end's number.
    end: AtomicU8,
    halts: AtomicU64,
    hangs: AtomicU64,
    lies: AtomicU64,
    errors: AtomicU32,
}

impl Report {
    /// The channel is to be reset.
    pub(super) fn failed(&self, cause: Cause, errors: Errors) {
        let counter = match cause {
            Cause::Halted => {
                self.errors.store(errors.bits(), Ordering::Relaxed);
                &self.halts
            }
            Cause::Hung => &self.hangs,
            Cause::Lied => &self.lies,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The channel came to its end.
    pub(super) fn ended(&self, end: End) {
        let number = (1_u8..).zip(End::ALL).find(|(_, other)| *other == end).map_or(1, |(number, _)| number);
        self.end.store(number, Ordering::Relaxed);
    }

    /// It starts anew.
    pub(super) fn restart(&self) {
        self.end.store(0, Ordering::Relaxed);
    }

    /// How it came to its end, when it did.
    pub(super) fn end(&self) -> Option<End> {
        let word = self.end.load(Ordering::Relaxed);
        (1_u8..).zip(End::ALL).find(|(number, _)| *number == word).map(|(_, end)| end)
    }

    /// A sentence about the end of channel `number`, when it came to one.
    pub(super) fn sentence(&self, number: u8) -> Option<String> {
        let end = self.end()?;
        let Record { halts, hangs, lies, errors } = self.record();
        Some(alloc::format!(
            "channel {number} is out of use: {} ({halts} halts, the last with {errors}; {hangs} hangs, {lies} impossible completions); \
             stop and start the engine",
            end.reason(),
        ))
    }

    /// What happened so far.
    pub(super) fn record(&self) -> Record {
        Record {
            halts: self.halts.load(Ordering::Relaxed),
            hangs: self.hangs.load(Ordering::Relaxed),
            lies: self.lies.load(Ordering::Relaxed),
            errors: Errors::from_bits_retain(self.errors.load(Ordering::Relaxed)),
        }
    }
}
