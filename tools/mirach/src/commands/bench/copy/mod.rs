//! `mirach bench copy`: what a frame from one virtual machine to another costs the engine's core, when the engine copies it and when a device does.
//!
//! The calling thread is the engine: it calls the queues of two vhost-user ports and the copier, as an engine does, and times these calls alone. The machines
//! are emulated, by the same thread, between the timed calls. Calls that found nothing to do do not count: an engine has other work then, and looks again a
//! few microseconds later. The device is a software
//! I/OAT on another core unless one is named, so what the engine's core saves is real, and how fast the device is is not.

mod bed;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use dataplane::clock::CycleClock;
use dataplane::config::CoreList;
use dataplane::copy::{Copying, Threshold};
use models::card::{self, Running};
use models::ioat;
use models::wire::Null;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use self::bed::{Bed, Cost};
use crate::cli::CopyArguments;
use crate::output;
use crate::report;
use crate::table::Table;

/// Frames of so many bytes and more are left to the device where that is measured: all lengths that are.
const THRESHOLD: u32 = 512;

/// How often the engine looks for finished copies: a short round of one that has other work. Not where the delay is measured.
const ROUND: Duration = Duration::from_micros(5);

/// A software I/OAT, while it is needed.
type Model = Running<ioat::Ioat, Null>;

/// Runs the command.
pub(crate) fn execute(arguments: &CopyArguments) -> anyhow::Result<ExitCode> {
    let available = CoreList::available().context("cannot ask which cores there are")?;
    let core = arguments.core.or_else(|| available.iter().last()).unwrap_or(0);
    if !available.contains(core) {
        bail!("core {core} is not available; this process may run on {available}");
    }
    let others = available.iter().filter(|other| *other != core);
    // All threads that are made meanwhile stay away from the engine's core, where there is another one.
    run_on(others.collect::<Vec<_>>())?;
    let (copying, model) = device(arguments)?;
    let mut beds = Vec::new();
    for size in &arguments.size {
        beds.push((*size, Bed::new(*size, None)?, Bed::new(*size, Some(&copying))?));
    }
    run_on(vec![core])?;
    let clock = CycleClock::calibrate();
    let about = match &arguments.dma {
        Some(_) => copying.describe(),
        None => format!("software model on another core: {}", copying.describe()),
    };
    if !arguments.json {
        output::line(&format!("{about}\n"))?;
    }
    let round = clock.cycles_in(ROUND);
    let mut table = Table::new(
        0,
        ["bytes", "cycles/byte", "with device", "saved", "copies/frame", "small behind it, us", "with device"],
    );
    for (size, plain, offloaded) in &mut beds {
        let limit = clock.cycles_in(Duration::from_secs_f64(arguments.seconds));
        let costs = [plain.run(limit, round)?, offloaded.run(limit, round)?];
        if arguments.json {
            for (offload, cost) in [false, true].into_iter().zip(costs) {
                output::json(&line(*size, offload, &cost, clock, &about))?;
            }
            continue;
        }
        let [plain, offloaded] = costs;
        table.row([
            size.to_string(),
            format!("{:.3}", plain.cycles_per_byte),
            format!("{:.3}", offloaded.cycles_per_byte),
            format!("{:.0} %", (1.0 - offloaded.cycles_per_byte / plain.cycles_per_byte) * 100.0),
            format!("{:.1}", offloaded.copies_per_frame),
            format!("{:.2}", microseconds(plain.small_behind, clock)),
            format!("{:.2}", microseconds(offloaded.small_behind, clock)),
        ]);
    }
    if !arguments.json {
        output::line(&table.render(0))?;
    }
    for (_, plain, offloaded) in beds {
        plain.end()?;
        offloaded.end()?;
    }
    drop(copying);
    drop(model);
    Ok(ExitCode::SUCCESS)
}

/// The device that was named, or a software one.
fn device(arguments: &CopyArguments) -> anyhow::Result<(Arc<Copying>, Option<Model>)> {
    let beds = arguments.size.len().max(1);
    if let Some(name) = &arguments.dma {
        return Ok((Copying::open(name, beds, Threshold::Bytes(THRESHOLD))?, None));
    }
    let channels = u8::try_from(beds).unwrap_or(u8::MAX);
    let config = ioat::Config { channels, ..ioat::Config::default() };
    let (function, device) = card::new(card::Options::named("model"), ioat::Ioat::new(config), Null)?;
    let model = device.run().context("cannot start a thread for the software device")?;
    let mut function = Some(function);
    let copying = Copying::over("I/OAT".to_owned(), channels, Threshold::Bytes(THRESHOLD), move || {
        function.take().ok_or_else(|| drivers::bus::BusError::Gone {
            device: "model".to_owned(),
            reason: "the software device is there once".to_owned(),
        })
    })?;
    Ok((copying, Some(model)))
}

/// Has this thread, and those that it makes from now on, run on these cores; on any when there are none.
fn run_on(cores: Vec<usize>) -> anyhow::Result<()> {
    if cores.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    cores.into_iter().filter(|core| *core < CpuSet::MAX_CPU).for_each(|core| set.set(core));
    sched_setaffinity(None, &set).context("cannot choose a core")
}

fn line(size: u32, offload: bool, cost: &Cost, clock: CycleClock, device: &str) -> serde_json::Value {
    json!({
        "frame_bytes": size,
        "offload": offload,
        "device": device,
        "cycles_per_byte": report::round(cost.cycles_per_byte, 4),
        "cycles_per_frame": report::round(cost.cycles_per_byte * f64::from(size), 1),
        "copies_per_frame": report::round(cost.copies_per_frame, 2),
        "small_behind_us": report::round(microseconds(cost.small_behind, clock), 3),
        "frames": cost.frames,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a number to look at")]
fn microseconds(cycles: u64, clock: CycleClock) -> f64 {
    clock.nanoseconds(cycles) as f64 / 1e3
}
