//! `mirach bench ladder`: the same load between two emulated virtual machines, on each rung of the way that Andromeda went (Dalton et al.,
//! "Andromeda: Performance, Isolation, and Velocity at Scale in Cloud Network Virtualization", NSDI 2018).
//!
//! [`modes`] names the rungs and builds what stands between the machines; [`load`] plays both machines, the same on every rung; [`account`]
//! says what the host worked meanwhile; [`report`] and [`picture`] show it. `kernel`, `helper` and `direct` are the rungs; on the first two a monitor
//! ([`vmm`]) stands in front of each machine.
//!
//! Nothing is left behind, however it ends: interfaces are in a namespace of their own, shared memory has no name, and a helper process ends with the
//! socket that it got. Only a folder for sockets needs removing, which everything but SIGKILL allows.

mod account;
mod bridge;
mod card;
mod direct;
mod frame;
mod helper;
mod kernel;
mod load;
mod modes;
mod picture;
mod pipe;
mod report;
mod vmm;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use dataplane::clock::CycleClock;
use dataplane::copy::DmaName;

use self::frame::Size;
use self::load::{Interrupted, Load};
use self::modes::{Bed, Cores, NEEDS_DMA, pin};
use self::report::{Ladder, Rung};
use crate::cli::LadderArguments;
use crate::output;
use crate::signals::Signals;

pub(crate) use self::helper::{SUBCOMMAND, serve};
pub(crate) use self::modes::Mode;

/// How often what is between the machines is looked after.
const TICK: Duration = Duration::from_millis(200);

/// Runs the command.
pub(crate) fn execute(arguments: &LadderArguments) -> anyhow::Result<ExitCode> {
    let signals = Signals::block().context("cannot block SIGINT and SIGTERM")?;
    let dma = arguments.dma.as_ref();
    let chosen = |mode: &Mode| match arguments.mode.as_slice() {
        [] => *mode != Mode::Dma || dma.is_some(),
        modes => modes.contains(mode),
    };
    let modes: Vec<Mode> = Mode::value_variants().iter().copied().filter(chosen).collect();
    ensure!(dma.is_some() || !modes.contains(&Mode::Dma), NEEDS_DMA);
    ensure!(
        arguments.svg.is_none() || modes.contains(&Mode::Kernel),
        "the picture shows multiples of kernel mode; leave --svg out, or measure that mode, too"
    );
    for file in arguments.svg.iter().chain(&arguments.table) {
        // Said before half a minute of measuring, not after.
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        ensure!(folder.is_dir(), "cannot write {}: there is no folder {}", file.display(), folder.display());
    }
    let cores = Cores::available()?;
    let mut ladder = Ladder { clock: CycleClock::calibrate(), cores: cores.clone(), rungs: Vec::new() };
    for mode in modes {
        if !arguments.json {
            output::line(&format!("{mode}: {}", mode.path()))?;
        }
        let time = Duration::from_secs_f64(arguments.seconds);
        ladder.rungs.push(climb(mode, dma, &cores, time, ladder.clock, &signals)?);
        if let (true, Some(rung)) = (arguments.json, ladder.rungs.last()) {
            output::json(&ladder.rung(rung))?;
        }
    }
    let text = ladder.text();
    if arguments.json {
        output::json(&ladder.summary())?;
    } else {
        output::line(&text)?;
    }
    let write = |file: &Path, text: &str| {
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    };
    if let Some(file) = &arguments.table {
        write(file, &text)?;
    }
    if let Some(file) = &arguments.svg {
        write(file, &picture::draw(&ladder))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures one rung, with each measurement taking `time`.
fn climb(
    mode: Mode,
    dma: Option<&DmaName>,
    cores: &Cores,
    time: Duration,
    clock: CycleClock,
    signals: &Signals,
) -> anyhow::Result<Rung> {
    let Bed { cards, host } = mode.open(cores, dma)?;
    let (host, stop) = (Mutex::new(host), AtomicBool::new(false));
    let mut load = Load { cards, host: &host, stop: &stop, time, shares_core: cores.are_one(), clock };
    let (measured, problem) = std::thread::scope(|scope| {
        let play = || {
            pin(cores.machines);
            let throughputs = Size::ALL.into_iter().map(|size| load.throughput(size)).collect::<Result<Vec<_>, _>>()?;
            Ok(Rung { mode, throughputs, round_trips: load.round_trips()? })
        };
        let thread = match std::thread::Builder::new().name("vms".to_owned()).spawn_scoped(scope, play) {
            Ok(thread) => thread,
            Err(error) => return (Err(error.into()), None),
        };
        let mut problem = None;
        while !thread.is_finished() {
            if signals.wait(TICK).is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            let tended = host.lock().unwrap_or_else(std::sync::PoisonError::into_inner).tend();
            if let Err(error) = tended {
                stop.store(true, Ordering::Relaxed);
                problem.get_or_insert(error);
            }
        }
        (thread.join().unwrap_or_else(|_| Err(anyhow!("the thread of the machines failed"))), problem)
    });
    let cards = load.cards;
    let stopped = host.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).stop(cards);
    let rung = match (measured, problem) {
        (Err(error), Some(problem)) if error.is::<Interrupted>() => Err(problem),
        (measured, _) => measured,
    };
    let rung =
        rung.map_err(|error| if error.is::<Interrupted>() { error } else { error.context(format!("{mode} mode")) })?;
    stopped.with_context(|| format!("{mode} mode"))?;
    Ok(rung)
}
