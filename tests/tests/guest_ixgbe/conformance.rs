//! The conformance suite in a guest, on two devices that are joined.

use std::time::Duration;

use anyhow::Result;
use lab::cache::Kernel;
use lab::checks::Interface;
use lab::site::{Booted, DEVICES, Devices, Plan, Site};
use lab::suite::Suite;

/// For all of its checks.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs it on devices of one kind, by one of the kernel's interfaces.
pub(crate) fn all(suite: &mut Suite, kernel: Kernel, devices: Devices, interface: Interface) {
    let mut site = Site::new(Plan { programs: &["mirach", "conformance"], ..Plan::new(kernel, devices) });
    let device = match devices {
        Devices::VirtioNet { .. } | Devices::VirtioNetJoined => "virtio-net",
        Devices::Ixgbe | Devices::IxgbeCopper | Devices::IxgbeJoined => "ixgbe",
    };
    let prefix = format!("conformance::{device}::{}", interface.name());
    suite.adopt(&prefix, || run(site.up()?, interface));
    suite.check(&format!("{prefix}::no-iommu-fault"), || site.up()?.no_iommu_fault());
    suite.check(&format!("{prefix}::model-recorded-nothing"), || site.up()?.models_recorded_nothing());
}

fn run(site: &mut Booted, interface: Interface) -> Result<String> {
    let [left, right] = DEVICES;
    // Bound before, when the checks run for a second time.
    site.guest.must(&format!("mirach bind {left} {right}"))?;
    Ok(site.guest.run(&format!("conformance {left} {right} {}", interface.name()), LIMIT)?.output)
}
