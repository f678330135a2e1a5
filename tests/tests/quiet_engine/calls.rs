//! The system calls of an engine's thread, as strace sees them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::leftovers;
use lab::process::{Running, bound_to_us};
use lab::wait;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{Load, Scene};

/// For what takes milliseconds on a machine with nothing else to do.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long an engine is looked at.
pub(crate) const TIME: Duration = Duration::from_secs(4);
/// Datagrams that have to pass meanwhile, at least.
pub(crate) const ENOUGH: u64 = 2000;

/// The thread of the first engine of a process.
pub(crate) fn engine(process: u32) -> Result<i32> {
    thread(process, "engine-")
}

/// A thread of a process whose name begins so.
pub(crate) fn thread(process: u32, name: &str) -> Result<i32> {
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let folder = task?.path();
        if std::fs::read_to_string(folder.join("comm"))?.starts_with(name) {
            let number = folder.file_name().and_then(|name| name.to_str()).context("no number")?;
            return Ok(number.parse()?);
        }
    }
    bail!("process {process} has no thread `{name}`")
}

/// Calls of a thread while something is done, with how often each was made. Signals by eventfd are `eventfd`.
fn calls_of(thread: i32, doing: impl FnOnce() -> Result<()>) -> Result<BTreeMap<String, u64>> {
    let folder = leftovers::folder("trace")?;
    let path = folder.path().join("calls");
    let mut command = bound_to_us(Path::new("strace"));
    command.args(["-q", "-y", "-o"]).arg(&path).args(["-p", &thread.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut tracer = Running(command.spawn().context("cannot start strace: run `cargo xtask setup`")?);
    let status = format!("/proc/{thread}/status");
    wait::until("strace at the engine", PATIENCE, || {
        ensure!(!tracer.has_ended(), "strace ended: it needs the right to trace (CAP_SYS_PTRACE)");
        let text = std::fs::read_to_string(&status)?;
        let tracer = text.lines().find_map(|line| line.strip_prefix("TracerPid:")).context("no TracerPid")?;
        Ok((tracer.trim() != "0").then_some(()))
    })?;
    doing()?;
    // As a user ends it: it lets go of the thread and writes what it has.
    let id = Pid::from_raw(i32::try_from(tracer.0.id())?).context("no process")?;
    kill_process(id, Signal::INT)?;
    wait::until("the end of strace", PATIENCE, || Ok(tracer.has_ended().then_some(())))?;
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(&path)?.lines() {
        // Signals and ends have lines of their own.
        if line.starts_with("---") || line.starts_with("+++") {
            continue;
        }
        let (name, arguments) = line.split_once('(').with_context(|| format!("strace printed `{line}`"))?;
        let signal = name == "write" && arguments.split(',').next().is_some_and(|file| file.contains("[eventfd"));
        *calls.entry(if signal { "eventfd".to_owned() } else { name.to_owned() }).or_default() += 1;
    }
    Ok(calls)
}

/// An engine that may sleep does, by a call.
pub(crate) fn seen() -> Result<()> {
    let mut scene = Scene::set(Load::Wired, "adaptive")?;
    let thread = engine(scene.process())?;
    let calls = calls_of(thread, || {
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(100));
            scene.talk(Duration::from_millis(20))?;
        }
        Ok(())
    })?;
    println!("  {calls:?}");
    ensure!(calls.keys().any(|name| name.contains("poll")), "an engine that sleeps was seen to make {calls:?} alone");
    scene.close()
}

/// One that always polls makes none.
pub(crate) fn none(load: Load) -> Result<()> {
    let mut scene = Scene::set(load, "always")?;
    let thread = engine(scene.process())?;
    scene.talk(Duration::from_millis(200))?;
    let before = scene.passed();
    let mut calls = calls_of(thread, || scene.talk(TIME))?;
    let passed = scene.passed() - before;
    println!("  {passed} datagrams, {calls:?}");
    ensure!(passed > ENOUGH, "only {passed} datagrams passed: the engine was not loaded");
    calls.remove("eventfd");
    ensure!(calls.is_empty(), "while {passed} datagrams passed the engine made {calls:?}");
    scene.close()
}
