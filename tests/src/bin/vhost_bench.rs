//! `cargo xtask bench vhost`: see [`lab::vhost_bench`].

use std::process::ExitCode;

use anyhow::{Result, ensure};
use lab::peer_bench::machine::has_huge_pages;
use lab::peer_bench::options::{Options, main as run_main};
use lab::peer_bench::outcome::Outcome;
use lab::peer_bench::rounds::Rounds;
use lab::vhost_bench::{cases, devices, floor};
use serde_json::json;

/// Bytes of copies for the floor.
const COPIES: [usize; 4] = [64, 256, 1500, 65_536];
/// Cores of the device under test, and of the generator.
const CORES: [usize; 2] = [0, 1];
/// Huge pages of 2 MiB that both devices and the generator need together.
const HUGE_PAGES: u64 = 300;

fn main() -> ExitCode {
    let options = Options::parse(std::env::args().skip(1), |_, _| Ok(false));
    run_main("vhost", "[--json] [--runs N] [--case NAME]", options, run)
}

fn run(options: &Options) -> Result<()> {
    let cases = cases::cases(&options.filter);
    ensure!(!cases.is_empty(), "no case has `{}` in its name", options.filter);
    let huge_pages = has_huge_pages(HUGE_PAGES);
    let costs = floor::measure(&COPIES, CORES[0], CORES[1])?;
    let mut done = |said: &str| eprintln!("{said}");
    let mut rounds = Rounds::new(&mut done)?;
    let mut outcomes: Vec<Outcome> = cases.into_iter().map(|case| Outcome::new(case, devices::PEER)).collect();
    for _ in 0..options.runs {
        // New processes for each run, as memory falls on other pages each time.
        rounds.round(&mut outcomes, &mut devices::start(huge_pages)?)?;
    }
    if options.json {
        for outcome in &outcomes {
            println!("{}", outcome.json());
        }
        for cost in &costs {
            println!("{}", json!({ "floor": cost.size, "read_ns": cost.read, "write_ns": cost.write }));
        }
        return Ok(());
    }
    println!("{}", Outcome::heading(devices::PEER));
    for outcome in &outcomes {
        println!("{}", outcome.line());
    }
    println!("\nthe floor: what a copy costs whose source (read) or target (write) the other core wrote last");
    for cost in &costs {
        println!("{:>6} bytes: read {:>8.1} ns, write {:>8.1} ns", cost.size, cost.read, cost.write);
    }
    Ok(())
}
