//! What the pipeline counts: an engine's own numbers, which it publishes by plain stores for control to read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::meter::Demand;
use super::reason::Reason;
use super::stage::Stage;
use crate::headers::Malformed;
use crate::histogram::SharedHistogram;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Sums of packets.
        ///
        /// `received + returned + copied + taken_over = delivered + passed_on + handed_over + raised + dropped + held`, exactly, between two batches; `dropped`
        /// is the sum over [`SwitchStatistics::drops`], and `held` is what waits now. What all engines passed on and did not take over is between them.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct Flowing {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Flowing {
            const COUNT: usize = [$(stringify!($name)),*].len();

            fn values(&self) -> [u64; Self::COUNT] {
                [$(self.$name),*]
            }

            fn of([$($name),*]: [u64; Self::COUNT]) -> Self {
                Self { $($name),* }
            }

            /// Names and numbers.
            #[must_use]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }
    };
}

numbers! {
    /// Packets that ports gave.
    received,
    /// Packets that control and coprocessors gave.
    returned,
    /// Copies that were made for sets of destinations and mirrors.
    copied,
    /// Packets that other engines passed on to this one.
    taken_over,
    /// Packets that ports got.
    delivered,
    /// Packets that other engines got, to switch or to send them.
    passed_on,
    /// Packets that coprocessors got.
    handed_over,
    /// Packets that control got.
    raised,
    /// Packets that wait for their flow now.
    held,
    /// Packets that have waited for their flow.
    waited,
    /// Packets whose flow was found.
    matched,
    /// Batches.
    batches,
}

/// What one element has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StageStatistics {
    /// Batches that it had something to do with.
    pub batches: u64,
    /// Packets in them that reached it.
    pub packets: u64,
    /// Packets of the batches that were timed, and the cycles that it took for these.
    pub timed_packets: u64,
    /// See [`StageStatistics::timed_packets`].
    pub timed_cycles: u64,
}

impl StageStatistics {
    const COUNT: usize = 4;

    /// Cycles for each packet, in those batches that were timed; `None` when none was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    pub fn cycles_per_packet(&self) -> Option<f64> {
        (self.timed_packets > 0).then(|| self.timed_cycles as f64 / self.timed_packets as f64)
    }
}

/// What a pipeline has counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SwitchStatistics {
    /// Sums of packets.
    pub flowing: Flowing,
    /// Packets dropped, by the number of the [`Reason`].
    pub drops: [u64; Reason::COUNT],
    /// Packets dropped as [`Reason::Malformed`], by [`Malformed::number`].
    pub malformed: [u64; Malformed::ALL.len()],
    /// What each element has done, by its number.
    pub stages: [StageStatistics; Stage::COUNT],
}

impl Default for SwitchStatistics {
    fn default() -> Self {
        Self {
            flowing: Flowing::default(),
            drops: [0; Reason::COUNT],
            malformed: [0; Malformed::ALL.len()],
            stages: [StageStatistics::default(); Stage::COUNT],
        }
    }
}

/// Words of all numbers.
const WORDS: usize = Flowing::COUNT + Reason::COUNT + Malformed::ALL.len() + Stage::COUNT * StageStatistics::COUNT;

impl SwitchStatistics {
    /// Packets dropped for any reason.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    /// What came since `earlier`. [`Flowing::held`] is what waits now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.with(earlier, u64::wrapping_sub);
        since.flowing.held = self.flowing.held;
        since
    }

    fn with(&self, other: &Self, combine: impl Fn(u64, u64) -> u64) -> Self {
        Self::of_words(self.words().zip(other.words()).map(|(one, other)| combine(one, other)))
    }

    /// Every packet is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let Flowing { received, returned, copied, taken_over, delivered, passed_on, handed_over, raised, held, .. } =
            self.flowing;
        received + returned + copied + taken_over
            == delivered + passed_on + handed_over + raised + held + self.dropped()
    }

    /// Counts packets that are dropped.
    #[inline]
    pub(super) fn drop(&mut self, reason: Reason) {
        self.drop_packets(reason, 1);
    }

    /// Counts `packets` that are dropped.
    #[inline]
    pub(crate) fn drop_packets(&mut self, reason: Reason, packets: u64) {
        if let Some(count) = self.drops.get_mut(reason as usize) {
            *count += packets;
        }
    }

    fn words(&self) -> impl Iterator<Item = u64> {
        let stages = self.stages.iter();
        let stages = stages.flat_map(|stage| [stage.batches, stage.packets, stage.timed_packets, stage.timed_cycles]);
        self.flowing.values().into_iter().chain(self.drops).chain(self.malformed).chain(stages)
    }

    fn of_words(mut words: impl Iterator<Item = u64>) -> Self {
        let mut next = || words.next().unwrap_or_default();
        Self {
            flowing: Flowing::of(std::array::from_fn(|_| next())),
            drops: std::array::from_fn(|_| next()),
            malformed: std::array::from_fn(|_| next()),
            stages: std::array::from_fn(|_| StageStatistics {
                batches: next(),
                packets: next(),
                timed_packets: next(),
                timed_cycles: next(),
            }),
        }
    }
}

/// Numbers of a pipeline that other threads may read.
#[derive(Debug)]
pub struct SwitchCells {
    words: [AtomicU64; WORDS],
    /// Cycles from a batch's receipt to its end, of packets that are sampled.
    pub through: SharedHistogram,
    /// Cycles that packets waited for their flow.
    pub waited: SharedHistogram,
    /// Cycles that packets were with control.
    pub with_control: SharedHistogram,
    /// What packets asked of its meters.
    pub demand: Arc<Demand>,
}

impl Default for SwitchCells {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl SwitchCells {
    /// Nothing yet, beside what packets ask of the meters.
    pub(super) fn new(demand: Arc<Demand>) -> Self {
        Self {
            words: [const { AtomicU64::new(0) }; WORDS],
            through: SharedHistogram::new(),
            waited: SharedHistogram::new(),
            with_control: SharedHistogram::new(),
            demand,
        }
    }

    /// Publishes numbers. Only one thread does.
    pub(super) fn publish(&self, statistics: &SwitchStatistics) {
        for (cell, word) in self.words.iter().zip(statistics.words()) {
            cell.store(word, Ordering::Relaxed);
        }
    }

    /// Reads what was published last. While packets flow, numbers may be of different batches.
    #[must_use]
    pub fn read(&self) -> SwitchStatistics {
        SwitchStatistics::of_words(self.words.iter().map(|cell| cell.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let flowing = Flowing::of(std::array::from_fn(|number| number as u64 + 1));
        let mut statistics = SwitchStatistics { flowing, ..SwitchStatistics::default() };
        statistics.drop(Reason::OutputFull);
        statistics.malformed[3] = 9;
        statistics.stages[Stage::Queue as usize] =
            StageStatistics { batches: 1, packets: 2, timed_packets: 3, timed_cycles: 4 };
        let cells = SwitchCells::default();
        cells.publish(&statistics);
        assert_eq!(cells.read(), statistics);
        assert!(!statistics.is_balanced() && SwitchStatistics::default().is_balanced());
    }
}
