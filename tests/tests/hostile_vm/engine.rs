//! What keeps the engine from running, as the kernel tells: other programs on its core, and the host of a virtual machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// Unit of the times in `/proc/stat` (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// The thread of an engine.
pub(crate) struct Engine {
    statistics: PathBuf,
}

impl Engine {
    /// The only engine of a process.
    pub(crate) fn of(process: u32) -> Result<Self> {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let folder = task?.path();
            if std::fs::read_to_string(folder.join("comm"))?.starts_with("engine-") {
                return Ok(Self { statistics: folder.join("schedstat") });
            }
        }
        anyhow::bail!("process {process} has no engine")
    }

    /// For how long it was ready to run, and something else ran instead.
    pub(crate) fn kept(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(&self.statistics).context("the kernel has no CONFIG_SCHED_INFO")?;
        // Time on a processor, time waiting for one, turns.
        let waited = text.split(' ').nth(1).and_then(|word| word.parse().ok()).context("no waiting time")?;
        Ok(Duration::from_nanos(waited) + stolen()?)
    }
}

/// What all processors of this machine were kept from running by its host.
fn stolen() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("nothing in /proc/stat")?;
    let ticks: u32 = line.split_whitespace().nth(8).and_then(|word| word.parse().ok()).context("no stolen time")?;
    Ok(TICK * ticks)
}
