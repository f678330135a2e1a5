//! What a copy engine offers: copies from memory to memory that the processor does not have to do itself.
//!
//! A caller pushes [`CopyJob`]s, tells the engine of them with one [`CopyEngine::submit`], and polls
//! [`CopyEngine::complete`], which gives each job back exactly once, with what became of it. Nobody blocks: an engine that halts or hangs is
//! mended, or found to be beyond that, in steps of a few register accesses that `complete` takes.
//!
//! A job is only ever [`CopyOutcome::Copied`] when the device said so about this very job, in an answer that can be true; and given back as
//! [`CopyOutcome::Failed`] only when the device is known not to touch its memory any more, so that the caller can do the copy itself at once.

use alloc::vec::Vec;
use core::fmt;

use hugemem::{Iova, Region};

use crate::error::DeviceError;

/// A copy from memory to memory, both as the device sees them. The memory must stay mapped for the device until the job comes back.
///
/// Jobs that are underway together should not depend on each other: one that fails is given back while those behind it are still done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyJob {
    source: Iova,
    target: Iova,
    length: u32,
    token: u64,
}

impl CopyJob {
    /// A copy of `length` bytes, which the caller finds again by `token`. `None` when either end leaves the address space.
    #[must_use]
    pub fn new(source: Iova, target: Iova, length: u32, token: u64) -> Option<Self> {
        source.checked_add(length.into())?;
        target.checked_add(length.into())?;
        Some(Self { source, target, length, token })
    }

    /// Where the bytes are.
    #[must_use]
    pub fn source(&self) -> Iova {
        self.source
    }

    /// Where they are to be.
    #[must_use]
    pub fn target(&self) -> Iova {
        self.target
    }

    /// How many there are.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// What the caller knows the job by.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }
}

/// A job that came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CopyDone {
    /// The job's token.
    pub token: u64,
    /// What became of it.
    pub outcome: CopyOutcome,
}

/// What became of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyOutcome {
    /// All bytes are where they were to be.
    Copied,
    /// Any part of the target may have been written, or none. The device does not touch either end any more.
    Failed(CopyFailure),
}

/// Why a copy failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CopyFailure {
    /// The source could not be read.
    Source,
    /// The target could not be written.
    Target,
    /// The device found the bytes damaged on their way.
    Integrity,
    /// The device did not accept the job.
    Refused,
    /// The device halted, hung, was stopped or lied before it had shown that the copy is done.
    Unproven,
}

impl fmt::Display for CopyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source => "the source cannot be read",
            Self::Target => "the target cannot be written",
            Self::Integrity => "the bytes were damaged on their way",
            Self::Refused => "the engine refused the job",
            Self::Unproven => "the engine did not show that the copy was done",
        })
    }
}

/// How an engine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineState {
    /// It works.
    Working,
    /// It failed and is being mended: jobs are taken, and go on when it is done.
    Recovering,
    /// It takes no jobs any more, and what is left of them comes back only when its device is stopped; start it again then.
    Broken,
}

/// Copies memory. Owned by one thread at a time.
pub trait CopyEngine: Send {
    /// How many jobs can be pushed now, none of them longer than [`CopyEngine::unit`].
    fn room(&self) -> usize;

    /// Bytes that the device copies in one piece. A longer job takes the room of several.
    fn unit(&self) -> u32;

    /// Bytes of the longest job that can ever be pushed.
    fn longest(&self) -> u32;

    /// Takes a job, which starts at [`CopyEngine::submit`].
    ///
    /// # Errors
    /// Hands the job back when there is no room for it now, or when it is longer than [`CopyEngine::longest`].
    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob>;

    /// Starts what was pushed.
    fn submit(&mut self);

    /// Appends jobs that came back, in the order in which they were pushed, and returns how many. `done` is never made larger: what does not fit
    /// comes with the next call.
    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize;

    /// Jobs that were pushed and have not come back.
    fn underway(&self) -> usize;

    /// How it is.
    fn state(&self) -> EngineState;

    /// Asks for an interrupt at the next job that is done. `false` when there is something to poll for already, or the engine has no interrupt: poll
    /// again instead of sleeping. Sleep no longer than a moment even then: only polling finds out that an engine hangs.
    fn arm(&mut self) -> bool {
        false
    }
}

/// A device with copy engines, after its driver took it over: everything but the copy path.
///
/// Each engine belongs to one thread; the device belongs to whoever mends it when an engine breaks, by [`CopyDevice::stop`] and
/// [`CopyDevice::start`].
pub trait CopyDevice: Send {
    /// One engine.
    type Engine: CopyEngine + 'static;
    /// Its interrupt.
    type Interrupt: Send + 'static;

    /// The device's name, for messages.
    fn name(&self) -> &str;

    /// Starts all engines and hands them out, each with its interrupt when they have any.
    ///
    /// # Errors
    /// When engines are handed out already, or the device is gone or does not come up in time. Everything is at home then, and the
    /// device off the bus.
    fn start(&mut self) -> Result<Vec<Started<Self>>, DeviceError>;

    /// Stops everything: takes engines back, and with them all jobs that had not come back, which are appended to `back` in the order in which they were pushed,
    /// engine by engine. What the device had shown to be done is [`CopyOutcome::Copied`], all else [`CopyOutcome::Failed`], also what was never submitted.
    /// An engine that is dropped instead of given back here keeps the device from starting again.
    ///
    /// # Errors
    /// When the device does not stop, or is gone. Jobs come back even so, when the bus could take all memory away from it; otherwise with a later call, or never:
    /// the device may still touch their memory.
    fn stop(&mut self, engines: Vec<Self::Engine>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError>;

    /// Makes memory reachable for copies, at the region's own address, whether engines run or not. A second time does nothing.
    ///
    /// # Errors
    /// When the bus cannot.
    fn map(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// Takes memory away, of which no job may be underway, whether engines run or not.
    ///
    /// # Errors
    /// When the bus cannot.
    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// Whether all engines that were handed out still work, or can be mended without help.
    ///
    /// # Errors
    /// Names the first that cannot. The cure is [`CopyDevice::stop`] and [`CopyDevice::start`].
    fn check(&mut self) -> Result<(), DeviceError>;
}

/// An engine that was started, and its interrupt when it has one.
pub type Started<D> = (<D as CopyDevice>::Engine, Option<<D as CopyDevice>::Interrupt>);
