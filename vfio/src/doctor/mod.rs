//! What this machine has and lacks for driving devices from user space, with the command that mends it.
//!
//! Everything is read, nothing is changed. [`examine`] gives facts as data; printing them is up to the caller.

mod bus;
mod copy_engines;
mod memory;
mod processor;

use crate::sysfs::Sysfs;

/// A verdict on one topic.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum State {
    /// As it should be.
    Good,
    /// It could not be found out.
    Unknown,
    /// It works, but slower or with less comfort than it could.
    Warning,
    /// Devices cannot be driven before this is mended.
    Bad,
}

impl State {
    /// The word for it: `good`, `unknown`, `warning`, `bad`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Bad => "bad",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at, in a few words; several findings may share one.
    pub topic: &'static str,
    /// The verdict.
    pub state: State,
    /// What there is.
    pub found: String,
    /// What mends it, when something is to be mended, or what comes next: a command, or words where there is none.
    pub fix: Option<String>,
}

impl Finding {
    fn good(topic: &'static str, found: impl Into<String>) -> Self {
        Self { topic, state: State::Good, found: found.into(), fix: None }
    }

    fn unknown(topic: &'static str, found: impl Into<String>) -> Self {
        Self { topic, state: State::Unknown, found: found.into(), fix: None }
    }

    fn warning(topic: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { topic, state: State::Warning, found: found.into(), fix: Some(fix.into()) }
    }

    fn bad(topic: &'static str, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { topic, state: State::Bad, found: found.into(), fix: Some(fix.into()) }
    }
}

/// Examines the machine, topic by topic, in the order in which things are best mended.
#[must_use]
pub fn examine(sysfs: &Sysfs) -> Vec<Finding> {
    let mut findings = bus::examine(sysfs);
    findings.extend(memory::examine(sysfs));
    findings.extend(processor::examine(sysfs));
    findings.extend(copy_engines::examine(sysfs));
    findings
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake::Machine;

    fn find<'a>(findings: &'a [Finding], topic: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.topic == topic).unwrap_or_else(|| panic!("nothing about {topic}"))
    }

    #[test]
    fn a_bare_machine_is_told_what_to_do() {
        let machine = Machine::new();
        machine.remove("sys/bus/pci/drivers/vfio-pci");
        machine.remove("dev/vfio");
        machine.file("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
        machine.file("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
        machine.file("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
        machine.file("sys/devices/system/cpu/isolated", "\n");
        machine.file("sys/devices/system/cpu/present", "0-1\n");
        machine.file("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        let findings = examine(&machine.sysfs());
        for (topic, state, cure) in [
            ("IOMMU", State::Bad, "intel_iommu=on"),
            ("vfio-pci", State::Bad, "CONFIG_VFIO_PCI"),
            ("VFIO interfaces", State::Bad, "CONFIG_VFIO_PCI"),
            ("huge pages", State::Warning, "nr_hugepages"),
            ("clock", State::Warning, "tsc"),
            ("CPU isolation", State::Warning, "isolcpus"),
            ("CPU frequency", State::Warning, "performance"),
        ] {
            let finding = find(&findings, topic);
            assert_eq!(finding.state, state, "{finding:?}");
            assert!(finding.fix.as_deref().unwrap_or_default().contains(cure), "{finding:?}");
        }
    }

    #[test]
    fn a_machine_that_is_set_up_is_good() {
        let machine = Machine::new();
        machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x02_0000, Some(4), Some("vfio-pci"));
        machine.file("dev/vfio/vfio", "");
        machine.file("dev/vfio/4", "");
        machine.file("dev/iommu", "");
        machine.file("sys/devices/system/node/node0/cpulist", "0-3\n");
        machine.file("sys/devices/system/node/online", "0\n");
        let pages = "sys/devices/system/node/node0/hugepages/hugepages-2048kB";
        machine.file(&format!("{pages}/nr_hugepages"), "64\n");
        machine.file(&format!("{pages}/free_hugepages"), "60\n");
        machine.file("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n");
        machine.file("sys/devices/system/cpu/isolated", "2-3\n");
        machine.file("sys/devices/system/cpu/nohz_full", "2-3\n");
        machine.file("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n");
        let findings = examine(&machine.sysfs());
        for topic in [
            "IOMMU",
            "vfio-pci",
            "VFIO interfaces",
            "permissions",
            "huge pages",
            "clock",
            "CPU isolation",
            "CPU frequency",
            "NUMA",
        ] {
            assert_eq!(find(&findings, topic).state, State::Good, "{:?}", find(&findings, topic));
        }
        assert!(find(&findings, "huge pages").found.contains("60 of 64"), "{:?}", find(&findings, "huge pages"));
    }

    #[test]
    fn loadable_modules_and_dsa_devices_are_noticed() {
        let machine = Machine::new();
        machine.remove("sys/bus/pci/drivers/vfio-pci");
        machine.file("proc/sys/kernel/osrelease", "6.12.0-test\n");
        machine.file("modules/6.12.0-test/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/x.ko\n");
        machine.function("0000:6a:01.0", 0x8086, 0x0b25, 0x08_8000, Some(4), Some("idxd"));
        let findings = examine(&machine.sysfs());
        let module = find(&findings, "vfio-pci");
        assert_eq!((module.state, module.fix.as_deref()), (State::Bad, Some("sudo modprobe vfio-pci")));
        assert!(find(&findings, "DSA").fix.as_deref().unwrap_or_default().contains("disable_denylist=1"));
    }

    #[test]
    fn only_cores_that_are_there_are_to_be_isolated() {
        for (present, cure) in [("0-1", "isolcpus=1 "), ("0-7", "isolcpus=1-7 "), ("0,2-3,6", "isolcpus=2-3,6 ")] {
            let machine = Machine::new();
            machine.file("sys/devices/system/cpu/present", present);
            let findings = examine(&machine.sysfs());
            let fix = find(&findings, "CPU isolation").fix.as_deref().unwrap_or_default();
            assert!(fix.contains(cure), "{present}: {fix}");
        }
        let machine = Machine::new();
        machine.file("sys/devices/system/cpu/present", "0");
        assert_eq!(find(&examine(&machine.sysfs()), "CPU isolation").fix, None);
    }

    #[test]
    fn every_finding_that_is_not_good_says_what_to_do_or_that_it_is_unknown() {
        for finding in examine(&Sysfs::under("/nonexistent")) {
            assert!(finding.fix.is_some() || matches!(finding.state, State::Good | State::Unknown), "{finding:?}");
        }
    }
}
