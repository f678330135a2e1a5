//! DPDK's testpmd on this host, which sends on what it receives.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::{Running, bound_to_us};
use crate::{leftovers, wait};

/// From the start of the program to its ports being there.
const START: Duration = Duration::from_secs(180);

/// A running testpmd, killed on drop.
pub struct Testpmd {
    process: Running,
    /// It takes commands from it, and ends with it.
    _input: ChildStdin,
    folder: TempDir,
}

impl Testpmd {
    /// Starts it with these devices and these arguments, joined in pairs, and waits until it sends on. With commands it is told these first,
    /// while its ports are stopped.
    ///
    /// Call it from a thread that lives as long as it is wanted.
    ///
    /// # Errors
    ///
    /// It is missing, or ends.
    pub fn start(devices: &[String], more: &[&str], commands: &[&str]) -> Result<Self> {
        let folder = leftovers::folder("testpmd")?;
        let prefix = folder.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = bound_to_us(Path::new("stdbuf"));
        // What it prints is a file here, into which it would write whole blocks.
        command
            .args(["-oL", "dpdk-testpmd", "--no-pci", "--no-huge", "--no-telemetry", "-m", "512"])
            // It sends on on the first processor; the engine of mirach is on the second.
            .args(["-l", "0,1", "--main-lcore", "1"])
            // Vectors as wide as this processor's.
            .arg("--force-max-simd-bitwidth=512")
            .args(["--file-prefix", &prefix, "--log-level", "pmd.net.virtio.init:info"]);
        for device in devices {
            command.args(["--vdev", device]);
        }
        command.args(["--", "--forward-mode=io", "--port-topology=paired", "--nb-cores=1", "--total-num-mbufs=16384"]);
        command.args(if commands.is_empty() { ["--auto-start"].as_slice() } else { &["-i", "--disable-device-start"] });
        command.args(more);
        let log = File::create(folder.path().join("log"))?;
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot start dpdk-testpmd: run `cargo xtask setup`")?;
        let mut input = child.stdin.take().context("testpmd has no input")?;
        if !commands.is_empty() {
            for command in commands.iter().chain(&["port start all", "start"]) {
                writeln!(input, "{command}").context("testpmd takes no commands")?;
            }
        }
        let mut testpmd = Self { process: Running(child), _input: input, folder };
        wait::until("testpmd", START, || {
            testpmd.must_run()?;
            if testpmd.log().contains("Not all ports were started") {
                bail!("it does not start its ports");
            }
            Ok(testpmd.log().contains(" packet forwarding - ports=").then_some(()))
        })
        .with_context(|| testpmd.last_lines())?;
        Ok(testpmd)
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join("log")).unwrap_or_default()).into_owned()
    }

    /// Fails when it does not run any more.
    ///
    /// # Errors
    ///
    /// It does not; the error has what it printed.
    pub fn must_run(&mut self) -> Result<()> {
        if self.process.has_ended() {
            bail!("testpmd ended:\n{}", self.last_lines());
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}
