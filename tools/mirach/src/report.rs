//! Statistics as text for people and as JSON for programs.

use std::fmt::Write;
use std::time::{Duration, Instant};

use dataplane::clock::CycleClock;
use dataplane::histogram::Histogram;
use dataplane::stats::{PortStatistics, QueueStatistics, Statistics};
use dataplane::switch::{Flowing, Reason};
use drivers::nic::DropReason;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::table::{Table, grouped, optional, time};

/// How often statistics are shown and devices are looked after.
pub(crate) const TICK: Duration = Duration::from_secs(1);

/// When to report after the report due at `tick`, which came at `now`. One that came late is not followed by another at
/// once, whose interval would be too short to say anything.
pub(crate) fn next_tick(tick: Instant, now: Instant) -> Instant {
    (tick + TICK).max(now + TICK / 2)
}

/// One line about the whole forwarder in `interval`, then a row for each queue that counted anything.
pub(crate) fn text(seconds: f64, interval: &Statistics, clock: CycleClock) -> String {
    let mut text = format!("{seconds:>6.1} s  ");
    text.push_str(&headline(interval, clock));
    text.push('\n');
    text.push_str(&queues(interval, clock));
    text.push_str(&switched(interval));
    text.push_str(&shares(interval));
    text
}

/// What part of the engines' work each port was: `cpu: vm0 61.2 %, vm1 38.8 %`. Empty when nothing was done.
pub(crate) fn shares(statistics: &Statistics) -> String {
    let shares = statistics.ports.iter().filter_map(|port| Some((port, statistics.cpu_share(port)?)));
    let worked = shares.filter(|(_, share)| *share > 0.0);
    let list: Vec<String> = worked.map(|(port, share)| format!("{} {:.1} %", port.name, share * 100.0)).collect();
    if list.is_empty() { String::new() } else { format!("{:10}cpu: {}\n", "", list.join(", ")) }
}

/// `12.345 Mpps, 6.3 Gbit/s, 81.2 ns (203 cycles) per packet, dropped 12 (tx_queue_full 12)`
pub(crate) fn headline(statistics: &Statistics, clock: CycleClock) -> String {
    let sent = statistics.sent().counters;
    let mut text = format!("{:.3} Mpps, {}", statistics.mpps(sent.packets), bit_rate(statistics, sent.bytes));
    if let Some(cycles) = statistics.cycles_per_packet() {
        let _ = write!(text, ", {:.1} ns ({cycles:.0} cycles) per packet", nanoseconds(cycles, clock));
    }
    let latency = statistics.latency();
    let percentile = |fraction| latency.as_ref().and_then(|latency| latency.quantile(fraction));
    if let (Some(median), Some(high)) = (percentile(0.5), percentile(0.99)) {
        let _ = write!(text, ", latency p50 {} p99 {}", time(median), time(high));
    }
    let drops = drops(statistics);
    if !drops.is_empty() {
        let list: Vec<String> = drops.iter().map(|(name, count)| format!("{name} {}", grouped(*count))).collect();
        let _ = write!(text, ", dropped: {}", list.join(", "));
    }
    text
}

/// The table of queues, without those that counted nothing.
pub(crate) fn queues(statistics: &Statistics, clock: CycleClock) -> String {
    let mut table =
        Table::new(2, ["port", "queue", "packets", "bytes", "Mpps", "ns/pkt", "cycles/pkt", "burst", "dropped"]);
    for port in &statistics.ports {
        let mut name = port.name.as_str();
        for (direction, queues) in [("rx", &port.rx), ("tx", &port.tx)] {
            for (index, queue) in queues.iter().enumerate() {
                let counters = queue.counters;
                let dropped = counters.dropped_total();
                if counters.packets == 0 && dropped == 0 {
                    continue;
                }
                table.row([
                    name.to_owned(),
                    format!("{direction} q{index}"),
                    grouped(counters.packets),
                    grouped(counters.bytes),
                    format!("{:.3}", statistics.mpps(counters.packets)),
                    optional(queue.ns_per_packet(clock), 1),
                    optional(queue.cycles_per_packet(), 0),
                    optional(queue.packets_per_poll(), 1),
                    if dropped == 0 { String::new() } else { grouped(dropped) },
                ]);
                name = "";
            }
        }
    }
    if table.is_empty() { String::new() } else { table.render(10) }
}

/// Every drop counter that is not zero, by name.
pub(crate) fn drops(statistics: &Statistics) -> Vec<(String, u64)> {
    let (received, sent) = (statistics.received().counters, statistics.sent().counters);
    let mut drops = Vec::new();
    for (direction, counters) in [("rx", received), ("tx", sent)] {
        for reason in DropReason::ALL {
            let count = counters.dropped(reason);
            if count > 0 {
                drops.push((format!("{direction}_{}", reason.name()), count));
            }
        }
    }
    let by_switch = statistics.switch.iter().flat_map(|switch| Reason::ALL.iter().zip(switch.drops));
    let by_switch = by_switch.filter(|(_, count)| *count > 0);
    drops.extend(by_switch.map(|(reason, count)| (format!("switch_drop_{}", reason.name()), count)));
    drops
}

/// What the switch added to the packets that were received, and what became of them: `switch: 12 received, 3 copied, ...`. Without what it drops, which
/// is with all drops. Empty when it did nothing.
pub(crate) fn switched(statistics: &Statistics) -> String {
    let Some(switch) = statistics.switch.as_ref().filter(|switch| switch.flowing != Flowing::default()) else {
        return String::new();
    };
    let named = switch.flowing.named().into_iter().filter(|(_, count)| *count > 0);
    let list: Vec<String> =
        named.map(|(name, count)| format!("{} {}", grouped(count), name.replace('_', " "))).collect();
    format!("{:10}switch: {}\n", "", list.join(", "))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn nanoseconds(cycles: f64, clock: CycleClock) -> f64 {
    cycles * 1e9 / clock.cycles_per_second() as f64
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(cycles: u64, clock: CycleClock) -> f64 {
    cycles as f64 / clock.cycles_per_second() as f64
}

fn bit_rate(statistics: &Statistics, bytes: u64) -> String {
    let megabits = statistics.mpps(bytes) * 8.0;
    if megabits >= 1000.0 { format!("{:.2} Gbit/s", megabits / 1000.0) } else { format!("{megabits:.1} Mbit/s") }
}

/// Percentiles of a latency, in nanoseconds.
#[derive(Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: u64,
    pub(crate) p90: u64,
    pub(crate) p99: u64,
    pub(crate) p999: u64,
    pub(crate) max: u64,
}

impl Latency {
    /// `None` when nothing was measured.
    pub(crate) fn of(histogram: &Histogram) -> Option<Self> {
        Some(Self {
            p50: histogram.quantile(0.5)?,
            p90: histogram.quantile(0.9)?,
            p99: histogram.quantile(0.99)?,
            p999: histogram.quantile(0.999)?,
            max: histogram.maximum()?,
        })
    }
}

/// Everything that was counted, as one JSON object. `kind` is `statistics` or `summary`.
pub(crate) fn object(kind: &str, seconds: f64, statistics: &Statistics, clock: CycleClock) -> Map<String, Value> {
    let (received, sent) = (statistics.received().counters, statistics.sent().counters);
    let mut object = Map::new();
    object.insert("type".into(), json!(kind));
    object.insert("seconds".into(), json!(round(seconds, 3)));
    object.insert("interval_seconds".into(), json!(round(statistics.elapsed.as_secs_f64(), 6)));
    object.insert("rx_packets".into(), json!(received.packets));
    object.insert("rx_bytes".into(), json!(received.bytes));
    object.insert("tx_packets".into(), json!(sent.packets));
    object.insert("tx_bytes".into(), json!(sent.bytes));
    object.insert("mpps".into(), json!(round(statistics.mpps(sent.packets), 6)));
    let cycles = statistics.cycles_per_packet();
    object.insert("ns_per_packet".into(), json!(cycles.map(|cycles| round(nanoseconds(cycles, clock), 3))));
    object.insert("cycles_per_packet".into(), json!(cycles.map(|cycles| round(cycles, 3))));
    let drops: Map<String, Value> = drops(statistics).into_iter().map(|(name, count)| (name, json!(count))).collect();
    object.insert("drops".into(), Value::Object(drops));
    if let Some(latency) = statistics.latency().as_ref().and_then(Latency::of) {
        object.insert("latency_ns".into(), json!(latency));
    }
    if let Some(switch) = &statistics.switch {
        let mut flowing: Map<String, Value> =
            switch.flowing.named().into_iter().map(|(name, count)| (name.to_owned(), json!(count))).collect();
        flowing.insert("dropped".into(), json!(switch.dropped()));
        object.insert("switch".into(), Value::Object(flowing));
    }
    let ports = statistics.ports.iter().map(|port| port_object(port, statistics, clock)).collect();
    object.insert("ports".into(), Value::Array(ports));
    object
}

fn port_object(port: &PortStatistics, statistics: &Statistics, clock: CycleClock) -> Value {
    let mut object = Map::new();
    object.insert("name".into(), json!(port.name));
    for (name, value) in port.totals() {
        let is_always_there = ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes"].contains(&name.as_str());
        if is_always_there || value > 0 {
            object.insert(name, json!(value));
        }
    }
    for (direction, queues) in [("rx", &port.rx), ("tx", &port.tx)] {
        let queues = queues.iter().enumerate().map(|(index, queue)| queue_object(index, queue, statistics, clock));
        object.insert(format!("{direction}_queues"), queues.collect());
    }
    object.insert("cpu_seconds".into(), json!(round(seconds(port.cpu_cycles(), clock), 6)));
    object.insert("cpu_share".into(), json!(statistics.cpu_share(port).map(|share| round(share, 4))));
    let device: Map<String, Value> = device(port).map(|(name, value)| (name.to_owned(), json!(value))).collect();
    if !device.is_empty() {
        object.insert("device".into(), Value::Object(device));
    }
    Value::Object(object)
}

/// Counters of a port's device that are not zero.
fn device(port: &PortStatistics) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    port.device.iter().copied().filter(|(_, value)| *value > 0)
}

/// A line for each port whose device has counted anything: `0000:03:00.0 device: rx_good_packets 12 tx_good_packets 9`.
pub(crate) fn devices(statistics: &Statistics) -> String {
    let mut text = String::new();
    for port in &statistics.ports {
        let list: Vec<String> = device(port).map(|(name, value)| format!("{name} {}", grouped(value))).collect();
        if !list.is_empty() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} device: {}", port.name, list.join(", "));
        }
    }
    text
}

fn queue_object(index: usize, queue: &QueueStatistics, statistics: &Statistics, clock: CycleClock) -> Value {
    json!({
        "queue": index,
        "packets": queue.counters.packets,
        "bytes": queue.counters.bytes,
        "dropped": queue.counters.dropped_total(),
        "mpps": round(statistics.mpps(queue.counters.packets), 6),
        "ns_per_packet": queue.ns_per_packet(clock).map(|value| round(value, 3)),
        "cycles_per_packet": queue.cycles_per_packet().map(|value| round(value, 3)),
        "packets_per_poll": queue.packets_per_poll().map(|value| round(value, 3)),
        "empty_polls": queue.empty_polls,
    })
}

/// So many places after the point: JSON that people can read too.
pub(crate) fn round(value: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use drivers::nic::Counters;

    #[test]
    fn a_late_report_is_not_followed_by_a_crowd() {
        let tick = Instant::now();
        assert_eq!(next_tick(tick, tick), tick + TICK);
        assert_eq!(next_tick(tick, tick + TICK * 9 / 10), tick + TICK * 14 / 10);
        assert_eq!(next_tick(tick, tick + 60 * TICK), tick + 60 * TICK + TICK / 2);
    }

    fn sample() -> Statistics {
        let mut sent = Counters::default();
        (sent.packets, sent.bytes) = (1_000_000, 64_000_000);
        let mut received = Counters::default();
        (received.packets, received.bytes) = (1_000_007, 64_000_448);
        sent.drop_packets(DropReason::Full, 7);
        let queue = |counters| QueueStatistics {
            counters,
            busy_cycles: 50_000_000,
            busy_polls: 20_000,
            ..QueueStatistics::default()
        };
        let port = PortStatistics {
            name: "0000:00:03.0".into(),
            rx: vec![queue(received)],
            tx: vec![queue(sent), QueueStatistics::default()],
            device: vec![("rx_crc_errors", 0), ("rx_missed_errors", 5)],
            ..PortStatistics::default()
        };
        Statistics { elapsed: Duration::from_secs(1), ports: vec![port], ..Statistics::default() }
    }

    #[test]
    fn text_names_drops_and_hides_idle_queues() {
        let text = text(1.0, &sample(), CycleClock::with_rate(2_000_000_000));
        assert!(text.contains("1.000 Mpps, 512.0 Mbit/s"), "{text}");
        assert!(text.contains("dropped: tx_queue_full 7"), "{text}");
        assert!(text.contains("tx q0") && !text.contains("tx q1"), "{text}");
        assert!(text.ends_with("\n          cpu: 0000:00:03.0 100.0 %\n"), "{text}");
    }

    #[test]
    fn what_the_switch_did_is_in_text_and_json() {
        let mut switch = dataplane::switch::SwitchStatistics::default();
        (switch.flowing.received, switch.flowing.copied, switch.flowing.delivered) = (1_000_007, 3, 1_000_007);
        switch.drops[Reason::Spoofed as usize] = 3;
        let statistics = Statistics { switch: Some(switch), ..sample() };
        let clock = CycleClock::with_rate(2_000_000_000);
        let text = text(1.0, &statistics, clock);
        assert!(text.contains("dropped: tx_queue_full 7, switch_drop_spoofed 3"), "{text}");
        assert!(text.contains("\n          switch: 1,000,007 received, 3 copied, 1,000,007 delivered\n"), "{text}");
        let object = object("summary", 1.0, &statistics, clock);
        assert_eq!(object["drops"]["switch_drop_spoofed"], 3);
        assert_eq!((&object["switch"]["copied"], &object["switch"]["dropped"]), (&json!(3), &json!(3)));
        assert_eq!(switched(&sample()), "");
    }

    #[test]
    fn json_holds_sums_queues_and_drops() {
        let object = object("statistics", 1.0, &sample(), CycleClock::with_rate(2_000_000_000));
        assert_eq!(object["tx_packets"], 1_000_000);
        assert_eq!(object["drops"]["tx_queue_full"], 7);
        assert_eq!(object["ports"][0]["tx_queues"][0]["dropped"], 7);
        assert_eq!(object["ports"][0]["tx_queue_full"], 7);
        assert!(object.get("latency_ns").is_none());
        assert_eq!(object["ports"][0]["device"], json!({ "rx_missed_errors": 5 }));
        assert_eq!(devices(&sample()), "0000:00:03.0 device: rx_missed_errors 5\n");
    }
}
