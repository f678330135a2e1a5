//! What there is to tell Prometheus: everything that was counted, of one moment.

use drivers::nic::DropReason;

use super::text::{Exposition, Kind};
use crate::clock::CycleClock;
use crate::histogram::Histogram;
use crate::stats::{PortStatistics, QueueStatistics, Statistics};
use crate::vswitch::report::{CoprocessorReport, CountReport, EngineReport, VswitchStatistics};

/// The one of control's numbers that goes down, too.
const WAITING: &str = "waiting";

/// Everything as text. Of the switch nothing, where there is none.
pub(in crate::control) fn exposition(
    ports: &Statistics,
    clock: CycleClock,
    switch: Option<&VswitchStatistics>,
) -> String {
    let mut text = Exposition::default();
    text.family("mirach_info", Kind::Gauge, "What runs.").sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("mirach_uptime_seconds", Kind::Gauge, "Seconds since the forwarder started.")
        .sample(&[], ports.elapsed.as_secs_f64());
    queues(&mut text, &ports.ports);
    drops(&mut text, &ports.ports);
    devices(&mut text, &ports.ports, clock);
    if !ports.copying.is_empty() {
        let help = "The device that copies to virtual machines: failures, restarts, and the memory that it reaches.";
        let mut family = text.family("mirach_copy_engine", Kind::Gauge, help);
        ports.copying.iter().for_each(|(name, value)| family.sample(&[("counter", name)], *value));
    }
    if let Some(switch) = switch {
        engines(&mut text, &switch.engines);
        elements(&mut text, &switch.engines);
        latencies(&mut text, switch);
        tables(&mut text, switch);
        coprocessors(&mut text, switch);
    }
    text.finish()
}

/// A number of one queue.
type OfQueue = fn(&QueueStatistics) -> u64;

fn queues(text: &mut Exposition, ports: &[PortStatistics]) {
    let families: [(&str, &str, OfQueue); 4] = [
        ("mirach_port_packets_total", "Packets that ports received and sent.", |queue| queue.counters.packets),
        ("mirach_port_bytes_total", "Bytes of these packets, without frame check sequences.", |queue| {
            queue.counters.bytes
        }),
        ("mirach_port_busy_polls_total", "Calls that moved packets.", |queue| queue.busy_polls),
        ("mirach_port_empty_polls_total", "Calls that found nothing, or no room.", |queue| queue.empty_polls),
    ];
    for (name, help, number) in families {
        let mut family = text.family(name, Kind::Counter, help);
        for port in ports {
            for (direction, queues) in directions(port) {
                for (index, queue) in queues.iter().enumerate() {
                    let labels =
                        [("port", port.name.as_str()), ("direction", direction), ("queue", &index.to_string())];
                    family.sample(&labels, number(queue));
                }
            }
        }
    }
    let mut family = text.family(
        "mirach_port_cut_packets_total",
        Kind::Counter,
        "Packets that there are more because large ones were cut in software.",
    );
    ports.iter().for_each(|port| family.sample(&[("port", &port.name)], port.tx_total().cut));
}

fn directions(port: &PortStatistics) -> [(&'static str, &[QueueStatistics]); 2] {
    [("received", &port.rx), ("sent", &port.tx)]
}

fn drops(text: &mut Exposition, ports: &[PortStatistics]) {
    let help = "Packets that ports dropped, by reason.";
    let mut family = text.family("mirach_port_dropped_packets_total", Kind::Counter, help);
    for port in ports {
        for (direction, total) in [("received", port.rx_total()), ("sent", port.tx_total())] {
            for reason in DropReason::ALL {
                let labels = [("port", port.name.as_str()), ("direction", direction), ("reason", reason.name())];
                family.sample(&labels, total.counters.dropped(reason));
            }
        }
    }
}

fn devices(text: &mut Exposition, ports: &[PortStatistics], clock: CycleClock) {
    let mut family =
        text.family("mirach_port_cpu_seconds_total", Kind::Counter, "Processor time that ports have cost the engines.");
    ports.iter().for_each(|port| family.sample(&[("port", &port.name)], seconds(port.cpu_cycles(), clock)));
    let mut family = text.family("mirach_port_device_total", Kind::Counter, "Counters of the devices themselves.");
    for port in ports {
        port.device.iter().for_each(|(name, value)| family.sample(&[("port", &port.name), ("counter", name)], *value));
    }
    let help = "From generation to arrival, at ports that measure it.";
    let mut family = text.family("mirach_port_latency_seconds", Kind::Histogram, help);
    for port in ports {
        if let Some(latency) = &port.latency {
            let (buckets, sum) = buckets(latency);
            family.histogram(&[("port", &port.name)], &buckets, latency.count(), sum);
        }
    }
}

fn engines(text: &mut Exposition, engines: &[EngineReport]) {
    let mut family = text.family("mirach_engine_running", Kind::Gauge, "Whether the engine runs.");
    engines.iter().for_each(|engine| family.sample(&number(engine).labels(), u64::from(engine.running)));
    let mut family = text.family("mirach_engine_held_packets", Kind::Gauge, "Packets that wait for their flow now.");
    engines.iter().for_each(|engine| family.sample(&number(engine).labels(), held(&engine.counts)));
    let help = "Packets of the switch, by what happened to them.";
    let mut family = text.family("mirach_engine_packets_total", Kind::Counter, help);
    for engine in engines {
        let counted = engine.counts.packets.iter().filter(|(name, _)| !["held", "batches"].contains(&name.as_str()));
        counted.for_each(|(name, packets)| family.sample(&number(engine).and("event", name), *packets));
    }
    let mut family = text.family("mirach_engine_batches_total", Kind::Counter, "Batches that went through the switch.");
    for engine in engines {
        family.sample(&number(engine).labels(), engine.counts.packets.get("batches").copied().unwrap_or(0));
    }
    let mut family = text.family(
        "mirach_engine_dropped_packets_total",
        Kind::Counter,
        "Packets that the switch dropped, by reason.",
    );
    for engine in engines {
        let drops = &engine.counts.drops;
        drops.iter().for_each(|(reason, packets)| family.sample(&number(engine).and("reason", reason), *packets));
    }
    let help = "Packets that were dropped as malformed, by what is wrong with them.";
    let mut family = text.family("mirach_engine_malformed_packets_total", Kind::Counter, help);
    for engine in engines {
        let malformed = &engine.counts.malformed;
        malformed.iter().for_each(|(kind, packets)| family.sample(&number(engine).and("kind", kind), *packets));
    }
}

/// The label of an engine.
struct Number(String);

fn number(engine: &EngineReport) -> Number {
    Number(engine.engine.to_string())
}

impl Number {
    fn labels(&self) -> [(&'static str, &str); 1] {
        [("engine", &self.0)]
    }

    fn and<'a>(&'a self, name: &'static str, value: &'a str) -> [(&'static str, &'a str); 2] {
        [("engine", &self.0), (name, value)]
    }
}

fn held(counts: &CountReport) -> u64 {
    counts.packets.get("held").copied().unwrap_or(0)
}

fn elements(text: &mut Exposition, engines: &[EngineReport]) {
    type OfElement = fn(&crate::vswitch::report::ElementReport) -> u64;
    let families: [(&str, &str, OfElement); 4] = [
        ("mirach_element_packets_total", "Packets that elements had something to do with.", |element| element.packets),
        ("mirach_element_batches_total", "Batches of these packets.", |element| element.batches),
        ("mirach_element_timed_packets_total", "Packets of the batches that were timed.", |element| {
            element.timed_packets
        }),
        ("mirach_element_timed_cycles_total", "Cycles that these took.", |element| element.timed_cycles),
    ];
    for (name, help, value) in families {
        let mut family = text.family(name, Kind::Counter, help);
        for engine in engines {
            for element in &engine.counts.elements {
                family.sample(&number(engine).and("element", &element.element), value(element));
            }
        }
    }
}

fn latencies(text: &mut Exposition, switch: &VswitchStatistics) {
    let help = "How long packets took through the switch, waited for their flow, and were with control.";
    let mut family = text.family("mirach_switch_latency_seconds", Kind::Histogram, help);
    let latency = &switch.latency;
    for (phase, report) in
        [("through", &latency.through), ("waited", &latency.waited), ("with_control", &latency.with_control)]
    {
        let buckets: Vec<(f64, u64)> =
            report.buckets.iter().map(|bucket| (in_seconds(bucket.at_most), bucket.count)).collect();
        family.histogram(&[("phase", phase)], &buckets, report.count, in_seconds(report.sum));
    }
}

fn tables(text: &mut Exposition, switch: &VswitchStatistics) {
    let table = &switch.table;
    let waiting = switch.control.get(WAITING).copied().unwrap_or(0);
    let mut gauge = |name, help: &str, value: u64| text.family(name, Kind::Gauge, help).sample(&[], value);
    gauge("mirach_flows", "Flows in the table.", table.flows.into());
    gauge("mirach_flows_capacity", "Flows that the table is made for now.", table.capacity.into());
    gauge("mirach_flows_limit", "Flows that the table may grow to.", table.most.into());
    gauge("mirach_flow_table_bytes", "Memory of the flow table.", table.bytes);
    gauge("mirach_connections", "Connections that are tracked.", switch.connections);
    gauge("mirach_control_waiting", "First packets that wait for an answer from others.", waiting);
    let mut family = text.family("mirach_control_total", Kind::Counter, "What the thread that decides has done.");
    let counted = switch.control.iter().filter(|(name, _)| *name != WAITING);
    counted.for_each(|(name, value)| family.sample(&[("counter", name)], *value));
    let mut family = text.family("mirach_slice_flows", Kind::Gauge, "Flows that slices have.");
    switch.slices.iter().for_each(|slice| family.sample(&[("slice", &slice.name)], u64::from(slice.flows)));
    let mut family =
        text.family("mirach_slice_flows_limit", Kind::Gauge, "Flows that slices may have, where there is a limit.");
    for slice in &switch.slices {
        if let Some(most) = slice.most_flows {
            family.sample(&[("slice", &slice.name)], u64::from(most));
        }
    }
    let mut family = text.family("mirach_network_ports", Kind::Gauge, "Ports in networks that are open.");
    switch.networks.iter().for_each(|one| family.sample(&[("network", &one.name)], one.ports.len() as u64));
    let mut family = text.family("mirach_network_learned_macs", Kind::Gauge, "Ethernet addresses that were learned.");
    switch.networks.iter().for_each(|one| family.sample(&[("network", &one.name)], one.learned_count));
    let mut family = text.family("mirach_tunnel_up", Kind::Gauge, "Whether frames can go through the tunnel.");
    for tunnel in &switch.tunnels {
        let up = tunnel.state == crate::vswitch::report::TunnelState::Up;
        family.sample(&[("network", &tunnel.network), ("remote", &tunnel.remote.to_string())], u64::from(up));
    }
}

fn coprocessors(text: &mut Exposition, switch: &VswitchStatistics) {
    type OfCoprocessor = fn(&CoprocessorReport) -> u64;
    let families: [(&str, &str, OfCoprocessor); 4] = [
        ("mirach_coprocessor_packets_total", "Packets that coprocessors gave back.", |one| one.packets),
        ("mirach_coprocessor_bytes_total", "Bytes of these packets.", |one| one.bytes),
        ("mirach_coprocessor_denied_total", "Packets that the rules of coprocessors do not allow.", |one| one.denied),
        ("mirach_coprocessor_overflowed_total", "Packets for which their queues had no room.", |one| one.overflowed),
    ];
    for (name, help, value) in families {
        let mut family = text.family(name, Kind::Counter, help);
        switch.coprocessors.iter().for_each(|one| family.sample(&[("port", &one.port)], value(one)));
    }
    let help = "Processor time that coprocessors used, which is their ports'.";
    let mut family = text.family("mirach_coprocessor_cpu_seconds_total", Kind::Counter, help);
    for one in &switch.coprocessors {
        family.sample(&[("port", &one.port)], in_seconds(one.cpu_nanoseconds));
    }
}

/// How many values, in nanoseconds, were at most so many seconds; and the sum of all. Bounds are a fourfold of one another.
fn buckets(histogram: &Histogram) -> (Vec<(f64, u64)>, f64) {
    let bounds = (8..=30).step_by(2).map(|shift| (1_u64 << shift) - 1);
    (bounds.map(|bound| (in_seconds(bound), histogram.at_most(bound))).collect(), in_seconds(histogram.sum()))
}

#[expect(clippy::cast_precision_loss, reason = "a number to look at")]
fn in_seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[expect(clippy::cast_precision_loss, reason = "a number to look at")]
fn seconds(cycles: u64, clock: CycleClock) -> f64 {
    cycles as f64 / clock.cycles_per_second().max(1) as f64
}
