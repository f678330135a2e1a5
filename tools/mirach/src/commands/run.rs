//! `mirach run`: joins and switches ports, and moves packets until told to stop. SIGHUP has it read its file again.

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::config::{Config, ConfigError, CoreList, Desired, Settings};
use dataplane::forwarder::{Forwarder, Health};

use crate::cli::RunArguments;
use crate::output;
use crate::report;
use crate::signals::{Signal, Signals};
use reload::Reload;
use services::Services;

mod announce;
mod reload;
mod services;
mod summary;

/// How often it is asked whether finite sources have ended.
const LOOK: Duration = Duration::from_millis(50);
/// Time between two looks, at least, when one is due and somebody else has the forwarder.
const SHORTEST: Duration = Duration::from_millis(1);

/// Runs the command.
pub(crate) fn execute(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let path = arguments.config.clone();
    let flags = flags(arguments);
    let config = match configure(path.as_deref(), flags.clone()) {
        Ok(configured) => configured,
        Err(error) => {
            eprintln!("error: {error}");
            // A file that cannot be read is a failure; anything else was said wrongly.
            return Ok(ExitCode::from(if matches!(error, ConfigError::Read { .. }) { 1 } else { 2 }));
        }
    };
    let json = config.json;
    // Before any thread exists, so that all of them leave the signals to this one. Without a file, SIGHUP ends the run, as it does everything.
    let signals = if path.is_some() { Signals::block_with_reload() } else { Signals::block() };
    let signals = signals.context("cannot block signals")?;
    let mut reload = path.map(|path| Reload { path, flags, json, underway: None, again: false });
    let (forwarder, notices) = Forwarder::run(&config)?;
    for notice in notices {
        eprintln!("note: {notice}");
    }
    let forwarder = Arc::new(Mutex::new(forwarder));
    let services = Services::start(&config, &forwarder)?;
    let shown = announce::announce(&forwarder, &services, &config)
        .and_then(|()| watch(&forwarder, &signals, reload.as_mut(), &config));
    signals.release();
    drop(services);
    // A request may still be under way. It finds that the forwarder has stopped.
    let (clock, stopped) = {
        let mut forwarder = lock(&forwarder);
        (forwarder.clock(), forwarder.halt())
    };
    let summed = shown.and_then(|()| summary::summarise(&stopped, clock, json));
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

fn flags(arguments: RunArguments) -> Settings {
    Settings {
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
        control_group: arguments.control_group,
        metrics: arguments.metrics,
        flows: arguments.flows,
        seconds: arguments.seconds,
        hold_milliseconds: arguments.hold_milliseconds,
        dma: arguments.dma,
        dma_threshold: arguments.dma_threshold,
        json: arguments.json.then_some(true),
    }
}

fn configure(path: Option<&Path>, flags: Settings) -> Result<Config, ConfigError> {
    let desired = match path {
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

/// Shows statistics until it is time to stop.
fn watch(
    forwarder: &Arc<Mutex<Forwarder>>,
    signals: &Signals,
    mut reload: Option<&mut Reload>,
    config: &Config,
) -> io::Result<()> {
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
                } else if config.json {
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
        match (signals.wait(until.saturating_duration_since(now).min(LOOK)), &mut reload) {
            (None, None) => {}
            (None, Some(reload)) => reload.collect(forwarder)?,
            (Some(Signal::Reload), Some(reload)) => reload.begin(forwarder),
            (Some(_), _) => return Ok(()),
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
