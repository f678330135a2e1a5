//! Both devices in turn.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::device::Device;
use super::machine::Theft;
use super::outcome::{Case, Outcome};
use crate::process::Running;
use crate::wait;

/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(120);

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

    /// Measures each of the cases once with mirach and once with its peer, which rest.
    ///
    /// # Errors
    /// A device passes nothing, or not what it should.
    pub fn round(&mut self, outcomes: &mut [Outcome], devices: &mut [Box<dyn Device>; 2]) -> Result<()> {
        for outcome in outcomes {
            let order = if self.peer_first { [1, 0] } else { [0, 1] };
            self.peer_first = !self.peer_first;
            for which in order {
                let (Some(device), Some(runs)) = (devices.get_mut(which), outcome.runs.get_mut(which)) else {
                    continue;
                };
                let device = device.as_mut();
                device.program().go_on()?;
                let theft = Theft::from_now();
                let measured = device.begin().and_then(|()| measure(&self.generator, device, &outcome.case));
                let stolen = theft.percent();
                let measured = measured.and_then(|report| Ok((device.account(&report)?, report)));
                let (says, report) = measured.with_context(|| {
                    format!("{} with {}\n{}", outcome.case.name, device.name(), device.program().last_lines())
                })?;
                device.program().rest()?;
                (self.done)(&format!(
                    "{} {}: {:.3} Mpps, {} of {} windows clean",
                    outcome.case.name,
                    device.name(),
                    report["mpps"].as_f64().unwrap_or_default(),
                    report["clean_windows"],
                    report["windows"],
                ));
                runs.add(&report, stolen, says)?;
            }
        }
        Ok(())
    }
}

/// One run of the generator.
fn measure(generator: &Path, device: &mut dyn Device, case: &Case) -> Result<Value> {
    let mut command = Command::new(generator);
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
