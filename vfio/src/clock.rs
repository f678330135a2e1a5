//! The monotonic clock of the operating system, for drivers.

use std::time::{Duration, Instant};

/// Counts from the moment it was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl drivers::bus::Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::bus::Clock;

    #[test]
    fn the_clock_moves_on_while_pausing() {
        let clock = SystemClock::new();
        let before = clock.now();
        clock.pause(Duration::from_millis(2));
        assert!(clock.now() - before >= Duration::from_millis(2));
    }
}
