//! Running suites: a line for each, the output in log files, and the closing line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::command::{bound_to_us, logged, shown, target};
use crate::count::Count;
use crate::setup::{self, Need};
use crate::suites::{Meaning, Step, Suite};

/// Runs these suites, and prints `N passed, N failed` as the last line.
pub(crate) fn run(chosen: &[&Suite]) -> Result<ExitCode> {
    let folder = target().join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;

    let needs: Vec<Need> =
        Need::ALL.into_iter().filter(|need| chosen.iter().any(|suite| suite.needs.contains(need))).collect();
    // What only the guests need must not keep the other suites from running.
    let broken = setup::run(&needs).err();
    if let Some(error) = &broken {
        eprintln!("setup: {error:#}");
    }

    let mut total = Count::default();
    for suite in chosen {
        let started = Instant::now();
        let path = folder.join(format!("{}.log", suite.name));
        let count = match &broken {
            Some(_) if !suite.needs.is_empty() => {
                println!("{}: not run, its setup failed", suite.name);
                Count::ONE_FAILED
            }
            _ => run_suite(suite, &path)?,
        };
        total += count;
        println!("{}: {count} ({:.1} s, log {})", suite.name, started.elapsed().as_secs_f64(), path.display());
    }
    println!("{total}");
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_suite(suite: &Suite, path: &Path) -> Result<Count> {
    // The parts of the log are files of their own first, so that the output of a failed step can be shown alone.
    let mut whole = Vec::new();
    let mut count = Count::default();
    for step in (suite.steps)() {
        println!("{}: {}", suite.name, shown(&step.command));
        let part = path.with_extension("part");
        let (result, output) = run_step(&step, &part)?;
        if result.failed > 0 {
            println!("{output}");
        }
        whole.push(format!("$ {}\n{output}", shown(&step.command)));
        fs::write(path, whole.join("\n")).with_context(|| format!("cannot write {}", path.display()))?;
        fs::remove_file(&part)?;
        count += result;
        if result.failed > 0 && step.meaning == Meaning::Build {
            break;
        }
    }
    if count == Count::default() {
        println!("{}: ran no test, which counts as a failure", suite.name);
        count = Count::ONE_FAILED;
    }
    Ok(count)
}

fn run_step(step: &Step, part: &PathBuf) -> Result<(Count, String)> {
    let succeeded = logged(&mut bound_to_us(&step.command), &File::create(part)?)?;
    let output = String::from_utf8_lossy(&fs::read(part)?).into_owned();
    let count = match step.meaning {
        Meaning::Check if succeeded => Count::ONE_PASSED,
        Meaning::Build if succeeded => Count::default(),
        Meaning::Check | Meaning::Build => Count::ONE_FAILED,
        Meaning::Tests => {
            let mut count = Count::of_libtest(&output);
            // It did not compile, or a test took the whole process down before its closing line.
            if !succeeded && count.failed == 0 {
                count += Count::ONE_FAILED;
            }
            count
        }
    };
    Ok((count, output))
}
