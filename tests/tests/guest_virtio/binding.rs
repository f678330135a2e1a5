//! Taking devices from the kernel and giving them back, and the proof that the IOMMU's faults are seen.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::forwarder::{self, User};
use lab::pair::Pair;
use lab::site::{Booted, DEVICES, INTERFACES, Site};
use lab::suite::Suite;
use lab::traffic::ping;
use lab::wait;
use serde_json::Value;

use crate::Interface;
use crate::forwarding::{Case, ends};

/// `mirach devices` and `mirach bind`.
pub(crate) fn bind(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let prefix = interface.name();
    suite.check(&format!("{prefix}::devices-shows-the-kernel-driver"), || shows(site.up()?, "virtio-pci"));
    suite.check(&format!("{prefix}::bind-refuses-an-interface-with-an-address"), || {
        let site = site.up()?;
        let [left, _] = INTERFACES;
        let [device, _] = DEVICES;
        site.guest.must(&format!("ip link set {left} up && ip address add {}/24 dev {left}", Pair::GUEST))?;
        let answer = site.guest.run(&format!("mirach bind {device}"), Duration::from_secs(60))?;
        let driver = site.driver(device)?;
        site.guest.must(&format!("ip address flush dev {left} && ip link set {left} down"))?;
        if answer.status != 1 || driver != "virtio-pci" || !answer.output.contains("--force") {
            bail!("status {}, driver {driver}: {}", answer.status, answer.output);
        }
        Ok(())
    });
    suite.check(&format!("{prefix}::bind"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {}", DEVICES.join(" ")))?;
        has_driver(site, "vfio-pci")
    });
    suite.check(&format!("{prefix}::devices-shows-vfio-pci"), || shows(site.up()?, "vfio-pci"));
    suite.check(&format!("{prefix}::doctor-reports"), || {
        let printed = site.up()?.guest.run("mirach doctor --json", Duration::from_secs(60))?;
        let last = printed.output.lines().last().unwrap_or_default();
        serde_json::from_str::<Value>(&printed.output).or_else(|_| serde_json::from_str(last))?;
        Ok(())
    });
}

/// DMA to an address that nothing is mapped at shows up, and does not keep the device from being used again.
pub(crate) fn stray_dma(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let prefix = interface.name();
    let case = Case { interface, rings: "split", queues: 1 };
    let [device, _] = DEVICES;
    suite.check(&format!("{prefix}::stray-dma-is-seen"), || {
        let site = site.up()?;
        site.no_iommu_fault()?;
        site.guest.must(&format!("stray-dma {device} {}", interface.name()))?;
        wait::until("the IOMMU's fault in the kernel's log", Duration::from_secs(30), || {
            Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
        })?;
        // What follows starts with a clean log.
        site.guest.must("dmesg -c > /dev/null").map(drop)
    });
    suite.check(&format!("{prefix}::runs-after-stray-dma"), || {
        let site = site.up()?;
        forwarder::start(&mut site.guest, User::Root, &case.arguments())?;
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)
    });
}

/// `mirach unbind`: the kernel has its interfaces again, and they work.
pub(crate) fn unbind(suite: &mut Suite, site: &mut Site, interface: Interface) {
    let prefix = interface.name();
    suite.check(&format!("{prefix}::unbind"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach unbind {}", DEVICES.join(" ")))?;
        has_driver(site, "virtio-pci")
    });
    suite.check(&format!("{prefix}::the-kernel-driver-passes-traffic-again"), || {
        let site = site.up()?;
        for (device, namespace) in DEVICES.into_iter().zip([&site.pair.left, &site.pair.right]) {
            let list = format!("ls /sys/bus/pci/devices/{device}/virtio*/net");
            let name = site.guest.must(&list)?;
            let name = name.trim();
            site.guest.must(&format!("ip link set {name} up && ip address add {}/24 dev {name}", Pair::GUEST))?;
            ping(namespace, Pair::GUEST, 50)?;
            site.guest.must(&format!("ip address flush dev {name} && ip link set {name} down"))?;
        }
        site.no_iommu_fault()
    });
}

fn has_driver(site: &mut Booted, wanted: &str) -> Result<()> {
    for device in DEVICES {
        let driver = site.driver(device)?;
        if driver != wanted {
            bail!("{device} has the driver `{driver}`, not {wanted}");
        }
    }
    Ok(())
}

/// Both devices are in both forms of the list, with this driver.
fn shows(site: &mut Booted, driver: &str) -> Result<()> {
    let text = site.guest.must("mirach devices")?;
    let json = site.guest.must("mirach devices --json")?;
    for device in DEVICES {
        let named = |line: &&str| line.contains(device) && line.contains(driver);
        if !text.lines().any(|line| named(&line)) {
            bail!("no line with {device} and {driver} in:\n{text}");
        }
        if !json.contains(device) || !json.contains(driver) {
            bail!("{device} with {driver} is not in {json}");
        }
    }
    let last = json.lines().last().unwrap_or_default();
    serde_json::from_str::<Value>(&json).or_else(|_| serde_json::from_str(last))?;
    Ok(())
}
