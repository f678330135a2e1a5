//! The bus on a device with a function reset: an NVMe controller, and the example of the crate `vfio` that knows it.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::checks::Interface;
use lab::guest::CONTROLLER;
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::wait;

/// What the example prints last.
const CLOSING: &str = "7 passed, 0 failed";

/// `exercise` by each of the kernel's interfaces; where it has the newer one, it has the older one too.
pub(crate) fn exercise(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let kernel = interface.name();
    let all: &[Interface] = match interface {
        Interface::Type1 => &[Interface::Type1],
        Interface::Iommufd => &[Interface::Type1, Interface::Iommufd],
    };
    for by in all {
        let name = by.name();
        suite.check(&format!("{kernel}::bus-keeps-its-promises-by-{name}"), || by_interface(site.up()?, name));
    }
}

fn by_interface(site: &mut Booted, interface: &str) -> Result<()> {
    site.no_iommu_fault()?;
    if site.driver(CONTROLLER)? != "vfio-pci" {
        let device = format!("/sys/bus/pci/devices/{CONTROLLER}");
        site.guest.must(&format!(
            "echo vfio-pci > {device}/driver_override && echo {CONTROLLER} > /sys/bus/pci/drivers_probe"
        ))?;
    }
    // The example provokes a fault. The kernel leaves out reports when there were many before: then it is run again.
    let faults = wait::until("the fault in the kernel's log", Duration::from_secs(60), || {
        let printed = site.guest.must(&format!("exercise {CONTROLLER} {interface}"))?;
        if printed.lines().last() != Some(CLOSING) {
            bail!("its last line is not `{CLOSING}`: {printed}");
        }
        let faults = site.guest.iommu_faults()?;
        Ok((!faults.is_empty()).then_some(faults))
    })?;
    site.guest.must("dmesg -c > /dev/null")?;
    // Without the domain, as the kernel prints it.
    let ours = format!("[{}]", CONTROLLER.trim_start_matches("0000:"));
    if let Some(other) = faults.iter().find(|line| line.contains("device [") && !line.contains(&ours)) {
        bail!("another device strayed: {other}");
    }
    Ok(())
}
