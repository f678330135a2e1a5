//! What came of a comparison: medians, ratios of pairs, and how far they lie apart.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::machine::governor;

/// One line of the table.
#[derive(Clone, PartialEq, Debug)]
pub struct Case {
    /// Its name: `64-split-uni`, `gso-packed-bi`, `rtt-split`, `1518-split-10k`.
    pub name: String,
    /// What the generator is told.
    pub arguments: Vec<String>,
    /// One frame is in flight, and its time counts.
    pub round_trip: bool,
    /// Bytes of a frame.
    pub size: usize,
    /// Flows each way.
    pub flows: u32,
    /// The ratio that mirach should reach.
    pub aim: Option<f64>,
}

/// One run of a case with one device.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the generator reports.
    pub report: Value,
    /// Percent of the time that the hypervisor gave to others.
    pub stolen: f64,
    /// Nanoseconds from core to core and back, before and after.
    pub round_trips: [f64; 2],
    /// What the device says itself.
    pub says: Value,
}

/// What the runs of one case gave for one device.
#[derive(Clone, Default, Debug)]
pub struct Runs {
    mpps: Vec<f64>,
    micros: Vec<f64>,
    clean: u64,
    windows: u64,
    full: Vec<f64>,
    busy: Vec<f64>,
    stolen: Vec<f64>,
    round_trips: Vec<f64>,
    port: String,
    says: Value,
}

impl Runs {
    /// Takes in a run.
    ///
    /// # Errors
    /// The report lacks something.
    pub fn add(&mut self, run: Run) -> Result<()> {
        let Run { report, stolen, round_trips, says } = run;
        let number = |key: &str| report[key].as_f64().with_context(|| format!("the generator does not say {key}"));
        self.mpps.push(number("mpps")?);
        self.full.push(number("full_percent")?);
        self.busy.push(100.0 - number("idle_percent")?);
        self.stolen.push(stolen);
        self.round_trips.extend(round_trips);
        self.micros.extend(report["p50_us"].as_f64());
        self.clean += report["clean_windows"].as_u64().unwrap_or(0);
        self.windows += report["windows"].as_u64().unwrap_or(0);
        self.port = report["port"].as_str().unwrap_or_default().into();
        self.says = says;
        Ok(())
    }

    /// The highest share of time that was stolen during a run.
    fn stolen(&self) -> f64 {
        self.stolen.iter().copied().fold(0.0, f64::max)
    }
}

/// Median, lowest and highest.
fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    Some((*values.get(values.len() / 2)?, *values.first()?, *values.last()?))
}

/// Ours to theirs, each pair from the same seconds: runs differ by more than devices do.
fn paired(ours: &[f64], theirs: &[f64]) -> Option<(f64, f64, f64)> {
    let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
    spread(&ratios)
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The case.
    pub case: Case,
    /// The peer's name.
    pub peer: &'static str,
    /// mirach's runs, and the peer's.
    pub runs: [Runs; 2],
}

impl Outcome {
    /// Of no runs yet.
    #[must_use]
    pub fn new(case: Case, peer: &'static str) -> Self {
        Self { case, peer, runs: [Runs::default(), Runs::default()] }
    }

    /// One object: rates are medians of the runs in millions of frames a second, `ratio` is ours to the peer's, the median of all runs'.
    #[must_use]
    pub fn json(&self) -> Value {
        let [mirach, peer] = &self.runs;
        let (Some(ours), Some(theirs), Some(ratio)) =
            (spread(&mirach.mpps), spread(&peer.mpps), paired(&mirach.mpps, &peer.mpps))
        else {
            return json!({ "case": self.case.name, "error": "no run succeeded" });
        };
        let median = |values: &[f64]| spread(values).map(|values| values.0);
        let mut object = json!({
            "case": self.case.name, "flows": self.case.flows,
            "mirach_mpps": ours.0, "mirach_low": ours.1, "mirach_high": ours.2,
            "peer": self.peer,
            "peer_mpps": theirs.0, "peer_low": theirs.1, "peer_high": theirs.2,
            "ratio": ratio.0, "ratio_low": ratio.1, "ratio_high": ratio.2,
            "mirach_ns": 1e3 / ours.0, "peer_ns": 1e3 / theirs.0,
            "runs": mirach.mpps.len(),
            "clean_windows": mirach.clean + peer.clean, "windows": mirach.windows + peer.windows,
            // When the first are low, or the others high, the generator was the limit.
            "mirach_full_percent": median(&mirach.full), "peer_full_percent": median(&peer.full),
            "mirach_busy_percent": median(&mirach.busy), "peer_busy_percent": median(&peer.busy),
            "mirach_stolen_percent": mirach.stolen(), "peer_stolen_percent": peer.stolen(),
            "mirach_round_trip_ns": median(&mirach.round_trips), "peer_round_trip_ns": median(&peer.round_trips),
            "governor": governor(0),
            "mirach_port": mirach.port, "peer_port": peer.port,
        });
        let Some(fields) = object.as_object_mut() else { return object };
        if let (true, Some(ours), Some(theirs), Some(ratio)) =
            (self.case.round_trip, spread(&mirach.micros), spread(&peer.micros), paired(&mirach.micros, &peer.micros))
        {
            fields.insert("mirach_us".into(), ours.0.into());
            fields.insert("peer_us".into(), theirs.0.into());
            fields.insert("time_ratio".into(), ratio.0.into());
        }
        if let Some(aim) = self.case.aim {
            fields.insert("aim".into(), aim.into());
        }
        for (key, says) in [("mirach_says", &mirach.says), ("peer_says", &peer.says)] {
            if !says.is_null() {
                fields.insert(key.into(), says.clone());
            }
        }
        object
    }

    /// A line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let [mirach, peer] = &self.runs;
        let (Some(ours), Some(theirs), Some(ratio)) =
            (spread(&mirach.mpps), spread(&peer.mpps), paired(&mirach.mpps, &peer.mpps))
        else {
            return format!("{:<16} no run succeeded", self.case.name);
        };
        let size = u32::try_from(self.case.size).map_or(0.0, f64::from);
        let median = |values: &[f64]| spread(values).unwrap_or_default().0;
        let mut line = format!(
            "{:<16} {:>7.3} ({:>7.3} - {:>7.3}) {:>7.3} ({:>7.3} - {:>7.3}) {:>5.2} ({:>5.2} - {:>5.2}) {:>4} {:>7.1} {:>7.1} {:>6.1} {:>9} {:>7} {:>9}",
            self.case.name,
            ours.0,
            ours.1,
            ours.2,
            theirs.0,
            theirs.1,
            theirs.2,
            ratio.0,
            ratio.1,
            ratio.2,
            self.case.aim.map_or("-".into(), |aim| aim.to_string()),
            1e3 / ours.0,
            1e3 / theirs.0,
            ours.0 * size * 8.0 / 1e3,
            format!("{:.0}/{:.0} %", median(&mirach.busy), median(&peer.busy)),
            format!("{:.0}/{:.0}", median(&mirach.round_trips), median(&peer.round_trips)),
            format!("{}/{}", mirach.clean + peer.clean, mirach.windows + peer.windows),
        );
        if let (true, Some(ours), Some(theirs), Some(ratio)) =
            (self.case.round_trip, spread(&mirach.micros), spread(&peer.micros), paired(&mirach.micros, &peer.micros))
        {
            line += &format!("  {:.2} us against {:.2} us: {:.2}", ours.0, theirs.0, ratio.0);
        }
        for says in [&mirach.says, &peer.says] {
            if let Some(words) = says["summary"].as_str() {
                line += "  ";
                line += words;
            }
        }
        line
    }

    /// The heading of [`Outcome::line`].
    #[must_use]
    pub fn heading(peer: &str) -> String {
        let rate = |name: &str| format!("{name} Mpps (lowest - highest)");
        format!(
            "{:<16} {:>28} {:>28} {:>21} {:>4} {:>7} {:>7} {:>6} {:>9} {:>7} {:>9}",
            "case",
            rate("mirach"),
            rate(peer),
            "ratio (low - high)",
            "aim",
            "ns",
            "peer's",
            "Gb/s",
            "gen. busy",
            "c2c ns",
            "clean"
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_outcome_has_medians_and_the_ratio_of_pairs() {
        let case = Case {
            name: "rtt-split".into(),
            arguments: Vec::new(),
            round_trip: true,
            size: 64,
            flows: 1,
            aim: Some(1.4),
        };
        let runs = |mpps: [f64; 3], micros: f64| {
            let mut runs = Runs::default();
            for (number, mpps) in mpps.into_iter().enumerate() {
                let report = json!({
                    "mpps": mpps, "full_percent": 90.0, "idle_percent": 30.0, "p50_us": micros, "clean_windows": 3, "windows": 4,
                });
                let stolen = f64::from(u8::from(number == 1));
                runs.add(Run { report, stolen, round_trips: [50.0; 2], says: json!({ "summary": "all well" }) })
                    .unwrap();
            }
            runs
        };
        let mut outcome = Outcome::new(case, "testpmd");
        assert!(outcome.line().contains("no run"));
        outcome.runs = [runs([3.0, 1.0, 2.0], 1.0), runs([1.0, 4.0, 1.0], 2.0)];
        let object = outcome.json();
        assert_eq!(
            (&object["mirach_mpps"], &object["peer_mpps"], &object["ratio"]),
            (&json!(2.0), &json!(1.0), &json!(2.0))
        );
        assert_eq!((&object["mirach_low"], &object["mirach_high"]), (&json!(1.0), &json!(3.0)));
        assert_eq!((&object["ratio_low"], &object["ratio_high"]), (&json!(0.25), &json!(3.0)));
        assert_eq!((&object["mirach_busy_percent"], &object["peer_stolen_percent"]), (&json!(70.0), &json!(1.0)));
        assert_eq!((&object["time_ratio"], &object["windows"], &object["aim"]), (&json!(0.5), &json!(24), &json!(1.4)));
        assert!(outcome.line().contains("2.00 ( 0.25 -  3.00)  1.4"), "{}", outcome.line());
        assert!(outcome.line().ends_with("all well  all well"), "{}", outcome.line());
        assert_eq!(object["peer_round_trip_ns"], json!(50.0));
        let empty = Run { report: json!({}), stolen: 0.0, round_trips: [50.0; 2], says: Value::Null };
        assert!(Runs::default().add(empty).is_err());
    }
}
