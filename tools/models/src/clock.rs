//! Clocks for drivers under test.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::Clock;

/// The real clock; pausing yields or sleeps.
#[derive(Debug)]
pub struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// A clock on which time passes only when somebody waits. Each pause first runs `step`, which typically polls the model: so
/// driver and device take turns on one thread, every run is the same, and a deadline costs no time.
pub struct StepClock<Step> {
    nanoseconds: AtomicU64,
    step: Step,
}

impl<Step: Fn() + Send + Sync> StepClock<Step> {
    /// A clock at zero.
    pub fn new(step: Step) -> Self {
        Self { nanoseconds: AtomicU64::new(0), step }
    }
}

impl<Step> std::fmt::Debug for StepClock<Step> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepClock").field("nanoseconds", &self.nanoseconds).finish_non_exhaustive()
    }
}

impl<Step: Fn() + Send + Sync> Clock for StepClock<Step> {
    /// Asking for the time lets a microsecond pass, so that even a driver that never pauses reaches its deadline.
    fn now(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.fetch_add(1000, Ordering::Relaxed))
    }

    fn pause(&self, duration: Duration) {
        (self.step)();
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1000);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}
