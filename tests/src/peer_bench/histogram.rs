//! Durations by their magnitude: sixteen steps for each doubling, so that a reading is right to 3 %.

/// Sixteen for each bit of a `u64`.
const STEPS: usize = 64 * 16;

/// How often durations of each magnitude were seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; STEPS] }
    }
}

impl Histogram {
    /// Counts one.
    #[inline]
    pub fn add(&mut self, value: u64) {
        if let Some(count) = self.counts.get_mut(step(value)) {
            *count += 1;
        }
    }

    /// Adds another's counts.
    pub fn join(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Forgets.
    pub fn clear(&mut self) {
        self.counts.fill(0);
    }

    /// The value that so many of a thousand do not exceed; `None` when nothing was counted.
    #[must_use]
    pub fn quantile(&self, of_thousand: u64) -> Option<u64> {
        let all: u64 = self.counts.iter().sum();
        let wanted = (all * of_thousand).div_ceil(1000).max(1);
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= wanted
            })
            .map(middle)
    }
}

fn step(value: u64) -> usize {
    if value < 16 {
        return usize::try_from(value).unwrap_or(0);
    }
    let octave = value.ilog2();
    usize::try_from(u64::from(octave - 3) * 16 + (value >> (octave - 4) & 15)).unwrap_or(STEPS - 1)
}

/// The middle of a step.
fn middle(step: usize) -> u64 {
    let step = step as u64;
    if step < 16 {
        return step;
    }
    let octave = step / 16 + 3;
    (1 << octave) + ((step % 16) << (octave - 4)) + (1 << (octave - 4)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_right_to_three_percent() {
        for value in [0, 1, 15, 16, 17, 100, 12_345, 1 << 40] {
            let mut histogram = Histogram::default();
            histogram.add(value);
            let read = histogram.quantile(500).unwrap_or(u64::MAX);
            assert!(read.abs_diff(value) * 32 <= value, "{value} {read}");
        }
        assert_eq!(Histogram::default().quantile(500), None);
        let mut histogram = Histogram::default();
        (0..10).for_each(|value| histogram.add(value));
        assert_eq!((histogram.quantile(500), histogram.quantile(1000)), (Some(4), Some(9)));
    }
}
