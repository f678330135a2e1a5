//! Mending a work queue that hung, lied or lost descriptors: it is aborted and disabled, which the device confirms, and then enabled again.
//!
//! Each call takes one step of a few register accesses and waits for nothing, for other work is waiting on the same thread. Jobs come back only
//! after the queue is known to be disabled: until then the device could still write. The command register is the whole device's; who finds it
//! taken tries again with the next call.

use core::time::Duration;

use super::channel::Channel;
use super::command::{self, Command, CommandError};
use super::registers::{DeviceState, QueueState};
use super::report::{Cause, End};
use crate::bus::Bar;
use crate::copy_engine::CopyFailure;

/// How long a command may take, waiting for those of other channels included.
const COMMAND_LIMIT: Duration = Duration::from_millis(200);
/// How often in a row a queue may fail for no copy's sake with nothing done in between.
const STRIKES: u8 = 3;

/// What a work queue is told, one after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// What it has not begun is thrown away.
    Abort,
    /// What it has begun is finished, and nothing is taken any more.
    Disable,
    /// It works again.
    Enable,
}

/// Where a channel is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Phase {
    /// It copies.
    Working,
    /// It is being mended: a command is to be given, or was `given`.
    Mending { step: Step, since: Duration, given: bool },
    /// It is out of use.
    Broken {
        /// It is known not to touch memory any more.
        stopped: bool,
    },
    /// It was never started, or all of it was taken back.
    #[default]
    Home,
}

/// How far the mending of a channel is.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Recovery {
    pub(super) phase: Phase,
    /// What is being mended.
    cause: Option<Cause>,
    /// Failures in a row that no copy is to blame for.
    strikes: u8,
}

impl Recovery {
    /// Of a channel that works from now on.
    pub(super) fn working() -> Self {
        Self { phase: Phase::Working, ..Self::default() }
    }

    /// A copy was done, or failed for reasons of its own.
    #[inline(always)]
    pub(super) fn worked(&mut self) {
        self.strikes = 0;
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.phase, Phase::Broken { .. } | Phase::Home)
    }

    /// What the device writes about this queue can be believed.
    pub(super) fn is_credible(&self) -> bool {
        self.cause != Some(Cause::Lied)
    }
}

impl<B: Bar> Channel<B> {
    /// The work queue failed and is to be mended.
    #[cold]
    pub(super) fn fail(&mut self, cause: Cause) {
        self.report.failed(cause);
        self.recovery.cause = Some(cause);
        self.recovery.strikes += 1;
        self.begin(Step::Abort);
    }

    fn begin(&mut self, step: Step) {
        self.recovery.phase = Phase::Mending { step, since: self.clock.now(), given: false };
    }

    #[cold]
    pub(super) fn end(&mut self, end: End, stopped: bool) {
        self.report.ended(end);
        if stopped {
            self.queue.fail_all(self.recovery.is_credible(), &self.report);
        }
        self.recovery.phase = Phase::Broken { stopped };
    }

    /// The next step.
    #[cold]
    pub(super) fn recover(&mut self) {
        let Phase::Mending { step, since, given } = self.recovery.phase else { return };
        let waited = self.clock.now().saturating_sub(since);
        let device = self.registers.device();
        let outcome = if given { command::ended(self.registers.bar()) } else { None };
        let end = match device {
            None => Some(End::Gone),
            Some(DeviceState::Halted) => Some(End::Halted),
            Some(DeviceState::Disabled) => Some(End::Reset),
            Some(_) if outcome.is_none() && waited >= COMMAND_LIMIT => {
                Some(if step == Step::Enable { End::Unstartable } else { End::Unstoppable })
            }
            Some(_) => None,
        };
        if let Some(end) = end {
            if given && outcome.is_some() {
                self.desk.leave();
            }
            // With a command that never ends, the desk stays taken: nobody can give another one before the device is reset.
            return self.end(end, step == Step::Enable);
        }
        match outcome {
            Some(outcome) => {
                self.desk.leave();
                self.done(step, outcome.map(drop));
            }
            None if !given && self.desk.take() => {
                self.command(step).give(self.registers.bar());
                self.recovery.phase = Phase::Mending { step, since, given: true };
            }
            None => {}
        }
    }

    fn command(&self, step: Step) -> Command {
        let queue = self.number();
        match step {
            Step::Abort => Command::AbortQueue(queue),
            Step::Disable => Command::DisableQueue(queue),
            Step::Enable => Command::EnableQueue(queue),
        }
    }

    /// A command came to its end.
    fn done(&mut self, step: Step, outcome: Result<(), CommandError>) {
        let state = self.registers.queue_state();
        match step {
            // Whatever came of it: disabling waits for what it left.
            Step::Abort => self.begin(Step::Disable),
            Step::Disable => {
                let ended = matches!(outcome, Ok(()) | Err(CommandError::NOT_ENABLED));
                // Either alone could be a lie.
                if ended && state == Some(QueueState::Disabled) {
                    self.was_stopped()
                } else {
                    self.end(End::Unstoppable, false)
                }
            }
            Step::Enable if outcome.is_ok() && state == Some(QueueState::Enabled) => {
                self.recovery.phase = Phase::Working;
                self.recovery.cause = None;
                if self.queue.is_waiting() {
                    self.issue();
                }
            }
            Step::Enable => self.end(End::Unstartable, true),
        }
    }

    /// The work queue has stopped: finds out what was done, gives back what was not, and goes on.
    fn was_stopped(&mut self) {
        let failure = match self.recovery.cause {
            Some(Cause::BatchFailed | Cause::Misconfigured) => CopyFailure::Refused,
            _ => CopyFailure::Unproven,
        };
        if self.queue.stopped(self.recovery.is_credible(), failure, &self.report) {
            // Others were done behind the one that was not.
            self.recovery.strikes = 1;
        }
        if self.recovery.strikes >= STRIKES {
            return self.end(End::Hopeless, true);
        }
        self.begin(Step::Enable);
    }
}
