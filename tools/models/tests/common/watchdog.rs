//! An end to tests that hang.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Ends the process, saying where, when a test does not end in time: a driver that hangs cannot be stopped otherwise.
pub(crate) struct Watchdog {
    /// What is being done; `None` at the end.
    step: Arc<Mutex<(Instant, Option<String>)>>,
}

impl Watchdog {
    /// Watches a test whose first step is `what`.
    pub(crate) fn new(what: String) -> Self {
        let step = Arc::new(Mutex::new((Instant::now(), Some(what))));
        let seen = Arc::clone(&step);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(100));
                let (since, what) = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let Some(what) = what else { return };
                if since.elapsed() > Duration::from_secs(40) {
                    eprintln!("\n{what}: hangs");
                    std::process::exit(1);
                }
            }
        });
        Self { step }
    }

    /// The next step begins, with time of its own.
    pub(crate) fn next(&self, what: String) {
        *self.step.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), Some(what));
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.step.lock().unwrap_or_else(PoisonError::into_inner).1 = None;
    }
}
