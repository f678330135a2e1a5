//! The devices under test: mirach, and DPDK's testpmd. Each forwards between two vhost-user ports on one core.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::scheduling::Thread;
use crate::process::{Running, bound_to_us};
use crate::{binaries, leftovers, wait};

/// From the start of a program to its ports being there.
const START: Duration = Duration::from_secs(60);
/// Where what is measured runs. The generator has the other core.
const CORE: &str = "0";

/// Which device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `mirach run --poll always`.
    Mirach,
    /// `dpdk-testpmd --forward-mode=io` with `net_vhost` ports.
    Testpmd,
}

impl Kind {
    /// For the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mirach => "mirach",
            Self::Testpmd => "testpmd",
        }
    }

    /// Whether a thread is the one that forwards.
    fn forwards(self, thread: &str) -> bool {
        match self {
            Self::Mirach => thread.starts_with("engine-"),
            Self::Testpmd => {
                ["rte-worker-", "lcore-worker-", "dpdk-worker"].iter().any(|name| thread.starts_with(name))
            }
        }
    }
}

/// A device under test that runs, or rests. Killed on drop.
pub struct Device {
    kind: Kind,
    process: Running,
    folder: TempDir,
    threads: Vec<Thread>,
}

impl Device {
    /// Starts it and waits until its sockets are there. Call it from a thread that lives as long as it is wanted.
    ///
    /// # Errors
    /// It is missing, or ends.
    pub fn start(kind: Kind, huge_pages: bool) -> Result<Self> {
        let folder = leftovers::folder("bench")?;
        let sockets = sockets(folder.path());
        let mut command = match kind {
            Kind::Mirach => mirach(&sockets, huge_pages)?,
            Kind::Testpmd => testpmd(&sockets, huge_pages, folder.path()),
        };
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child =
            command.spawn().with_context(|| format!("cannot start {}: run `cargo xtask setup`", kind.name()))?;
        let mut device = Self { kind, process: Running(child), folder, threads: Vec::new() };
        let started = wait::until(kind.name(), START, || {
            ensure!(!device.process.has_ended(), "it has ended");
            // The command starts by way of another, which becomes it.
            device.threads = Thread::of(device.process.0.id(), |name| kind.forwards(name))?;
            Ok((sockets.iter().all(|socket| socket.exists()) && !device.threads.is_empty()).then_some(()))
        });
        started.with_context(|| device.last_lines())?;
        // It polls all the time, and must not keep others from its core when it is not measured.
        device.threads.iter().for_each(|thread| thread.prefer(false));
        Ok(device)
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The arguments by which a generator finds it.
    #[must_use]
    pub fn arguments(&self) -> [String; 2] {
        let [first, second] = sockets(self.folder.path());
        let threads: Vec<String> =
            self.threads.iter().map(|Thread { process, thread }| format!("{process}/{thread}")).collect();
        [format!("sockets={},{}", first.display(), second.display()), format!("watch={}", threads.join(","))]
    }

    /// Stops it where it is: what polls on the same core must not do so at the same time.
    ///
    /// # Errors
    /// It has ended.
    pub fn rest(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It has ended.
    pub fn go_on(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.process.has_ended() {
            bail!("{} has ended:\n{}", self.kind.name(), self.last_lines());
        }
        let pid = i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw).context("it has no number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The end of what it printed.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let log = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

fn sockets(folder: &Path) -> [PathBuf; 2] {
    ["port0", "port1"].map(|name| folder.join(name))
}

fn mirach([first, second]: &[PathBuf; 2], huge_pages: bool) -> Result<Command> {
    let mut command = bound_to_us(&binaries::host()?);
    command.args(["run", "--poll", "always", "--cores", CORE, "--control", "none"]);
    for socket in [first, second] {
        command.arg("--port").arg(format!("vhost-user={},client=off", socket.display()));
    }
    if !huge_pages {
        command.arg("--no-huge");
    }
    Ok(command)
}

fn testpmd(sockets: &[PathBuf; 2], huge_pages: bool, folder: &Path) -> Command {
    let prefix = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = bound_to_us(Path::new("dpdk-testpmd"));
    // Its own work on the other core, the forwarding on ours.
    command.args(["--lcores", &format!("0@1,1@{CORE}"), "-n", "1", "--no-pci", "--no-telemetry"]);
    command.args(["--file-prefix", &prefix, "--log-level=lib.vhost:err"]);
    if huge_pages {
        command.args(["--in-memory", "-m", "256"]);
    } else {
        command.args(["--no-huge", "-m", "512"]);
    }
    for (number, socket) in sockets.iter().enumerate() {
        // The last two let it pass large segments on as they are.
        let device = format!("net_vhost{number},iface={},queues=1,tso=1,legacy-ol-flags=1", socket.display());
        command.arg("--vdev").arg(device);
    }
    command.args(["--", "--nb-cores=1", "--total-num-mbufs=16384", "--forward-mode=io", "--burst=32", "--auto-start"]);
    // Otherwise it ends with its standard input.
    command.arg("--stats-period=86400");
    command
}
