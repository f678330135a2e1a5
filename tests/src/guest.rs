//! Guests: a QEMU process, its files, and the agent in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Agent, Answer};
use crate::cache;
use crate::monitor::Monitor;
use crate::process::Running;
use crate::{initramfs, leftovers, wait};

pub use crate::machine::{CONTROLLER, Machine, Nic, NicKind, VhostUser};

/// From starting QEMU to the agent's first word; 4 to 12 s on an idle machine, and machines are not always idle.
const BOOT: Duration = Duration::from_secs(240);

/// For a guest to be moved, with traffic that keeps changing its memory.
const MIGRATION: Duration = Duration::from_secs(120);

/// What every kernel is told. Neither of the clock and of its interrupt is tested at boot: on a busy host a test that
/// goes by time fails, and with it the boot.
const PARAMETERS: &str = "console=ttyS0 panic=-1 loglevel=5 intel_iommu=on tsc=reliable no_timer_check";

/// A guest that was started and may not be up yet: several boot in the time that one takes.
pub struct Booting {
    kernel: &'static str,
    agent: Agent,
    qemu: Running,
    folder: TempDir,
}

impl Booting {
    /// Starts QEMU.
    ///
    /// # Errors
    ///
    /// Something is missing on this host.
    pub fn start(machine: Machine<'_>) -> Result<Self> {
        let folder = leftovers::folder("guest")?;
        let mut qemu = start(&machine, folder.path(), &[])?;
        // Now: what a guest says to nobody is lost.
        let agent = Agent::attach(&folder.path().join("agent"), BOOT, || alive(&mut qemu))
            .with_context(|| tail(&folder.path().join("qemu")))?;
        // With the machine go the queues of taps: they are QEMU's alone from here on.
        Ok(Self { kernel: machine.kernel.entry(), agent, qemu, folder })
    }

    /// Waits for the guest's agent.
    ///
    /// # Errors
    ///
    /// The guest does not come up; the error has the end of its kernel's log.
    pub fn finish(self) -> Result<Guest> {
        let Self { kernel, mut agent, mut qemu, folder } = self;
        let monitor = agent
            .await_ready(BOOT, || alive(&mut qemu))
            .and_then(|()| Monitor::connect(&folder.path().join("monitor"), || alive(&mut qemu)))
            .with_context(|| {
                format!(
                    "the guest with the kernel `{kernel}` did not boot\n{}\n{}",
                    tail(&folder.path().join("qemu")),
                    tail(&folder.path().join("console")),
                )
            })?;
        Ok(Guest { agent, monitor, qemu, folder })
    }
}

/// A running guest, killed on drop.
pub struct Guest {
    agent: Agent,
    monitor: Monitor,
    qemu: Running,
    folder: TempDir,
}

impl Guest {
    /// Boots a guest and waits for its agent.
    ///
    /// # Errors
    ///
    /// Something is missing on this host, or the guest does not come up; the error has the end of its kernel's log.
    pub fn boot(machine: Machine<'_>) -> Result<Self> {
        Booting::start(machine)?.finish()
    }

    /// Moves the guest, which runs on, to another QEMU, whose devices have the sockets of `machine`.
    ///
    /// # Errors
    ///
    /// QEMU refused, or it did not end in time.
    pub fn migrate(mut self, machine: &Machine<'_>) -> Result<Self> {
        let folder = leftovers::folder("guest")?;
        let socket = folder.path().join("migration");
        let uri = format!("unix:{}", socket.display());
        let mut qemu = start(machine, folder.path(), &["-incoming", &uri])?;
        let agent = Agent::attach(&folder.path().join("agent"), BOOT, || alive(&mut qemu));
        let mut agent = agent.with_context(|| tail(&folder.path().join("qemu")))?;
        agent.go_on_after(&self.agent);
        let monitor = Monitor::connect(&folder.path().join("monitor"), || alive(&mut qemu))?;
        self.monitor.run("migrate", json!({ "uri": uri }))?;
        wait::until("the end of the migration", MIGRATION, || {
            let state = self.monitor.run("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => {
                    println!("    moved: {} bytes, {} ms still", state["ram"]["transferred"], state["downtime"]);
                    Ok(Some(()))
                }
                Some("failed" | "cancelled") => bail!("{state}"),
                _ => Ok(None),
            }
        })
        .with_context(|| {
            format!("{}\n{}", tail(&self.folder.path().join("qemu")), tail(&folder.path().join("qemu")))
        })?;
        Ok(Self { agent, monitor, qemu, folder })
    }

    /// QEMU's monitor.
    pub fn monitor(&mut self) -> &mut Monitor {
        &mut self.monitor
    }

    /// Resets the guest, as a button would, and waits until it is up again.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn reset(&mut self) -> Result<()> {
        self.monitor.run("system_reset", json!({}))?;
        self.booted_again()
    }

    /// Waits until the guest, which is about to start anew, is up again.
    ///
    /// # Errors
    ///
    /// It does not come up.
    pub fn booted_again(&mut self) -> Result<()> {
        let Self { agent, qemu, folder, .. } = self;
        agent
            .await_ready(BOOT, || alive(qemu))
            .with_context(|| format!("{}\n{}", tail(&folder.path().join("qemu")), tail(&folder.path().join("console"))))
    }

    /// Runs a line of shell in the guest and returns what it printed and its exit status.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn run(&mut self, command: &str, limit: Duration) -> Result<Answer> {
        self.agent.run(command, limit).with_context(|| {
            let ended = if self.qemu.has_ended() { "QEMU ended" } else { "QEMU runs" };
            format!("{ended}\n{}\n{}", tail(&self.folder.path().join("qemu")), self.console())
        })
    }

    /// Runs a line of shell that has to succeed within a minute, and returns what it printed.
    ///
    /// # Errors
    ///
    /// The guest did not answer, or the command failed.
    pub fn must(&mut self, command: &str) -> Result<String> {
        let answer = self.run(command, Duration::from_secs(60))?;
        if answer.status != 0 {
            bail!("`{command}` ended with status {} in the guest: {}", answer.status, answer.output.trim());
        }
        Ok(answer.output)
    }

    /// The end of what the kernel wrote on its console.
    #[must_use]
    pub fn console(&self) -> String {
        tail(&self.folder.path().join("console"))
    }

    /// The lines of the kernel's log that tell of DMA outside of what was mapped.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn iommu_faults(&mut self) -> Result<Vec<String>> {
        let log = self.must("dmesg")?;
        Ok(log.lines().filter(|line| is_iommu_fault(line)).map(str::to_owned).collect())
    }
}

/// The lines of the Intel IOMMU's driver for a translation fault (drivers/iommu/intel/dmar.c, `dmar_fault_do_one`).
fn is_iommu_fault(line: &str) -> bool {
    line.contains("DMAR:")
        && (line.contains("fault addr") || line.contains("fault reason") || line.contains("fault status"))
}

/// Starts QEMU, with its files in `folder`.
fn start(machine: &Machine<'_>, folder: &Path, more: &[&str]) -> Result<Running> {
    let initrd = folder.join("initrd");
    fs::write(&initrd, initramfs::build(machine.kernel, machine.modules, machine.programs, machine.tools)?)?;
    let mut command = cache::qemu()?;
    command
        .args(machine.arguments()?)
        .args(more)
        .arg("-kernel")
        .arg(cache::entry(machine.kernel.entry())?.join("vmlinuz"))
        .arg("-initrd")
        .arg(&initrd)
        .arg("-append")
        .arg(format!("{PARAMETERS} {}", machine.parameters))
        .arg("-serial")
        .arg(format!("file:{}", folder.join("console").display()))
        .arg("-serial")
        .arg(format!("unix:{},server=on,wait=off", folder.join("agent").display()))
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", folder.join("monitor").display()));
    let output = File::create(folder.join("qemu"))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    Ok(Running(command.spawn().context("cannot start QEMU")?))
}

/// Fails when QEMU has ended.
fn alive(qemu: &mut Running) -> Result<()> {
    if qemu.has_ended() {
        bail!("QEMU ended");
    }
    Ok(())
}

fn tail(path: &PathBuf) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::is_iommu_fault;

    #[test]
    fn faults_are_told_from_what_the_iommu_says_at_boot() {
        assert!(is_iommu_fault(
            "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0xdead000 [fault reason 0x06]"
        ));
        assert!(is_iommu_fault("DMAR: DRHD: handling fault status reg 2"));
        assert!(!is_iommu_fault("DMAR: Intel(R) Virtualization Technology for Directed I/O"));
        assert!(!is_iommu_fault("usb: fault addr 0"));
    }
}
