//! CPUs: isolation, frequency, nodes, clock.

use super::Finding;
use crate::sysfs::{Sysfs, names, read};

pub(super) fn examine(sysfs: &Sysfs) -> Vec<Finding> {
    vec![isolation(sysfs), frequency(sysfs), nodes(sysfs), clock(sysfs)]
}

fn isolation(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "CPU isolation";
    let list = |name: &str| read(&sysfs.path("devices/system/cpu").join(name)).filter(|list| list != "(null)");
    match (list("isolated"), list("nohz_full")) {
        (Some(isolated), Some(tickless)) => {
            Finding::good(TOPIC, format!("CPUs {isolated} are isolated, CPUs {tickless} run without timer ticks"))
        }
        (Some(isolated), None) => Finding::warning(
            TOPIC,
            format!("CPUs {isolated} are isolated, and still have timer ticks"),
            format!("boot the kernel with nohz_full={isolated} rcu_nocbs={isolated}"),
        ),
        (None, _) => match all_but_core_0(sysfs) {
            Some(cores) => Finding::warning(
                TOPIC,
                "none: other programs may interrupt a polling core",
                format!("boot the kernel with isolcpus={cores} nohz_full={cores} rcu_nocbs={cores}"),
            ),
            None => Finding::unknown(TOPIC, "none: on the only core, polling takes turns with everything else"),
        },
    }
}

/// The cores that can be isolated, as the kernel's options name them: core 0 is left to the system. `None` where there is
/// no other.
fn all_but_core_0(sysfs: &Sysfs) -> Option<String> {
    let present = read(&sysfs.path("devices/system/cpu/present"))?;
    let ranges = present.split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u32>().ok()?.max(1), last.parse::<u32>().ok()?);
        (first <= last).then(|| if first == last { first.to_string() } else { format!("{first}-{last}") })
    });
    let ranges: Vec<String> = ranges.collect();
    (!ranges.is_empty()).then(|| ranges.join(","))
}

fn frequency(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "CPU frequency";
    let folder = sysfs.path("devices/system/cpu");
    let mut governors: Vec<String> = names(&folder)
        .unwrap_or_default()
        .iter()
        .filter(|name| name.strip_prefix("cpu").is_some_and(|number| number.parse::<u32>().is_ok()))
        .filter_map(|name| read(&folder.join(name).join("cpufreq/scaling_governor")))
        .collect();
    governors.sort_unstable();
    governors.dedup();
    match governors.as_slice() {
        [] => Finding::unknown(TOPIC, "not under this kernel's control, as in a virtual machine"),
        [one] if one == "performance" => Finding::good(TOPIC, "governor performance"),
        several => Finding::warning(
            TOPIC,
            format!("governor {}: a core may be slow when packets come", several.join(", ")),
            "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
    }
}

fn nodes(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "NUMA";
    let folder = sysfs.path("devices/system/node");
    let mut nodes: Vec<(u32, String)> = names(&folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.strip_prefix("node")?.parse().ok())
        .map(|node: u32| (node, read(&folder.join(format!("node{node}/cpulist"))).unwrap_or_default()))
        .collect();
    nodes.sort_unstable();
    match nodes.as_slice() {
        [] => Finding::unknown(TOPIC, "this kernel knows no nodes"),
        [(_, cpus)] => Finding::good(TOPIC, format!("one node, CPUs {cpus}")),
        several => {
            let list: Vec<String> = several.iter().map(|(node, cpus)| format!("node {node}: CPUs {cpus}")).collect();
            Finding::good(TOPIC, format!("{}; take cores and memory from the card's node", list.join("; ")))
        }
    }
}

fn clock(sysfs: &Sysfs) -> Finding {
    const TOPIC: &str = "clock";
    let folder = sysfs.path("devices/system/clocksource/clocksource0");
    match read(&folder.join("current_clocksource")).as_deref() {
        None => Finding::unknown(TOPIC, "the kernel does not say"),
        Some(clock @ ("tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page")) => {
            Finding::good(TOPIC, format!("{clock}, read without a system call"))
        }
        Some(clock) => Finding::warning(
            TOPIC,
            format!("{clock}: every look at the clock is a slow system call"),
            "find out in `dmesg | grep -i tsc` why the kernel gave tsc up; boot with tsc=reliable if the machine's is sound",
        ),
    }
}
