//! How a thread that polls behaves while there is nothing to do.

use std::thread;
use std::time::Duration;

/// Polls for nothing after which the processor is offered to others, and after which the thread sleeps.
const SPINS: u32 = 64;
const YIELDS: u32 = 512;
/// Shortest and longest sleep. A doorbell in shared memory wakes nobody, so the longest is how late a card can be.
const SHORTEST: Duration = Duration::from_micros(50);
const LONGEST: Duration = Duration::from_millis(1);

/// Spins, then yields, then sleeps longer and longer.
#[derive(Debug)]
pub(super) struct Idle {
    polls: u32,
    sleep: Duration,
}

impl Default for Idle {
    fn default() -> Self {
        Self { polls: 0, sleep: SHORTEST }
    }
}

impl Idle {
    /// A poll has ended, and was for nothing or not.
    pub(super) fn after(&mut self, nothing: bool) {
        if !nothing {
            *self = Self::default();
            return;
        }
        self.polls = self.polls.saturating_add(1);
        if self.polls < SPINS {
            std::hint::spin_loop();
        } else if self.polls < YIELDS {
            thread::yield_now();
        } else {
            thread::sleep(self.sleep);
            self.sleep = (self.sleep * 2).min(LONGEST);
        }
    }
}
