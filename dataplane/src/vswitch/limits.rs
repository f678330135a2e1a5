//! Rate limits and quotas as the configuration has them.

use std::collections::{BTreeMap, HashMap};

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

/// What one of `engines` engines lets through, so that all of them together let through what the limit says.
fn rate(limit: &Limit, engines: u64) -> Rate {
    let part = |all: Option<u64>| all.map_or(0, |all| (all / engines).max(1));
    let (bytes, packets) = (part(limit.bits.map(|bits| bits / 8)), part(limit.packets));
    Rate {
        bytes,
        packets,
        burst_bytes: (bytes / BURST).max(LEAST_BYTES),
        burst_packets: (packets / BURST).max(LEAST_PACKETS),
        parent: limit.parent,
    }
}

impl State {
    /// Sets meters and quotas to what is configured, where they differ. Each engine that sees packets of a meter gets its part of the limit. Meters that the
    /// configuration does not have any more stay as they are when flows may still have them.
    pub(super) fn set_limits(&mut self, keep_old: bool) {
        let seen = self.engines_of_meters();
        let topology = self.brain.topology();
        let wanted = topology.meters.iter().map(|(number, limit)| {
            let engines = seen.get(number).map_or(1, |mask: &u64| u64::from(mask.count_ones()).max(1));
            (*number, rate(limit, engines))
        });
        let wanted: HashMap<u16, Rate> = wanted.collect();
        let quotas: HashMap<u16, u32> =
            topology.slices.iter().filter_map(|(number, slice)| Some((*number, slice.flows?))).collect();
        if !keep_old {
            let gone: Vec<u16> = self.limits.keys().filter(|number| !wanted.contains_key(number)).copied().collect();
            for number in gone {
                self.limits.remove(&number);
                self.engines.set_meter(number, Rate::default());
            }
        }
        for (number, rate) in wanted {
            if self.limits.insert(number, rate) != Some(rate) {
                self.engines.set_meter(number, rate);
            }
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

    /// The engines that packets of each meter were seen at, a bit each.
    fn engines_of_meters(&self) -> BTreeMap<u16, u64> {
        let topology = self.brain.topology();
        let mut seen = BTreeMap::new();
        let mut note = |mut meter: u16, mask: u64| {
            // A port's is inside its network's, which is inside its slice's.
            for _ in 0..3 {
                let Some(limit) = topology.meters.get(&meter) else { return };
                *seen.entry(meter).or_insert(0) |= mask;
                meter = limit.parent;
            }
        };
        for attachment in topology.attachments.values() {
            let Some((_, port)) = self.ports.find(&attachment.config.name) else { continue };
            attachment.meters.iter().for_each(|meter| note(*meter, port.engines));
        }
        let underlay = self.underlay.port().and_then(|port| self.ports.get(port.slot));
        if let Some(underlay) = underlay {
            for tunnel in topology.tunnels.values() {
                let Some(network) = topology.networks.get(&tunnel.network) else { continue };
                note(network.broadcast_meter, underlay.engines);
                note(topology.slices.get(&network.owner).map_or(0, |slice| slice.meter), underlay.engines);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_limit_are_the_limit() {
        let limit = Limit { packets: Some(1000), bits: Some(8_000_000_000), parent: 3 };
        let whole = rate(&limit, 1);
        assert_eq!((whole.bytes, whole.packets, whole.parent), (1_000_000_000, 1000, 3));
        let half = rate(&limit, 2);
        assert_eq!((half.bytes, half.packets), (500_000_000, 500));
        assert!(half.burst_bytes >= LEAST_BYTES && half.burst_packets >= LEAST_PACKETS);
        // 0 would be no limit at all.
        let least = rate(&Limit { packets: Some(1), bits: None, parent: 0 }, 4);
        assert_eq!((least.packets, least.bytes), (1, 0));
    }
}
