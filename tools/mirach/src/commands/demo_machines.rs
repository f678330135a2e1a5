//! `mirach demo --vms N`: the real forwarder between emulated virtual machines on real vhost-user sockets.

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::clock::CycleClock;
use dataplane::config::{CoreList, EngineConfig, Poll};
use dataplane::forwarder::{Forwarder, Stopped};
use dataplane::histogram::Histogram;
use dataplane::port::MemoryOptions;
use serde_json::{Map, Value, json};

use super::demo::follow;
use crate::cli::DemoArguments;
use crate::machines::{Folder, Machines, Record};
use crate::output;
use crate::report::{self, Latency, round};
use crate::signals::Signals;
use crate::table::{Table, grouped, time};

/// How long frames may take to arrive after the last one was made.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) fn execute(arguments: &DemoArguments, count: u16) -> anyhow::Result<ExitCode> {
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let available = CoreList::available().context("cannot ask which cores there are")?;
    // The machines live on the core that the engine leaves free, when there is one.
    let machine_core = available.iter().next().filter(|_| available.len() > 1);
    let cores = CoreList::new(available.without_first().iter().next()).context("no core to run on")?;
    let hold = Duration::from_secs(3600);
    let config = EngineConfig { burst: arguments.burst.into(), poll: Poll::Adaptive, hold, ..EngineConfig::default() };
    let folder = Folder::new()?;
    let (mut forwarder, notices) = Forwarder::open(config, &cores, &folder.ports(count)?, &MemoryOptions::default())?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    let mut machines = Machines::start(&folder, count, arguments.size, machine_core)?;
    machines.begin();
    let shown = show(&mut forwarder, &machines, &signals, arguments, count);
    let traffic_time = forwarder.statistics().elapsed;
    signals.release();
    machines.drain(DRAIN);
    let records = machines.records();
    let complaints = machines.stop();
    let clock = forwarder.clock();
    let stopped = forwarder.stop();
    let summed = shown.and_then(|()| summarise(&stopped, &records, traffic_time, clock, arguments.json));
    for problem in complaints.iter().map(ToString::to_string).chain(stopped.problems.iter().map(ToString::to_string)) {
        eprintln!("error: {problem}");
    }
    summed?;
    let failed = !complaints.is_empty() || !stopped.problems.is_empty() || !Sums::of(&records).is_whole();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(
    forwarder: &mut Forwarder,
    machines: &Machines,
    signals: &Signals,
    arguments: &DemoArguments,
    count: u16,
) -> io::Result<()> {
    let clock = forwarder.clock();
    let start = Instant::now();
    if arguments.json {
        output::json(&json!({
            "type": "demo",
            "seconds": arguments.seconds,
            "frame_bytes": arguments.size,
            "burst": arguments.burst,
            "vms": count,
        }))?;
    } else {
        output::line(&format!(
            "{count} emulated virtual machines on vhost-user sockets, talking in pairs; every frame is numbered, stamped and checked."
        ))?;
        output::line(
            "  frames -> virtio-net driver of vm0 -> forwarder -> virtio-net driver of vm1 -> check, and the same way back",
        )?;
        for join in forwarder.joins() {
            output::line(&format!(
                "forwarding: {join}, burst {}, frames of {} bytes",
                arguments.burst, arguments.size
            ))?;
        }
    }
    follow(forwarder, signals, start, arguments.seconds, |seconds, interval| {
        let latency = Sums::of(&machines.records()).latency;
        if arguments.json {
            let mut object = report::object("statistics", seconds, interval, clock);
            object.insert("latency_ns".into(), json!(latency.as_ref().and_then(Latency::of)));
            return output::json(&object);
        }
        let headline = report::headline(interval, clock);
        output::line(&format!("{seconds:>6.1} s  {headline}{}", latency_text(latency.as_ref())))
    })
}

fn latency_text(latency: Option<&Histogram>) -> String {
    let Some(latency) = latency.and_then(Latency::of) else { return String::new() };
    format!(", latency p50 {} p99 {} p99.9 {}", time(latency.p50), time(latency.p99), time(latency.p999))
}

/// All machines together.
#[derive(Default)]
struct Sums {
    made: u64,
    seen: u64,
    lost: u64,
    corrupt: u64,
    reordered: u64,
    latency: Option<Histogram>,
}

impl Sums {
    fn of(records: &[Record]) -> Self {
        let mut sums = Self::default();
        for Record { sent, lost, report } in records {
            sums.made += sent;
            sums.seen += report.received;
            sums.lost += lost;
            // A frame twice or from nowhere is as wrong as a changed one.
            sums.corrupt += report.corrupt + report.foreign + report.duplicates;
            sums.reordered += report.reordered;
            match &mut sums.latency {
                Some(all) => all.merge(&report.latency),
                none => *none = Some(report.latency.clone()),
            }
        }
        sums
    }

    fn is_whole(&self) -> bool {
        self.made == self.seen && self.lost == 0 && self.corrupt == 0 && self.reordered == 0 && self.seen > 0
    }
}

fn summarise(
    stopped: &Stopped,
    records: &[Record],
    traffic_time: Duration,
    clock: CycleClock,
    json: bool,
) -> io::Result<()> {
    // Rates are over the time in which frames were made, without the drain.
    let mut statistics = stopped.statistics.clone();
    statistics.elapsed = traffic_time;
    let sums = Sums::of(records);
    let bytes = statistics.sent().counters.bytes;
    if json {
        let mut object = Map::new();
        object.insert("packets_forwarded".into(), json!(sums.seen));
        object.insert("packets_lost".into(), json!(sums.lost));
        object.insert("packets_corrupt".into(), json!(sums.corrupt));
        object.insert("packets_reordered".into(), json!(sums.reordered));
        object.insert("packets_generated".into(), json!(sums.made));
        object.insert("bytes_forwarded".into(), json!(bytes));
        object.extend(report::object("summary", traffic_time.as_secs_f64(), &statistics, clock));
        object.insert("mpps".into(), json!(round(statistics.mpps(sums.seen), 6)));
        object.insert("latency_ns".into(), json!(sums.latency.as_ref().and_then(Latency::of)));
        let machine = |record: &Record| -> Value {
            json!({
                "sent": record.sent,
                "received": record.report.received,
                "lost": record.lost,
                "corrupt": record.report.corrupt,
                "reordered": record.report.reordered,
                "latency_ns": Latency::of(&record.report.latency),
            })
        };
        object.insert("vms".into(), records.iter().map(machine).collect());
        return output::json(&object);
    }
    output::line(&format!(
        "forwarded {} packets in {:.1} s: {:.3} Mpps; lost {}, corrupt {}, reordered {}",
        grouped(sums.seen),
        traffic_time.as_secs_f64(),
        statistics.mpps(sums.seen),
        grouped(sums.lost),
        grouped(sums.corrupt),
        grouped(sums.reordered)
    ))?;
    let headline = report::headline(&statistics, clock);
    output::line(&format!("          {headline}{}", latency_text(sums.latency.as_ref())))?;
    let mut table = Table::new(1, ["vm", "sent", "received", "Mpps", "lost", "corrupt", "p50", "p99", "cpu"]);
    for (port, record) in statistics.ports.iter().zip(records) {
        let latency = Latency::of(&record.report.latency);
        let share = statistics.cpu_share(port).map(|share| format!("{:.1} %", share * 100.0));
        table.row([
            port.name.clone(),
            grouped(record.sent),
            grouped(record.report.received),
            format!("{:.3}", statistics.mpps(record.report.received)),
            grouped(record.lost),
            grouped(record.report.corrupt),
            latency.as_ref().map_or_else(String::new, |latency| time(latency.p50)),
            latency.as_ref().map_or_else(String::new, |latency| time(latency.p99)),
            share.unwrap_or_default(),
        ]);
    }
    output::line(&table.render(10))
}
