//! How queues, which run on other threads, tell the device's handle that the device broke a ring.

use alloc::string::String;
use core::sync::atomic::{AtomicU32, Ordering};

use super::ring::Fault;

/// The first fault since the last start: 0 for none, else the kind plus one above the queue's index. One for each
/// device, so it also tells whose a queue is.
#[derive(Debug, Default)]
pub(super) struct Health(AtomicU32);

impl Health {
    /// Reports a fault of a queue. Only the first is kept.
    pub(super) fn report(&self, queue: u16, fault: Fault) {
        let kind = (1_u32..).zip(Fault::ALL).find(|(_, kind)| *kind == fault).map_or(1, |(number, _)| number);
        let word = kind << 16 | u32::from(queue);
        // Only the first counts; that another came first is no failure.
        let _ = self.0.compare_exchange(0, word, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Forgets.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// A sentence about the fault, when there is one.
    pub(super) fn fault(&self) -> Option<String> {
        let word = self.0.load(Ordering::Relaxed);
        let (_, fault) = (1_u32..).zip(Fault::ALL).find(|(number, _)| *number == word >> 16)?;
        let queue = word & 0xffff;
        let direction = if queue.is_multiple_of(2) { "receive" } else { "transmit" };
        Some(alloc::format!("on {direction} queue {}, {}; stop and start the port", queue / 2, fault.reason()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_kept_until_it_is_cleared() {
        let health = Health::default();
        assert_eq!(health.fault(), None);
        health.report(3, Fault::IndexJump);
        health.report(0, Fault::NotOutstanding);
        assert!(health.fault().is_some_and(|text| text.contains("jumped") && text.contains("transmit queue 1")));
        health.clear();
        assert_eq!(health.fault(), None);
    }
}
