//! How fast a peer may be.
//!
//! Each message costs time, and some take queues from their engines, which makes every core of the process that is at work pause for a
//! moment: those of other VMs as well. An honest VMM sends its hundreds of messages when its VM starts, and few after that.

use std::time::{Duration, Instant};

/// What may be spent at once: a machine with many queues is set up with less.
const SAVINGS: u64 = 4096;
/// What is earned in a millisecond.
const INCOME: u64 = 20;

/// What a peer has left to spend: a message costs 1, and so does each turn that a queue is taken from its engine.
#[derive(Debug)]
pub(super) struct Pace {
    left: u64,
    /// What was spent beyond that.
    debt: u64,
    /// Until when everything is earned.
    paid: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: SAVINGS, debt: 0, paid: now }
    }

    pub(super) fn spend(&mut self, cost: u64) {
        let beyond = cost.saturating_sub(self.left);
        self.left -= cost - beyond;
        self.debt = self.debt.saturating_add(beyond);
    }

    /// How long the peer has to wait for its turn; `None` when it may go on.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let passed = u64::try_from(now.saturating_duration_since(self.paid).as_millis()).unwrap_or(u64::MAX);
        if passed > 0 {
            self.paid = now;
            let earned = passed.saturating_mul(INCOME);
            let rest = earned.saturating_sub(self.debt);
            self.debt = self.debt.saturating_sub(earned);
            self.left = self.left.saturating_add(rest).min(SAVINGS);
        }
        (self.left == 0).then(|| Duration::from_millis(1 + self.debt / INCOME))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_down_to_what_is_earned() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut served = 0;
        for _ in 0..10_000 {
            if pace.wait(start).is_none() {
                pace.spend(1);
                served += 1;
            }
        }
        assert_eq!(served, SAVINGS);
        assert_eq!(pace.wait(start), Some(Duration::from_millis(1)));
        let later = start + Duration::from_millis(1);
        assert_eq!(pace.wait(later), None);
        // One message that took all queues is paid for afterwards.
        pace.spend(INCOME + 10 * INCOME);
        assert_eq!(pace.wait(later), Some(Duration::from_millis(11)));
        assert_eq!(pace.wait(later + Duration::from_millis(10)), Some(Duration::from_millis(1)));
        assert_eq!(pace.wait(later + Duration::from_millis(11)), None);
    }
}
