//! `mirach run`: joins ports and moves packets until told to stop.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::config::{Config, ConfigError, ControlSocket, CoreList, Desired, Settings};
use dataplane::control::{Methods, Server};
use dataplane::forwarder::{Forwarder, Health, Listing, Stopped};
use dataplane::port::{GeneratorReport, PortSpec, vmm_arguments};
use dataplane::stats::Statistics;
use serde_json::json;

use crate::cli::RunArguments;
use crate::output;
use crate::report::{self, Latency};
use crate::signals::Signals;
use crate::table::{grouped, time};

/// How often it is asked whether finite sources have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two looks, at least, when one is due and somebody else has the forwarder.
const SHORTEST: Duration = Duration::from_millis(1);

/// Runs the command.
pub(crate) fn execute(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let config = match configure(arguments) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("error: {error}");
            // A file that cannot be read is a failure; anything else was said wrongly.
            return Ok(ExitCode::from(if matches!(error, ConfigError::Read { .. }) { 1 } else { 2 }));
        }
    };
    let json = config.json;
    // Before any thread exists, so that all of them leave the signals to this one.
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let (forwarder, notices) = Forwarder::run(&config)?;
    for notice in notices {
        eprintln!("note: {notice}");
    }
    let forwarder = Arc::new(Mutex::new(forwarder));
    let control = listen(&config, &forwarder)?;
    let shown =
        announce(&forwarder, control.as_ref(), &config, json).and_then(|()| watch(&forwarder, &signals, &config, json));
    signals.release();
    drop(control);
    // A request may still be under way. It finds that the forwarder has stopped.
    let (clock, stopped) = {
        let mut forwarder = lock(&forwarder);
        (forwarder.clock(), forwarder.halt())
    };
    let summed = shown.and_then(|()| summarise(&stopped, clock, json));
    for problem in &stopped.problems {
        eprintln!("error: {problem}");
    }
    if stopped.unfinished {
        eprintln!("note: a device had not finished sending within 500 ms and was stopped");
    }
    if !stopped.problems.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    summed?;
    Ok(ExitCode::SUCCESS)
}

fn configure(arguments: RunArguments) -> Result<Config, ConfigError> {
    let flags = Settings {
        ports: arguments.ports,
        cores: arguments.cores,
        memory: arguments.memory,
        huge_page_size: arguments.huge_page_size,
        no_huge: arguments.no_huge.then_some(true),
        node: arguments.node,
        poll: arguments.poll,
        burst: arguments.burst,
        scheduler: arguments.scheduler,
        control: arguments.control,
        seconds: arguments.seconds,
        hold_milliseconds: arguments.hold_milliseconds,
        json: arguments.json.then_some(true),
        ..Settings::default()
    };
    let desired = match &arguments.config {
        Some(path) => Desired::read(path)?.under(flags),
        None => Desired::from_flags(flags),
    };
    let available =
        CoreList::available().map_err(|source| ConfigError::Read { path: "/proc/self/status".into(), source })?;
    desired.check(&available)
}

/// A panic of somebody who had it is reported by the forwarder itself.
fn lock(forwarder: &Mutex<Forwarder>) -> MutexGuard<'_, Forwarder> {
    forwarder.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes requests on the control socket. At the usual place it is no failure when that cannot be, as long as there are ports.
fn listen(config: &Config, forwarder: &Arc<Mutex<Forwarder>>) -> anyhow::Result<Option<Server>> {
    let serve = |path: &Path| Server::start(path, None, Methods::new(Arc::clone(forwarder)));
    let reason = match &config.control {
        ControlSocket::None => return Ok(None),
        ControlSocket::At(path) => return Ok(Some(serve(path)?)),
        ControlSocket::Usual => match ControlSocket::usual() {
            None => "XDG_RUNTIME_DIR is not set; give --control PATH".to_owned(),
            Some(path) => {
                if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
                    // If it cannot be made, the socket cannot either, and says so.
                    let _ = DirBuilder::new().mode(0o700).recursive(true).create(folder);
                }
                match serve(&path) {
                    Ok(server) => return Ok(Some(server)),
                    Err(error) => error.to_string(),
                }
            }
        },
    };
    anyhow::ensure!(!config.ports.is_empty(), "no ports are given, and none could be added: {reason}");
    eprintln!("note: no ports can be added to this run: {reason}");
    Ok(None)
}

/// What to give a virtual machine monitor so that it finds the port.
fn vmm(port: &Listing) -> Option<Vec<String>> {
    match port.spec.as_ref().map(|named| &named.spec) {
        Some(PortSpec::VhostUser(machine)) => Some(vmm_arguments(&port.name, machine)),
        _ => None,
    }
}

/// Says what is joined to what, and on which cores.
fn announce(forwarder: &Mutex<Forwarder>, control: Option<&Server>, config: &Config, json: bool) -> io::Result<()> {
    let (joins, ports) = {
        let mut forwarder = lock(forwarder);
        (forwarder.joins(), forwarder.list())
    };
    let control = control.map(Server::path);
    let used: Vec<usize> = joins.iter().flat_map(|join| join.cores.iter().copied()).collect();
    let unused = CoreList::new(config.cores.iter().filter(|core| !used.contains(core)));
    if let Some(unused) = unused.filter(|_| config.cores.len() < CoreList::available().map_or(0, |all| all.len())) {
        tracing::info!("no queues are left for cores {unused}");
    }
    if json {
        let joins: Vec<_> = joins.iter().map(|join| json!({ "ports": join.ports, "cores": join.cores })).collect();
        let ports: Vec<_> = ports
            .iter()
            .map(|port| json!({ "name": port.name, "kind": port.kind.name(), "facts": port.facts, "vmm": vmm(port) }))
            .collect();
        return output::json(&json!({
            "type": "forwarding",
            "joins": joins,
            "ports": ports,
            "burst": config.engine.burst,
            "poll": config.engine.poll.to_string(),
            "scheduler": config.engine.scheduler.to_string(),
            "control": control,
        }));
    }
    for port in &ports {
        output::line(&format!("port {}: {}", port.name, port.facts))?;
        for line in vmm(port).into_iter().flatten() {
            output::line(&format!("  {line}"))?;
        }
    }
    for join in joins {
        output::line(&format!("forwarding: {join}, burst {}, poll {}", config.engine.burst, config.engine.poll))?;
    }
    if let Some(path) = control {
        let none = if ports.is_empty() { "no ports yet; " } else { "" };
        output::line(&format!("control: {none}add ports with: mirach port add SPEC --control {}", path.display()))?;
    }
    Ok(())
}

/// Shows statistics until it is time to stop.
fn watch(forwarder: &Mutex<Forwarder>, signals: &Signals, config: &Config, json: bool) -> io::Result<()> {
    let clock = lock(forwarder).clock();
    let start = Instant::now();
    // A time too far away for the clock never comes.
    let end = config.duration.and_then(|duration| start.checked_add(duration));
    let mut tick = start + report::TICK;
    let mut before = lock(forwarder).statistics();
    loop {
        let now = Instant::now();
        if end.is_some_and(|end| now >= end) {
            return Ok(());
        }
        // Signals are taken whoever has the forwarder.
        let free = match forwarder.try_lock() {
            Ok(free) => Some(free),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        };
        if free.as_ref().is_some_and(|forwarder| forwarder.is_exhausted()) {
            return Ok(());
        }
        if let Some(mut forwarder) = free {
            let statistics = (now >= tick).then(|| forwarder.statistics());
            let health = if statistics.is_some() { forwarder.tend() } else { forwarder.collect() };
            drop(forwarder);
            if let Some(statistics) = statistics {
                tick = report::next_tick(tick, now);
                let interval = statistics.since(&before);
                before = statistics;
                let seconds = start.elapsed().as_secs_f64();
                // A reader who pauses misses lines. Devices do not wait for it.
                if !output::is_ready() {
                    tracing::debug!("nobody reads the report; left out a line of it");
                } else if json {
                    output::json(&report::object("statistics", seconds, &interval, clock))?;
                } else {
                    output::line(&report::text(seconds, &interval, clock))?;
                }
            }
            if !is_well(health) {
                return Ok(());
            }
        }
        let until = end.map_or(tick, |end| end.min(tick)).max(now + SHORTEST);
        if signals.wait(until.saturating_duration_since(now).min(LOOK)) {
            return Ok(());
        }
    }
}

/// Says what happened to ports. `false` when only stopping is left.
fn is_well(health: Health) -> bool {
    match health {
        Health::Well => true,
        Health::Changed { restarted, lost } => {
            for reason in restarted {
                tracing::warn!("{reason}; the port was started anew");
            }
            for reason in lost {
                tracing::error!("{reason}; nothing is forwarded from or to this port any more, other ports go on");
            }
            true
        }
        Health::Broken => false,
    }
}

fn summarise(stopped: &Stopped, clock: dataplane::clock::CycleClock, json: bool) -> io::Result<()> {
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
    output::line(&report::queues(statistics, clock))?;
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
