//! Both devices in turn.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::device::{Device, alone};
use super::machine::{Theft, round_trip};
use super::outcome::{Case, Outcome, Run};
use crate::process::Running;
use crate::wait;

/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Cores of the device under test and of the generator.
const CORES: [usize; 2] = [0, 1];
/// How often a pair is measured at most, until the machine is the same for both.
const ATTEMPTS: usize = 3;
/// Round trips from core to core that differ by such a factor are of different machines.
const UNLIKE: f64 = 2.0;

/// Measures cases with one device and the other.
pub struct Rounds<'a> {
    generator: PathBuf,
    done: &'a mut dyn FnMut(&str),
    /// Who is first gets the machine as the other left it: in turn.
    peer_first: bool,
}

impl<'a> Rounds<'a> {
    /// Rounds that tell `done` of each run. The generator is a program beside this one.
    ///
    /// # Errors
    /// The system does not say where this program is.
    pub fn new(done: &'a mut dyn FnMut(&str)) -> Result<Self> {
        let executable = std::env::current_exe().context("cannot find the generator")?;
        Ok(Self { generator: executable.with_file_name("vhost-generator"), done, peer_first: false })
    }

    /// Measures each of the cases once with mirach and once with its peer, which rest. When the machine was not the same for both, once more.
    ///
    /// # Errors
    /// A device passes nothing, or not what it should.
    pub fn round(&mut self, outcomes: &mut [Outcome], devices: &mut [Box<dyn Device>; 2]) -> Result<()> {
        for outcome in outcomes {
            let mut left = ATTEMPTS;
            let pair = loop {
                left -= 1;
                let pair = self.pair(&outcome.case, devices)?;
                if left == 0 || alike(&pair) {
                    break pair;
                }
                (self.done)("the cores have moved apart or together meanwhile: once more");
            };
            for (runs, run) in outcome.runs.iter_mut().zip(pair) {
                runs.add(run)?;
            }
        }
        Ok(())
    }

    /// A run with each device.
    fn pair(&mut self, case: &Case, devices: &mut [Box<dyn Device>; 2]) -> Result<[Run; 2]> {
        let peer_first = self.peer_first;
        self.peer_first = !self.peer_first;
        let [mirach, peer] = devices;
        Ok(if peer_first {
            let run = self.run(case, peer.as_mut())?;
            [self.run(case, mirach.as_mut())?, run]
        } else {
            [self.run(case, mirach.as_mut())?, self.run(case, peer.as_mut())?]
        })
    }

    fn run(&mut self, case: &Case, device: &mut dyn Device) -> Result<Run> {
        let before = round_trip(CORES)?;
        device.program().go_on()?;
        let theft = Theft::from_now();
        let measured = device.begin().and_then(|()| measure(&self.generator, device, case));
        let stolen = theft.percent();
        let measured = measured.and_then(|report| Ok((device.account(&report)?, report)));
        let (says, report) = measured
            .with_context(|| format!("{} with {}\n{}", case.name, device.name(), device.program().last_lines()))?;
        device.program().rest()?;
        let round_trips = [before, round_trip(CORES)?];
        (self.done)(&format!(
            "{} {}: {:.3} Mpps, {} of {} windows clean, {:.0} and {:.0} ns from core to core and back",
            case.name,
            device.name(),
            report["mpps"].as_f64().unwrap_or_default(),
            report["clean_windows"],
            report["windows"],
            round_trips[0],
            round_trips[1],
        ));
        Ok(Run { report, stolen, round_trips, says })
    }
}

/// Whether the cores were as near to each other all the time.
fn alike(pair: &[Run; 2]) -> bool {
    let times = || pair.iter().flat_map(|run| run.round_trips);
    let (least, most) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
    most < least * UNLIKE
}

/// One run of the generator.
fn measure(generator: &Path, device: &mut dyn Device, case: &Case) -> Result<Value> {
    let mut command = alone(generator);
    let [first, second] = device.sockets();
    command.arg(format!("sockets={},{}", first.display(), second.display()));
    command.arg(format!("server={}", if device.connects() { "on" } else { "off" }));
    command.arg(format!("watch={}", device.program().threads()));
    command.args(&case.arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::piped()).spawn().context("cannot start the generator")?;
    let mut running = Running(child);
    wait::until("the generator", LIMIT, || Ok(running.has_ended().then_some(())))?;
    let status = running.0.wait()?;
    let read = |stream: Option<&mut dyn std::io::Read>| -> Result<String> {
        let mut text = String::new();
        stream.context("it has no output")?.read_to_string(&mut text)?;
        Ok(text)
    };
    let errors = read(running.0.stderr.as_mut().map(|stream| stream as &mut dyn std::io::Read))?;
    let printed = read(running.0.stdout.as_mut().map(|stream| stream as &mut dyn std::io::Read))?;
    ensure!(status.success(), "the generator: {}", errors.trim());
    let Some(line) = printed.lines().last() else { bail!("the generator says nothing: {}", errors.trim()) };
    let report: Value = serde_json::from_str(line).with_context(|| format!("the generator says {line}"))?;
    let format = case.arguments.iter().find_map(|argument| argument.strip_prefix("ring=")).unwrap_or_default();
    let port = report["port"].as_str().unwrap_or_default();
    ensure!(port.contains(&format!("ring {format}")), "{} rings were asked for and not had: {port}", format);
    Ok(report)
}
