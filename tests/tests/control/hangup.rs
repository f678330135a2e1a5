//! SIGHUP: the file is read again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::wait;
use rustix::process::Signal;

use crate::scene::{PORTS, TOML, close, set, state};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn good_and_bad() -> Result<()> {
    let (mut daemon, mut crowd) = set(&[])?;
    let before = state(&daemon)?;
    daemon.write(PORTS, &TOML.replace("network = \"blue\"", "network = \"green\""))?;
    daemon.signal(Signal::HUP)?;
    let file = format!("{}:", daemon.file().display());
    crowd.busy(|| {
        wait::until("a word about the bad file", PATIENCE, || {
            let log = daemon.log();
            Ok(log.lines().any(|line| line.contains(&file) && line.contains("green")).then_some(()))
        })
        .with_context(|| daemon.last_words())
    })?;
    crowd.settle()?;
    ensure!(state(&daemon)? == before, "a bad file changed something");
    daemon.write(PORTS, &TOML.replace("flows = 5000", "flows = 6000"))?;
    daemon.signal(Signal::HUP)?;
    crowd.busy(|| {
        wait::until("the new quota", PATIENCE, || {
            let statistics = daemon.statistics()?;
            let slices = statistics["slices"].as_array().context("no slices")?;
            Ok(slices.iter().any(|slice| slice["name"] == "gold" && slice["most_flows"] == 6000).then_some(()))
        })
        .with_context(|| daemon.last_words())
    })?;
    daemon.must_run()?;
    close(daemon, crowd)
}
