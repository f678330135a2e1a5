//! IOMMU, VFIO and who may use it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::Finding;
use crate::kernel::explain::iommu_parameters;
use crate::sysfs::{Sysfs, names, read};

pub(super) fn examine(sysfs: &Sysfs) -> Vec<Finding> {
    let mut findings = vec![iommu(sysfs), module(sysfs), interfaces(sysfs)];
    findings.extend(permissions(sysfs));
    findings.extend(unsafe_modes(sysfs));
    findings
}

fn iommu(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "IOMMU";
    let groups = names(&sysfs.path("kernel/iommu_groups")).unwrap_or_default();
    let real = groups.iter().filter(|group| group.parse().is_ok_and(|group| !sysfs.group_lacks_iommu(group))).count();
    if real == 0 {
        return Finding::bad(TOPIC, "off or missing: no device is in an IOMMU group", iommu_parameters(sysfs));
    }
    let units = names(&sysfs.path("class/iommu")).unwrap_or_default();
    let units = if units.is_empty() { String::new() } else { format!(" ({})", units.join(", ")) };
    Finding::good(TOPIC, format!("on, {real} groups{units}"))
}

fn module(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "vfio-pci";
    if sysfs.path("bus/pci/drivers/vfio-pci").exists() {
        return Finding::good(TOPIC, "loaded");
    }
    let release = read(&sysfs.process_file("sys/kernel/osrelease")).unwrap_or_default();
    let listed = |file: &str| {
        let text = read(&sysfs.module_file(&release).join(file)).unwrap_or_default();
        text.lines().any(|line| line.contains("/vfio-pci.ko"))
    };
    if !release.is_empty() && (listed("modules.dep") || listed("modules.builtin")) {
        return Finding::bad(TOPIC, "there, but not loaded", "sudo modprobe vfio-pci");
    }
    Finding::bad(
        TOPIC,
        "not loaded, and not among the modules of this kernel",
        "install the kernel's modules, or a kernel with CONFIG_VFIO_PCI",
    )
}

fn interfaces(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "VFIO interfaces";
    let type1 = sysfs.device_node("vfio/vfio").exists();
    let iommufd = sysfs.device_node("iommu").exists();
    match (type1, iommufd) {
        (true, true) => Finding::good(TOPIC, "type1 (/dev/vfio/vfio) and iommufd (/dev/iommu)"),
        (true, false) => Finding::good(TOPIC, "type1 (/dev/vfio/vfio); no iommufd, which is not needed then"),
        (false, true) => Finding::good(TOPIC, "iommufd (/dev/iommu)"),
        (false, false) => {
            let cure = module(sysfs).fix.unwrap_or_else(|| "sudo modprobe vfio_iommu_type1".to_owned());
            Finding::bad(TOPIC, "neither /dev/vfio/vfio nor /dev/iommu is there", cure)
        }
    }
}

/// Whether this process may use the devices that are bound to VFIO.
fn permissions(sysfs: &Sysfs) -> Vec<Finding> {
    const TOPIC: &str = "permissions";
    let folder = sysfs.device_node("vfio");
    let mut nodes: Vec<_> = names(&folder)
        .unwrap_or_default()
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .map(|name| folder.join(name))
        .collect();
    let devices = folder.join("devices");
    nodes.extend(names(&devices).unwrap_or_default().into_iter().map(|name| devices.join(name)));
    if nodes.is_empty() {
        return vec![Finding::unknown(TOPIC, "no device is bound to vfio-pci yet")];
    }
    nodes.push(folder.join("vfio"));
    nodes.push(sysfs.device_node("iommu"));
    let user = geteuid().as_raw();
    let refused: Vec<&Path> = nodes
        .iter()
        .map(AsRef::as_ref)
        .filter(|node: &&Path| node.exists() && access(*node, Access::READ_OK | Access::WRITE_OK).is_err())
        .collect();
    if refused.is_empty() {
        return vec![Finding::good(
            TOPIC,
            format!("user {user} may use all {} files", nodes.iter().filter(|node| node.exists()).count()),
        )];
    }
    refused
        .into_iter()
        .map(|node| {
            let owner = fs::metadata(node).map_or_else(
                |_| "unknown owner".to_owned(),
                |facts| format!("user {}, group {}, mode {:04o}", facts.uid(), facts.gid(), facts.mode() & 0o7777),
            );
            Finding::warning(
                TOPIC,
                format!("user {user} may not use {} ({owner})", node.display()),
                format!("sudo chown {user} {}", node.display()),
            )
        })
        .collect()
}

/// Switches that give up protection.
fn unsafe_modes(sysfs: &Sysfs) -> Vec<Finding> {
    const TOPIC: &str = "protection";
    [
        (
            "vfio",
            "enable_unsafe_noiommu_mode",
            "VFIO offers devices without IOMMU to other programs (mirach never uses them)",
        ),
        (
            "vfio_iommu_type1",
            "allow_unsafe_interrupts",
            "type1 accepts an IOMMU that cannot remap interrupts: a device could forge them",
        ),
        (
            "iommufd",
            "allow_unsafe_interrupts",
            "iommufd accepts an IOMMU that cannot remap interrupts: a device could forge them",
        ),
    ]
    .into_iter()
    .filter_map(|(module, parameter, meaning)| {
        let path = format!("module/{module}/parameters/{parameter}");
        let on = matches!(read(&sysfs.path(&path)).as_deref(), Some("Y" | "1"));
        on.then(|| Finding::warning(TOPIC, meaning, format!("echo N | sudo tee /sys/{path}")))
    })
    .collect()
}
