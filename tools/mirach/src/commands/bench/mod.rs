//! `mirach bench`: what one queue costs per packet.
//!
//! The calling thread polls the queues itself, on one core, and times each call: `receive` and `transmit` are the calls of
//! the port's queues, `forward` is both in a row, which is all that the forwarder does with a packet. Only calls that
//! moved a full burst count, so that a slow far end (a card model, a tap) does not water the numbers down; where a run has fewer than 20 of those,
//! all calls do, and `packets_per_poll` shows it. `mpps` is what a core reaches at
//! that cost. Each number is the median of several short runs, which take turns over all bursts.

mod bed;
mod copy;
pub(crate) mod ladder;
mod measure;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use dataplane::clock::CycleClock;
use dataplane::config::CoreList;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::json;

use self::bed::{Bed, Case};
use self::measure::{Cost, Meter};
use crate::cli::{BenchArguments, BenchCommand};
use crate::embedded::Driver;
use crate::output;
use crate::report::round;
use crate::table::{Table, optional};

/// Runs for each number, of which the median counts.
const RUNS: usize = 5;

/// Runs the command.
pub(crate) fn execute(arguments: BenchArguments) -> anyhow::Result<ExitCode> {
    match arguments.what {
        Some(BenchCommand::Copy(arguments)) => return copy::execute(&arguments),
        Some(BenchCommand::Ladder(arguments)) => return ladder::execute(&arguments),
        Some(BenchCommand::LadderProcess { core, patience }) => return ladder::serve(core, patience),
        None => {}
    }
    let available = CoreList::available().context("cannot ask which cores there are")?;
    let core = match arguments.core {
        Some(core) if !available.contains(core) => {
            bail!("core {core} is not available; this process may run on {available}")
        }
        Some(core) => core,
        None => available.iter().last().unwrap_or(0),
    };
    let other = available.iter().find(|candidate| *candidate != core);
    let mut pinned = CpuSet::new();
    pinned.set(core);
    let clock = CycleClock::calibrate();
    let meter = Meter::calibrate();
    let run = Duration::from_secs_f64(arguments.seconds_per_case / 5.0);
    let mut measured = false;
    let mut visit = |bed: &mut Bed| -> anyhow::Result<()> {
        // Threads of the bed exist by now and have a core of their own.
        sched_setaffinity(None, &pinned).context("cannot run on one core")?;
        measured |= bench(bed, &arguments.burst, run, &meter, clock, arguments.json)?;
        Ok(())
    };
    if let Some(spec) = &arguments.port {
        bed::of_port(spec, &arguments.size, &mut visit)?;
    } else {
        if !arguments.json {
            output::line("One queue on one core; costs of one packet, medians of 5 runs.")?;
        }
        if arguments.driver.is_empty() {
            bed::floor(&arguments.size, &mut visit)?;
        }
        let drivers = if arguments.driver.is_empty() { Driver::value_variants() } else { &arguments.driver };
        for driver in drivers {
            bed::of_driver(*driver, &arguments.size, other, &mut visit)?;
        }
    }
    if !measured {
        bail!("no packets came, so nothing could be measured; let traffic arrive at the port, or measure another one");
    }
    Ok(ExitCode::SUCCESS)
}

/// Measures all bursts on one bed. `false` when no packets came.
fn bench(
    bed: &mut Bed,
    bursts: &[u16],
    run: Duration,
    meter: &Meter,
    clock: CycleClock,
    json: bool,
) -> anyhow::Result<bool> {
    let limit = clock.cycles_in(run);
    let mut results: Vec<Vec<[Option<Cost>; 3]>> = vec![Vec::with_capacity(RUNS); bursts.len()];
    // One round to warm up.
    for round in 0..=RUNS {
        for (burst, runs) in bursts.iter().zip(&mut results) {
            let costs = bed.run((*burst).into(), limit, meter);
            if round > 0 {
                runs.push(costs);
            }
        }
    }
    let mut table = Table::new(
        0,
        ["burst", "receive ns", "cycles", "transmit ns", "cycles", "forward ns", "cycles", "forward Mpps"],
    );
    let mut measured = false;
    for (burst, runs) in bursts.iter().zip(results) {
        let costs = [Case::Receive, Case::Transmit, Case::Forward]
            .map(|case| median(runs.iter().filter_map(|run| run[case as usize]).collect()));
        measured |= costs.iter().any(Option::is_some);
        if json {
            for (case, cost) in [Case::Receive, Case::Transmit, Case::Forward].into_iter().zip(costs) {
                if let Some(cost) = cost {
                    output::json(&line(bed, case, *burst, cost, clock))?;
                }
            }
            continue;
        }
        let [receive, transmit, forward] = costs;
        let ns = |cost: Option<Cost>| optional(cost.map(|cost| nanoseconds(cost, clock)), 1);
        let cycles = |cost: Option<Cost>| optional(cost.map(|cost| cost.cycles), 0);
        table.row([
            burst.to_string(),
            ns(receive),
            cycles(receive),
            ns(transmit),
            cycles(transmit),
            ns(forward),
            cycles(forward),
            optional(forward.map(|cost| 1e3 / nanoseconds(cost, clock)), 2),
        ]);
    }
    if !json && measured {
        output::line(&format!("\n{}, frames of {} bytes", bed.name, bed.frame_bytes))?;
        output::line(&table.render(2))?;
    }
    if !measured {
        eprintln!("note: {}: no packets came in", bed.name);
    }
    Ok(measured)
}

fn line(bed: &Bed, case: Case, burst: u16, cost: Cost, clock: CycleClock) -> serde_json::Value {
    let ns = nanoseconds(cost, clock);
    json!({
        "case": case.name(),
        "port": bed.name,
        "burst": burst,
        "frame_bytes": bed.frame_bytes,
        "mpps": round(1e3 / ns, 4),
        "ns_per_packet": round(ns, 3),
        "cycles_per_packet": round(cost.cycles, 3),
        "packets_per_poll": round(cost.burst, 2),
    })
}

#[expect(clippy::cast_precision_loss, reason = "a rate of some 10^9")]
fn nanoseconds(cost: Cost, clock: CycleClock) -> f64 {
    (cost.cycles * 1e9 / clock.cycles_per_second() as f64).max(1e-3)
}

/// The run in the middle, by cycles.
fn median(mut runs: Vec<Cost>) -> Option<Cost> {
    runs.sort_by(|left, right| left.cycles.total_cmp(&right.cycles));
    runs.get(runs.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_run_in_the_middle() {
        let cost = |cycles| Cost { cycles, burst: 1.0 };
        assert_eq!(median(vec![cost(3.0), cost(1.0), cost(2.0)]), Some(cost(2.0)));
        assert_eq!(median(Vec::new()), None);
    }
}
