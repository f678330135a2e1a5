//! The processor's cycle counter, and how fast it runs.

use std::time::{Duration, Instant};

/// Reads the cycle counter (on x86-64 the time stamp counter, about 20 cycles; elsewhere the monotonic clock in nanoseconds).
///
/// The counter runs at a constant rate that [`CycleClock`] knows. It is not ordered against other instructions: a
/// difference of two readings can be some ten cycles off.
#[must_use]
#[inline]
pub fn cycles() -> u64 {
    counter::read()
}

#[cfg(target_arch = "x86_64")]
mod counter {
    #![expect(unsafe_code, reason = "the instruction that reads the time stamp counter")]

    #[inline]
    pub(super) fn read() -> u64 {
        // SAFETY: every x86-64 processor has the instruction, and Linux leaves it allowed in user mode.
        unsafe { core::arch::x86_64::_rdtsc() }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    use std::sync::OnceLock;
    use std::time::Instant;

    static START: OnceLock<Instant> = OnceLock::new();

    #[inline]
    pub(super) fn read() -> u64 {
        u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Converts cycles to time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CycleClock {
    cycles_per_second: u64,
}

/// How long [`CycleClock::calibrate`] watches the counter.
const CALIBRATION: Duration = Duration::from_millis(10);
/// Readings taken at each end of the calibration, of which the tightest counts.
const READINGS: usize = 8;

impl CycleClock {
    /// Compares the counter with the system's monotonic clock for 10 ms. The result is right to about 0.01 %.
    #[must_use]
    pub fn calibrate() -> Self {
        let (start_cycles, start) = reading();
        std::thread::sleep(CALIBRATION);
        let (end_cycles, end) = reading();
        let elapsed = end.duration_since(start).as_nanos().max(1);
        let counted = u128::from(end_cycles.saturating_sub(start_cycles));
        let rate = u64::try_from(counted * 1_000_000_000 / elapsed).unwrap_or(u64::MAX);
        Self::with_rate(rate)
    }

    /// A clock for a counter of known rate, at least 1.
    #[must_use]
    pub const fn with_rate(cycles_per_second: u64) -> Self {
        Self { cycles_per_second: if cycles_per_second == 0 { 1 } else { cycles_per_second } }
    }

    /// The counter's rate.
    #[must_use]
    pub const fn cycles_per_second(&self) -> u64 {
        self.cycles_per_second
    }

    /// Nanoseconds that `cycles` take, rounded down.
    #[must_use]
    pub fn nanoseconds(&self, cycles: u64) -> u64 {
        u64::try_from(u128::from(cycles) * 1_000_000_000 / u128::from(self.cycles_per_second)).unwrap_or(u64::MAX)
    }

    /// Cycles that pass in `duration`, rounded down.
    #[must_use]
    pub fn cycles_in(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos() * u128::from(self.cycles_per_second) / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

/// The counter and the clock at the same moment: of several tries the one that took least, so that a preemption
/// between the two does not count.
fn reading() -> (u64, Instant) {
    let mut tightest = u64::MAX;
    let mut best = (cycles(), Instant::now());
    for _ in 0..READINGS {
        let before = cycles();
        let now = Instant::now();
        let after = cycles();
        let width = after.saturating_sub(before);
        if width < tightest {
            tightest = width;
            best = (before.saturating_add(width / 2), now);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_advances() {
        let before = cycles();
        std::thread::sleep(Duration::from_millis(1));
        assert!(cycles() > before);
    }

    #[test]
    fn conversion_is_exact_at_a_known_rate() {
        let clock = CycleClock::with_rate(2_000_000_000);
        assert_eq!(clock.nanoseconds(3), 1);
        assert_eq!(clock.nanoseconds(u64::MAX), u64::MAX / 2);
        assert_eq!(clock.cycles_in(Duration::from_micros(3)), 6_000);
        assert_eq!(CycleClock::with_rate(0).cycles_per_second(), 1);
    }

    #[test]
    fn calibration_agrees_with_the_system_clock() {
        let clock = CycleClock::calibrate();
        let (start_cycles, start) = reading();
        std::thread::sleep(Duration::from_millis(20));
        let (end_cycles, end) = reading();
        let real = end.duration_since(start).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let counted = (end_cycles - start_cycles) as f64 / clock.cycles_per_second() as f64;
        assert!((counted / real - 1.0).abs() < 0.02, "{counted} s counted, {real} s passed");
    }
}
