//! A card's registers with what every step needs beside them: a clock, deadlines and errors that name the card.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use core::time::Duration;

use super::device::Kind;
use super::registers::{STATUS, status};
use crate::bus::{Bar, BusError, Clock, PciFunction, wait_until};
use crate::nic::NicError;
use crate::register::{Readable, Reg, RegArray, Writable};

/// Size of the window that the registers lie in (8.1.1: 128 KiB behind BAR 0).
const WINDOW: u64 = 0x2_0000;

/// A card's registers.
pub(super) struct Card<B> {
    pub(super) bar: B,
    pub(super) kind: Kind,
    name: String,
    clock: Arc<dyn Clock>,
}

impl<B: Bar> Card<B> {
    /// The registers of `function`.
    pub(super) fn find<F: PciFunction<Bar = B>>(
        function: &mut F,
        kind: Kind,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NicError> {
        let name = function.name().to_string();
        let bar = function.bar(0)?;
        if bar.size() < WINDOW {
            let missing = alloc::format!("BAR 0 has {} bytes where its registers take {WINDOW}", bar.size());
            return Err(NicError::Bus(BusError::Missing { device: name, missing }));
        }
        Ok(Self { bar, kind, name, clock })
    }

    /// Reads a register.
    pub(super) fn load<A: Readable>(&self, register: &Reg<u32, A>) -> u32 {
        register.load(&self.bar, 0)
    }

    /// Writes a register.
    pub(super) fn store<A: Writable>(&self, register: &Reg<u32, A>, value: u32) {
        register.store(&self.bar, 0, value);
    }

    /// Reads register `index` of an array; all ones where there is none, as on the wire.
    pub(super) fn load_at<A: Readable>(&self, registers: &RegArray<u32, A>, index: u32) -> u32 {
        registers.get(index).map_or(u32::MAX, |register| self.load(&register))
    }

    /// Writes register `index` of an array; lost where there is none.
    pub(super) fn store_at<A: Writable>(&self, registers: &RegArray<u32, A>, index: u32, value: u32) {
        if let Some(register) = registers.get(index) {
            self.store(&register, value);
        }
    }

    /// Writes all registers of an array.
    pub(super) fn fill<A: Writable>(&self, registers: &RegArray<u32, A>, value: u32) {
        registers.iter().for_each(|register| self.store(&register, value));
    }

    /// Clears bits of a register and sets others.
    pub(super) fn change<A: Readable + Writable>(&self, register: &Reg<u32, A>, clear: u32, set: u32) {
        self.store(register, self.load(register) & !clear | set);
    }

    /// The same for register `index` of an array.
    pub(super) fn change_at<A: Readable + Writable>(
        &self,
        registers: &RegArray<u32, A>,
        index: u32,
        clear: u32,
        set: u32,
    ) {
        if let Some(register) = registers.get(index) {
            self.change(&register, clear, set);
        }
    }

    /// Makes sure that all writes so far have arrived.
    pub(super) fn flush(&self) {
        let _ = self.load(&STATUS);
    }

    /// Port of the card, 0 or 1: two ports share some of its parts.
    pub(super) fn port(&self) -> u32 {
        u32::from(self.load(&STATUS) & status::LAN_ID != 0)
    }

    /// Nobody answers: reserved bits of STATUS read as ones.
    pub(super) fn is_gone(&self) -> bool {
        self.load(&STATUS) == u32::MAX
    }

    /// `Err` when nobody answers.
    pub(super) fn present(&self) -> Result<(), NicError> {
        if self.is_gone() { Err(self.gone()) } else { Ok(()) }
    }

    /// Time since some start.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Lets at least `time` pass.
    pub(super) fn rest(&self, time: Duration) {
        wait_until(&*self.clock, time, time, || false);
    }

    /// Lets about `time` pass, without looking at the clock.
    pub(super) fn pause(&self, time: Duration) {
        self.clock.pause(time);
    }

    /// Waits until `done` says so, asking about every `step`. A card that is gone ends it at once.
    ///
    /// # Errors
    /// [`NicError::Timeout`] naming `what` when `limit` passed first; [`BusError::Gone`].
    pub(super) fn wait(
        &self,
        limit: Duration,
        step: Duration,
        what: &'static str,
        mut done: impl FnMut() -> bool,
    ) -> Result<(), NicError> {
        let mut gone = false;
        let ended = wait_until(&*self.clock, limit, step, || {
            // Asked second, for all ones can look like success.
            let done = done();
            gone = self.is_gone();
            done || gone
        });
        match (gone, ended) {
            (true, _) => Err(self.gone()),
            (false, true) => Ok(()),
            (false, false) => Err(self.timed_out(what, limit)),
        }
    }

    /// The error for a card that is gone.
    pub(super) fn gone(&self) -> NicError {
        NicError::Bus(BusError::Gone {
            device: self.name.clone(),
            reason: "its registers read as all ones".to_string(),
        })
    }

    /// The card broke its own rules.
    pub(super) fn misbehaves(&self, reason: impl Into<String>) -> NicError {
        NicError::Device { device: self.name.clone(), reason: reason.into() }
    }

    /// The caller asked for what cannot be.
    pub(super) fn refuses(&self, reason: impl Into<String>) -> NicError {
        NicError::Request { device: self.name.clone(), reason: reason.into() }
    }

    /// Memory ran out.
    pub(super) fn out_of_memory(&self, source: hugemem::OutOfMemory) -> NicError {
        NicError::Memory { device: self.name.clone(), source }
    }

    fn timed_out(&self, what: &'static str, limit: Duration) -> NicError {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        NicError::Timeout { device: self.name.clone(), what, milliseconds }
    }
}
