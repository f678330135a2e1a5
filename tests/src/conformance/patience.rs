//! Waiting for devices that take their time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Nothing has happened for so long: something is lost or stuck. Other work may hold this process up for seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits politely, for something to go on, and not for ever.
pub(crate) struct Wait {
    since: Instant,
    idle: u32,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), idle: 0 }
    }

    /// Something happened.
    pub(crate) fn progress(&mut self) {
        *self = Self::new();
    }

    /// Nothing to do: lets others run. An error when nothing has happened for too long.
    pub(crate) fn idle(&mut self, what: impl FnOnce() -> String) -> Result<()> {
        self.idle += 1;
        if self.idle < 100 {
            std::thread::yield_now();
            return Ok(());
        }
        if self.since.elapsed() > PATIENCE {
            bail!("{}; nothing happened for {} s", what(), PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_micros(50));
        Ok(())
    }
}
