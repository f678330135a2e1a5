//! When the next frames are due, from the cycle counter alone.

use crate::clock::CycleClock;
use crate::port::Rate;

/// A pause of the caller longer than this is not made up for in full.
const LONGEST_BACKLOG_SECONDS_FRACTION: u64 = 1_000;
/// A backlog this small is always made up for.
const SMALLEST_BACKLOG: u64 = 256;

/// Hands out the right to send, frame by frame.
#[derive(Debug)]
pub(super) struct Pacer {
    /// Frames a cycle, with 64 binary places; `None` for no limit.
    frames_per_cycle: Option<u64>,
    backlog: u64,
    start: Option<u64>,
    /// Frames granted or given up since `start`.
    passed: u64,
}

impl Pacer {
    /// A pacer that starts at its first use.
    pub(super) fn new(rate: Rate, clock: CycleClock) -> Self {
        let (frames_per_cycle, backlog) = match rate {
            Rate::Maximum => (None, 0),
            Rate::PerSecond(rate) => {
                let scaled = (u128::from(rate) << 64) / u128::from(clock.cycles_per_second());
                // A frame a cycle is no limit any more.
                (u64::try_from(scaled).ok(), (rate / LONGEST_BACKLOG_SECONDS_FRACTION).max(SMALLEST_BACKLOG))
            }
        };
        Self { frames_per_cycle, backlog, start: None, passed: 0 }
    }

    /// Frames that may be sent at `now`, and frames that are given up for good because the backlog grew too long.
    #[inline]
    pub(super) fn due(&mut self, now: u64) -> (u64, u64) {
        let Some(rate) = self.frames_per_cycle else { return (u64::MAX, 0) };
        let start = *self.start.get_or_insert(now);
        // The counter may seem to step back between processors.
        let elapsed = now.saturating_sub(start);
        let due = ((u128::from(elapsed) * u128::from(rate)) >> 64) as u64;
        let waiting = due.saturating_sub(self.passed);
        let missed = waiting.saturating_sub(self.backlog);
        self.passed += missed;
        (waiting - missed, missed)
    }

    /// Notes that `count` frames were sent.
    #[inline]
    pub(super) fn sent(&mut self, count: u64) {
        self.passed += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_at_their_rate_and_never_early() {
        let mut pacer = Pacer::new(Rate::PerSecond(1_000_000), CycleClock::with_rate(2_000_000_000));
        assert_eq!(pacer.due(5_000), (0, 0));
        assert_eq!(pacer.due(5_000 + 1_999), (0, 0));
        assert_eq!(pacer.due(5_000 + 2_001), (1, 0));
        pacer.sent(1);
        assert_eq!(pacer.due(5_000 + 2_001), (0, 0));
        assert_eq!(pacer.due(5_000 + 20_001), (9, 0));
        assert_eq!(pacer.due(4_000), (0, 0), "the counter stepped back");
    }

    #[test]
    fn a_long_pause_is_given_up_and_counted() {
        let mut pacer = Pacer::new(Rate::PerSecond(1_000_000), CycleClock::with_rate(1_000_000_000));
        let _ = pacer.due(0);
        let (due, missed) = pacer.due(1_000_000_001);
        assert_eq!((due, missed), (1_000, 999_000));
        pacer.sent(due);
        assert_eq!(pacer.due(1_000_000_001), (0, 0));
    }

    #[test]
    fn no_limit_and_a_rate_beyond_the_counter_are_the_same() {
        let clock = CycleClock::with_rate(1_000);
        assert_eq!(Pacer::new(Rate::Maximum, clock).due(0), (u64::MAX, 0));
        assert_eq!(Pacer::new(Rate::PerSecond(1_000), clock).due(0), (u64::MAX, 0));
    }
}
