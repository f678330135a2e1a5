//! Interrupts: one MSI-X vector for each receive queue, moderated (7.3, 8.2.3.5).
//!
//! A vector that fires is acknowledged and masked by the card itself, so that one costs no register access but the one
//! that arms it. Transmit queues and everything else have none.

use core::time::Duration;

use super::card::Card;
use super::registers::{EIAC, EIAM, EIMC, EIMS, EITR, GPIE, IVAR, IVAR_MISC, eitr, gpie, ivar};
use crate::bus::Bar;

/// The unit of EITR at 1 and 10 Gb/s (7.3.2.1).
const INTERVAL_UNIT: u128 = 2048;

/// The interrupt of one receive queue.
#[derive(Debug)]
pub(super) struct Vector<B> {
    bar: B,
    bit: u32,
}

impl<B: Bar> Vector<B> {
    /// Vector `index`, below 16.
    pub(super) fn new(bar: B, index: u32) -> Self {
        Self { bar, bit: 1_u32.checked_shl(index).unwrap_or(0) }
    }

    /// Asks for one interrupt. It fires at once when frames came since the last.
    #[inline]
    pub(super) fn arm(&self) {
        EIMS.store(&self.bar, 0, self.bit);
    }

    /// No interrupt until it is armed.
    #[inline]
    pub(super) fn disarm(&self) {
        EIMC.store(&self.bar, 0, self.bit);
    }
}

/// Sets up vectors for `pairs` receive queues, all masked; none when `pairs` is 0.
pub(super) fn set_up<B: Bar>(card: &Card<B>, pairs: u32, interval: Duration) {
    let vectors = 1_u32.checked_shl(pairs).unwrap_or(0).wrapping_sub(1);
    card.fill(&IVAR, 0);
    card.store(&IVAR_MISC, 0);
    let mut modes = gpie::OCD;
    if pairs > 0 {
        modes |= gpie::MULTIPLE_MSIX | gpie::PBA_SUPPORT | gpie::EIAME;
    }
    card.store(&GPIE, modes);
    for pair in 0..pairs {
        // Each register holds two queues: receive and transmit of one, then of the other (7.3.4.1.3).
        card.change_at(&IVAR, pair / 2, 0, (pair | ivar::VALID) << (16 * (pair % 2)));
        card.store_at(&EITR, pair, ticks(interval) << eitr::INTERVAL_SHIFT | eitr::CNT_WDIS);
    }
    card.store(&EIAC, vectors);
    card.store(&EIAM, vectors);
}

/// The interval in the card's unit.
fn ticks(interval: Duration) -> u32 {
    let ticks = interval.as_nanos().div_ceil(INTERVAL_UNIT);
    u32::try_from(ticks).unwrap_or(u32::MAX).min(eitr::INTERVAL_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_rounded_up_and_end_at_the_most_that_fits() {
        for (micros, expected) in [(0, 0), (1, 1), (20, 10), (1046, 511), (1_000_000, 511)] {
            assert_eq!(ticks(Duration::from_micros(micros)), expected, "{micros}");
        }
    }
}
