//! The comparison itself: every case, with both devices in turn, several times over.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::device::{Device, Kind};
use crate::process::Running;
use crate::wait;

/// How long one measurement may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a large segment.
const LARGE: usize = 65_000;

/// One line of the table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Case {
    /// Its name: `64-split-uni`, `gso-packed-bi`, `rtt-split`.
    pub name: String,
    arguments: Vec<String>,
    /// One frame is in flight, and its time counts.
    pub round_trip: bool,
    /// Bytes of a frame.
    pub size: usize,
}

/// All cases whose name has `filter` in it.
#[must_use]
pub fn cases(filter: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for ring in ["split", "packed"] {
        for (name, size, large) in [("64", 64, "off"), ("256", 256, "off"), ("1518", 1518, "off"), ("gso", LARGE, "on")]
        {
            for (ways, direction) in [(1, "uni"), (2, "bi")] {
                let arguments =
                    [format!("ring={ring}"), format!("size={size}"), format!("large={large}"), format!("ways={ways}")];
                let name = format!("{name}-{ring}-{direction}");
                cases.push(Case { name, arguments: arguments.into(), round_trip: false, size });
            }
        }
        let arguments = [format!("ring={ring}"), "size=64".into(), "inflight=1".into()];
        cases.push(Case { name: format!("rtt-{ring}"), arguments: arguments.into(), round_trip: true, size: 64 });
    }
    cases.retain(|case| case.name.contains(filter));
    cases
}

/// What the runs of one case gave for one device.
#[derive(Clone, Default, Debug)]
struct Runs {
    mpps: Vec<f64>,
    micros: Vec<f64>,
    clean: u64,
    windows: u64,
    full: Vec<f64>,
    port: String,
}

impl Runs {
    fn add(&mut self, report: &Value) -> Result<()> {
        let number = |key: &str| report[key].as_f64().with_context(|| format!("the generator does not say {key}"));
        self.mpps.push(number("mpps")?);
        self.full.push(number("full_percent")?);
        self.micros.extend(report["p50_us"].as_f64());
        self.clean += report["clean_windows"].as_u64().unwrap_or(0);
        self.windows += report["windows"].as_u64().unwrap_or(0);
        self.port = report["port"].as_str().unwrap_or_default().into();
        Ok(())
    }
}

/// Median, lowest and highest.
fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

/// Median of ours to theirs, each pair from the same seconds: runs differ by more than devices do.
fn paired(ours: &[f64], theirs: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    spread(&ratios).map(|ratio| ratio.0)
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    mirach: Runs,
    peer: Runs,
}

impl Outcome {
    /// One object: rates are medians of the runs in millions of frames a second, `ratio` is ours to the peer's, the median of all runs'.
    #[must_use]
    pub fn json(&self) -> Value {
        let (Some(ours), Some(theirs)) = (spread(&self.mirach.mpps), spread(&self.peer.mpps)) else {
            return json!({ "case": self.case.name, "error": "no run succeeded" });
        };
        let mut object = json!({
            "case": self.case.name,
            "mirach_mpps": ours.0, "mirach_low": ours.1, "mirach_high": ours.2,
            "peer": Kind::Testpmd.name(),
            "peer_mpps": theirs.0, "peer_low": theirs.1, "peer_high": theirs.2,
            "ratio": paired(&self.mirach.mpps, &self.peer.mpps),
            "mirach_ns": 1e3 / ours.0, "peer_ns": 1e3 / theirs.0,
            "runs": self.mirach.mpps.len(),
            "clean_windows": self.mirach.clean + self.peer.clean, "windows": self.mirach.windows + self.peer.windows,
            // When this is low, the generator was the limit.
            "mirach_full_percent": spread(&self.mirach.full).map(|full| full.0),
            "peer_full_percent": spread(&self.peer.full).map(|full| full.0),
            "mirach_port": self.mirach.port, "peer_port": self.peer.port,
        });
        if let (true, Some(ours), Some(theirs), Some(fields)) =
            (self.case.round_trip, spread(&self.mirach.micros), spread(&self.peer.micros), object.as_object_mut())
        {
            fields.insert("mirach_us".into(), ours.0.into());
            fields.insert("peer_us".into(), theirs.0.into());
            fields.insert("time_ratio".into(), paired(&self.mirach.micros, &self.peer.micros).into());
        }
        object
    }

    /// A line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let (Some(ours), Some(theirs)) = (spread(&self.mirach.mpps), spread(&self.peer.mpps)) else {
            return format!("{:<16} no run succeeded", self.case.name);
        };
        let size = u32::try_from(self.case.size).map_or(0.0, f64::from);
        let mut line = format!(
            "{:<16} {:>7.3} ({:>7.3} - {:>7.3}) {:>7.3} ({:>7.3} - {:>7.3}) {:>6.2} {:>8.1} {:>8.1} {:>7.1} {:>9}",
            self.case.name,
            ours.0,
            ours.1,
            ours.2,
            theirs.0,
            theirs.1,
            theirs.2,
            paired(&self.mirach.mpps, &self.peer.mpps).unwrap_or_default(),
            1e3 / ours.0,
            1e3 / theirs.0,
            ours.0 * size * 8.0 / 1e3,
            format!("{}/{}", self.mirach.clean + self.peer.clean, self.mirach.windows + self.peer.windows),
        );
        if let (true, Some(ours), Some(theirs)) =
            (self.case.round_trip, spread(&self.mirach.micros), spread(&self.peer.micros))
        {
            let ratio = paired(&self.mirach.micros, &self.peer.micros).unwrap_or_default();
            line += &format!("  {:.2} us against {:.2} us: {ratio:.2}", ours.0, theirs.0);
        }
        line
    }
}

/// The heading of [`Outcome::line`].
pub const HEADING: &str = "case             mirach Mpps (lowest - highest)  testpmd Mpps (lowest - highest)  ratio  ns/frame    peer's    Gb/s  clean windows";

/// Measures `cases`, each `runs` times with each device, and tells `done` of each run.
///
/// # Errors
/// A device does not start, or passes nothing.
pub fn run(
    cases: &[Case],
    runs: usize,
    huge_pages: bool,
    generator: &Path,
    mut done: impl FnMut(&str),
) -> Result<Vec<Outcome>> {
    let mut outcomes: Vec<Outcome> = cases
        .iter()
        .map(|case| Outcome { case: case.clone(), mirach: Runs::default(), peer: Runs::default() })
        .collect();
    for run in 0..runs {
        // New processes for each run, as memory falls on other pages each time.
        let mut devices = Vec::new();
        for kind in [Kind::Mirach, Kind::Testpmd] {
            let mut device = Device::start(kind, huge_pages)?;
            device.rest()?;
            devices.push(device);
        }
        for outcome in &mut outcomes {
            // Whoever is first gets the machine as the other left it: in turn.
            devices.rotate_left(1);
            for device in &mut devices {
                device.go_on()?;
                let report = measure(generator, device, &outcome.case).with_context(|| {
                    format!("{} with {}\n{}", outcome.case.name, device.kind().name(), device.last_lines())
                })?;
                device.rest()?;
                done(&format!(
                    "run {} {} {}: {:.3} Mpps, {} of {} windows clean",
                    run + 1,
                    outcome.case.name,
                    device.kind().name(),
                    report["mpps"].as_f64().unwrap_or_default(),
                    report["clean_windows"],
                    report["windows"],
                ));
                match device.kind() {
                    Kind::Mirach => outcome.mirach.add(&report)?,
                    Kind::Testpmd => outcome.peer.add(&report)?,
                }
            }
        }
    }
    Ok(outcomes)
}

/// One run of the generator.
fn measure(generator: &Path, device: &Device, case: &Case) -> Result<Value> {
    let mut command = Command::new(generator);
    command.args(device.arguments()).args(&case.arguments).stdin(Stdio::null()).stdout(Stdio::piped());
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_cases_cover_both_rings_all_sizes_and_directions_and_the_round_trip() {
        let names: Vec<String> = cases("").into_iter().map(|case| case.name).collect();
        assert_eq!(names.len(), 18);
        for name in ["64-split-uni", "256-packed-bi", "1518-split-bi", "gso-packed-uni", "rtt-split", "rtt-packed"] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        assert_eq!(cases("rtt").len(), 2);
    }

    #[test]
    fn an_outcome_has_medians_and_the_ratio_of_pairs() {
        let case = cases("rtt-split").remove(0);
        let runs = |mpps: [f64; 3], micros: f64| {
            let mut runs = Runs::default();
            for mpps in mpps {
                let report =
                    json!({ "mpps": mpps, "full_percent": 90.0, "p50_us": micros, "clean_windows": 3, "windows": 4 });
                runs.add(&report).unwrap();
            }
            runs
        };
        let outcome = Outcome { case, mirach: runs([3.0, 1.0, 2.0], 1.0), peer: runs([1.0, 4.0, 1.0], 2.0) };
        let object = outcome.json();
        assert_eq!(
            (&object["mirach_mpps"], &object["peer_mpps"], &object["ratio"]),
            (&json!(2.0), &json!(1.0), &json!(2.0))
        );
        assert_eq!((&object["mirach_low"], &object["mirach_high"]), (&json!(1.0), &json!(3.0)));
        assert_eq!((&object["time_ratio"], &object["windows"]), (&json!(0.5), &json!(24)));
        assert!(outcome.line().contains("2.00"), "{}", outcome.line());
        assert!(Runs::default().add(&json!({})).is_err());
    }
}
