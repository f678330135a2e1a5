//! The state of the switch in numbers and names.

use std::time::Duration;

use super::report::{
    CountReport, DurationBucket, DurationReport, ElementReport, EngineReport, LatencyReport, LearnedReport,
    NetworkReport, SliceReport, SwitchedPortReport, TableReport, TunnelReport, VswitchStatistics,
};
use super::state::State;
use crate::clock::CycleClock;
use crate::headers::Malformed;
use crate::histogram::{Histogram, SharedHistogram};
use crate::network::config::Mac;
use crate::network::topology::Topology;
use crate::switch::{Reason, Stage, StageStatistics, SwitchCells, SwitchStatistics};

/// Learned addresses of a network that are listed.
const MOST_LEARNED: usize = 1024;

impl State {
    /// The state of the switch.
    pub(super) fn statistics(&self) -> VswitchStatistics {
        let read: Vec<SwitchStatistics> = self.engines.all.iter().map(|engine| engine.cells.read()).collect();
        let engines = self.engines.all.iter().zip(&read).enumerate().map(|(number, (engine, counted))| EngineReport {
            engine: number,
            running: engine.desk.is_some(),
            counts: counts(counted),
        });
        let latency = |of: fn(&SwitchCells) -> &SharedHistogram| {
            let mut all = Histogram::new();
            self.engines.all.iter().for_each(|engine| all.merge(&of(&engine.cells).snapshot()));
            durations(&all, self.options.clock)
        };
        let mut control = self.counters.named();
        control.insert("waiting".to_owned(), self.waiting.len() as u64);
        VswitchStatistics {
            engines: engines.collect(),
            sums: counts(&read.iter().fold(SwitchStatistics::default(), |sum, one| sum.plus(one))),
            latency: LatencyReport {
                through: latency(|cells| &cells.through),
                waited: latency(|cells| &cells.waited),
                with_control: latency(|cells| &cells.with_control),
            },
            table: self.table_report(),
            control,
            ports: self.port_reports(),
            slices: self.slice_reports(),
            networks: self.network_reports(),
            connections: self.brain.connections().len() as u64,
            tunnels: self.tunnel_reports(),
            coprocessors: self.coprocessor_reports(),
        }
    }

    fn table_report(&self) -> TableReport {
        let usage = self.writer.usage();
        TableReport {
            flows: usage.flows,
            waiting: usage.waiting,
            capacity: usage.capacity,
            most: self.options.flows,
            bytes: usage.bytes as u64,
        }
    }

    fn port_reports(&self) -> Vec<SwitchedPortReport> {
        let config = self.brain.config();
        let underlay = config.underlay.as_ref().map(|underlay| underlay.port.as_str());
        let report = |(slot, port): (crate::switch::PortSlot, &super::ports::Port)| SwitchedPortReport {
            name: port.name.clone(),
            number: port.facts.number,
            slot: slot.0,
            mtu: port.facts.mtu,
            networks: config.ports.iter().filter(|it| it.name == port.name).map(|it| it.network.clone()).collect(),
            underlay: underlay == Some(port.name.as_str()),
        };
        self.ports.iter().map(report).collect()
    }

    fn slice_reports(&self) -> Vec<SliceReport> {
        let topology = self.brain.topology();
        let report = |(number, slice): (&u16, &crate::network::topology::Slice)| {
            let limit = topology.meters.get(&slice.meter).filter(|_| slice.meter != 0);
            SliceReport {
                name: slice.name.clone(),
                flows: self.writer.owned(*number),
                most_flows: slice.flows,
                most_connections: slice.connections,
                packets_per_second: limit.and_then(|limit| limit.packets),
                bits_per_second: limit.and_then(|limit| limit.bits),
                share: slice.share,
            }
        };
        topology.slices.iter().map(report).collect()
    }

    fn network_reports(&self) -> Vec<NetworkReport> {
        let (topology, config) = (self.brain.topology(), self.brain.config());
        let report = |(number, network): (&u16, &crate::network::topology::Network)| {
            let written = config.networks.iter().find(|it| it.name == network.name);
            let here = |name: &String| self.ports.find(name).is_some();
            let ports = config.ports.iter().filter(|it| it.network == network.name).map(|it| it.name.clone());
            let learned = self.brain.learned(*number).take(MOST_LEARNED);
            NetworkReport {
                name: network.name.clone(),
                vni: written.and_then(|it| it.vni),
                slice: written.and_then(|it| it.slice.clone()),
                ports: ports.filter(here).collect(),
                learned: learned
                    .map(|(mac, station)| LearnedReport { mac, place: self.brain.name_of(station.place) })
                    .collect(),
                learned_count: self.brain.learned(*number).count() as u64,
            }
        };
        topology.networks.iter().map(report).collect()
    }

    fn tunnel_reports(&self) -> Vec<TunnelReport> {
        let topology: &Topology = self.brain.topology();
        let reports = topology.tunnels.iter().map(|(number, tunnel)| {
            let (state, next_hop, mac) = self.underlay.state(*number);
            TunnelReport {
                network: topology.networks.get(&tunnel.network).map_or_else(String::new, |it| it.name.clone()),
                remote: tunnel.remote,
                kind: tunnel.kind,
                vni: tunnel.vni,
                state,
                next_hop,
                mac: mac.map(|mac| Mac(mac.0)),
            }
        });
        reports.collect()
    }
}

fn counts(counted: &SwitchStatistics) -> CountReport {
    let named = |(name, count): (&'static str, u64)| (name.to_owned(), count);
    let drops = Reason::ALL.iter().map(|reason| reason.name()).zip(counted.drops);
    let malformed = Malformed::ALL.iter().map(|fault| fault.name()).zip(counted.malformed);
    let element = |(stage, did): (&Stage, &StageStatistics)| ElementReport {
        element: stage.name().to_owned(),
        batches: did.batches,
        packets: did.packets,
        timed_packets: did.timed_packets,
        timed_cycles: did.timed_cycles,
        cycles_per_packet: did.cycles_per_packet(),
    };
    CountReport {
        packets: counted.flowing.named().into_iter().map(named).collect(),
        drops: drops.map(named).collect(),
        malformed: malformed.map(named).collect(),
        elements: Stage::ALL.iter().zip(&counted.stages).map(element).collect(),
    }
}

fn durations(all: &Histogram, clock: CycleClock) -> DurationReport {
    let time = |cycles: Option<u64>| cycles.map_or(0, |cycles| clock.nanoseconds(cycles));
    let bucket = |shift: u32| {
        let at_most = (1_u64 << shift) - 1;
        let count = all.at_most(clock.cycles_in(Duration::from_nanos(at_most)));
        DurationBucket { at_most, count }
    };
    DurationReport {
        count: all.count(),
        sum: clock.nanoseconds(all.sum()),
        buckets: (8..=30).step_by(2).map(bucket).collect(),
        mean: time(all.mean()),
        p50: time(all.quantile(0.5)),
        p90: time(all.quantile(0.9)),
        p99: time(all.quantile(0.99)),
        p999: time(all.quantile(0.999)),
        maximum: time(all.maximum()),
    }
}
