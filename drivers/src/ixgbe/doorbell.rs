//! Tail registers: how a queue tells the card of new descriptors (8.2.3.8.5, 8.2.3.9.8).

use crate::bus::Bar;
use crate::register::Reg;

/// The tail register of one queue.
#[derive(Debug)]
pub(super) struct Doorbell<B> {
    bar: B,
    offset: u32,
}

impl<B: Bar> Doorbell<B> {
    /// That behind `tail`, RDT or TDT of the queue.
    pub(super) fn new(bar: B, tail: &Reg<u32>) -> Self {
        Self { bar, offset: tail.offset() }
    }

    /// Descriptors before `tail` are the card's, after all earlier writes to memory.
    #[inline(always)]
    pub(super) fn ring(&self, tail: u16) {
        self.bar.publish(self.offset, u32::from(tail));
    }
}
