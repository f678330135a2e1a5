//! Work queues of Intel DSA devices that the kernel's `idxd` driver has, as `/sys/bus/dsa` shows them (Linux,
//! Documentation/ABI/stable/sysfs-driver-dma-idxd).

use std::path::PathBuf;

use crate::sysfs::{Sysfs, names, read};

/// A work queue of the kernel's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkQueue {
    /// Its name: `wq0.1` is queue 1 of device `dsa0`.
    pub name: String,
    /// The file by which processes use it, once it is enabled for them.
    pub node: PathBuf,
    /// Its device: `dsa0`.
    pub device: String,
    /// The kernel has enabled it.
    pub enabled: bool,
    /// Whom it is for: `user`, `kernel` or `none`.
    pub owner: String,
    /// Several can submit to it at the same time; otherwise it has one user.
    pub shared: bool,
    /// Descriptors that it holds.
    pub size: u16,
    /// Descriptors in a batch, at most.
    pub batch: u32,
    /// Bytes of a copy, at most.
    pub longest: u64,
}

impl WorkQueue {
    /// The work queue that is called so: `wq0.1`, or `/dev/dsa/wq0.1`. `None` when the kernel shows no such queue.
    #[must_use]
    pub fn find(sysfs: &Sysfs, name: &str) -> Option<Self> {
        let name = name.rsplit('/').next()?;
        let (device, queue) = name.strip_prefix("wq")?.split_once('.')?;
        let (device, _) = (device.parse::<u16>().ok()?, queue.parse::<u16>().ok()?);
        let folder = sysfs.path("bus/dsa/devices").join(name);
        let text = |attribute: &str| read(&folder.join(attribute));
        let number = |attribute: &str| text(attribute)?.parse::<u64>().ok();
        Some(Self {
            name: name.to_owned(),
            node: sysfs.device_node("dsa").join(name),
            device: format!("dsa{device}"),
            enabled: text("state")? == "enabled",
            owner: text("type").unwrap_or_default(),
            shared: text("mode")? == "shared",
            size: u16::try_from(number("size")?).unwrap_or(u16::MAX),
            batch: number("max_batch_size").and_then(|batch| u32::try_from(batch).ok()).unwrap_or(1),
            longest: number("max_transfer_size").unwrap_or(0),
        })
    }

    /// All that the kernel shows, by name.
    #[must_use]
    pub fn all(sysfs: &Sysfs) -> Vec<Self> {
        let mut names = names(&sysfs.path("bus/dsa/devices")).unwrap_or_default();
        names.sort_unstable();
        names.iter().filter_map(|name| Self::find(sysfs, name)).collect()
    }
}

/// The name by which `idxd` has the device in a folder of a PCI function: `dsa0`.
pub(crate) fn device_name(function: &std::path::Path) -> Option<String> {
    let names = names(function).ok()?;
    names.into_iter().find(|name| name.strip_prefix("dsa").is_some_and(|number| number.parse::<u16>().is_ok()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake::Machine;

    #[test]
    fn a_work_queue_is_what_the_kernel_says() {
        let machine = Machine::new();
        assert_eq!(WorkQueue::all(&machine.sysfs()), []);
        machine.work_queue("wq0.0", "enabled", "user", "shared");
        machine.work_queue("wq1.3", "disabled", "none", "dedicated");
        machine.file("sys/bus/dsa/devices/dsa0/pasid_enabled", "1\n");
        machine.file("sys/bus/dsa/devices/wq9.9/state", "enabled\n");
        let queues = WorkQueue::all(&machine.sysfs());
        assert_eq!(
            queues.iter().map(|queue| &*queue.name).collect::<Vec<_>>(),
            ["wq0.0", "wq1.3"],
            "one says too little"
        );
        let first = WorkQueue::find(&machine.sysfs(), "/dev/dsa/wq0.0").unwrap();
        assert_eq!(first, queues[0]);
        assert_eq!(first.node, machine.path("dev/dsa/wq0.0"));
        assert_eq!(
            (first.size, first.batch, first.longest, first.shared, first.enabled),
            (16, 1024, 1 << 31, true, true)
        );
        assert!(!queues[1].enabled && !queues[1].shared);
        for name in ["", "wq", "wq0", "dsa0", "wq0.x", "../wq0.0/.."] {
            assert_eq!(WorkQueue::find(&machine.sysfs(), name), None, "{name}");
        }
    }
}
