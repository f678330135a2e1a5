//! What the host worked: time on a core of everything between the machines.
//!
//! Counted is the processor time of this process, less that of the thread that plays both machines; that of a helper process; and that of the kernel's
//! threads for interrupts put off (`ksoftirqd`). So it holds monitors, engines, system calls and what the kernel does in them, and polls that found nothing.
//! Interrupts that hit others are not in it, nor is what Linux bills to nobody.

use std::path::PathBuf;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Reads clocks of the host's threads.
pub(super) struct Account {
    /// `schedstat` of each thread that is not of this process.
    others: Vec<PathBuf>,
}

impl Account {
    /// Of this process, and of `process`, which has one thread.
    pub(super) fn new(process: Option<u32>) -> Self {
        let mut others = kernel_threads();
        others.extend(process.map(|process| PathBuf::from(format!("/proc/{process}/schedstat"))));
        Self { others }
    }

    /// Time so far, which may go back by as much as a clock takes to be read. To be called by the thread that plays the machines.
    pub(super) fn now(&self) -> Duration {
        let own = clock(ClockId::ProcessCPUTime).saturating_sub(clock(ClockId::ThreadCPUTime));
        self.others.iter().filter_map(|path| std::fs::read_to_string(path).ok()).fold(own, |sum, text| {
            // Time on a core, time waiting for one, and how often it got one (Documentation/scheduler/sched-stats.rst).
            let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
            sum + Duration::from_nanos(nanoseconds.unwrap_or(0))
        })
    }
}

fn clock(which: ClockId) -> Duration {
    Duration::try_from(clock_gettime(which)).unwrap_or_default()
}

/// `schedstat` of each `ksoftirqd`, as far as this namespace of processes shows them.
fn kernel_threads() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let processes = entries.flatten().map(|entry| entry.path());
    let is_it =
        |path: &PathBuf| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("ksoftirqd/"));
    processes.filter(is_it).map(|path| path.join("schedstat")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Instant;

    fn work(time: Duration) {
        let start = clock(ClockId::ThreadCPUTime);
        while clock(ClockId::ThreadCPUTime) - start < time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn what_other_threads_work_counts_and_what_the_caller_works_does_not() {
        let account = Account::new(None);
        let start = account.now();
        std::thread::spawn(|| work(Duration::from_millis(50))).join().unwrap();
        let after = account.now().saturating_sub(start);
        assert!(after >= Duration::from_millis(49), "{after:?}");
    }

    #[test]
    fn the_clock_of_another_process_is_read() {
        // It works for a moment and ends; its clock can be read until it was waited for.
        let busy = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let mut child = std::process::Command::new("sh").args(["-c", busy]).spawn().unwrap();
        let account = Account { others: vec![PathBuf::from(format!("/proc/{}/schedstat", child.id()))] };
        let (start, began) = (account.now(), Instant::now());
        let worked = || account.now().saturating_sub(start) >= Duration::from_millis(5);
        while !worked() && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let worked = worked();
        child.wait().unwrap();
        assert!(worked);
    }
}
