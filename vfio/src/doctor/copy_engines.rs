//! Engines that copy memory: who has them, what keeps mirach from them, and which way there is.

use drivers::bus::PciAddress;
use rustix::fs::{Access, access};

use super::{Finding, State};
use crate::bind::channels_in_use;
use crate::catalogue;
use crate::kernel::explain::iommu_parameters;
use crate::sysfs::{Sysfs, link_name, read};
use crate::work_queue::{WorkQueue, device_name};

/// CAP_SYS_RAWIO in the masks of `/proc/self/status` (Linux `include/uapi/linux/capability.h`).
const SYS_RAWIO: u64 = 1 << 17;
/// The device that Linux denies to vfio-pci, because its users can disturb each other (INTEL-SA-01084).
const DENIED: u16 = 0x0b25;

pub(super) fn examine(sysfs: &Sysfs) -> Vec<Finding> {
    let functions = sysfs.functions().unwrap_or_default();
    let mut findings: Vec<Finding> = functions
        .iter()
        .filter_map(|address| match sysfs.id(*address) {
            id if catalogue::is_dsa(id) => Some(dsa(sysfs, *address)),
            id if drivers::ioat::matches(id) => Some(ioat(sysfs, *address)),
            _ => None,
        })
        .collect();
    findings.extend(WorkQueue::all(sysfs).iter().map(|queue| work_queue(sysfs, queue)));
    findings
}

/// The driver that a function is bound to.
fn bound(sysfs: &Sysfs, address: PciAddress) -> Option<String> {
    link_name(&sysfs.function(address).join("driver"))
}

fn ioat(sysfs: &Sysfs, address: PciAddress) -> Finding {
    const TOPIC: &str = "I/OAT";
    if sysfs.group(address).is_none_or(|group| sysfs.group_lacks_iommu(group)) {
        let found = format!("{address} is behind no IOMMU, or the IOMMU is off, so that mirach cannot have it");
        return Finding::warning(TOPIC, found, iommu_parameters(sysfs));
    }
    let channels = channels_in_use(sysfs, address);
    if !channels.is_empty() {
        return Finding {
            topic: TOPIC,
            state: State::Good,
            found: format!("{address} is in use by the kernel ({})", channels.join(", ")),
            fix: Some(format!("leave it there, or end what uses it, and then: sudo mirach bind {address}")),
        };
    }
    match bound(sysfs, address).as_deref() {
        Some("vfio-pci") => Finding::good(TOPIC, format!("{address} is mirach's: --dma {address}")),
        driver => Finding {
            topic: TOPIC,
            state: State::Good,
            found: format!(
                "{address} has {}; mirach can drive it",
                driver.map_or("no driver".to_owned(), |it| format!("driver {it}"))
            ),
            fix: Some(format!("sudo mirach bind {address}")),
        },
    }
}

fn dsa(sysfs: &Sysfs, address: PciAddress) -> Finding {
    const TOPIC: &str = "DSA";
    let driver = bound(sysfs, address);
    if driver.as_deref() == Some("vfio-pci") {
        return Finding::good(TOPIC, format!("{address} is mirach's: --dma {address}"));
    }
    let listed = read(&sysfs.path("module/vfio_pci/parameters/disable_denylist"));
    let denied = sysfs.id(address).device == DENIED && listed.as_deref() != Some("Y");
    let Some(name) = driver.as_deref().filter(|driver| *driver == "idxd").and(device_name(&sysfs.function(address)))
    else {
        let owner = driver.map_or("no driver".to_owned(), |driver| format!("driver {driver}"));
        return if denied {
            Finding::warning(
                TOPIC,
                format!(
                    "{address} has {owner}; Linux denies it to vfio-pci, because its users can disturb each other (INTEL-SA-01084)"
                ),
                format!(
                    "either by idxd: sudo modprobe idxd, and ask again; or, only if every user of the machine is trusted: \
                     sudo modprobe -r vfio-pci; sudo modprobe vfio-pci disable_denylist=1; sudo mirach bind {address}"
                ),
            )
        } else {
            Finding {
                topic: TOPIC,
                state: State::Good,
                found: format!("{address} has {owner}; mirach can drive it"),
                fix: Some(format!("sudo mirach bind {address}")),
            }
        };
    };
    let attribute = |attribute: &str| read(&sysfs.path("bus/dsa/devices").join(&name).join(attribute));
    if attribute("pasid_enabled").as_deref() == Some("0") {
        return Finding::warning(
            TOPIC,
            format!("{address} is {name} of idxd, which has no PASIDs, so no process can use it"),
            "boot the kernel with intel_iommu=on,sm_on",
        );
    }
    let is_offered = |queue: &WorkQueue| queue.device == name && queue.enabled && queue.owner == "user";
    if WorkQueue::all(sysfs).iter().any(is_offered) {
        return Finding::good(TOPIC, format!("{address} is {name} of idxd, with work queues for processes"));
    }
    let number = name.trim_start_matches("dsa");
    Finding::warning(
        TOPIC,
        format!("{address} is {name} of idxd, and no work queue of it is for processes"),
        format!(
            "sudo accel-config config-wq --group-id=0 --mode=dedicated --wq-size=16 --type=user --driver-name=user --name=mirach \
             --priority=10 {name}/wq{number}.0 && sudo accel-config config-engine {name}/engine{number}.0 --group-id=0 && \
             sudo accel-config enable-device {name} && sudo accel-config enable-wq {name}/wq{number}.0"
        ),
    )
}

/// A work queue of idxd.
fn work_queue(sysfs: &Sysfs, queue: &WorkQueue) -> Finding {
    const TOPIC: &str = "DSA work queue";
    let WorkQueue { name, node, device, enabled, owner, shared, size, .. } = queue;
    let node = node.display();
    let kind = format!("{name}: {}, {size} entries", if *shared { "shared" } else { "dedicated" });
    if owner != "user" {
        return Finding::good(
            TOPIC,
            format!("{kind}, for {}", if owner == "kernel" { "the kernel" } else { "nobody" }),
        );
    }
    if !enabled {
        return Finding::warning(
            TOPIC,
            format!("{kind}, disabled"),
            format!("sudo accel-config enable-wq {device}/{name}"),
        );
    }
    if !queue.node.exists() {
        return Finding::warning(TOPIC, format!("{kind}, enabled, and {node} is missing"), "sudo udevadm trigger");
    }
    if access(&queue.node, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Finding::warning(
            TOPIC,
            format!("{kind}, and this user may not use {node}"),
            format!("sudo chown $USER {node}"),
        );
    }
    let status = read(&sysfs.process_file("self/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if mask & SYS_RAWIO == 0 {
        return Finding::warning(
            TOPIC,
            format!(
                "{kind}: --dma {node}; without CAP_SYS_RAWIO each submission is a system call, on Linux before 6.9 there is none \
                 (INTEL-SA-01084)"
            ),
            "sudo setcap cap_sys_rawio+ep $(command -v mirach)",
        );
    }
    Finding::good(TOPIC, format!("{kind}: --dma {node}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake::Machine;

    fn only(machine: &Machine, topic: &str) -> Finding {
        let mut findings = examine(&machine.sysfs());
        findings.retain(|finding| finding.topic == topic);
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings.remove(0)
    }

    fn sapphire_rapids(driver: Option<&str>) -> Machine {
        let machine = Machine::new();
        machine.function("0000:6a:01.0", 0x8086, 0x0b25, 0x08_8000, Some(4), driver);
        machine
    }

    #[test]
    fn a_denied_device_is_told_both_ways() {
        let machine = sapphire_rapids(None);
        let finding = only(&machine, "DSA");
        assert_eq!(finding.state, State::Warning);
        assert!(finding.found.contains("no driver") && finding.found.contains("INTEL-SA-01084"), "{finding:?}");
        let fix = finding.fix.unwrap();
        assert!(fix.contains("disable_denylist=1") && fix.contains("modprobe idxd"), "{fix}");
        machine.file("sys/module/vfio_pci/parameters/disable_denylist", "Y\n");
        let finding = only(&machine, "DSA");
        assert_eq!(finding.state, State::Good);
        assert!(finding.fix.unwrap().contains("mirach bind 0000:6a:01.0"));
        // Linux denies this one alone.
        let machine = Machine::new();
        machine.function("0000:6a:01.0", 0x8086, 0x11fb, 0x08_8000, Some(4), None);
        assert_eq!(only(&machine, "DSA").state, State::Good);
    }

    #[test]
    fn what_is_bound_to_vfio_is_ready() {
        let machine = sapphire_rapids(Some("vfio-pci"));
        machine.function("0000:00:04.0", 0x8086, 0x2021, 0x08_8000, Some(5), Some("vfio-pci"));
        for (topic, name) in [("DSA", "--dma 0000:6a:01.0"), ("I/OAT", "--dma 0000:00:04.0")] {
            let finding = only(&machine, topic);
            assert_eq!((finding.state, finding.fix), (State::Good, None));
            assert!(finding.found.contains(name), "{}", finding.found);
        }
        let machine = Machine::new();
        machine.function("0000:00:04.0", 0x8086, 0x2021, 0x08_8000, Some(5), Some("ioatdma"));
        let finding = only(&machine, "I/OAT");
        assert!(finding.found.contains("driver ioatdma") && finding.fix.unwrap().contains("mirach bind 0000:00:04.0"));
        machine.file("sys/devices/pci0000:00/0000:00:04.0/dma/dma0chan0/in_use", "1\n");
        let finding = only(&machine, "I/OAT");
        assert!(finding.found.contains("dma0chan0") && finding.fix.unwrap().contains("leave it"));
        let machine = Machine::new();
        machine.function("0000:00:04.0", 0x8086, 0x2021, 0x08_8000, None, None);
        let finding = only(&machine, "I/OAT");
        assert!(finding.state == State::Warning && finding.fix.unwrap().contains("iommu=on"));
    }

    #[test]
    fn a_device_of_idxd_is_followed_to_its_work_queues() {
        let machine = sapphire_rapids(Some("idxd"));
        machine.file("sys/devices/pci0000:00/0000:6a:01.0/dsa0/state", "enabled\n");
        machine.file("sys/bus/dsa/devices/dsa0/pasid_enabled", "0\n");
        assert!(only(&machine, "DSA").fix.unwrap().contains("sm_on"));
        machine.file("sys/bus/dsa/devices/dsa0/pasid_enabled", "1\n");
        assert!(only(&machine, "DSA").fix.unwrap().contains("accel-config config-wq"));
        machine.work_queue("wq0.0", "enabled", "kernel", "dedicated");
        assert!(only(&machine, "DSA work queue").found.contains("for the kernel"));
        machine.work_queue("wq0.0", "disabled", "user", "dedicated");
        assert_eq!(only(&machine, "DSA work queue").fix.unwrap(), "sudo accel-config enable-wq dsa0/wq0.0");
        machine.work_queue("wq0.0", "enabled", "user", "dedicated");
        assert_eq!(only(&machine, "DSA").state, State::Good);
        assert!(only(&machine, "DSA work queue").found.contains("is missing"));
        machine.file("dev/dsa/wq0.0", "");
        machine.file("proc/self/status", "Name:\tmirach\nCapEff:\t0000000000000000\n");
        let finding = only(&machine, "DSA work queue");
        assert!(
            finding.found.contains("CAP_SYS_RAWIO") && finding.fix.unwrap().contains("setcap"),
            "{}",
            finding.found
        );
        machine.file("proc/self/status", "Name:\tmirach\nCapEff:\t0000000000020000\n");
        let finding = only(&machine, "DSA work queue");
        assert_eq!((finding.state, finding.fix), (State::Good, None));
        assert!(finding.found.contains("wq0.0: dedicated, 16 entries: --dma "), "{}", finding.found);
    }
}
