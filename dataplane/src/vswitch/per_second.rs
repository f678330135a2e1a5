//! What may happen only so often.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// How often something happened to each of several lately.
pub(super) struct PerSecond<K> {
    most: u32,
    counts: HashMap<K, (Duration, u32)>,
}

impl<K: Eq + Hash> PerSecond<K> {
    /// It may happen to each `most` times a second, and as many times at once.
    pub(super) fn new(most: u32) -> Self {
        Self { most, counts: HashMap::new() }
    }

    /// Whether it may happen now; if so, it has.
    pub(super) fn may(&mut self, whom: K, now: Duration) -> bool {
        let (since, count) = self.counts.entry(whom).or_insert((now, 0));
        if *since + Duration::from_secs(1) <= now {
            (*since, *count) = (now, 0);
        }
        let may = *count < self.most;
        *count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_seconds_of_its_own() {
        let mut often = PerSecond::new(2);
        let at = Duration::from_millis;
        let times = [10, 20, 30, 1009, 1010, 1011, 1012].map(|time| often.may(1, at(time)));
        assert_eq!(times, [true, true, false, false, true, true, false]);
        assert!(often.may(2, at(1012)));
    }
}
