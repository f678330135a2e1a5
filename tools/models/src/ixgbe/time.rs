//! Clocks: the system time of IEEE 1588 (7.9, 8.2.3.20) and the free running timer (8.2.3.5).

use std::time::Duration;

use super::registers::{FRTIMER, SYSTIMH, SYSTIML, TIMADJH, TIMADJL, TIMINCA};

/// The clock ticks every 6.4 ns at 10 Gb/s.
const TENTHS_PER_TICK: u128 = 64;

/// The system time: what it was at some moment, and how it goes on from there.
#[derive(Default, Debug)]
pub(super) struct Time {
    value: u64,
    since: Duration,
    /// TIMINCA: what is added (24 bits) every so many ticks (8 bits).
    increment: u32,
    adjust_low: u32,
    /// High word of the value whose low word was read last.
    latched: u32,
}

impl Time {
    fn at(&self, now: Duration) -> u64 {
        let period = u128::from(self.increment >> 24).max(1);
        let ticks = now.saturating_sub(self.since).as_nanos() * 10 / TENTHS_PER_TICK;
        let added = ticks / period * u128::from(self.increment & 0xff_ffff);
        let [low @ .., _, _, _, _, _, _, _, _] = added.to_le_bytes();
        self.value.wrapping_add(u64::from_le_bytes(low))
    }

    pub(super) fn load(&mut self, now: Duration, offset: u32) -> u32 {
        let (low, high) = halves(self.at(now));
        match offset {
            _ if offset == SYSTIML.offset => {
                self.latched = high;
                low
            }
            _ if offset == SYSTIMH.offset => self.latched,
            _ if offset == TIMINCA.offset => self.increment,
            _ if offset == FRTIMER.offset => {
                let micros = now.as_micros();
                let (milliseconds, rest) = (micros / 1000 % 0x40_0000, micros % 1000);
                u32::try_from((milliseconds << 10) + rest).unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub(super) fn store(&mut self, now: Duration, offset: u32, value: u32) {
        let current = self.at(now);
        let (low, high) = halves(current);
        match offset {
            _ if offset == SYSTIML.offset => self.set(now, join(value, high)),
            _ if offset == SYSTIMH.offset => self.set(now, join(low, value)),
            _ if offset == TIMINCA.offset => {
                self.set(now, current);
                self.increment = value;
            }
            _ if offset == TIMADJL.offset => self.adjust_low = value,
            _ if offset == TIMADJH.offset => {
                // Bit 31 is the sign; writing the high word applies both (8.2.3.20.13).
                let amount = join(self.adjust_low, value & 0x7fff_ffff);
                let adjusted =
                    if value >> 31 == 0 { current.wrapping_add(amount) } else { current.wrapping_sub(amount) };
                self.set(now, adjusted);
            }
            _ => {}
        }
    }

    fn set(&mut self, now: Duration, value: u64) {
        (self.value, self.since) = (value, now);
    }
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(time: &mut Time, now: Duration) -> u64 {
        let low = time.load(now, SYSTIML.offset);
        join(low, time.load(now, SYSTIMH.offset))
    }

    #[test]
    fn system_time_runs_as_told_and_is_adjusted() {
        let mut time = Time::default();
        let start = Duration::from_secs(5);
        assert_eq!(read(&mut time, start), 0);
        time.store(start, TIMINCA.offset, 2 << 24 | 100);
        time.store(start, SYSTIMH.offset, 7);
        // 640 ns are 100 ticks, 50 periods of two.
        assert_eq!(read(&mut time, start + Duration::from_nanos(640)), join(5000, 7));
        time.store(start, TIMADJL.offset, 10);
        time.store(start, TIMADJH.offset, 1 << 31);
        assert_eq!(read(&mut time, start), join(u32::MAX - 9, 6));
    }
}
