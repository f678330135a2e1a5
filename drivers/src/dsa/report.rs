//! What a channel, which runs on another thread, tells the owner of the device.

use alloc::string::String;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::software_error::SoftwareError;
use super::status::Status;

/// Why a work queue had to be stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// It had work and did none of it.
    Hung,
    /// It wrote what cannot be true.
    Lied,
    /// The device dropped a descriptor of it (SWERR).
    Dropped,
    /// A batch ended before all of its copies had begun.
    BatchFailed,
    /// The device refuses copies because of how the queue is set up.
    Misconfigured,
    /// It is not enabled any more.
    Disabled,
}

/// How a channel came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum End {
    /// Nobody answers any more.
    Gone,
    /// The device halted.
    Halted,
    /// The device was disabled or reset behind the driver's back.
    Reset,
    /// The work queue was never seen to stop.
    Unstoppable,
    /// It cannot be enabled again.
    Unstartable,
    /// It failed again and again with nothing done in between.
    Hopeless,
    /// It failed, and there is no way to mend it while it is open.
    Unmended,
}

impl End {
    const ALL: [Self; 7] =
        [Self::Gone, Self::Halted, Self::Reset, Self::Unstoppable, Self::Unstartable, Self::Hopeless, Self::Unmended];

    fn reason(self) -> &'static str {
        match self {
            Self::Gone => "its registers read as all ones",
            Self::Halted => "the device halted",
            Self::Reset => "the device was reset or disabled by somebody else",
            Self::Unstoppable => "it could not be disabled",
            Self::Unstartable => "it could not be enabled again",
            Self::Hopeless => "it failed again and again with nothing done in between",
            Self::Unmended => "it failed",
        }
    }
}

/// What happened to a channel since the device was opened.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Record {
    /// Copies that the device failed, and nothing else did.
    pub failures: u64,
    /// Page faults among them.
    pub faults: u64,
    /// What the last failure was, of a copy or of a batch.
    pub status: Status,
    /// Where the last page fault was, as the device saw the address.
    pub fault_address: u64,
    /// Times that it hung.
    pub hangs: u64,
    /// Answers that could not be true.
    pub lies: u64,
    /// Times that the device dropped a descriptor.
    pub drops: u64,
    /// The last error that it dropped one for.
    pub software_error: SoftwareError,
    /// Other times that the work queue had to be stopped: batches that failed as such, queues that were set up wrongly or disabled.
    pub stops: u64,
    /// Times that the work queue was full, or took nothing for another reason.
    pub retries: u64,
}

/// The channel's side writes, the owner's side reads. One for each channel, so it also tells whose a channel is.
#[derive(Debug, Default)]
pub struct Report {
    /// 0 while it works, else the end's number.
    end: AtomicU8,
    failures: AtomicU64,
    faults: AtomicU64,
    status: AtomicU8,
    fault_address: AtomicU64,
    hangs: AtomicU64,
    lies: AtomicU64,
    drops: AtomicU64,
    software_error: [AtomicU64; 2],
    stops: AtomicU64,
    retries: AtomicU64,
}

impl Report {
    /// The device said this, which is no success.
    pub(super) fn saw(&self, status: Status, address: u64) {
        self.status.store(status.0, Ordering::Relaxed);
        if status.is_fault() {
            self.fault_address.store(address, Ordering::Relaxed);
        }
    }

    /// A copy failed, and nothing else did.
    pub(super) fn copy_failed(&self, status: Status, address: u64) {
        self.saw(status, address);
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.faults.fetch_add(status.is_fault().into(), Ordering::Relaxed);
    }

    /// The work queue took nothing.
    pub fn refused(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// The device dropped a descriptor for this.
    pub(super) fn dropped(&self, error: SoftwareError) {
        for (word, value) in self.software_error.iter().zip(error.words()) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The work queue is to be stopped.
    pub fn failed(&self, cause: Cause) {
        let counter = match cause {
            Cause::Hung => &self.hangs,
            Cause::Lied => &self.lies,
            Cause::Dropped => &self.drops,
            Cause::BatchFailed | Cause::Misconfigured | Cause::Disabled => &self.stops,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The channel came to its end.
    pub fn ended(&self, end: End) {
        let number = (1_u8..).zip(End::ALL).find(|(_, other)| *other == end).map_or(1, |(number, _)| number);
        self.end.store(number, Ordering::Relaxed);
    }

    /// It starts anew.
    pub fn restart(&self) {
        self.end.store(0, Ordering::Relaxed);
    }

    /// How it came to its end, when it did.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        let word = self.end.load(Ordering::Relaxed);
        (1_u8..).zip(End::ALL).find(|(number, _)| *number == word).map(|(_, end)| end)
    }

    /// A sentence about the end of channel `number`, when it came to one.
    #[must_use]
    pub fn sentence(&self, number: u8) -> Option<String> {
        let end = self.end()?;
        let Record { hangs, lies, drops, stops, software_error, status, .. } = self.record();
        Some(alloc::format!(
            "channel {number} is out of use: {} ({hangs} hangs, {lies} impossible completions, {drops} dropped descriptors, {stops} other stops; \
             {software_error}; the last status of a failed copy: {status}); stop and start the engine",
            end.reason(),
        ))
    }

    /// What happened so far.
    #[must_use]
    pub fn record(&self) -> Record {
        let [word, address] = &self.software_error;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Record {
            failures: get(&self.failures),
            faults: get(&self.faults),
            status: Status(self.status.load(Ordering::Relaxed)),
            fault_address: get(&self.fault_address),
            hangs: get(&self.hangs),
            lies: get(&self.lies),
            drops: get(&self.drops),
            software_error: SoftwareError::from_words([get(word), get(address)]),
            stops: get(&self.stops),
            retries: get(&self.retries),
        }
    }
}
