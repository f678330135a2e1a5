//! Messages for the log, as many as a reader can bear.

use std::time::{Duration, Instant};

/// Messages at once.
const BURST: u32 = 8;
/// How long it takes until one more may follow.
const PACE: Duration = Duration::from_secs(5);

/// Lets so many messages through and counts the others.
#[derive(Debug)]
pub(super) struct Limit {
    left: u32,
    since: Instant,
    held_back: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self { left: BURST, since: Instant::now(), held_back: 0 }
    }
}

impl Limit {
    /// Warns of something that a peer can make happen as often as it likes.
    pub(super) fn warn(&mut self, port: &str, message: &str) {
        if !self.allows(Instant::now()) {
            return;
        }
        match std::mem::take(&mut self.held_back) {
            0 => tracing::warn!("port `{port}`: {message}"),
            more => tracing::warn!("port `{port}`: {message} (and {more} messages like it before)"),
        }
    }

    fn allows(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_secs() / PACE.as_secs();
        if earned > 0 {
            self.since = now;
            self.left = u32::try_from(earned).unwrap_or(BURST).saturating_add(self.left).min(BURST);
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
        let mut limit = Limit::default();
        let start = limit.since;
        assert_eq!((0..1000).filter(|_| limit.allows(start)).count(), 8);
        assert_eq!(limit.held_back, 992);
        assert!(limit.allows(start + PACE), "one more after a while");
        assert!(!limit.allows(start + PACE));
        assert_eq!((0..1000).filter(|_| limit.allows(start + PACE * 100)).count(), 8);
    }
}
