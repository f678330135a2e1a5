//! A card on a test bench: registers by number, time by the poll.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use drivers::bus::{Bar, Interrupt, PciFunction};

use super::super::{Config, Ixgbe};
use crate::EventInterrupt;
use crate::card::{self, Control, Device, Function, Options, Window};
use crate::wire::Null;

/// What a poll takes.
pub(crate) const STEP: Duration = Duration::from_micros(100);

/// The card, and both of its sides.
pub(crate) struct Bench {
    pub(crate) function: Function<Ixgbe>,
    pub(crate) window: Window<Ixgbe>,
    device: Device<Ixgbe, Null>,
}

impl Bench {
    pub(crate) fn new(config: Config) -> Self {
        let options = Options { time: card::Time::PerPoll(STEP), ..Options::named("ixgbe0") };
        let (mut function, device) = card::new(options, Ixgbe::new(config), Null).unwrap();
        let window = function.bar(0).unwrap();
        Self { function, window, device }
    }

    pub(crate) fn load(&self, offset: u32) -> u32 {
        self.window.load(offset)
    }

    pub(crate) fn store(&self, offset: u32, value: u32) {
        self.window.store(offset, value);
    }

    /// Polls until `time` has passed.
    pub(crate) fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_nanos().div_ceil(STEP.as_nanos()) {
            let _work = self.device.poll();
        }
    }

    pub(crate) fn milliseconds(&mut self, count: u64) {
        self.pass(Duration::from_millis(count));
    }

    pub(crate) fn control(&self) -> Control<Ixgbe> {
        self.device.control()
    }

    pub(crate) fn vectors(&mut self, count: u16) -> Vec<EventInterrupt> {
        self.function.interrupts(count).unwrap()
    }
}

/// Whether a vector was signalled since it was asked last.
pub(crate) fn rang(vector: &mut EventInterrupt) -> bool {
    vector.wait(Duration::ZERO).unwrap()
}
