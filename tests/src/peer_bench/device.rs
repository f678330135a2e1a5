//! What is measured: a program that forwards between two vhost-user ports on one core.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::scheduling::Thread;
use crate::process::{Running, bound_to_us};
use crate::{binaries, leftovers, wait};

/// From the start of a program to its ports being there.
const START: Duration = Duration::from_secs(60);
/// How long a program may take to end when it is asked to.
const END: Duration = Duration::from_secs(5);
/// Where what is measured runs. The generator has the other core.
pub const CORE: &str = "0";

/// A device under test that runs, or rests.
pub trait Device {
    /// The program whose threads forward.
    fn program(&mut self) -> &mut Program;

    /// Its name in the table.
    fn name(&self) -> &'static str;

    /// Where the generator meets its ports.
    fn sockets(&self) -> [PathBuf; 2];

    /// Whether the generator listens there.
    fn connects(&self) -> bool {
        false
    }

    /// Gets ready to be measured.
    ///
    /// # Errors
    /// It does not answer.
    fn begin(&mut self) -> Result<()> {
        Ok(())
    }

    /// What it says of the run that has just ended, in which the generator says `report`: an object, or nothing.
    ///
    /// # Errors
    /// It did not do what it was to be measured at.
    fn account(&mut self, _report: &Value) -> Result<Value> {
        Ok(Value::Null)
    }
}

/// A program that runs, or rests. Ended on drop.
pub struct Program {
    name: &'static str,
    process: Running,
    log: PathBuf,
    threads: Vec<Thread>,
}

impl Program {
    /// Starts it, with what it prints in a file in `folder`. Call it from a thread that lives as long as it is wanted.
    ///
    /// # Errors
    /// It is missing.
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}: run `cargo xtask setup`"))?;
        Ok(Self { name, process: Running(child), log, threads: Vec::new() })
    }

    /// Waits until `ready`.
    ///
    /// # Errors
    /// It ends, or does not get ready.
    pub fn await_ready(&mut self, ready: impl Fn(&Self) -> bool) -> Result<()> {
        let started = wait::until(self.name, START, || {
            ensure!(!self.process.has_ended(), "it has ended");
            Ok(ready(self).then_some(()))
        });
        started.with_context(|| self.last_lines())
    }

    /// Waits until the threads are there whose names `forwards` takes. They poll all the time, and must not keep others from their core when they are not measured.
    ///
    /// # Errors
    /// It ends, or has no such threads.
    pub fn await_threads(&mut self, forwards: impl Fn(&str) -> bool) -> Result<()> {
        // The command starts by way of others, which become it.
        let find = |program: &Self| Thread::of(program.process.0.id(), &forwards).unwrap_or_default();
        self.await_ready(|program| !find(program).is_empty())?;
        self.threads = find(self);
        self.threads.iter().for_each(|thread| thread.prefer(false));
        Ok(())
    }

    /// The threads that forward, as the generator takes them.
    #[must_use]
    pub fn threads(&self) -> String {
        let threads = self.threads.iter().map(|Thread { process, thread }| format!("{process}/{thread}"));
        threads.collect::<Vec<_>>().join(",")
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
            bail!("{} has ended:\n{}", self.name, self.last_lines());
        }
        let pid = i32::try_from(self.process.0.id()).ok().and_then(Pid::from_raw).context("it has no number")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The end of what it printed.
    #[must_use]
    pub fn last_lines(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Program {
    /// Asks it to end, so that it takes away what it made; what does not is killed.
    fn drop(&mut self) {
        let asked = self.signal(Signal::TERM).and_then(|()| self.go_on());
        let end = Instant::now() + END;
        while asked.is_ok() && !self.process.has_ended() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A program with nothing around it that listens on two sockets.
pub struct Listener {
    name: &'static str,
    program: Program,
    folder: TempDir,
}

impl Listener {
    /// Starts what `command` makes of a folder and two sockets, and waits until it listens.
    ///
    /// # Errors
    /// It is missing, or ends.
    pub fn start(
        name: &'static str,
        forwards: impl Fn(&str) -> bool,
        command: impl FnOnce(&Path, &[PathBuf; 2]) -> Result<Command>,
    ) -> Result<Self> {
        let folder = leftovers::folder("bench")?;
        let sockets = sockets(folder.path());
        let mut program = Program::start(name, command(folder.path(), &sockets)?, folder.path())?;
        program.await_ready(|_| sockets.iter().all(|socket| socket.exists()))?;
        program.await_threads(forwards)?;
        Ok(Self { name, program, folder })
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Device for Listener {
    fn program(&mut self) -> &mut Program {
        &mut self.program
    }

    fn name(&self) -> &'static str {
        self.name
    }

    fn sockets(&self) -> [PathBuf; 2] {
        sockets(self.folder.path())
    }
}

/// The sockets of the two ports in a device's folder.
#[must_use]
pub fn sockets(folder: &Path) -> [PathBuf; 2] {
    ["port0", "port1"].map(|name| folder.join(name))
}

/// A program that ends with us, in a session of its own: the kernel schedules sessions before threads, so that what is put before all others, or behind them,
/// is that program alone.
#[must_use]
pub fn alone(program: &Path) -> Command {
    let mut command = bound_to_us(Path::new("setsid"));
    command.arg(program);
    command
}

/// `mirach run` that polls on the core of what is measured, without ports.
///
/// # Errors
/// It was not built.
pub fn mirach(huge_pages: bool) -> Result<Command> {
    let mut command = alone(&binaries::host()?);
    command.args(["run", "--poll", "always", "--cores", CORE]);
    if !huge_pages {
        command.arg("--no-huge");
    }
    Ok(command)
}

/// Whether this is the name of a thread of mirach's that forwards.
#[must_use]
pub fn is_engine(thread: &str) -> bool {
    thread.starts_with("engine-")
}
