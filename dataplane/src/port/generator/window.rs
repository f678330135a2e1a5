//! Which frames of a flow have arrived: the next number expected, and a bit for each of the last few hundred.

use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 8;
const BITS: u64 = 64 * WORDS as u64;
/// Numbers this far behind are still told apart. One word less than there is, because words are cleared whole.
pub(super) const REACH: u64 = BITS - 64;

/// The frames of one flow that have arrived. One thread writes at a time; the words are atomic so that a flow may move
/// to another queue.
#[derive(Debug, Default)]
pub(super) struct Window {
    next: AtomicU64,
    seen: [AtomicU64; WORDS],
}

/// What the number of a frame says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Arrival {
    /// The number expected, or a later one: so many were skipped.
    After(u64),
    /// Earlier than expected and not seen yet.
    Late,
    /// Seen before.
    Duplicate,
    /// Too long ago to know whether it was seen. Late frames are more likely than copies so old, but a faulty ring
    /// makes such copies, so it is counted as one.
    Stale,
}

#[inline]
fn word(sequence: u64) -> usize {
    usize::try_from(sequence / 64).unwrap_or(usize::MAX) % WORDS
}

impl Window {
    /// Notes the arrival of frame `sequence`.
    #[inline]
    pub(super) fn note(&self, sequence: u64) -> Arrival {
        let next = self.next.load(Ordering::Relaxed);
        let bit = 1_u64 << (sequence % 64);
        if sequence >= next {
            // The last number there can be has no next; no real flow gets there.
            self.next.store(sequence.saturating_add(1), Ordering::Relaxed);
            self.forget(next, sequence);
            self.mark(sequence, bit);
            return Arrival::After(sequence - next);
        }
        if next - sequence > REACH {
            return Arrival::Stale;
        }
        if self.load(sequence) & bit != 0 {
            return Arrival::Duplicate;
        }
        self.mark(sequence, bit);
        Arrival::Late
    }

    /// Clears the words that begin in `next..=sequence`: they held numbers that are out of reach now.
    #[inline]
    fn forget(&self, next: u64, sequence: u64) {
        let last = sequence / 64;
        let first = next.div_ceil(64).max(last.saturating_sub(WORDS as u64 - 1));
        for number in first..=last {
            if let Some(seen) = self.seen.get(word(number * 64)) {
                seen.store(0, Ordering::Relaxed);
            }
        }
    }

    #[inline]
    fn load(&self, sequence: u64) -> u64 {
        self.seen.get(word(sequence)).map_or(0, |seen| seen.load(Ordering::Relaxed))
    }

    #[inline]
    fn mark(&self, sequence: u64, bit: u64) {
        if let Some(seen) = self.seen.get(word(sequence)) {
            seen.store(seen.load(Ordering::Relaxed) | bit, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_gap_is_closed_by_the_late_frame() {
        let window = Window::default();
        assert_eq!(window.note(0), Arrival::After(0));
        assert_eq!(window.note(3), Arrival::After(2));
        assert_eq!(window.note(1), Arrival::Late);
        assert_eq!(window.note(1), Arrival::Duplicate);
        assert_eq!(window.note(4), Arrival::After(0));
        assert_eq!(window.note(10_000), Arrival::After(9_995));
        assert_eq!(window.note(2), Arrival::Stale);
        assert_eq!(window.note(u64::MAX), Arrival::After(u64::MAX - 10_001));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_everything_seen(
            steps in prop::collection::vec(prop_oneof![8 => -20_i64..40, 1 => -600_i64..600, 1 => 0_i64..5_000], 1..400)
        ) {
            let (window, mut seen, mut next) = (Window::default(), BTreeSet::new(), 0_u64);
            for step in steps {
                let sequence = next.saturating_add_signed(step);
                let expected = if sequence >= next {
                    let skipped = sequence - next;
                    next = sequence + 1;
                    Arrival::After(skipped)
                } else if next - sequence > REACH {
                    Arrival::Stale
                } else if seen.contains(&sequence) {
                    Arrival::Duplicate
                } else {
                    Arrival::Late
                };
                prop_assert_eq!(window.note(sequence), expected, "sequence {} next {}", sequence, next);
                if expected != Arrival::Stale {
                    seen.insert(sequence);
                }
            }
        }
    }
}
