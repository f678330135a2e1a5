//! `mirach demo`: the real driver and the real forwarder between two cards that are software.

use std::io;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::config::{CoreList, EngineConfig, Poll};
use dataplane::forwarder::{Forwarder, Health, Stopped};
use dataplane::stats::Statistics;
use serde_json::{Map, Value, json};

use super::demo_machines;
use crate::cli::DemoArguments;
use crate::embedded::{Cards, Plan};
use crate::output;
use crate::report::{self, round};
use crate::signals::Signals;
use crate::table::{grouped, time};

/// Queue pairs of each card.
const QUEUES: u16 = 2;
/// Frames on their way in each direction: enough for full bursts, few enough to show latency and not queueing.
const WINDOW: u64 = 256;
/// How long frames may take to arrive after the last one was made.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the command.
pub(crate) fn execute(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    if let Some(count) = arguments.vms {
        return demo_machines::execute(arguments, count);
    }
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let available = CoreList::available().context("cannot ask which cores there are")?;
    let engine_cores = available.without_first();
    // The cards play on the core that the engine leaves free, when there is one.
    let card_core = available.iter().next().filter(|_| available.len() > 1);
    let engine_core = engine_cores.iter().next();
    let cores = CoreList::new(engine_core).context("no core to run on")?;
    let plan = Plan {
        driver: arguments.driver,
        frame_bytes: arguments.size,
        queues: QUEUES,
        window: WINDOW,
        both_ways: true,
        core: card_core,
    };
    let (cards, ports) = Cards::plug(plan)?;
    let hold = Duration::from_secs(3600);
    let config = EngineConfig { burst: arguments.burst.into(), poll: Poll::Adaptive, hold, ..EngineConfig::default() };
    let mut forwarder = Forwarder::start(config, &cores, ports)?;
    cards.begin();
    let shown = show(&mut forwarder, &cards, &signals, arguments);
    let traffic_time = forwarder.statistics().elapsed;
    signals.release();
    cards.drain(DRAIN);
    let clock = forwarder.clock();
    let stopped = forwarder.stop();
    let complaints = cards.complaints();
    let summed = shown.and_then(|()| summarise(&stopped, &cards, traffic_time, clock, arguments.json));
    for complaint in &complaints {
        eprintln!("error: {complaint}");
    }
    for problem in &stopped.problems {
        eprintln!("error: {problem}");
    }
    summed?;
    let whole = cards.made() == cards.seen() && cards.corrupt() == 0 && cards.reordered() == 0;
    let failed = !complaints.is_empty() || !stopped.problems.is_empty() || !whole;
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(forwarder: &mut Forwarder, cards: &Cards, signals: &Signals, arguments: &DemoArguments) -> io::Result<()> {
    let clock = forwarder.clock();
    let start = Instant::now();
    if arguments.json {
        output::json(&json!({
            "type": "demo",
            "seconds": arguments.seconds,
            "frame_bytes": arguments.size,
            "burst": arguments.burst,
            "queues": QUEUES,
            "driver": arguments.driver.to_string(),
        }))?;
    } else {
        output::line(&format!(
            "Two software {} cards, driven by mirach's own driver; every frame is numbered, stamped and checked.",
            arguments.driver.card()
        ))?;
        output::line("  frames -> card0 -> driver -> forwarder -> driver -> card1 -> check, and the same way back")?;
        for port in forwarder.list() {
            output::line(&format!("port {}: {}", port.name, port.facts))?;
        }
        for join in forwarder.joins() {
            output::line(&format!(
                "forwarding: {join}, burst {}, frames of {} bytes",
                arguments.burst, arguments.size
            ))?;
        }
    }
    follow(forwarder, signals, start, arguments.seconds, |seconds, interval| {
        if arguments.json {
            let mut object = report::object("statistics", seconds, interval, clock);
            object.insert("latency_ns".into(), latency(cards));
            return output::json(&object);
        }
        output::line(&format!(
            "{seconds:>6.1} s  {}{}\n{}",
            report::headline(interval, clock),
            latency_text(cards),
            report::queues(interval, clock)
        ))
    })
}

/// Says what was counted since the last time, about once a second, for so many `seconds` since `start`; until told to end, or
/// nothing works any more.
pub(super) fn follow(
    forwarder: &mut Forwarder,
    signals: &Signals,
    start: Instant,
    seconds: u64,
    mut say: impl FnMut(f64, &Statistics) -> io::Result<()>,
) -> io::Result<()> {
    let end = start + Duration::from_secs(seconds);
    let mut tick = start + report::TICK;
    let mut before = forwarder.statistics();
    loop {
        let now = Instant::now();
        if signals.wait(end.min(tick).saturating_duration_since(now)).is_some() {
            return Ok(());
        }
        let now = Instant::now();
        if now >= tick || now >= end {
            let statistics = forwarder.statistics();
            let interval = statistics.since(&before);
            before = statistics;
            say(start.elapsed().as_secs_f64(), &interval)?;
            if forwarder.check() == Health::Broken {
                return Ok(());
            }
            tick = report::next_tick(tick, now);
        }
        if now >= end {
            return Ok(());
        }
    }
}

/// The percentiles of both directions; of two values the larger one, so that nothing is made to look better.
fn percentile(cards: &Cards, fraction: f64) -> Option<u64> {
    cards.wires.iter().filter_map(|wire| wire.latency.percentile(fraction)).max()
}

fn latency(cards: &Cards) -> Value {
    json!({
        "p50": percentile(cards, 0.5),
        "p90": percentile(cards, 0.9),
        "p99": percentile(cards, 0.99),
        "p999": percentile(cards, 0.999),
    })
}

fn latency_text(cards: &Cards) -> String {
    match (percentile(cards, 0.5), percentile(cards, 0.99), percentile(cards, 0.999)) {
        (Some(median), Some(high), Some(higher)) => {
            format!(", latency p50 {} p99 {} p99.9 {}", time(median), time(high), time(higher))
        }
        _ => String::new(),
    }
}

fn summarise(
    stopped: &Stopped,
    cards: &Cards,
    traffic_time: Duration,
    clock: dataplane::clock::CycleClock,
    json: bool,
) -> io::Result<()> {
    // Rates are over the time in which frames were made, without the drain.
    let mut statistics = stopped.statistics.clone();
    statistics.elapsed = traffic_time;
    let (made, seen, corrupt, reordered) = (cards.made(), cards.seen(), cards.corrupt(), cards.reordered());
    let lost = made.saturating_sub(seen);
    let bytes: u64 = cards.wires.iter().map(|wire| wire.seen_bytes.load(Ordering::Acquire)).sum();
    if json {
        let seconds = traffic_time.as_secs_f64();
        let mut object = Map::new();
        object.insert("packets_forwarded".into(), json!(seen));
        object.insert("packets_lost".into(), json!(lost));
        object.insert("packets_corrupt".into(), json!(corrupt));
        object.insert("packets_reordered".into(), json!(reordered));
        object.insert("packets_generated".into(), json!(made));
        object.insert("bytes_forwarded".into(), json!(bytes));
        object.extend(report::object("summary", seconds, &statistics, clock));
        object.insert("mpps".into(), json!(round(statistics.mpps(seen), 6)));
        object.insert("latency_ns".into(), latency(cards));
        return output::json(&object);
    }
    output::line(&format!(
        "forwarded {} packets in {:.1} s: {:.3} Mpps; lost {}, corrupt {}, reordered {}",
        grouped(seen),
        traffic_time.as_secs_f64(),
        statistics.mpps(seen),
        grouped(lost),
        grouped(corrupt),
        grouped(reordered)
    ))?;
    output::line(&format!("          {}{}", report::headline(&statistics, clock), latency_text(cards)))?;
    output::line(&report::queues(&statistics, clock))
}
