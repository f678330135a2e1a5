//! How long frames are underway.

use std::sync::atomic::{AtomicU64, Ordering};

/// Slots per power of two.
const FINE: u64 = 16;
/// Slots in all: up to about 68 seconds.
const SLOTS: usize = 528;

/// A histogram of times with a resolution of 1/16.
#[derive(Debug)]
pub struct Latency {
    slots: Box<[AtomicU64]>,
}

impl Default for Latency {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Latency {
    fn slot(nanoseconds: u64) -> usize {
        let value = nanoseconds.max(FINE);
        let power = u64::from(value.ilog2());
        let slot = (power - 4) * FINE + (value >> (power - 4)) - FINE;
        usize::try_from(slot).unwrap_or(usize::MAX).min(SLOTS - 1)
    }

    fn slot_end(slot: usize) -> u64 {
        let slot = slot as u64;
        (FINE + slot % FINE + 1) << (slot / FINE)
    }

    /// Counts one time. One thread writes; others may read.
    pub fn record(&self, nanoseconds: u64) {
        if let Some(slot) = self.slots.get(Self::slot(nanoseconds)) {
            slot.store(slot.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    /// Nanoseconds that `fraction` (0 to 1) of the frames did not exceed; `None` when there were none.
    #[must_use]
    pub fn percentile(&self, fraction: f64) -> Option<u64> {
        let counts: Vec<u64> = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rank needs no more precision")]
        let rank = fraction.clamp(0.0, 1.0) * total as f64;
        let mut below = 0;
        for (slot, count) in counts.iter().enumerate() {
            below += count;
            #[expect(clippy::cast_precision_loss, reason = "a rank needs no more precision")]
            if *count > 0 && below as f64 >= rank {
                return Some(Self::slot_end(slot));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn percentiles_are_within_a_sixteenth() {
        let latency = Latency::default();
        assert_eq!(latency.percentile(0.5), None);
        (1..=1000).for_each(|time| latency.record(time * 100));
        for (fraction, truth) in [(0.5, 50_000), (0.99, 99_000), (1.0, 100_000)] {
            let found = latency.percentile(fraction).unwrap();
            assert!(found >= truth && found <= truth + truth / 14, "{fraction}: {found}");
        }
        latency.record(0);
        latency.record(u64::MAX);
    }
}
