//! Messages for the log, as many as a reader can bear.

use std::time::{Duration, Instant};

/// Lets so many messages through and counts the others.
#[derive(Debug)]
pub(super) struct Limit {
    /// Messages at once.
    burst: u32,
    /// How long it takes until one more may follow.
    pace: Duration,
    left: u32,
    since: Instant,
    held_back: u64,
}

impl Limit {
    /// For what one peer does.
    pub(super) fn of_session() -> Self {
        Self::new(8, Duration::from_secs(5))
    }

    /// For what all of them do, one after the other: some may come only to be disconnected.
    pub(super) fn of_port() -> Self {
        Self::new(256, Duration::from_millis(250))
    }

    fn new(burst: u32, pace: Duration) -> Self {
        Self { burst, pace, left: burst, since: Instant::now(), held_back: 0 }
    }

    /// Warns of something that a peer can make happen as often as it likes.
    pub(super) fn warn(&mut self, port: &str, message: &str) {
        if let Some(before) = self.admit() {
            tracing::warn!("port `{port}`: {message}{before}");
        }
    }

    /// Tells of something that is no reason to worry, and that a peer can make happen as often as it likes.
    pub(super) fn info(&mut self, port: &str, message: &str) {
        // What nobody sees takes nothing from what is to be seen.
        if tracing::enabled!(tracing::Level::INFO)
            && let Some(before) = self.admit()
        {
            tracing::info!("port `{port}`: {message}{before}");
        }
    }

    /// Whether a message may go out, and then what to say about those that were held back.
    pub(super) fn admit(&mut self) -> Option<String> {
        self.allows(Instant::now()).then(|| match std::mem::take(&mut self.held_back) {
            0 => String::new(),
            more => format!(" (and {more} messages like it before)"),
        })
    }

    fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_millis() / self.pace.as_millis();
        if earned > 0 {
            self.since = now;
            self.left = u32::try_from(earned).unwrap_or(self.burst).saturating_add(self.left).min(self.burst);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.held_back += 1;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_held_back_and_counted() {
        let mut limit = Limit::of_session();
        let start = limit.since;
        assert_eq!((0..1000).filter(|_| limit.allows(start)).count(), 8);
        assert_eq!(limit.held_back, 992);
        assert!(limit.allows(start + limit.pace), "one more after a while");
        assert!(!limit.allows(start + limit.pace));
        assert_eq!((0..1000).filter(|_| limit.allows(start + limit.pace * 100)).count(), 8);
    }
}
