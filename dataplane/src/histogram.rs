//! Log-linear histograms of fixed size: every value is known to about 3 %, whatever its magnitude.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Each power of two is divided into this many equal buckets (as a power of two).
const LINEAR_BITS: u32 = 5;
const LINEAR: usize = 1 << LINEAR_BITS;
/// One linear run for the values below `LINEAR`, then one for each power of two that a `u64` has from there on.
const BUCKETS: usize = LINEAR * (64 - LINEAR_BITS as usize + 1);

/// The bucket of `value`: always below [`BUCKETS`].
#[inline]
fn bucket(value: u64) -> usize {
    let magnitude = (u64::BITS - 1) - (value | (LINEAR as u64 - 1)).leading_zeros();
    let shift = (magnitude + 1).saturating_sub(LINEAR_BITS + 1);
    let run = if magnitude < LINEAR_BITS { 0 } else { shift as usize + 1 };
    let within = usize::try_from(value >> shift).unwrap_or(usize::MAX) & (LINEAR - 1);
    run * LINEAR + within
}

/// The largest value that falls into bucket `index`.
fn upper(index: usize) -> u64 {
    let run = index / LINEAR;
    let within = (index % LINEAR) as u64;
    if run == 0 {
        return within;
    }
    let shift = run - 1;
    let low = (LINEAR as u64 + within) << shift;
    low + ((1 << shift) - 1)
}

/// The smallest value that falls into bucket `index`.
fn lower(index: usize) -> u64 {
    index.checked_sub(1).map_or(0, |previous| upper(previous) + 1)
}

/// Counts of values, by size. Owned by one thread; see [`SharedHistogram`] for one that others may read.
#[derive(Clone, PartialEq, Eq)]
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    count: u64,
    sum: u64,
    minimum: u64,
    maximum: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), count: 0, sum: 0, minimum: u64::MAX, maximum: 0 }
    }
}

impl Histogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `value` once. Never allocates.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `value` `times` times.
    #[inline]
    pub fn record_many(&mut self, value: u64, times: u64) {
        if times == 0 {
            return;
        }
        if let Some(count) = self.counts.get_mut(bucket(value)) {
            *count = count.wrapping_add(times);
        }
        self.count = self.count.wrapping_add(times);
        self.sum = self.sum.wrapping_add(value.wrapping_mul(times));
        self.minimum = self.minimum.min(value);
        self.maximum = self.maximum.max(value);
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest value, exactly. `None` when empty.
    #[must_use]
    pub fn minimum(&self) -> Option<u64> {
        (self.count > 0).then_some(self.minimum)
    }

    /// The largest value, exactly. `None` when empty.
    #[must_use]
    pub fn maximum(&self) -> Option<u64> {
        (self.count > 0).then_some(self.maximum)
    }

    /// The mean, rounded down. `None` when empty.
    #[must_use]
    pub fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }

    /// The value that `quantile` (0.0 to 1.0) of all values do not exceed, at most 3.2 % too high. `None` when empty.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank: saturates, and its rounding is far below a bucket's width"
    )]
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        let rank = ((quantile.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut seen = 0_u64;
        for (index, count) in self.counts.iter().enumerate() {
            seen = seen.wrapping_add(*count);
            if seen >= rank {
                return Some(upper(index).clamp(self.minimum, self.maximum));
            }
        }
        Some(self.maximum)
    }

    /// All values together. Wraps around.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many values were at most `value`, less those of the bucket that it cuts: exact where `value` is one less than a power of two,
    /// and from the maximum on.
    #[must_use]
    pub fn at_most(&self, value: u64) -> u64 {
        if value >= self.maximum {
            return self.count;
        }
        let whole = bucket(value) + usize::from(upper(bucket(value)) == value);
        self.counts.iter().take(whole).fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Adds all values of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine = mine.wrapping_add(*theirs);
        }
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
        self.minimum = self.minimum.min(other.minimum);
        self.maximum = self.maximum.max(other.maximum);
    }

    /// What was recorded here since `earlier`, an older copy of the same histogram. Minimum and maximum are then only
    /// as exact as a bucket.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = Self::new();
        for (index, (now, then)) in self.counts.iter().zip(earlier.counts.iter()).enumerate() {
            let count = now.wrapping_sub(*then);
            if count == 0 {
                continue;
            }
            if let Some(slot) = difference.counts.get_mut(index) {
                *slot = count;
            }
            difference.count = difference.count.wrapping_add(count);
            difference.minimum = difference.minimum.min(upper(index).min(self.maximum));
            difference.maximum = difference.maximum.max(upper(index).min(self.maximum));
        }
        difference.sum = self.sum.wrapping_sub(earlier.sum);
        difference
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self.counts = [0; BUCKETS];
        (self.count, self.sum, self.minimum, self.maximum) = (0, 0, u64::MAX, 0);
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count)
            .field("minimum", &self.minimum())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .field("maximum", &self.maximum())
            .finish()
    }
}

/// A histogram that one thread writes and any thread may read meanwhile, without locks.
///
/// Two threads that record at the same time lose counts, nothing worse.
pub struct SharedHistogram {
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    minimum: AtomicU64,
    maximum: AtomicU64,
}

impl Default for SharedHistogram {
    fn default() -> Self {
        Self {
            counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            minimum: AtomicU64::new(u64::MAX),
            maximum: AtomicU64::new(0),
        }
    }
}

impl SharedHistogram {
    /// An empty histogram.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `value` once. For the one thread that writes; plain loads and stores, no locked instruction.
    #[inline]
    pub fn record(&self, value: u64) {
        let add = |cell: &AtomicU64, more: u64| {
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        };
        if let Some(count) = self.counts.get(bucket(value)) {
            add(count, 1);
        }
        add(&self.sum, value);
        if value < self.minimum.load(Ordering::Relaxed) {
            self.minimum.store(value, Ordering::Relaxed);
        }
        if value > self.maximum.load(Ordering::Relaxed) {
            self.maximum.store(value, Ordering::Relaxed);
        }
    }

    /// A copy of what has been recorded. While the writer runs, the last few values may be missing from parts of it.
    #[must_use]
    pub fn snapshot(&self) -> Histogram {
        let mut copy = Histogram::new();
        let (mut lowest, mut highest) = (None, 0);
        for (index, (to, from)) in copy.counts.iter_mut().zip(self.counts.iter()).enumerate() {
            *to = from.load(Ordering::Relaxed);
            if *to > 0 {
                copy.count = copy.count.wrapping_add(*to);
                lowest = lowest.or(Some(index));
                highest = index;
            }
        }
        let Some(lowest) = lowest else { return Histogram::new() };
        copy.sum = self.sum.load(Ordering::Relaxed);
        // A value that is just being recorded may be missing from the extremes, so they are held against the buckets.
        copy.minimum = self.minimum.load(Ordering::Relaxed).min(upper(lowest));
        copy.maximum = self.maximum.load(Ordering::Relaxed).max(copy.minimum).max(lower(highest));
        copy
    }
}

impl fmt::Debug for SharedHistogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_ascend_without_gaps() {
        for index in 1..BUCKETS {
            let last_of_previous = upper(index - 1);
            assert_eq!(bucket(last_of_previous), index - 1);
            assert_eq!(bucket(last_of_previous + 1), index);
        }
        assert_eq!(upper(BUCKETS - 1), u64::MAX);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn an_empty_histogram_has_no_quantiles() {
        let empty = Histogram::new();
        assert_eq!((empty.quantile(0.5), empty.minimum(), empty.maximum(), empty.mean()), (None, None, None, None));
        assert_eq!(SharedHistogram::new().snapshot(), empty);
    }

    #[test]
    fn quantiles_of_small_values_are_exact() {
        let mut histogram = Histogram::new();
        for value in 1..=20 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(0.5), Some(10));
        assert_eq!(histogram.quantile(0.0), Some(1));
        assert_eq!(histogram.quantile(1.0), Some(20));
        assert_eq!(histogram.mean(), Some(10));
    }

    #[test]
    fn the_difference_of_two_copies_is_what_came_between() {
        let shared = SharedHistogram::new();
        shared.record(5);
        let before = shared.snapshot();
        shared.record(1_000_000);
        let between = shared.snapshot().since(&before);
        assert_eq!(between.count(), 1);
        assert_eq!(between.quantile(0.5), Some(1_000_000));
        assert_eq!(between.mean(), Some(1_000_000));
    }

    proptest! {
        #[test]
        fn quantiles_are_right_to_a_thirtieth(mut values in prop::collection::vec(any::<u64>(), 1..200), q in 0.0_f64..=1.0) {
            let mut histogram = Histogram::new();
            for value in &values {
                histogram.record(*value);
            }
            values.sort_unstable();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a small rank")]
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = values[rank - 1];
            let found = histogram.quantile(q).unwrap();
            prop_assert!(found >= exact && found - exact <= exact / 30 + 1, "{found} for {exact}");
        }

        #[test]
        fn values_up_to_a_bound_are_counted(values in prop::collection::vec(any::<u64>(), 0..50), shift in 0..64_u32, any in any::<u64>()) {
            let mut histogram = Histogram::new();
            values.iter().for_each(|value| histogram.record(*value));
            let below = |bound: u64| values.iter().filter(|value| **value <= bound).count() as u64;
            let bound = u64::MAX >> shift;
            prop_assert_eq!(histogram.at_most(bound), below(bound));
            prop_assert!(histogram.at_most(any) <= below(any));
            prop_assert!(histogram.at_most(any) >= below(any - any / 16));
            prop_assert_eq!(histogram.sum(), values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)));
        }

        #[test]
        fn merging_equals_recording_into_one(left in prop::collection::vec(any::<u64>(), 0..50), right in prop::collection::vec(any::<u64>(), 0..50)) {
            let record = |values: &[u64]| {
                let mut histogram = Histogram::new();
                values.iter().for_each(|value| histogram.record(*value));
                histogram
            };
            let mut merged = record(&left);
            merged.merge(&record(&right));
            prop_assert_eq!(merged, record(&[left, right].concat()));
        }

        #[test]
        fn a_shared_histogram_counts_the_same(values in prop::collection::vec(any::<u64>(), 1..50)) {
            let (mut plain, shared) = (Histogram::new(), SharedHistogram::new());
            for value in &values {
                plain.record(*value);
                shared.record(*value);
            }
            prop_assert_eq!(plain, shared.snapshot());
        }
    }
}
