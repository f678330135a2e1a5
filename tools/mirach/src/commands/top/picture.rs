//! What is shown: rates between two moments.

use std::collections::BTreeMap;
use std::time::Instant;

use dataplane::control::{Client, ClientError, code};
use dataplane::vswitch::report::{CountReport, ElementReport, FlowList, FlowReport, LatencyReport, VswitchStatistics};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::commands::ask;
use crate::report::round;

/// Flows that are shown.
const FLOWS: usize = 20;

/// What ports have counted.
#[derive(Clone, Default, Deserialize)]
struct Ports {
    seconds: f64,
    ports: Vec<Port>,
}

#[derive(Clone, Default, Deserialize)]
struct Port {
    name: String,
    cpu_seconds: f64,
    counters: BTreeMap<String, u64>,
}

/// Everything that was counted up to a moment.
#[derive(Clone)]
pub(super) struct Snapshot {
    at: Instant,
    ports: Ports,
    switch: Option<VswitchStatistics>,
    flows: FlowList,
}

/// What happened between two moments, a second.
#[derive(Clone, Default, Serialize)]
pub(super) struct Picture {
    /// Seconds since the forwarder started.
    pub(super) seconds: f64,
    pub(super) interval_seconds: f64,
    pub(super) ports: Vec<PortRates>,
    /// Nothing of what follows, when there is no switch.
    pub(super) has_switch: bool,
    pub(super) engines: Vec<EngineRates>,
    pub(super) elements: Vec<ElementRates>,
    pub(super) drops: Vec<DropRate>,
    /// Since the start.
    pub(super) latency: LatencyReport,
    pub(super) flows: FlowCounts,
    pub(super) most_used: Vec<FlowReport>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct PortRates {
    pub(super) port: String,
    pub(super) rx_packets: f64,
    pub(super) rx_bits: f64,
    pub(super) tx_packets: f64,
    pub(super) tx_bits: f64,
    pub(super) dropped: f64,
    /// Of one core.
    pub(super) cpu: f64,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct EngineRates {
    pub(super) engine: usize,
    pub(super) received: f64,
    pub(super) delivered: f64,
    pub(super) raised: f64,
    pub(super) dropped: f64,
    /// Now.
    pub(super) held: u64,
    /// Packets of a batch.
    pub(super) batch: Option<f64>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct ElementRates {
    pub(super) element: String,
    pub(super) packets: f64,
    pub(super) cycles_per_packet: Option<f64>,
    /// Of the cycles of all elements.
    pub(super) share: Option<f64>,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct DropRate {
    pub(super) reason: String,
    pub(super) packets: f64,
    /// Since the start.
    pub(super) total: u64,
}

#[derive(Clone, Default, Serialize)]
pub(super) struct FlowCounts {
    pub(super) flows: u32,
    pub(super) most: u32,
    pub(super) connections: u64,
}

impl Snapshot {
    /// Asks for everything.
    pub(super) fn take(client: &mut Client) -> anyhow::Result<Self> {
        let ports = ask::read(client.call("port.stats", json!({}))?)?;
        let switch = match client.call("switch.stats", json!({})) {
            Ok(answer) => Some(ask::read(answer)?),
            // There is none.
            Err(ClientError::Refused(error)) if error.code == code::FAILED => None,
            Err(error) => return Err(error.into()),
        };
        let flows = match &switch {
            Some(_) => {
                let wanted = json!({ "filter": { "order": "packets" }, "most": FLOWS });
                ask::read(client.call("flow.list", wanted)?)?
            }
            None => FlowList::default(),
        };
        Ok(Self { at: Instant::now(), ports, switch, flows })
    }
}

/// How much more there is, a second.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(before: u64, now: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { round(now.saturating_sub(before) as f64 / seconds, 3) } else { 0.0 }
}

impl Picture {
    /// What happened between two snapshots.
    pub(super) fn between(before: &Snapshot, now: &Snapshot) -> Self {
        let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
        let ports = now.ports.ports.iter().map(|port| {
            let then = before.ports.ports.iter().find(|then| then.name == port.name);
            PortRates::between(then.unwrap_or(&Port::default()), port, seconds)
        });
        let mut picture = Self {
            seconds: now.ports.seconds,
            interval_seconds: round(seconds, 6),
            ports: ports.collect(),
            most_used: now.flows.flows.clone(),
            ..Self::default()
        };
        if let Some(switch) = &now.switch {
            picture.charge_coprocessors(before.switch.as_ref(), switch, seconds);
            picture.add_switch(&before.switch.clone().unwrap_or_default(), switch, seconds);
        }
        picture
    }

    /// What coprocessors work, they work for their ports.
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn charge_coprocessors(&mut self, before: Option<&VswitchStatistics>, now: &VswitchStatistics, seconds: f64) {
        for one in now.coprocessors.iter().filter(|_| seconds > 0.0) {
            let then = before.and_then(|it| it.coprocessors.iter().find(|then| then.number == one.number));
            let used = one.cpu_nanoseconds.saturating_sub(then.map_or(0, |then| then.cpu_nanoseconds));
            // A tagged one is called after its network, too.
            let name = one.port.split(' ').next().unwrap_or_default();
            if let Some(port) = self.ports.iter_mut().find(|port| port.port == name) {
                port.cpu = round(port.cpu + used as f64 / 1e9 / seconds, 4);
            }
        }
    }

    fn add_switch(&mut self, before: &VswitchStatistics, now: &VswitchStatistics, seconds: f64) {
        self.has_switch = true;
        self.flows = FlowCounts { flows: now.table.flows, most: now.table.most, connections: now.connections };
        let nothing = CountReport::default();
        let engines = now.engines.iter().map(|engine| {
            let then = before.engines.iter().find(|then| then.engine == engine.engine);
            EngineRates::between(engine.engine, then.map_or(&nothing, |then| &then.counts), &engine.counts, seconds)
        });
        self.engines = engines.collect();
        self.elements = elements(&before.sums, &now.sums, seconds);
        let drops = now.sums.drops.iter().filter(|(_, total)| **total > 0);
        let mut drops: Vec<DropRate> = drops
            .map(|(reason, total)| {
                let then = before.sums.drops.get(reason).copied().unwrap_or(0);
                DropRate { reason: reason.clone(), packets: rate(then, *total, seconds), total: *total }
            })
            .collect();
        drops.sort_by(|left, right| right.packets.total_cmp(&left.packets).then(right.total.cmp(&left.total)));
        self.drops = drops;
        self.latency = now.latency.clone();
    }
}

impl PortRates {
    fn between(before: &Port, now: &Port, seconds: f64) -> Self {
        let count = |port: &Port, name: &str| port.counters.get(name).copied().unwrap_or(0);
        let rate = |name: &str| rate(count(before, name), count(now, name), seconds);
        let cpu = if seconds > 0.0 { (now.cpu_seconds - before.cpu_seconds).max(0.0) / seconds } else { 0.0 };
        Self {
            port: now.name.clone(),
            rx_packets: rate("rx_packets"),
            rx_bits: rate("rx_bytes") * 8.0,
            tx_packets: rate("tx_packets"),
            tx_bits: rate("tx_bytes") * 8.0,
            dropped: rate("rx_dropped") + rate("tx_dropped"),
            cpu: round(cpu, 4),
        }
    }
}

impl EngineRates {
    fn between(engine: usize, before: &CountReport, now: &CountReport, seconds: f64) -> Self {
        let count = |counts: &CountReport, name: &str| counts.packets.get(name).copied().unwrap_or(0);
        let more = |name: &str| count(now, name).saturating_sub(count(before, name));
        let drops = |counts: &CountReport| counts.drops.values().sum::<u64>();
        let (packets, batches) = (more("received") + more("returned"), more("batches"));
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let batch = (batches > 0).then(|| round(packets as f64 / batches as f64, 2));
        Self {
            engine,
            received: rate(0, more("received"), seconds),
            delivered: rate(0, more("delivered"), seconds),
            raised: rate(0, more("raised"), seconds),
            dropped: rate(drops(before), drops(now), seconds),
            held: count(now, "held"),
            batch,
        }
    }
}

/// What elements did, those that did nothing left out.
#[expect(clippy::cast_precision_loss, reason = "ratios for people")]
fn elements(before: &CountReport, now: &CountReport, seconds: f64) -> Vec<ElementRates> {
    let nothing = ElementReport::default();
    let mut costs = Vec::new();
    for element in &now.elements {
        let then = before.elements.iter().find(|then| then.element == element.element).unwrap_or(&nothing);
        let packets = element.packets.saturating_sub(then.packets);
        let timed = element.timed_packets.saturating_sub(then.timed_packets);
        let cycles = element.timed_cycles.saturating_sub(then.timed_cycles);
        let each = (timed > 0).then(|| cycles as f64 / timed as f64);
        if packets > 0 {
            costs.push((element.element.clone(), packets, each));
        }
    }
    let cost = |packets: u64, each: Option<f64>| each.map(|each| each * packets as f64);
    let all: f64 = costs.iter().filter_map(|(_, packets, each)| cost(*packets, *each)).sum();
    let rates = costs.into_iter().map(|(element, packets, each)| ElementRates {
        element,
        packets: rate(0, packets, seconds),
        cycles_per_packet: each.map(|each| round(each, 1)),
        share: cost(packets, each).filter(|_| all > 0.0).map(|cost| round(cost / all, 4)),
    });
    rates.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Duration;

    fn snapshot(at: Instant, packets: u64) -> Snapshot {
        let counters = [("rx_packets", packets), ("rx_bytes", packets * 100), ("tx_dropped", packets / 10)];
        let counters = counters.map(|(name, value)| (name.to_owned(), value)).into();
        let port = Port { name: "vm0".to_owned(), cpu_seconds: packets as f64 / 1e4, counters };
        let element = |element: &str, each: u64| ElementReport {
            element: element.to_owned(),
            packets,
            timed_packets: packets / 2,
            timed_cycles: packets / 2 * each,
            ..ElementReport::default()
        };
        let counts = CountReport {
            packets: [("received", packets), ("delivered", packets / 2), ("held", 3), ("batches", packets / 20)]
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            drops: [("denied".to_owned(), packets / 2), ("no_port".to_owned(), 0)].into(),
            elements: vec![
                element("parse", 30),
                element("look up", 90),
                ElementReport { element: "meter".to_owned(), ..ElementReport::default() },
            ],
            ..CountReport::default()
        };
        let engine = dataplane::vswitch::report::EngineReport { engine: 0, running: true, counts: counts.clone() };
        let switch = VswitchStatistics { engines: vec![engine], sums: counts, ..VswitchStatistics::default() };
        Snapshot {
            at,
            ports: Ports { seconds: 5.0, ports: vec![port] },
            switch: Some(switch),
            flows: FlowList::default(),
        }
    }

    #[test]
    fn rates_are_those_of_the_interval() {
        let start = Instant::now();
        let picture = Picture::between(&snapshot(start, 1000), &snapshot(start + Duration::from_secs(2), 5000));
        let port = &picture.ports[0];
        assert_eq!(
            (port.rx_packets, port.rx_bits, port.tx_packets, port.dropped, port.cpu),
            (2000.0, 1_600_000.0, 0.0, 200.0, 0.2)
        );
        let engine = &picture.engines[0];
        assert_eq!(
            (engine.received, engine.delivered, engine.dropped, engine.held, engine.batch),
            (2000.0, 1000.0, 1000.0, 3, Some(20.0))
        );
        let elements: Vec<_> =
            picture.elements.iter().map(|one| (one.element.as_str(), one.cycles_per_packet, one.share)).collect();
        assert_eq!(elements, [("parse", Some(30.0), Some(0.25)), ("look up", Some(90.0), Some(0.75))]);
        assert_eq!(picture.drops.len(), 1);
        assert_eq!((picture.drops[0].packets, picture.drops[0].total), (1000.0, 2500));
        // The first picture has no interval.
        let none = Picture::between(&snapshot(start, 1000), &snapshot(start, 1000));
        assert_eq!((none.ports[0].rx_packets, none.engines[0].received, none.ports[0].cpu), (0.0, 0.0, 0.0));
        serde_json::to_value(&none).unwrap();
    }
}
