//! `cargo xtask bench vhost`: see [`lab::vhost_bench`].

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use lab::vhost_bench::{compare, floor};
use serde_json::json;

const USAGE: &str = "\
usage: cargo xtask bench vhost [--json] [--runs N] [--case NAME]
  --json        one object a line instead of a table
  --runs N      how often each case is measured with each device (3)
  --case NAME   only the cases that have NAME in their name";

/// Bytes of copies for the floor.
const COPIES: [usize; 4] = [64, 256, 1500, 65_536];
/// Cores of the device under test, and of the generator.
const CORES: [usize; 2] = [0, 1];
/// Huge pages of 2 MiB that both devices and the generator need together.
const HUGE_PAGES: u64 = 300;

struct Choice {
    json: bool,
    runs: usize,
    filter: String,
}

fn main() -> ExitCode {
    let choice = match parse(std::env::args().skip(1)) {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("bench vhost: {error:#}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&choice) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench vhost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Choice> {
    let mut choice = Choice { json: false, runs: 3, filter: String::new() };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => choice.json = true,
            "--runs" => {
                let number = arguments.next().and_then(|number| number.parse().ok()).filter(|runs| *runs > 0);
                choice.runs = number.context("--runs takes a number")?;
            }
            "--case" => choice.filter = arguments.next().context("--case takes a name")?,
            other => bail!("there is no option {other}"),
        }
    }
    Ok(choice)
}

fn run(choice: &Choice) -> Result<()> {
    lab::leftovers::remove();
    lab::process::end_with_parent()?;
    let cases = compare::cases(&choice.filter);
    if cases.is_empty() {
        bail!("no case has `{}` in its name", choice.filter);
    }
    let free = free_huge_pages();
    let huge_pages = free >= HUGE_PAGES;
    if !huge_pages {
        eprintln!(
            "note: {free} huge pages of 2 MiB are free and {HUGE_PAGES} are needed, so everything runs on 4 KiB pages, which is slower for all; \
             reserve them with: echo 512 | sudo tee /proc/sys/vm/nr_hugepages"
        );
    }
    let costs = floor::measure(&COPIES, CORES[0], CORES[1])?;
    let executable = std::env::current_exe().context("cannot find the generator")?;
    let generator = executable.with_file_name("vhost-generator");
    let outcomes = compare::run(&cases, choice.runs, huge_pages, &generator, |said| eprintln!("{said}"))?;
    if choice.json {
        for outcome in &outcomes {
            println!("{}", outcome.json());
        }
        for cost in &costs {
            println!("{}", json!({ "floor": cost.size, "read_ns": cost.read, "write_ns": cost.write }));
        }
        return Ok(());
    }
    println!("{}", compare::HEADING);
    for outcome in &outcomes {
        println!("{}", outcome.line());
    }
    println!("\nthe floor: what a copy costs whose source (read) or target (write) the other core wrote last");
    for cost in &costs {
        println!("{:>6} bytes: read {:>8.1} ns, write {:>8.1} ns", cost.size, cost.read, cost.write);
    }
    Ok(())
}

fn free_huge_pages() -> u64 {
    let text = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}
