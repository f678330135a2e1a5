//! `cargo xtask fuzz`: builds the crate in `fuzz/` for libFuzzer with AddressSanitizer, and runs its targets.
//!
//! Sanitizers and coverage are unstable options of the compiler. `RUSTC_BOOTSTRAP` lets the pinned compiler have them here, and nowhere else.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, passed, root, target};

const TARGETS: [&str; 4] = ["split_ring", "packed_ring", "racing_ring", "session"];
/// How long a target runs, unless told.
const SECONDS: u32 = 60;
/// Longest script; more only makes each run longer.
const LONGEST: u32 = 2048;
/// Seconds after which one script counts as one that never ends.
const TIMEOUT: u32 = 25;
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// What is to be fuzzed.
#[derive(Debug, PartialEq, Eq)]
struct Plan<'a> {
    targets: Vec<&'a str>,
    seconds: u32,
    /// A script to repeat instead of looking for more.
    script: Option<&'a str>,
}

/// Runs the targets named in `arguments`, or all; or one of them on one script.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    let plan = plan(arguments)?;
    passed(&mut build(&plan.targets))?;
    for name in &plan.targets {
        let folder = target().join("fuzz");
        let (corpus, found) = (folder.join("corpus").join(name), folder.join("found"));
        for folder in [&corpus, &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut command = Command::new(folder.join(TRIPLE).join("release").join(name));
        command.current_dir(root()).arg(format!("-timeout={TIMEOUT}"));
        match plan.script {
            Some(script) => command.arg(script),
            None => command
                .arg(format!("-max_total_time={}", plan.seconds))
                .arg(format!("-max_len={LONGEST}"))
                .arg(format!("-artifact_prefix={}/{name}-", found.display()))
                .arg("-print_final_stats=1")
                .arg(&corpus),
        };
        println!("fuzzing {name}");
        passed(&mut command)?;
    }
    Ok(())
}

fn plan<'a>(arguments: &[&'a str]) -> Result<Plan<'a>> {
    let mut plan = Plan { targets: Vec::new(), seconds: SECONDS, script: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match *argument {
            "--seconds" => {
                let seconds = arguments.next().context("--seconds needs a number")?;
                plan.seconds = seconds.parse().with_context(|| format!("`{seconds}` is no number of seconds"))?;
            }
            name if TARGETS.contains(&name) => plan.targets.push(name),
            file if plan.targets.len() == 1 && fs::exists(file).unwrap_or(false) => plan.script = Some(file),
            other => bail!("there is no fuzz target or file `{other}`; the targets are {}", TARGETS.join(", ")),
        }
    }
    if plan.targets.is_empty() {
        plan.targets = TARGETS.to_vec();
    }
    Ok(plan)
}

fn build(names: &[&str]) -> Command {
    let manifest = root().join("fuzz/Cargo.toml");
    let mut command = cargo(&["build", "--release", "--target", TRIPLE]);
    for name in names {
        command.args(["--bin", name]);
    }
    command
        .arg("--manifest-path")
        .arg(manifest)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", FLAGS.join(" "))
        .env("CARGO_TARGET_DIR", target().join("fuzz"));
    command
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn arguments_are_targets_seconds_and_a_script() {
        assert_eq!(plan(&[]).unwrap(), Plan { targets: TARGETS.to_vec(), seconds: SECONDS, script: None });
        let some = plan(&["session", "--seconds", "5", "split_ring"]).unwrap();
        assert_eq!(some, Plan { targets: vec!["session", "split_ring"], seconds: 5, script: None });
        let here = env!("CARGO_MANIFEST_DIR");
        assert_eq!(plan(&["session", here]).unwrap().script, Some(here));
        for wrong in [&["--seconds"][..], &["--seconds", "x"], &["no_target"], &[here]] {
            assert!(plan(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn every_target_has_a_program() {
        let mut programs: Vec<String> = fs::read_dir(root().join("fuzz/src/bin"))
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect();
        programs.sort();
        let mut targets = TARGETS.map(str::to_owned);
        targets.sort();
        assert_eq!(programs, targets);
    }
}
