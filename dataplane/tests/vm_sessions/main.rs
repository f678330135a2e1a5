//! Sessions with VMMs, well-behaved and hostile ones, over real sockets.
//!
//! After each session the port has to be as before it came: file descriptors, mappings and threads are counted. So one test runs at
//! a time.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
#![cfg(target_os = "linux")]

mod frontend;
mod hostile;
mod lawful;
mod vmm;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dataplane::port::{Port, VhostUserSpec, vhost_user};
use tempfile::TempDir;

use vmm::{Machine, Vmm};

static ALONE: Mutex<()> = Mutex::new(());

/// What a process holds that sessions could leave behind.
#[derive(PartialEq, Eq, Debug)]
struct Holdings {
    descriptors: usize,
    guest_mappings: usize,
    threads: usize,
}

impl Holdings {
    /// Nothing is there that was not there before. What other tests had then may be gone.
    fn is_within(&self, before: &Self) -> bool {
        self.descriptors <= before.descriptors
            && self.guest_mappings <= before.guest_mappings
            && self.threads <= before.threads
    }
}

fn holdings() -> Holdings {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let is_ours = |name: String| name.starts_with("vm-");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    Holdings {
        descriptors: std::fs::read_dir("/proc/self/fd").unwrap().count(),
        guest_mappings: std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:").count(),
        threads: names.filter(|name| is_ours(name.clone())).count(),
    }
}

/// A port that listens on a socket of its own.
struct Station {
    port: Port,
    path: PathBuf,
    before: Holdings,
    _folder: TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Station {
    fn open(queues: u16) -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vm.sock");
        let spec = VhostUserSpec { queues, client: false, ..VhostUserSpec::new(&path) };
        let port = vhost_user::open("vm0", &spec).unwrap();
        let mut station = Self { before: holdings(), port, path, _folder: folder, _alone: alone };
        // A thread takes its name a moment after it begins.
        station.wait("its thread begins", |_| holdings().threads == 1);
        station.mark();
        station
    }

    /// Takes what is there now for what has to be there later: for a test that holds something itself.
    fn mark(&mut self) {
        self.before = holdings();
    }

    fn connect(&self) -> Vmm {
        Vmm::connect(&self.path)
    }

    fn machine(&self) -> Machine {
        Machine::connect(&self.path, self.port.queues.len() * 2)
    }

    fn statistic(&mut self, name: &str) -> u64 {
        self.port.control.statistics().into_iter().find(|(known, _)| *known == name).unwrap().1
    }

    fn wait(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            assert!(Instant::now() < deadline, "{what}: {}", self.port.control.describe());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until no session is there, and sees that nothing is left of those before; then says how the last one ended.
    fn settle(&mut self) -> String {
        self.wait("the session ends", |station| {
            let ends = ["closed", "breach", "stalled", "memory_lost"];
            let ended: u64 = ends.iter().map(|end| station.statistic(&format!("vm_disconnects_{end}"))).sum();
            let gone = !station.port.control.describe().contains(" peer ");
            gone && ended == station.statistic("vm_connects")
        });
        let before = &self.before;
        let deadline = Instant::now() + Duration::from_secs(10);
        // The socket is closed a moment after the end was counted.
        while !holdings().is_within(before) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = holdings();
        assert!(left.is_within(before), "{left:?} is left, and {before:?} was there before the session");
        let text = self.port.control.describe();
        text.split_once("last ").map(|(_, end)| end.trim_matches('"').to_owned()).unwrap_or_default()
    }

    /// The port still serves whoever comes next.
    fn serves(&mut self) {
        let vmm = self.connect();
        assert!(vmm.ask(vmm::request::GET_FEATURES, &[]).is_some());
        drop(vmm);
        self.settle();
        self.port.control.check().unwrap();
    }

    fn close(mut self) {
        let queues = std::mem::take(&mut self.port.queues);
        self.port.control.stop(queues).unwrap();
        assert!(!self.path.exists(), "the socket is gone");
        let after = holdings();
        assert_eq!((after.threads, after.guest_mappings), (0, 0));
    }
}
