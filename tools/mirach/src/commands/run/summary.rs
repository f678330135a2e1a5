//! What a run says at its end.

use std::io;

use dataplane::forwarder::Stopped;
use dataplane::port::GeneratorReport;
use dataplane::stats::Statistics;
use serde_json::json;

use crate::output;
use crate::report::{self, Latency};
use crate::table::{grouped, time};

pub(super) fn summarise(stopped: &Stopped, clock: dataplane::clock::CycleClock, json: bool) -> io::Result<()> {
    let statistics: &Statistics = &stopped.statistics;
    let seconds = statistics.elapsed.as_secs_f64();
    let generators = statistics.ports.iter().zip(&stopped.generators);
    let generators = generators.filter_map(|(port, report)| Some((port.name.as_str(), report.as_ref()?)));
    if json {
        let mut object = report::object("summary", seconds, statistics, clock);
        let generators: serde_json::Map<_, _> =
            generators.map(|(name, report)| (name.to_owned(), generator_object(report))).collect();
        if !generators.is_empty() {
            object.insert("generators".into(), generators.into());
        }
        return output::json(&object);
    }
    let sent = statistics.sent().counters;
    output::line(&format!(
        "forwarded {} packets ({} bytes) in {seconds:.1} s",
        grouped(sent.packets),
        grouped(sent.bytes)
    ))?;
    output::line(&format!("          {}", report::headline(statistics, clock)))?;
    output::line(&(report::queues(statistics, clock) + report::switched(statistics).trim_end()))?;
    let devices = report::devices(statistics);
    if !devices.is_empty() {
        output::line(devices.trim_end())?;
    }
    for (name, report) in generators {
        output::line(&generator_text(name, report))?;
    }
    Ok(())
}

fn generator_object(report: &GeneratorReport) -> serde_json::Value {
    json!({
        "sent": report.sent,
        "missed": report.missed,
        "received": report.received,
        "lost": report.lost,
        "reordered": report.reordered,
        "duplicates": report.duplicates,
        "corrupt": report.corrupt,
        "foreign": report.foreign,
        "latency_ns": Latency::of(&report.latency),
    })
}

fn generator_text(name: &str, report: &GeneratorReport) -> String {
    let mut text = format!("{name}: made {}, checked {}", grouped(report.sent), grouped(report.received));
    for (count, word) in [
        (report.missed, "not made in time"),
        (report.lost, "lost"),
        (report.reordered, "reordered"),
        (report.duplicates, "duplicate"),
        (report.corrupt, "corrupt"),
        (report.foreign, "of others"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {} {word}", grouped(count)));
        }
    }
    if let Some(latency) = Latency::of(&report.latency) {
        text.push_str(&format!(
            ", latency p50 {} p99 {} max {}",
            time(latency.p50),
            time(latency.p99),
            time(latency.max)
        ));
    }
    text
}
