//! The copy path of one open work queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use drivers::bus::Clock;
use drivers::copy_engine::{CopyDone, CopyEngine, CopyJob, EngineState};
use drivers::dsa::{Cause, End, Portal, Queue, Record, Report};

use super::closing::Closing;
use super::views::Reader;

/// A work queue that this process has open.
pub struct Channel {
    pub(super) number: u8,
    /// The way in, while it is open. Goes before the memory that the device may write to.
    pub(super) portal: Option<Box<dyn Portal + Send>>,
    pub(super) queue: Queue,
    pub(super) reader: Reader,
    pub(super) report: Arc<Report>,
    clock: Arc<dyn Clock>,
    patience: Duration,
    /// When it was first found to have work and to tell nothing.
    idle_since: Option<Duration>,
    /// What it was found guilty of.
    cause: Option<Cause>,
    /// All that it has underway is nobody's: a descriptor that does nothing.
    pub(super) probing: bool,
}

impl Channel {
    pub(super) fn new(number: u8, queue: Queue, reader: Reader, clock: Arc<dyn Clock>, patience: Duration) -> Self {
        let report = Arc::default();
        Self {
            number,
            portal: None,
            queue,
            reader,
            report,
            clock,
            patience,
            idle_since: None,
            cause: None,
            probing: false,
        }
    }

    /// What happened to it so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.report.record()
    }

    fn is_working(&self) -> bool {
        self.portal.is_some() && self.cause.is_none()
    }

    /// It works from now on.
    pub(super) fn begin(&mut self, portal: Box<dyn Portal + Send>) {
        self.report.restart();
        self.settle();
        (self.portal, self.cause, self.idle_since) = (Some(portal), None, None);
    }

    #[cold]
    fn fail(&mut self, cause: Cause) {
        self.report.failed(cause);
        self.report.ended(End::Unmended);
        self.cause = Some(cause);
    }

    #[inline]
    fn issue(&mut self) {
        let was_idle = !self.queue.is_underway();
        let Some(portal) = &mut self.portal else { return };
        if !self.queue.issue(portal) {
            self.report.refused();
        } else if was_idle {
            self.idle_since = None;
        }
    }

    #[inline]
    fn look(&mut self) {
        match self.queue.look(&self.report) {
            Ok(true) => self.idle_since = None,
            Ok(false) => self.watch(),
            Err(cause) => return self.fail(cause),
        }
        if self.is_working() && self.queue.is_waiting() {
            self.issue();
        }
    }

    /// There is work, and nothing new about it.
    fn watch(&mut self) {
        let now = self.clock.now();
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_sub(since) < self.patience {
            return;
        }
        if self.queue.is_underway() {
            return self.fail(Cause::Hung);
        }
        // It takes nothing, so it never had them.
        self.queue.refuse();
        self.idle_since = None;
    }

    /// Begins to close it. `None` when it is not open.
    pub(super) fn close(&mut self) -> Option<Closing> {
        Some(Closing::begin(self.portal.take()?, self.reader.views()))
    }

    /// It is closed: all jobs are the caller's again.
    pub(super) fn closed(&mut self) {
        self.queue.fail_all(self.cause != Some(Cause::Lied), &self.report);
        if std::mem::take(&mut self.probing) {
            self.queue.tell(&mut Vec::with_capacity(self.queue.jobs()));
        }
        self.settle();
    }

    /// Nothing is underway: regions that were taken away can go.
    pub(super) fn settle(&mut self) {
        if !self.queue.is_underway() {
            self.reader.table(true);
        }
    }

    /// It is not open, so that nothing can be underway.
    pub(super) fn is_closed(&self) -> bool {
        self.portal.is_none() && !self.queue.is_underway()
    }
}

impl CopyEngine for Channel {
    fn room(&self) -> usize {
        if self.is_working() { usize::try_from(self.queue.room()).unwrap_or(usize::MAX) } else { 0 }
    }

    fn unit(&self) -> u32 {
        self.queue.unit()
    }

    fn longest(&self) -> u32 {
        self.queue.longest()
    }

    /// Hands back also what reaches outside of all regions that are mapped.
    #[inline]
    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        if !self.is_working() {
            return Err(job);
        }
        let table = self.reader.table(self.queue.jobs() == 0).ok_or(job)?;
        let translated = table.translate(job).ok_or(job)?;
        self.queue.push(translated).map_err(|_| job)
    }

    #[inline]
    fn submit(&mut self) {
        self.queue.submit();
        if self.is_working() && self.queue.is_waiting() {
            self.issue();
        }
    }

    #[inline]
    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize {
        if self.is_working() && (self.queue.is_underway() || self.queue.is_waiting()) {
            self.look();
        }
        let told = self.queue.tell(done);
        if self.queue.jobs() == 0 {
            self.settle();
        }
        told
    }

    fn underway(&self) -> usize {
        self.queue.jobs()
    }

    fn state(&self) -> EngineState {
        if self.is_working() { EngineState::Working } else { EngineState::Broken }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Nobody waits for it; its memory stays until it is closed.
        self.close();
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("number", &self.number)
            .field("underway", &self.queue.jobs())
            .finish_non_exhaustive()
    }
}
