//! A range of numbers cut into intervals, each with a set of rules.

/// Numbers that can be the field of a packet.
pub(super) trait Number: Copy + Ord + Default {
    /// The next number, if there is one.
    fn next(self) -> Option<Self>;
}

macro_rules! numbers {
    ($($type:ty),*) => { $(impl Number for $type {
        fn next(self) -> Option<Self> { self.checked_add(1) }
    })* };
}

numbers!(u8, u16, u128);

/// Intervals that cover every number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Intervals<N> {
    words: usize,
    /// Where each interval starts, rising from the lowest number.
    starts: Vec<N>,
    /// The set of each interval, one behind the other.
    sets: Vec<u64>,
}

impl<N: Number> Intervals<N> {
    /// Intervals for rules, each with its number and the first and last number that it fits. A set has `words` words.
    pub(super) fn new(words: usize, rules: impl Iterator<Item = (usize, (N, N))> + Clone) -> Self {
        let mut starts = vec![N::default()];
        for (_, (first, last)) in rules.clone() {
            starts.push(first);
            starts.extend(last.next());
        }
        starts.sort_unstable();
        starts.dedup();
        let mut sets = vec![0; starts.len() * words];
        for (rule, (first, last)) in rules {
            let from = starts.partition_point(|start| *start < first);
            let to = starts.partition_point(|start| *start <= last);
            for interval in from..to {
                if let Some(word) = sets.get_mut(interval * words + rule / 64) {
                    *word |= 1 << (rule % 64);
                }
            }
        }
        Self { words, starts, sets }
    }

    /// The set of the rules that `number` fits.
    pub(super) fn at(&self, number: N) -> &[u64] {
        let interval = self.starts.partition_point(|start| *start <= number).saturating_sub(1);
        self.sets.get(interval * self.words..(interval + 1) * self.words).unwrap_or_default()
    }
}
