//! Counters (8.2.3.23): 32 bits, or 36 for bytes; cleared by reading, and stuck at the largest value instead of wrapping.

use super::registers::{Access, Register, WINDOW_BYTES};

const WORDS: usize = WINDOW_BYTES as usize / 4;
const LARGEST: u64 = 0xffff_ffff;
const LARGEST_OCTETS: u64 = 0xf_ffff_ffff;

/// All counters of the chip, by the address of their register.
#[derive(Debug)]
pub(super) struct Statistics {
    counts: Box<[u64]>,
    /// High bits of the byte counters whose low word was read last.
    latched: Vec<(u32, u32)>,
}

impl Statistics {
    /// All zero.
    pub(super) fn new() -> Self {
        Self { counts: vec![0; WORDS].into_boxed_slice(), latched: Vec::new() }
    }

    /// Adds to the counter whose (low) word is at `register`.
    #[inline]
    pub(super) fn add(&mut self, register: u32, amount: u64) {
        if let Some(count) = self.counts.get_mut(register as usize / 4) {
            *count = count.saturating_add(amount);
        }
    }

    /// Reads a counter, which clears it. The low word of a byte counter takes its high bits along, for the read of the high word
    /// that follows: what is counted between the two is not lost.
    pub(super) fn take(&mut self, register: &Register, offset: u32) -> u32 {
        let Some(count) = self.counts.get_mut(offset as usize / 4) else { return 0 };
        match register.access {
            Access::OctetsHigh => {
                let low = offset - 4;
                let place = self.latched.iter().position(|(of, _)| *of == low);
                place.map_or(0, |place| self.latched.swap_remove(place).1)
            }
            Access::Octets => {
                let value = std::mem::take(count).min(LARGEST_OCTETS);
                self.latched.retain(|(of, _)| *of != offset);
                self.latched.push((offset, high(value)));
                low(value)
            }
            _ => low(std::mem::take(count).min(LARGEST)),
        }
    }

    /// Everything back to zero, as at power on.
    pub(super) fn clear(&mut self) {
        self.counts.fill(0);
        self.latched.clear();
    }
}

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn high(value: u64) -> u32 {
    let [.., a, b, c, d] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::super::registers::{GORCH, GORCL, GPRC};
    use super::*;

    #[test]
    fn a_counter_is_cleared_by_reading_and_sticks_at_its_largest_value() {
        let mut statistics = Statistics::new();
        statistics.add(GPRC.offset, 3);
        statistics.add(GPRC.offset, 4);
        assert_eq!(statistics.take(&GPRC, GPRC.offset), 7);
        assert_eq!(statistics.take(&GPRC, GPRC.offset), 0);
        statistics.add(GPRC.offset, 0x1_0000_0005);
        assert_eq!(statistics.take(&GPRC, GPRC.offset), u32::MAX);
    }

    #[test]
    fn bytes_are_counted_in_36_bits_and_none_is_lost_between_the_two_reads() {
        let mut statistics = Statistics::new();
        statistics.add(GORCL.offset, 0x7_1234_5678);
        assert_eq!(statistics.take(&GORCL, GORCL.offset), 0x1234_5678);
        statistics.add(GORCL.offset, 9);
        assert_eq!(statistics.take(&GORCH, GORCH.offset), 7);
        assert_eq!(statistics.take(&GORCH, GORCH.offset), 0);
        assert_eq!(statistics.take(&GORCL, GORCL.offset), 9);
    }
}
