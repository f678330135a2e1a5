//! Turns what the kernel refuses into one sentence with the command that mends it.

use std::io;
use std::path::Path;

use drivers::bus::{BusError, PciAddress};
use rustix::process::{Resource, geteuid, getrlimit};

use super::Interface;
use crate::sysfs::{Sysfs, is_vfio, read};

/// Opening `address` failed for `reason`.
pub(crate) fn refused(address: PciAddress, reason: impl Into<String>) -> BusError {
    BusError::System { device: address.to_string(), action: "cannot open the device".into(), reason: reason.into() }
}

/// What switches this machine's IOMMU on. Firmware that offers one leaves a table of it: DMAR for Intel's, IVRS for AMD's.
pub(crate) fn iommu_parameters(sysfs: &Sysfs) -> &'static str {
    const INTEL: &str = "boot the kernel with intel_iommu=on";
    const AMD: &str = "boot the kernel without amd_iommu=off and iommu=off";
    const INTEL_FIRMWARE: &str = "switch VT-d on in the firmware, and boot the kernel with intel_iommu=on";
    const AMD_FIRMWARE: &str =
        "switch the IOMMU (AMD-Vi) on in the firmware, and boot the kernel without amd_iommu=off";
    let table = |name: &str| sysfs.path("firmware/acpi/tables").join(name).exists();
    let processor = read(&sysfs.process_file("cpuinfo")).unwrap_or_default();
    match (table("DMAR"), table("IVRS")) {
        (true, _) => INTEL,
        (false, true) => AMD,
        _ if processor.contains("AuthenticAMD") || processor.contains("HygonGenuine") => AMD_FIRMWARE,
        _ => INTEL_FIRMWARE,
    }
}

/// What is wrong with `address` before anything is opened, if something is.
pub(crate) fn before_opening(sysfs: &Sysfs, address: PciAddress) -> Result<u32, BusError> {
    if !sysfs.has_function(address) {
        return Err(refused(address, "there is no such PCI device; `mirach devices` lists those that there are"));
    }
    let driver = sysfs.driver(address);
    let Some(group) = sysfs.group(address) else {
        return Err(refused(
            address,
            format!("it is behind no IOMMU, or the IOMMU is off: {}", iommu_parameters(sysfs)),
        ));
    };
    if sysfs.group_lacks_iommu(group) {
        return Err(refused(
            address,
            format!(
                "its group is a no-IOMMU group, in which the device could overwrite all memory; mirach does not use those: {}",
                iommu_parameters(sysfs)
            ),
        ));
    }
    match driver {
        Some(driver) if is_vfio(&driver) => Ok(group),
        _ if !sysfs.path("bus/pci/drivers/vfio-pci").exists() => Err(refused(
            address,
            format!("the module vfio-pci is not loaded: run `modprobe vfio-pci`, then `mirach bind {address}`"),
        )),
        Some(driver) => {
            Err(refused(address, format!("it is bound to {driver} and not to vfio-pci: run `mirach bind {address}`")))
        }
        None => {
            Err(refused(address, format!("it is bound to no driver and not to vfio-pci: run `mirach bind {address}`")))
        }
    }
}

/// Opening the file at `path` failed.
pub(crate) fn node(sysfs: &Sysfs, address: PciAddress, path: &Path, error: &io::Error) -> BusError {
    let reason = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => permission(path),
        Some(libc::EBUSY) => in_use(sysfs, address),
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => missing(path),
        _ => format!("{} cannot be opened: {error}", path.display()),
    };
    refused(address, reason)
}

fn missing(path: &Path) -> String {
    let shown = path.display();
    match path.file_name().and_then(|name| name.to_str()) {
        Some("vfio") => format!(
            "{shown} is missing: run `modprobe vfio`, or use the iommufd interface if this kernel has no VFIO containers"
        ),
        Some("iommu") => format!(
            "{shown} is missing: this kernel has no iommufd (CONFIG_IOMMUFD), or the module is not loaded: run `modprobe iommufd`, or use the type1 interface"
        ),
        Some(name) if name.starts_with("vfio") => format!(
            "{shown} is missing: this kernel has no VFIO character devices (CONFIG_VFIO_DEVICE_CDEV); use the type1 interface"
        ),
        _ => format!(
            "{shown} is missing: this kernel has no VFIO groups (CONFIG_VFIO_GROUP), or udev does not run; use the iommufd interface"
        ),
    }
}

fn permission(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    let user = geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(facts) => format!(
            "no permission for {shown}: it belongs to user {} and group {} with mode {:04o}, and this process runs as user {user}: run `sudo chown {user} {shown}`",
            facts.uid(),
            facts.gid(),
            facts.mode() & 0o7777
        ),
        Err(_) => {
            format!("no permission for {shown}, and this process runs as user {user}: run `sudo chown {user} {shown}`")
        }
    }
}

/// Somebody has the device or its group. This attempt itself may hold one of the files.
fn in_use(sysfs: &Sysfs, address: PciAddress) -> String {
    let files = sysfs.vfio_files(address);
    let users = sysfs.users(&files);
    let own = std::process::id();
    if let Some(other) = users.iter().find(|user| user.process != own) {
        let group = sysfs.group(address).filter(|group| sysfs.group_members(*group).len() > 1);
        let what =
            group.map_or_else(|| "it".into(), |group| format!("it or another device of its IOMMU group {group}"));
        return format!("{what} is in use by process {} ({}): stop that process first", other.process, other.name);
    }
    if !users.is_empty() {
        return "this process already uses it or another device of its IOMMU group: name each device once, and use only one device of a group".into();
    }
    format!(
        "it is in use by a process that cannot be seen from here: find it with `sudo fuser -v{}`",
        files.iter().map(|path| format!(" {}", path.display())).collect::<String>()
    )
}

/// Whether a file of the device or its group is open beside the one that this attempt has.
fn is_open_elsewhere(sysfs: &Sysfs, address: PciAddress) -> bool {
    sysfs.users(&sysfs.vfio_files(address)).iter().map(|user| user.files).sum::<usize>() > 1
}

/// The kernel does not let the group be used because of other members of it.
pub(crate) fn not_viable(sysfs: &Sysfs, address: PciAddress, group: u32) -> String {
    let blockers = sysfs.group_blockers(group);
    if blockers.is_empty() {
        return format!(
            "IOMMU group {group} is not viable: a device in it is used by the kernel; `mirach devices --all` shows its members"
        );
    }
    let held: Vec<String> = blockers.iter().map(|(member, driver)| format!("{member} by {driver}")).collect();
    let others: Vec<String> = blockers.iter().map(|(member, _)| member.to_string()).collect();
    format!(
        "IOMMU group {group} of {address} is not viable, because the kernel still drives other devices in it ({}): run `mirach bind {}` too, or move the card to a slot with a group of its own",
        held.join(", "),
        others.join(" ")
    )
}

/// Attaching the device to its address space failed.
pub(crate) fn attach(
    sysfs: &Sysfs,
    address: PciAddress,
    group: u32,
    interface: Interface,
    error: &io::Error,
) -> BusError {
    let reason = match error.raw_os_error() {
        _ if !sysfs.group_blockers(group).is_empty() => not_viable(sysfs, address, group),
        // The kernel has no one number for this: EINVAL for the same device, EPERM for another one of the group.
        Some(libc::EBUSY | libc::EINVAL | libc::EPERM) if is_open_elsewhere(sysfs, address) => in_use(sysfs, address),
        Some(libc::EPERM) if interface == Interface::Iommufd => "the IOMMU cannot remap interrupts, so the device could forge them; switch interrupt remapping on in the firmware, or, if you trust the device, run `echo 1 > /sys/module/iommufd/parameters/allow_unsafe_interrupts`".into(),
        Some(libc::EPERM) => "the IOMMU cannot remap interrupts, so the device could forge them; switch interrupt remapping on in the firmware, or, if you trust the device, run `echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts`".into(),
        Some(libc::ENODEV | libc::ENOTTY) if interface == Interface::Type1 => "this kernel has no type1 IOMMU support for VFIO: run `modprobe vfio_iommu_type1`".into(),
        Some(libc::ENOTTY) => "this kernel's VFIO cannot bind devices to iommufd (CONFIG_VFIO_DEVICE_CDEV): use the type1 interface".into(),
        Some(libc::EBUSY) => in_use(sysfs, address),
        Some(libc::EINVAL) if interface == Interface::Iommufd && sysfs.group_members(group).len() > 1 => format!("another device of its IOMMU group {group} is attached to another address space; devices of one group cannot be kept apart"),
        _ => format!("the kernel refuses to attach it to an address space: {error}"),
    };
    refused(address, reason)
}

/// Mapping `bytes` bytes for the device failed.
pub(crate) fn mapping(sysfs: &Sysfs, bytes: u64, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => lock_limit(bytes),
        Some(libc::ENOSPC) => {
            let limit = read(&sysfs.path("module/vfio_iommu_type1/parameters/dma_entry_limit"));
            format!(
                "the kernel's limit of {} mappings for one container is used up: use huge pages or fewer regions, or raise the limit with `echo 1000000 > /sys/module/vfio_iommu_type1/parameters/dma_entry_limit` before starting",
                limit.as_deref().unwrap_or("65535")
            )
        }
        Some(libc::EEXIST | libc::EADDRINUSE) => {
            "another region is mapped there; give each region an IOVA of its own".into()
        }
        Some(libc::EINVAL | libc::ERANGE) => {
            "the IOMMU cannot translate this range; allocate the region inside the ranges that the device reports"
                .into()
        }
        Some(libc::EFAULT) => {
            "the memory cannot be pinned for DMA (a page of it is not present or not writable)".into()
        }
        _ => error.to_string(),
    }
}

fn lock_limit(bytes: u64) -> String {
    match getrlimit(Resource::Memlock).current {
        Some(limit) => format!(
            "{bytes} more bytes have to be locked, and the limit of locked memory (RLIMIT_MEMLOCK) is {limit} bytes: raise it with `ulimit -l unlimited`, with `LimitMEMLOCK=infinity` in the systemd unit, or give the process CAP_IPC_LOCK"
        ),
        None => format!("the kernel has no memory left to lock {bytes} bytes, although RLIMIT_MEMLOCK is unlimited"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake::Machine;

    #[test]
    fn out_of_lockable_memory_names_the_limit_and_the_cures() {
        let error = io::Error::from_raw_os_error(libc::ENOMEM);
        let text = mapping(&Sysfs::under("/nonexistent"), 123_456, &error);
        assert!(text.contains("RLIMIT_MEMLOCK") && text.contains("123456"), "{text}");
    }

    #[test]
    fn what_can_be_seen_before_opening_is_said_with_its_cure() {
        let machine = Machine::new();
        let card = |slot: u8, group, driver| {
            let address = format!("0000:00:{slot:02x}.0");
            machine.function(&address, 0x1af4, 0x1041, 0x02_0000, group, driver);
        };
        card(3, Some(1), Some("virtio-pci"));
        card(4, None, Some("vfio-pci"));
        card(5, Some(2), Some("vfio-pci"));
        card(6, Some(3), None);
        card(7, Some(4), Some("vfio-pci"));
        machine.file("sys/kernel/iommu_groups/2/name", "vfio-noiommu\n");
        machine.file("sys/firmware/acpi/tables/IVRS", "");
        let sysfs = machine.sysfs();
        let said = |slot: u8| {
            let address = PciAddress { domain: 0, bus: 0, device: slot, function: 0 };
            crate::Function::open_in(&sysfs, address, Interface::Auto).unwrap_err().to_string()
        };
        assert!(said(3).contains("virtio-pci") && said(3).contains("mirach bind 0000:00:03.0"), "{}", said(3));
        assert!(said(4).contains("amd_iommu=off"), "{}", said(4));
        assert!(said(5).contains("no-IOMMU group"), "{}", said(5));
        assert!(said(6).contains("no driver"), "{}", said(6));
        assert!(said(7).contains("modprobe vfio"), "the container's file is missing: {}", said(7));
        assert!(said(9).contains("no such PCI device"), "{}", said(9));
        machine.remove("sys/bus/pci/drivers/vfio-pci");
        assert!(said(3).contains("modprobe vfio-pci"), "{}", said(3));
    }

    #[test]
    fn members_that_block_a_group_are_named_with_the_cure() {
        let machine = Machine::new();
        machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x02_0000, Some(1), Some("vfio-pci"));
        machine.function("0000:00:03.1", 0x1af4, 0x1041, 0x02_0000, Some(1), Some("virtio-pci"));
        let address = "0000:00:03.0".parse().unwrap();
        let text = not_viable(&machine.sysfs(), address, 1);
        assert!(text.contains("0000:00:03.1 by virtio-pci") && text.contains("mirach bind 0000:00:03.1"), "{text}");
    }

    #[test]
    fn out_of_mappings_names_the_module_parameter() {
        let error = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(mapping(&Sysfs::under("/nonexistent"), 1, &error).contains("dma_entry_limit"));
    }

    #[test]
    fn a_missing_file_says_which_part_of_the_kernel_is_missing() {
        for (path, word) in [
            ("/dev/vfio/vfio", "modprobe vfio"),
            ("/dev/iommu", "CONFIG_IOMMUFD"),
            ("/dev/vfio/devices/vfio0", "CONFIG_VFIO_DEVICE_CDEV"),
            ("/dev/vfio/17", "CONFIG_VFIO_GROUP"),
        ] {
            assert!(missing(Path::new(path)).contains(word), "{path}");
        }
    }
}
