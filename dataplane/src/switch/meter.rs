//! Rate limits: token buckets with a clock that the caller brings.
//!
//! An engine owns its buckets; control sets their rates and gives each engine its share. A bucket may have a parent (a virtual machine's is
//! inside its slice's): a packet passes when both have room, and takes from neither otherwise.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Meters that an engine has room for. Number 0 stands for no meter.
pub const METERS: usize = 4096;

/// Deepest nesting of meters.
const DEPTH: usize = 3;

/// What a meter allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Bytes a second; 0 is no limit.
    pub bytes: u64,
    /// Packets a second; 0 is no limit.
    pub packets: u64,
    /// Bytes that may come at once. At least one full packet goes through a full bucket, however large it is.
    pub burst_bytes: u64,
    /// Packets that may come at once, at least one.
    pub burst_packets: u64,
    /// Meter that has to have room too; 0 for none.
    pub parent: u16,
}

/// One resource of a bucket. Tokens are kept as cycles that are owed: the time at which the bucket is full again.
#[derive(Clone, Copy, Default, Debug)]
struct Bucket {
    /// Cycles, as 1/65536, that one unit takes to come back; 0 when there is no limit.
    unit: u64,
    /// Cycles, as 1/65536, that a full bucket holds.
    depth: u128,
    /// When the bucket is full again, in 1/65536 cycle.
    full_at: u128,
}

/// Binary places of a cycle.
const FRACTION: u32 = 16;

impl Bucket {
    fn new(per_second: u64, burst: u64, cycles_per_second: u64) -> Self {
        if per_second == 0 {
            return Self::default();
        }
        let unit = ((u128::from(cycles_per_second) << FRACTION) / u128::from(per_second)).max(1);
        let unit = u64::try_from(unit).unwrap_or(u64::MAX);
        Self { unit, depth: u128::from(unit) * u128::from(burst.max(1)), full_at: 0 }
    }

    /// It has room for `units` at `now`; for more than fit into it when it is full: what they lack is paid off later.
    #[inline]
    fn has_room(&self, units: u64, now: u128) -> bool {
        let needed = (u128::from(self.unit) * u128::from(units)).min(self.depth);
        self.unit == 0 || self.full_at + needed <= now + self.depth
    }

    #[inline]
    fn take(&mut self, units: u64, now: u128) {
        if self.unit != 0 {
            self.full_at = self.full_at.max(now) + u128::from(self.unit) * u128::from(units);
        }
    }
}

/// One meter.
#[derive(Clone, Copy, Default, Debug)]
struct Meter {
    bytes: Bucket,
    packets: Bucket,
    parent: u16,
}

/// What packets asked of the meters of one engine, whether they were let through or not. The engine counts, and control divides limits by it.
#[derive(Debug)]
pub struct Demand(Box<[[AtomicU64; 2]]>);

impl Default for Demand {
    fn default() -> Self {
        Self((0..METERS).map(|_| [const { AtomicU64::new(0) }; 2]).collect())
    }
}

impl Demand {
    /// Packets and bytes that came to a meter since the engine runs.
    #[must_use]
    pub fn of(&self, number: u16) -> [u64; 2] {
        let counts = self.0.get(usize::from(number));
        counts.map_or([0; 2], |counts| counts.each_ref().map(|count| count.load(Ordering::Relaxed)))
    }

    /// Counts a packet. Only one thread does.
    #[inline]
    fn count(&self, number: u16, bytes: u64) {
        let Some(counts) = self.0.get(usize::from(number)) else { return };
        for (count, more) in counts.iter().zip([1, bytes]) {
            count.store(count.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        }
    }
}

/// The meters of one engine.
#[derive(Debug)]
pub(super) struct Meters {
    meters: Box<[Meter]>,
    demand: Arc<Demand>,
    cycles_per_second: u64,
}

impl Meters {
    /// Meters without limits, for a cycle counter of this rate.
    pub(super) fn new(cycles_per_second: u64) -> Self {
        Self { meters: vec![Meter::default(); METERS].into_boxed_slice(), demand: Arc::default(), cycles_per_second }
    }

    /// What packets ask of them.
    pub(super) fn demand(&self) -> &Arc<Demand> {
        &self.demand
    }

    /// Sets what meter `number` allows from cycle `now` on. What it let through before still counts. `false` when there is no such meter.
    pub(super) fn set(&mut self, number: u16, rate: Rate, now: u64) -> bool {
        let Some(meter) = self.meters.get_mut(usize::from(number)).filter(|_| number != 0) else { return false };
        let now = u128::from(now) << FRACTION;
        let bucket = |before: Bucket, per_second, burst| {
            let mut bucket = Bucket::new(per_second, burst, self.cycles_per_second);
            // What is missing is missing still, so that setting the same limits again lets no more through; it comes back at the new rate.
            let missing = before.full_at.saturating_sub(now).checked_div(before.unit.into()).unwrap_or(0);
            bucket.full_at = now.saturating_add(missing.saturating_mul(bucket.unit.into()));
            bucket
        };
        meter.bytes = bucket(meter.bytes, rate.bytes, rate.burst_bytes);
        meter.packets = bucket(meter.packets, rate.packets, rate.burst_packets);
        meter.parent = rate.parent;
        true
    }

    /// Whether a packet of `bytes` bytes passes meter `number` at cycle `now`; takes its tokens when it does.
    #[inline]
    pub(super) fn pass(&mut self, number: u16, bytes: usize, now: u64) -> bool {
        let now = u128::from(now) << FRACTION;
        let mut chain = [0_u16; DEPTH];
        let mut next = number;
        for place in &mut chain {
            if next == 0 {
                break;
            }
            // A meter that does not exist limits nothing.
            let Some(meter) = self.meters.get(usize::from(next)) else { break };
            self.demand.count(next, bytes as u64);
            if !meter.bytes.has_room(bytes as u64, now) || !meter.packets.has_room(1, now) {
                return false;
            }
            *place = next;
            next = meter.parent;
        }
        for number in chain.into_iter().take_while(|number| *number != 0) {
            if let Some(meter) = self.meters.get_mut(usize::from(number)) {
                meter.bytes.take(bytes as u64, now);
                meter.packets.take(1, now);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 2_000_000_000;

    fn meters(rate: Rate) -> Meters {
        let mut meters = Meters::new(SECOND);
        assert!(meters.set(1, rate, 0));
        meters
    }

    /// Offers packets of `bytes` every `gap` cycles for a second; gives how many passed.
    fn offered(meters: &mut Meters, number: u16, bytes: usize, gap: u64) -> u64 {
        (0..SECOND / gap).map(|turn| u64::from(meters.pass(number, bytes, SECOND + turn * gap))).sum()
    }

    #[test]
    fn bytes_are_limited_to_the_rate_and_a_burst() {
        let mut meters = meters(Rate { bytes: 1_000_000, burst_bytes: 10_000, ..Rate::default() });
        // 4 MB/s are offered.
        let passed = offered(&mut meters, 1, 1000, SECOND / 4000);
        assert!((1009..=1011).contains(&passed), "{passed}");
    }

    #[test]
    fn packets_are_limited_exactly_over_a_second() {
        let mut meters = meters(Rate { packets: 12_345, burst_packets: 2, ..Rate::default() });
        let passed = offered(&mut meters, 1, 1000, 1_000);
        assert!((12_345..=12_348).contains(&passed), "{passed}");
    }

    #[test]
    fn a_packet_larger_than_the_burst_is_paid_off_later() {
        let mut meters = meters(Rate { bytes: 1000, burst_bytes: 1, ..Rate::default() });
        assert!(meters.pass(1, 2000, SECOND));
        assert!(!meters.pass(1, 1, SECOND + SECOND));
        assert!(meters.pass(1, 1, SECOND + 2 * SECOND + 1));
    }

    #[test]
    fn a_child_takes_from_its_parent_and_nothing_when_refused() {
        let mut meters = meters(Rate { packets: 10, burst_packets: 5, ..Rate::default() });
        assert!(meters.set(2, Rate { packets: 1000, burst_packets: 1000, parent: 1, ..Rate::default() }, 0));
        assert!(meters.set(3, Rate { parent: 1, ..Rate::default() }, 0));
        let passed = (0..100).filter(|_| meters.pass(2, 64, SECOND)).count();
        assert_eq!(passed, 5);
        assert!(!meters.pass(3, 64, SECOND));
        // A parent is asked for what its children let through.
        assert_eq!([1, 2, 3].map(|number| meters.demand().of(number)), [[101, 6464], [100, 6400], [1, 64]]);
        // The parent's tokens come back, ten a second.
        assert!(meters.pass(3, 64, SECOND + SECOND / 10));
        assert!(!meters.pass(2, 64, SECOND + SECOND / 10));
    }

    #[test]
    fn setting_a_rate_again_forgives_nothing() {
        let rate = Rate { packets: 1, burst_packets: 1, ..Rate::default() };
        let mut meters = meters(rate);
        assert!(meters.pass(1, 64, SECOND));
        assert!(meters.set(1, rate, SECOND));
        assert!(!meters.pass(1, 64, SECOND));
        // Ten times as fast: what is missing is back in a tenth of the time.
        assert!(meters.set(1, Rate { packets: 10, ..rate }, SECOND));
        assert!(!meters.pass(1, 64, SECOND + SECOND / 11));
        assert!(meters.pass(1, 64, SECOND + SECOND / 9));
        assert!(meters.set(1, Rate::default(), SECOND));
        assert!(meters.pass(1, 64, SECOND));
    }

    #[test]
    fn meters_that_do_not_exist_limit_nothing_and_circles_end() {
        let mut meters = Meters::new(SECOND);
        assert!(!meters.set(0, Rate::default(), 0) && !meters.set(u16::MAX, Rate::default(), 0));
        assert!(meters.pass(0, 64, 0) && meters.pass(u16::MAX, 64, 0));
        assert!(meters.set(1, Rate { packets: 1, burst_packets: 1, parent: 2, ..Rate::default() }, 0));
        assert!(meters.set(2, Rate { parent: 1, ..Rate::default() }, 0));
        assert!(meters.pass(1, 64, 0));
        assert!(!meters.pass(1, 64, 0));
    }
}
