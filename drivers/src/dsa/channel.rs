//! The copy path of one channel.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::{OutOfMemory, Region};

use super::command::Desk;
use super::portal::Page;
use super::queue::{Queue, Shape};
use super::recovery::{Phase, Recovery};
use super::registers::{DeviceState, QueueState, Registers};
use super::report::{Cause, End, Record, Report};
use super::software_error::SoftwareError;
use crate::bus::{Bar, Clock};
use crate::copy_engine::{CopyDone, CopyEngine, CopyJob, EngineState};
use crate::stopped::Stopped;

/// How often the registers of a queue that has work and tells nothing are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One work queue of a device.
pub struct Channel<B: Bar> {
    pub(super) registers: Registers<B>,
    portal: Page<B>,
    pub(super) queue: Queue,
    pub(super) recovery: Recovery,
    pub(super) report: Arc<Report>,
    pub(super) desk: Arc<Desk>,
    pub(super) clock: Arc<dyn Clock>,
    patience: Duration,
    /// When the queue was first found to have work and to tell nothing.
    idle_since: Option<Duration>,
    /// When its registers were looked at last.
    looked: Duration,
}

/// What is the same for all channels of a device.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) desk: Arc<Desk>,
    pub(super) shape: Shape,
    pub(super) shared: bool,
    pub(super) patience: Duration,
}

impl<B: Bar> Channel<B> {
    /// The channel of a work queue, whose registers begin at `entry`, with memory of its own.
    pub(super) fn new(
        [bar, portals]: [B; 2],
        number: u8,
        entry: u32,
        memory: &Region,
        common: Common,
    ) -> Result<Self, OutOfMemory> {
        let Common { clock, desk, shape, shared, patience } = common;
        Ok(Self {
            registers: Registers::new(bar, number, entry),
            portal: Page::new(portals, number, shared),
            queue: Queue::new(memory, shape)?,
            recovery: Recovery::default(),
            report: Arc::default(),
            desk,
            clock,
            patience,
            idle_since: None,
            looked: Duration::ZERO,
        })
    }

    /// Its number on the device, which is its work queue's.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.registers.queue
    }

    /// What happened to it so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.report.record()
    }

    /// Issues what waits for the work queue.
    #[inline]
    pub(super) fn issue(&mut self) {
        let was_idle = !self.queue.is_underway();
        if self.queue.issue(&mut self.portal) {
            if was_idle {
                self.idle_since = None;
            }
        } else {
            self.report.refused();
        }
    }

    /// Looks what is done.
    #[inline(always)]
    fn look(&mut self) {
        let before = self.queue.settled();
        let outcome = self.queue.look(&self.report);
        if self.queue.settled() != before {
            self.recovery.worked();
        }
        match outcome {
            Ok(true) => self.idle_since = None,
            Ok(false) => self.watch(),
            Err(cause) => self.fail(cause),
        }
        if self.recovery.phase == Phase::Working && self.queue.is_waiting() {
            self.issue();
        }
    }

    /// There is work, and nothing new about it.
    fn watch(&mut self) {
        let now = self.clock.now();
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_sub(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        match self.registers.device() {
            None => return self.end(End::Gone, false),
            Some(DeviceState::Halted) => return self.end(End::Halted, false),
            Some(DeviceState::Disabled) => return self.end(End::Reset, false),
            Some(DeviceState::Enabled | DeviceState::Draining) => {}
        }
        if let Some(error) = SoftwareError::load(self.registers.bar())
            && error.queue().is_none_or(|queue| queue == self.number())
        {
            SoftwareError::acknowledge(self.registers.bar());
            self.report.dropped(error);
            return self.fail(Cause::Dropped);
        }
        let waited = now.saturating_sub(since) >= self.patience;
        if self.registers.queue_state() != Some(QueueState::Enabled) {
            self.fail(Cause::Disabled);
        } else if waited && self.queue.is_underway() {
            self.fail(Cause::Hung);
        } else if waited {
            // It takes nothing, so it never had them.
            self.queue.refuse();
            self.idle_since = None;
        }
    }

    /// All jobs are the caller's again.
    pub(super) fn reset(&mut self, _: &Stopped) {
        self.queue.fail_all(self.recovery.is_credible(), &self.report);
        self.recovery.phase = Phase::Broken { stopped: true };
    }
}

impl<B: Bar> CopyEngine for Channel<B> {
    fn room(&self) -> usize {
        if self.recovery.is_broken() { 0 } else { usize::try_from(self.queue.room()).unwrap_or(usize::MAX) }
    }

    fn unit(&self) -> u32 {
        self.queue.unit()
    }

    fn longest(&self) -> u32 {
        self.queue.longest()
    }

    #[inline]
    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        if self.recovery.is_broken() {
            return Err(job);
        }
        self.queue.push(job)
    }

    #[inline]
    fn submit(&mut self) {
        self.queue.submit();
        // A queue that is being mended is given them when it works again.
        if self.recovery.phase == Phase::Working && self.queue.is_waiting() {
            self.issue();
        }
    }

    #[inline]
    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize {
        match self.recovery.phase {
            Phase::Working if self.queue.is_underway() || self.queue.is_waiting() => self.look(),
            Phase::Working => {}
            _ => self.recover(),
        }
        self.queue.tell(done)
    }

    fn underway(&self) -> usize {
        self.queue.jobs()
    }

    fn state(&self) -> EngineState {
        match self.recovery.phase {
            Phase::Working => EngineState::Working,
            Phase::Broken { .. } => EngineState::Broken,
            _ => EngineState::Recovering,
        }
    }

    /// An interrupt comes with each submission when the device was opened with interrupts; so it is only to be found out whether one is still to come.
    fn arm(&mut self) -> bool {
        self.queue.interrupts() && self.recovery.phase == Phase::Working && self.queue.is_silent()
    }
}

impl<B: Bar> fmt::Debug for Channel<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("number", &self.number())
            .field("underway", &self.queue.jobs())
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}
