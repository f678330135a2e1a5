//! How a limit is divided between engines: by what packets lately asked of each, and a little for engines that nobody asked anything of, so that a flow can begin there.

use std::collections::HashMap;
use std::time::Duration;

/// Parts of a limit.
pub(super) const PARTS: u64 = 256;
/// Of so many parts, one is divided evenly.
const EVEN: u64 = 8;
/// A change of a part that matters.
const MATTERS: u64 = PARTS / 32;
/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// How limits are divided.
#[derive(Default)]
pub(super) struct Shares {
    meters: HashMap<u16, Share>,
    due: Duration,
}

/// How one is.
#[derive(Default)]
struct Share {
    /// What each engine had counted at the last look.
    counted: Vec<u64>,
    /// Each engine's part.
    parts: Vec<u64>,
}

impl Shares {
    /// Whether it is time to look again.
    pub(super) fn is_due(&mut self, now: Duration) -> bool {
        let is_due = self.due <= now;
        if is_due {
            self.due = now + PAUSE;
        }
        is_due
    }

    /// The parts of each of `engines` engines.
    pub(super) fn of(&self, number: u16, engines: usize) -> impl Iterator<Item = u64> + '_ {
        let parts = self.meters.get(&number).map_or(&[][..], |share| &share.parts);
        let even = PARTS / (engines as u64).max(1);
        (0..engines).map(move |engine| parts.get(engine).copied().unwrap_or(even))
    }

    /// Divides a limit by what all engines have counted for it; one that has ended counts nothing. Whether that makes a difference.
    pub(super) fn divide(&mut self, number: u16, counted: &[Option<u64>]) -> bool {
        let before: Vec<u64> = self.of(number, counted.len()).collect();
        let share = self.meters.entry(number).or_default();
        share.counted.resize(counted.len(), 0);
        let asked: Vec<Option<u64>> =
            counted.iter().zip(&share.counted).map(|(now, before)| now.map(|now| now.wrapping_sub(*before))).collect();
        share.counted = counted.iter().map(|count| count.unwrap_or_default()).collect();
        let parts = parts(&asked).unwrap_or_else(|| before.clone());
        let differs = before.iter().zip(&parts).any(|(before, now)| before.abs_diff(*now) >= MATTERS);
        share.parts = if differs { parts } else { before };
        differs
    }

    /// There is no such limit any more.
    pub(super) fn forget(&mut self, number: u16) {
        self.meters.remove(&number);
    }
}

/// The part of each engine that runs, which was asked for so much; `None` when none was asked for anything.
fn parts(asked: &[Option<u64>]) -> Option<Vec<u64>> {
    let running = asked.iter().flatten().count() as u64;
    let all: u128 = asked.iter().flatten().map(|asked| u128::from(*asked)).sum();
    if all == 0 {
        return None;
    }
    let even = (PARTS / EVEN / running).max(1);
    let rest = PARTS.saturating_sub(even * running);
    let by_demand = |asked: u64| u64::try_from(u128::from(rest) * u128::from(asked) / all).unwrap_or(rest);
    Some(asked.iter().map(|asked| asked.map_or(1, |asked| even + by_demand(asked))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shares: &Shares, engines: usize) -> Vec<u64> {
        shares.of(1, engines).collect()
    }

    #[test]
    fn who_is_asked_for_all_gets_nearly_all() {
        let mut shares = Shares::default();
        assert_eq!(of(&shares, 2), [128, 128], "nobody knows yet");
        assert!(!shares.divide(1, &[Some(0), Some(0)]));
        assert!(shares.divide(1, &[Some(0), Some(1000)]));
        assert_eq!(of(&shares, 2), [16, 240]);
        assert!(!shares.divide(1, &[Some(0), Some(1000)]), "a pause says nothing");
        assert!(!shares.divide(1, &[Some(10), Some(2000)]), "as good as the same");
        // It moves to the other engine.
        assert!(shares.divide(1, &[Some(1010), Some(2000)]));
        assert_eq!(of(&shares, 2), [240, 16]);
        // That one ends.
        assert!(shares.divide(1, &[None, Some(3000)]));
        assert_eq!(of(&shares, 2)[1], PARTS);
        shares.forget(1);
        assert_eq!(of(&shares, 2), [128, 128]);
    }

    #[test]
    fn all_parts_together_are_no_more_than_the_limit() {
        for engines in 1..=64 {
            let asked: Vec<Option<u64>> = (0..engines).map(|engine| Some(engine * engine * 977)).collect();
            let parts = parts(&asked);
            let sum: u64 = parts.iter().flatten().sum();
            assert!(sum <= PARTS && (engines == 1 || sum + engines >= PARTS), "{engines} engines: {sum}");
        }
        assert_eq!(parts(&[Some(5)]), Some(vec![PARTS]));
        assert_eq!(parts(&[Some(u64::MAX), Some(u64::MAX)]), Some(vec![128, 128]));
    }
}
