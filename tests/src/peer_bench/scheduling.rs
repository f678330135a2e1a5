//! A quiet machine as far as one can have it: where threads run, before whom, and whether they had to wait.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, setpriority_process};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Priority while measuring, and for a device that only polls between measurements.
const FIRST: i32 = -20;
const LAST: i32 = 19;

/// A thread of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Thread {
    /// The process.
    pub process: i32,
    /// The thread.
    pub thread: i32,
}

impl std::str::FromStr for Thread {
    type Err = anyhow::Error;

    /// `PROCESS/THREAD`
    fn from_str(text: &str) -> Result<Self> {
        let (process, thread) = text.split_once('/').context("not PROCESS/THREAD")?;
        Ok(Self { process: process.parse()?, thread: thread.parse()? })
    }
}

impl Thread {
    /// The one that calls.
    #[must_use]
    pub fn current() -> Self {
        let pid = |pid: Pid| pid.as_raw_nonzero().get();
        Self { process: pid(rustix::process::getpid()), thread: pid(rustix::thread::gettid()) }
    }

    /// The threads of `process` whose name `choose` takes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(process: u32, choose: impl Fn(&str) -> bool) -> Result<Vec<Self>> {
        let mut threads = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{process}/task"))? {
            let folder = entry?.path();
            let name = std::fs::read_to_string(folder.join("comm")).unwrap_or_default();
            let number = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            if let Some(thread) = number.filter(|_| choose(name.trim())) {
                threads.push(Self { process: i32::try_from(process)?, thread });
            }
        }
        Ok(threads)
    }

    /// Puts the thread before all others, or behind them. The kernel schedules sessions before threads where it has autogroups.
    pub fn prefer(self, first: bool) {
        let priority = if first { FIRST } else { LAST };
        // Both are help, not need: without the right to it the measurement is only noisier, and says so by its windows.
        if let Some(thread) = Pid::from_raw(self.thread) {
            let _ = setpriority_process(Some(thread), priority);
        }
        let _ = std::fs::write(format!("/proc/{}/autogroup", self.process), priority.to_string());
    }
}

/// Binds the calling thread to a core.
///
/// # Errors
/// There is no such core for this process.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    ensure!(core < CpuSet::MAX_CPU, "there is no core {core}");
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

/// How long a thread has waited for a core.
#[derive(Debug)]
pub struct Patience {
    file: File,
    before: u64,
}

impl Patience {
    /// Watches a thread.
    ///
    /// # Errors
    /// It is gone, or the kernel does not tell.
    pub fn of(thread: Thread) -> Result<Self> {
        let path = format!("/proc/{}/task/{}/schedstat", thread.process, thread.thread);
        let file = File::open(&path).with_context(|| format!("cannot read {path}"))?;
        let mut patience = Self { file, before: 0 };
        patience.since();
        Ok(patience)
    }

    /// Nanoseconds that it waited since the last question.
    pub fn since(&mut self) -> u64 {
        let mut text = [0; 96];
        let length = self.file.read_at(&mut text, 0).unwrap_or(0);
        let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
        // Time on a core, time waiting for one, and how often it got one.
        let now = text.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(self.before);
        now.saturating_sub(std::mem::replace(&mut self.before, now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn threads_are_found_by_name_and_their_waiting_is_read() {
        let own = Thread::current();
        let process = u32::try_from(own.process).unwrap();
        let name = std::fs::read_to_string(format!("/proc/{process}/task/{}/comm", own.thread)).unwrap();
        let found = Thread::of(process, |other| other == name.trim()).unwrap();
        assert!(found.contains(&own));
        assert_eq!(format!("{}/{}", own.process, own.thread).parse::<Thread>().unwrap(), own);
        let mut patience = Patience::of(own).unwrap();
        assert!(patience.since() < 1_000_000_000 * 600);
    }
}
