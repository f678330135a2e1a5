//! Huge pages and the limit of locked memory.

use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::sysfs::{Sysfs, names, read};

/// What a forwarder with two ports locks: less than this is a wall, even for a first try.
const LEAST_LOCKED: u64 = 64 << 20;
/// CAP_IPC_LOCK in the masks of `/proc/self/status` (Linux `include/uapi/linux/capability.h`).
const IPC_LOCK: u64 = 1 << 14;

pub(super) fn examine(sysfs: &Sysfs) -> Vec<Finding> {
    let mut findings = huge_pages(sysfs);
    findings.push(locked_memory(sysfs));
    findings
}

/// Where pages are counted: per node, or for the whole machine where the kernel knows no nodes.
fn places(sysfs: &Sysfs) -> Vec<(String, PathBuf)> {
    let folder = sysfs.path("devices/system/node");
    let mut nodes: Vec<u32> =
        names(&folder).unwrap_or_default().iter().filter_map(|name| name.strip_prefix("node")?.parse().ok()).collect();
    nodes.sort_unstable();
    let places: Vec<(String, PathBuf)> = nodes
        .into_iter()
        .map(|node| (format!(" on node {node}"), folder.join(format!("node{node}/hugepages"))))
        .filter(|(_, path)| path.exists())
        .collect();
    if places.is_empty() { vec![(String::new(), sysfs.path("kernel/mm/hugepages"))] } else { places }
}

fn huge_pages(sysfs: &Sysfs) -> Vec<Finding> {
    const TOPIC: &str = "huge pages";
    let mut findings = Vec::new();
    let mut free_bytes = 0_u64;
    let mut wanting = None;
    let mut known = false;
    for (place, folder) in places(sysfs) {
        for name in names(&folder).unwrap_or_default() {
            let size = name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB"));
            let Some(size) = size.and_then(|size| size.parse::<u64>().ok()) else { continue };
            let Some(counts) = counts(&folder.join(&name)) else { continue };
            free_bytes = free_bytes.saturating_add(counts.free.saturating_mul(size).saturating_mul(1024));
            known = true;
            if counts.total > 0 {
                let found = format!("{} of {} pages of {} free{place}", counts.free, counts.total, human(size));
                findings.push(Finding::good(TOPIC, found));
            }
            if size == 2048 && wanting.is_none() {
                wanting = Some(folder.join(&name).join("nr_hugepages"));
            }
        }
    }
    if !known {
        findings.push(Finding::unknown(
            TOPIC,
            "this kernel has none (CONFIG_HUGETLBFS); 4 KiB pages work, and cost more address translation",
        ));
    } else if free_bytes == 0 {
        let path = wanting.unwrap_or_else(|| "/proc/sys/vm/nr_hugepages".into());
        findings.insert(
            0,
            Finding::warning(
                TOPIC,
                "none free; 4 KiB pages work, and cost more address translation",
                format!("echo 512 | sudo tee {}", path.display()),
            ),
        );
    }
    findings
}

struct Counts {
    total: u64,
    free: u64,
}

fn counts(folder: &Path) -> Option<Counts> {
    let number = |name: &str| read(&folder.join(name))?.parse().ok();
    Some(Counts { total: number("nr_hugepages")?, free: number("free_hugepages")? })
}

fn human(kibibytes: u64) -> String {
    match kibibytes {
        size if size.is_multiple_of(1 << 20) => format!("{} GiB", size >> 20),
        size if size.is_multiple_of(1 << 10) => format!("{} MiB", size >> 10),
        size => format!("{size} KiB"),
    }
}

fn locked_memory(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "locked memory";
    let status = read(&sysfs.process_file("self/status")).unwrap_or_default();
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let limit = getrlimit(Resource::Memlock).current;
    match limit {
        None => Finding::good(TOPIC, "no limit (RLIMIT_MEMLOCK)"),
        Some(_) if capabilities.is_some_and(|mask| mask & IPC_LOCK != 0) => {
            Finding::good(TOPIC, "no limit for this process, which has CAP_IPC_LOCK")
        }
        Some(limit) => {
            let found = format!("{} KiB may be locked for DMA (RLIMIT_MEMLOCK)", limit >> 10);
            let fix = "`ulimit -l unlimited`, `LimitMEMLOCK=infinity` in the systemd unit, or a line `* - memlock unlimited` in /etc/security/limits.conf";
            if limit < LEAST_LOCKED { Finding::bad(TOPIC, found, fix) } else { Finding::warning(TOPIC, found, fix) }
        }
    }
}
