//! Commands on the host, and children that do not outlive their test.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

/// Runs a command to its end and returns what it printed on standard output.
///
/// # Errors
///
/// It could not be started, or did not succeed; the error holds what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}: run `cargo xtask setup`"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {} {}", output.status, errors.trim(), printed.trim());
    }
    Ok(printed)
}

/// Runs a command given as words, as [`run`] does.
///
/// # Errors
///
/// As [`run`]; also when there are no words.
pub fn run_words(words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("an empty command")?;
    run(Command::new(program).args(arguments))
}

/// A command whose process is killed by the kernel when the thread that started it ends, even by a kill.
///
/// Start it from a thread that lives as long as the process is wanted.
#[must_use]
pub fn bound_to_us(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Ends this process (SIGTERM) when its parent ends, however it does.
///
/// # Errors
///
/// The kernel refused.
pub fn end_with_parent() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot ask to end with the parent process")
}

/// A child process that is killed and waited for on drop.
pub struct Running(pub Child);

impl Running {
    /// True when the process has ended, however it did.
    #[must_use]
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
