//! Mending a channel that halted, hung or lied: a reset, then a new chain that begins behind the copy that failed.
//!
//! Each call takes one step of a few register accesses and waits for nothing, for other work is waiting on the same thread. Jobs come back only
//! after the reset was confirmed: until then the channel could still write.

use core::time::Duration;

use super::channel::Channel;
use super::errors::Errors;
use super::registers::{
    CHAINADDR_HIGH, CHAINADDR_LOW, CHANCMD, CHANCMP_HIGH, CHANCMP_LOW, CHANCTRL, CHANERR, State, chancmd, chanctrl,
};
use super::report::{Cause, End};
use crate::bus::Bar;

/// How long a channel may take to be suspended. The reset that follows stops it anyway.
const SUSPEND_LIMIT: Duration = Duration::from_millis(10);
/// How long a reset may take.
pub(super) const RESET_LIMIT: Duration = Duration::from_millis(200);
/// How long a channel may take to accept a new chain.
pub(super) const ARM_LIMIT: Duration = Duration::from_millis(100);
/// How often in a row a channel may fail for no copy's sake with nothing done in between.
const STRIKES: u8 = 3;

/// Where a channel is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum Phase {
    /// It copies.
    Working,
    /// It is to come to rest before it is reset.
    Suspending { since: Duration },
    /// It is being reset.
    Resetting { since: Duration },
    /// It was reset, and has a new chain.
    Arming { since: Duration },
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
    errors: Errors,
    /// Failures in a row that no copy is to blame for.
    strikes: u8,
}

impl Recovery {
    /// A copy was done.
    #[inline(always)]
    pub(super) fn worked(&mut self) {
        self.strikes = 0;
    }

    pub(super) fn is_broken(&self) -> bool {
        matches!(self.phase, Phase::Broken { .. } | Phase::Home)
    }

    /// What the channel writes can be believed.
    pub(super) fn is_credible(&self) -> bool {
        !self.is_broken() && self.cause != Some(Cause::Lied)
    }
}

impl<B: Bar> Channel<B> {
    /// The channel failed and is to be mended.
    #[cold]
    pub(super) fn fail(&mut self, cause: Cause) {
        let errors = self.registers.load(&CHANERR);
        let state = self.registers.state();
        let Some(state) = state else { return self.gone() };
        // Cleared by writing them back. Without that no chain is accepted.
        self.registers.store(&CHANERR, errors);
        let errors = Errors::from_bits_retain(errors);
        self.report.failed(cause, errors);
        (self.recovery.cause, self.recovery.errors) = (Some(cause), errors);
        let since = self.clock.now();
        if state == State::Halted {
            self.order_reset(since);
        } else {
            self.registers.store(&CHANCMD, chancmd::SUSPEND);
            self.recovery.phase = Phase::Suspending { since };
        }
    }

    fn order_reset(&mut self, since: Duration) {
        self.registers.store(&CHANCMD, chancmd::RESET);
        self.recovery.phase = Phase::Resetting { since };
    }

    /// Nobody answers any more.
    #[cold]
    pub(super) fn gone(&mut self) {
        self.end(End::Gone, false);
    }

    fn end(&mut self, end: End, stopped: bool) {
        self.report.ended(end);
        if stopped {
            self.ring.fail_all();
        }
        self.recovery.phase = Phase::Broken { stopped };
    }

    /// The next step.
    #[cold]
    pub(super) fn recover(&mut self) {
        let since = match self.recovery.phase {
            Phase::Suspending { since } | Phase::Resetting { since } | Phase::Arming { since } => since,
            Phase::Working | Phase::Broken { .. } | Phase::Home => return,
        };
        let now = self.clock.now();
        let passed = now.saturating_sub(since);
        let command = self.registers.load(&CHANCMD);
        // Asked second, for all ones can look like anything.
        let Some(state) = self.registers.state() else { return self.gone() };
        match self.recovery.phase {
            Phase::Suspending { .. } => {
                if passed >= SUSPEND_LIMIT || !matches!(state, State::Active | State::Idle) {
                    self.order_reset(now);
                }
            }
            Phase::Resetting { .. } => {
                if command & chancmd::RESET == 0 && state != State::Active {
                    self.was_reset();
                } else if passed >= RESET_LIMIT {
                    self.end(End::Unstoppable, false);
                }
            }
            Phase::Arming { .. } => {
                if state != State::Halted {
                    self.recovery.phase = Phase::Working;
                    self.recovery.cause = None;
                    if self.ring.is_underway() {
                        self.ring_doorbell();
                    }
                } else if passed >= ARM_LIMIT {
                    self.end(End::Unstartable, true);
                }
            }
            Phase::Working | Phase::Broken { .. } | Phase::Home => {}
        }
    }

    /// The channel has stopped: finds out what was done, gives back what was not, and goes on behind it.
    fn was_reset(&mut self) {
        // What was done between the failure and the reset still counts.
        let credible = self.recovery.cause != Some(Cause::Lied)
            && match self.last_words() {
                Ok(()) => true,
                Err(cause) => {
                    self.report.failed(cause, Errors::empty());
                    false
                }
            };
        let errors = self.recovery.errors;
        if !(credible && errors.blames_one_copy()) {
            self.recovery.strikes += 1;
        }
        if self.recovery.strikes >= STRIKES {
            return self.end(End::Hopeless, true);
        }
        if credible {
            self.ring.fail_one(errors.failure());
        } else {
            self.ring.fail_issued();
        }
        self.start_chain();
    }

    /// How CHANCTRL is to be, apart from arming interrupts.
    pub(super) fn control(&self) -> u16 {
        let interrupts = if self.interrupts { chanctrl::ERR_INT } else { 0 };
        chanctrl::ANY_ERR_ABORT | chanctrl::ERR_COMPLETION | interrupts
    }

    /// Gives the channel, which was reset and has halted, a chain. It has accepted it when it is not halted any more.
    pub(super) fn start_chain(&mut self) {
        self.begin_chain();
        let registers = &self.registers;
        // The reset clears these.
        registers.store(&CHANCTRL, self.control());
        registers.store_halves(&CHANCMP_LOW, &CHANCMP_HIGH, self.completion.iova().raw());
        registers.store_halves(&CHAINADDR_LOW, &CHAINADDR_HIGH, self.ring.address(self.chain));
        self.recovery.phase = Phase::Arming { since: self.clock.now() };
    }

    /// Starts the channel anew, after a reset of the whole engine.
    pub(super) fn start(&mut self) {
        self.report.restart();
        self.recovery = Recovery::default();
        self.start_chain();
    }

    /// It accepted its first chain, or never will.
    pub(super) fn is_started(&mut self) -> bool {
        self.recover();
        !matches!(self.recovery.phase, Phase::Arming { .. })
    }
}
