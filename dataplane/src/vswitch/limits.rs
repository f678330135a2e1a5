//! Rate limits and quotas as the configuration has them.

use std::collections::HashMap;

use super::shares::PARTS;
use super::state::State;
use crate::flow::FlowKey;
use crate::network::topology::Limit;
use crate::switch::Rate;

/// Part of a second's worth that may come at once.
const BURST: u64 = 20;
/// Least bytes that may come at once: a packet of the greatest length that is cut later.
const LEAST_BYTES: u64 = 65_536 + 64;
/// Least packets that may come at once.
const LEAST_PACKETS: u64 = 8;

/// New flows, a second, for which a slice that has as many as it may gives up older ones. Whoever makes more of them keeps the thread busy for all.
pub(super) const DISPLACED_A_SECOND: u32 = 10_000;

/// What an engine lets through that has so many of all parts, so that all engines together let through what the limit says.
fn rate(limit: &Limit, part: u64) -> Rate {
    let of = |all: Option<u64>| {
        all.map_or(0, |all| {
            u64::try_from(u128::from(all) * u128::from(part) / u128::from(PARTS)).unwrap_or(u64::MAX).max(1)
        })
    };
    let (bytes, packets) = (of(limit.bits.map(|bits| bits / 8)), of(limit.packets));
    Rate {
        bytes,
        packets,
        burst_bytes: (bytes / BURST).max(LEAST_BYTES),
        burst_packets: (packets / BURST).max(LEAST_PACKETS),
        parent: limit.parent,
    }
}

impl State {
    /// Sets meters and quotas to what is configured, where they differ. Meters that the configuration does not have any more stay as they are when flows may still
    /// have them.
    pub(super) fn set_limits(&mut self, keep_old: bool) {
        let topology = self.brain.topology();
        let wanted: Vec<(u16, Limit)> = topology.meters.iter().map(|(number, limit)| (*number, *limit)).collect();
        let quotas: HashMap<u16, u32> =
            topology.slices.iter().filter_map(|(number, slice)| Some((*number, slice.flows?))).collect();
        if !keep_old {
            let gone: Vec<u16> =
                self.limits.keys().filter(|number| !topology.meters.contains_key(number)).copied().collect();
            for number in gone {
                self.set_meter(number, None);
            }
        }
        for (number, limit) in wanted {
            self.set_meter(number, Some(limit));
        }
        for owner in self.quotas.keys().filter(|owner| !quotas.contains_key(owner)) {
            self.writer.set_quota(*owner, None);
        }
        for (owner, quota) in &quotas {
            self.writer.set_quota(*owner, Some(*quota));
        }
        self.quotas = quotas;
    }

    /// Whether no new flow can be made for packets of this key, because their slice has as many as it may and has made room for enough of them lately.
    pub(super) fn is_over_quota(&mut self, key: &FlowKey) -> bool {
        let network = self.brain.network_of(key).and_then(|number| self.brain.topology().networks.get(&number));
        let Some(owner) = network.map(|network| network.owner) else { return false };
        let full = self.quotas.get(&owner).is_some_and(|quota| self.writer.owned(owner) >= *quota);
        let now = self.now();
        full && !self.displaced.may(owner, now)
    }

    /// Divides limits anew between the engines that packets come to.
    pub(super) fn divide_limits(&mut self) {
        let now = self.now();
        if !self.shares.is_due(now) {
            return;
        }
        let limits: Vec<(u16, Limit)> =
            self.brain.topology().meters.iter().map(|(number, limit)| (*number, *limit)).collect();
        for (number, limit) in limits {
            let counted = self.engines.all.iter().map(|engine| {
                let [packets, bytes] = engine.cells.demand.of(number);
                engine.desk.is_some().then_some(if limit.bits.is_some() { bytes } else { packets })
            });
            let counted: Vec<Option<u64>> = counted.collect();
            if self.shares.divide(number, &counted) {
                self.set_meter(number, Some(limit));
            }
        }
    }

    /// Sets a meter in all engines in which it is another one; no limit takes it out.
    fn set_meter(&mut self, number: u16, limit: Option<Limit>) {
        let count = self.engines.all.len();
        let rates: Vec<Rate> = match limit {
            Some(limit) => self.shares.of(number, count).map(|part| rate(&limit, part)).collect(),
            None => vec![Rate::default(); count],
        };
        let before = self.limits.remove(&number).unwrap_or_default();
        for (engine, rate) in rates.iter().enumerate() {
            if before.get(engine) != Some(rate) {
                self.engines.set_meter(engine, number, *rate);
            }
        }
        match limit {
            Some(_) => {
                self.limits.insert(number, rates);
            }
            None => self.shares.forget(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_limit_are_the_limit() {
        let limit = Limit { packets: Some(1000), bits: Some(8_000_000_000), parent: 3 };
        let whole = rate(&limit, PARTS);
        assert_eq!((whole.bytes, whole.packets, whole.parent), (1_000_000_000, 1000, 3));
        let half = rate(&limit, PARTS / 2);
        assert_eq!((half.bytes, half.packets), (500_000_000, 500));
        assert!(half.burst_bytes >= LEAST_BYTES && half.burst_packets >= LEAST_PACKETS);
        // 0 would be no limit at all.
        let least = rate(&Limit { packets: Some(1), bits: None, parent: 0 }, 1);
        assert_eq!((least.packets, least.bytes), (1, 0));
    }
}
