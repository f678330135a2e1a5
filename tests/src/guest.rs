//! Guests: a QEMU process, its files, and the agent in it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use serde_json::json;
use tempfile::TempDir;

use crate::agent::{Agent, Answer};
use crate::cache::{self, Kernel};
use crate::process::Running;
use crate::{initramfs, leftovers};

/// From starting QEMU to the agent's first word; 4 to 12 s on an idle machine, and machines are not always idle.
const BOOT: Duration = Duration::from_secs(240);

/// What every kernel is told. Neither of the clock and of its interrupt is tested at boot: on a busy host a test that
/// goes by time fails, and with it the boot.
const PARAMETERS: &str = "console=ttyS0 panic=-1 loglevel=5 intel_iommu=on tsc=reliable no_timer_check";

/// A network device of a guest.
pub struct Nic {
    /// Its slot on the PCI bus: slot 3 is `0000:00:03.0`.
    pub slot: u8,
    /// What it is.
    pub kind: NicKind,
}

/// What a network device is and what is behind it.
pub enum NicKind {
    /// QEMU's virtio-net device on a tap.
    VirtioTap {
        /// The queues of the tap; as many queue pairs has the device.
        queues: Vec<File>,
        /// Whether it offers packed rings.
        packed: bool,
    },
    /// QEMU's virtio-net device on a hub of QEMU, with all other such devices of this guest, and with an MTU of 9000.
    VirtioHub,
    /// A device that another process serves at this socket by the vfio-user protocol.
    VfioUser(PathBuf),
}

/// What a guest is made of.
pub struct Machine<'a> {
    /// The kernel that it boots.
    pub kernel: Kernel,
    /// The modules that are loaded when the kernel has modules.
    pub modules: &'a [&'a str],
    /// The static binaries in its `/bin`, beside busybox.
    pub programs: &'a [&'a str],
    /// Programs of this host in its `/tools`.
    pub tools: &'a [&'a str],
    /// Its network devices.
    pub nics: Vec<Nic>,
    /// How many processors it has.
    pub processors: u32,
    /// Its memory; of the host's it takes what the guest touches.
    pub memory_mib: u32,
    /// Parameters for its kernel, beside those that every guest has.
    pub parameters: &'a str,
}

/// The MTU of the devices on a hub, which no tap limits.
const JUMBO: u16 = 9000;

/// The PCI address of the NVMe controller that every guest has: no network card, and with a function reset. It has no
/// storage.
pub const CONTROLLER: &str = "0000:00:05.0";

/// A running guest, killed on drop.
pub struct Guest {
    agent: Agent,
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
        let folder = leftovers::folder("guest")?;
        let initrd = folder.path().join("initrd");
        fs::write(&initrd, initramfs::build(machine.kernel, machine.modules, machine.programs, machine.tools)?)?;

        let mut command = cache::qemu()?;
        command
            .args(["-machine", "q35,accel=tcg,kernel-irqchip=split,memory-backend=ram", "-cpu", "max"])
            .args(["-smp", &machine.processors.to_string()])
            .arg("-m")
            .arg(format!("{}M", machine.memory_mib))
            .arg("-object")
            .arg(format!("memory-backend-memfd,id=ram,size={}M,share=on", machine.memory_mib))
            .args(["-nodefaults", "-no-reboot", "-display", "none", "-monitor", "none"])
            .args(["-device", "intel-iommu,intremap=on,caching-mode=on"])
            .args(["-device", "nvme,serial=lab,addr=0x5"])
            .arg("-kernel")
            .arg(cache::entry(machine.kernel.entry())?.join("vmlinuz"))
            .arg("-initrd")
            .arg(&initrd)
            .arg("-append")
            .arg(format!("{PARAMETERS} {}", machine.parameters))
            .arg("-serial")
            .arg(format!("file:{}", folder.path().join("console").display()))
            .arg("-serial")
            .arg(format!("unix:{},server=on,wait=off", folder.path().join("agent").display()));
        for nic in &machine.nics {
            command.args(device(nic)?);
        }
        let output = File::create(folder.path().join("qemu"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut qemu = Running(command.spawn().context("cannot start QEMU")?);
        // The queues are QEMU's alone from here on.
        drop(machine.nics);

        let agent = Agent::connect(&folder.path().join("agent"), BOOT, || {
            if qemu.has_ended() {
                bail!("QEMU ended");
            }
            Ok(())
        });
        match agent {
            Ok(agent) => Ok(Self { agent, qemu, folder }),
            Err(error) => Err(error.context(format!(
                "the guest with the kernel `{}` did not boot\n{}\n{}",
                machine.kernel.entry(),
                tail(&folder.path().join("qemu")),
                tail(&folder.path().join("console")),
            ))),
        }
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

/// QEMU's arguments for a device.
fn device(nic: &Nic) -> Result<Vec<String>> {
    let slot = nic.slot;
    match &nic.kind {
        NicKind::VirtioTap { queues, packed } => {
            let mut descriptors = Vec::new();
            for queue in queues {
                // QEMU inherits the queue under the number that it has here.
                fcntl_setfd(queue, FdFlags::empty())?;
                descriptors.push(queue.as_raw_fd().to_string());
            }
            let key = if queues.len() > 1 { "fds" } else { "fd" };
            let backend = format!("tap,id=net{slot},{key}={}", descriptors.join(":"));
            Ok(virtio(slot, backend, queues.len(), *packed, None))
        }
        NicKind::VirtioHub => Ok(virtio(slot, format!("hubport,id=net{slot},hubid=0"), 1, true, Some(JUMBO))),
        NicKind::VfioUser(socket) => {
            let address = format!("{slot:#x}");
            let socket = json!({ "type": "unix", "path": socket });
            // The older form of the option has no way to say what a socket is.
            let device = json!({ "driver": "vfio-user-pci", "addr": address, "socket": socket });
            Ok(vec!["-device".to_owned(), device.to_string()])
        }
    }
}

fn virtio(slot: u8, backend: String, pairs: usize, packed: bool, mtu: Option<u16>) -> Vec<String> {
    let on = |yes| if yes { "on" } else { "off" };
    let mtu = mtu.map_or_else(String::new, |mtu| format!(",host_mtu={mtu}"));
    // One vector for each queue, one for configuration changes, one for the control queue.
    let device = format!(
        "virtio-net-pci,netdev=net{slot},addr={slot:#x},mac=52:54:00:00:00:{slot:02x},romfile=,disable-legacy=on,\
         iommu_platform=on,packed={},mq={},vectors={}{mtu}",
        on(packed),
        on(pairs > 1),
        2 * pairs + 2,
    );
    vec!["-netdev".to_owned(), backend, "-device".to_owned(), device]
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
