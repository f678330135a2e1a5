//! How a channel tells its driver: completions, errors, interrupts.

use std::time::Duration;

use super::channel::{ABORT_ANY, Channel, ERROR_COMPLETION, ERROR_INTERRUPT, State, Surroundings};
use super::errors::Errors;

/// A completion that is kept back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) due: Duration,
    pub(super) address: u64,
    pub(super) write: bool,
    pub(super) interrupt: bool,
}

impl Channel {
    /// Something is wrong, and the channel stops.
    pub(super) fn halt(&mut self, around: &mut Surroundings<'_>, errors: Errors) {
        self.flush(around);
        self.stop();
        self.note(around, errors);
        if self.control & ERROR_COMPLETION != 0 && !errors.contains(Errors::COMPLETION_ADDRESS) {
            let status = self.status();
            if !self.write_status(around, status) {
                self.note(around, Errors::COMPLETION_ADDRESS);
            }
        }
        let masked = !errors.is_empty() && self.mask.contains(errors);
        if self.control & ERROR_INTERRUPT != 0 && !masked {
            self.interrupt(around);
        }
    }

    /// Stops and says nothing.
    pub(super) fn stop(&mut self) {
        self.state = State::Halted;
        self.job = None;
        self.suspending = false;
    }

    /// Something is wrong that the channel survives, unless it is to abort at any error.
    pub(super) fn unaffiliated(&mut self, around: &mut Surroundings<'_>) -> bool {
        if self.control & ABORT_ANY != 0 {
            return true;
        }
        self.note(around, Errors::UNAFFILIATED);
        false
    }

    /// Errors show in the registers.
    pub(super) fn note(&mut self, around: &mut Surroundings<'_>, errors: Errors) {
        self.errors |= errors;
        around.pci.report(errors.difference(self.mask));
    }

    /// A descriptor is done: what it asked for follows.
    pub(super) fn complete(&mut self, around: &mut Surroundings<'_>, held: Held) {
        self.completed = held.address;
        if held.write {
            let state = if self.count == self.done && self.held.is_empty() { State::Idle } else { State::Active };
            let status = self.status_as(state);
            if !self.write_status(around, status) {
                self.halt(around, Errors::COMPLETION_ADDRESS);
                return;
            }
        }
        if held.interrupt {
            self.interrupt(around);
        }
    }

    /// A descriptor is done, which only CHANSTS shows.
    pub(super) fn tell(&mut self, address: u64) {
        self.completed = address;
    }

    /// Completions that are kept back are written now.
    pub(super) fn flush(&mut self, around: &mut Surroundings<'_>) {
        while let Some(held) = self.held.pop_front() {
            self.complete(around, held);
        }
    }

    /// Writes to CHANCMP; `false` when that is no place to write to.
    pub(super) fn write_status(&mut self, around: &mut Surroundings<'_>, status: u64) -> bool {
        if !self.completion_known || !self.completion.is_multiple_of(8) {
            return false;
        }
        let written = around.bus.write(&mut self.completion_hint, self.completion, &status.to_le_bytes());
        written.is_ok()
    }

    /// Signals the channel's interrupt, once until the driver allows the next one.
    pub(super) fn interrupt(&mut self, around: &mut Surroundings<'_>) {
        if self.interrupt_disabled {
            self.owed = true;
            return;
        }
        self.interrupt_disabled = true;
        around.interrupts.raise(around.bus, around.tricks, self.number);
    }
}
