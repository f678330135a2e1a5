//! The tasks of the project: `cargo xtask setup | test | lint | miri | bench | fuzz | instructions`.
//!
//! A task only says which commands are run, in which order, and what their output means: what is tested is in the
//! crates and in `tests/`, what is installed is in `setup` and in the recipes under `tests/lab/setup`.

mod cache;
mod command;
mod count;
mod fuzz;
mod host;
mod instructions;
mod setup;
mod suite;
mod suites;

use std::process::ExitCode;

use anyhow::Result;

const USAGE: &str = "\
usage: cargo xtask TASK

  setup               install what the tests need: packages, targets, QEMU, guest kernels (once, cached; as root)
  test [SUITE..]      run all test suites, or those named; `--list` prints their names
  lint                formatting and clippy, warnings are errors (the suite `lint` of `test`)
  miri                run the unit tests of hugemem under Miri (needs the nightly toolchain)
  bench [ARGUMENT..]  build the release binary and run `mirach bench`
  bench flows         the flow table and the switch with 1 to a million flows, and under attack (`--json`)
  bench vhost         packets between VM ports, beside DPDK's testpmd (`--json`, `--runs N`, `--case NAME`)
  bench ovs           packets through the switch with 1 to 100k flows, beside Open vSwitch with DPDK, which is installed for it
                      (the same, and `--ring FORMAT`, `--rules RULES`)
  fuzz [TARGET..] [--seconds N]
                      look for scripts that break rings or sessions (see fuzz/README.md)
  instructions        count what a packet costs in instructions, for each driver and burst (needs valgrind)

The cache folder is $MIRACH_CACHE, by default $XDG_CACHE_HOME/mirach or ~/.cache/mirach.";

/// The exit code for arguments that mean nothing.
const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        ["setup"] => setup::run(&setup::Need::ALL).map(|()| ExitCode::SUCCESS),
        ["test", "--list"] => {
            suites::list();
            Ok(ExitCode::SUCCESS)
        }
        ["test", names @ ..] => test(names),
        ["lint"] => test(&["lint"]),
        ["miri"] => command::passed(&mut suites::miri()?).map(|()| ExitCode::SUCCESS),
        ["bench", "flows", arguments @ ..] => {
            command::passed(&mut suites::bench_flows(arguments)).map(|()| ExitCode::SUCCESS)
        }
        ["bench", "vhost", arguments @ ..] => {
            suites::bench_beside("vhost-bench", arguments).map(|()| ExitCode::SUCCESS)
        }
        ["bench", "ovs", arguments @ ..] => {
            setup::run(&[setup::Need::Ovs])?;
            suites::bench_beside("ovs-bench", arguments).map(|()| ExitCode::SUCCESS)
        }
        ["bench", arguments @ ..] => command::passed(&mut suites::bench(arguments)).map(|()| ExitCode::SUCCESS),
        ["fuzz", arguments @ ..] => fuzz::run(arguments).map(|()| ExitCode::SUCCESS),
        ["instructions"] => instructions::run().map(|()| ExitCode::SUCCESS),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        [other, ..] => {
            eprintln!("{USAGE}\n\nxtask: there is no task `{other}`");
            Ok(ExitCode::from(WRONG_USAGE))
        }
    }
}

fn test(names: &[&str]) -> Result<ExitCode> {
    match suites::choose(names) {
        Ok(chosen) => suite::run(&chosen),
        Err(unknown) => {
            eprintln!("xtask: there is no suite `{unknown}`; the suites are:");
            suites::list();
            Ok(ExitCode::from(WRONG_USAGE))
        }
    }
}
