//! Taking devices from the kernel and giving them back, and the proof that the IOMMU's faults are seen.

use std::time::Duration;

use anyhow::{Context, Result, bail};
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
        let printed = site.up()?.guest.run("mirach doctor --json", Duration::from_secs(60))?.output;
        if objects(&printed)?.is_empty() {
            bail!("it printed nothing");
        }
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
        // Twice: the kernel leaves out reports when there were many, which must not hide what comes after this check.
        for time in ["first", "second"] {
            wait::until(&format!("the {time} fault in the kernel's log"), Duration::from_secs(60), || {
                site.guest.must(&format!("stray-dma {device} {}", interface.name()))?;
                Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
            })?;
            site.guest.must("dmesg -c > /dev/null")?;
        }
        Ok(())
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
    let objects = objects(&json)?;
    for device in DEVICES {
        let named = |line: &str| line.contains(device) && line.contains(driver);
        if !text.lines().any(named) {
            bail!("no line with {device} and {driver} in:\n{text}");
        }
        if !objects.iter().any(|object| named(&object.to_string())) {
            bail!("no object with {device} and {driver} in:\n{json}");
        }
    }
    Ok(())
}

/// What a command printed, as one JSON object a line.
fn objects(printed: &str) -> Result<Vec<Value>> {
    printed
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            if !value.is_object() {
                bail!("no JSON object: {line}");
            }
            Ok(value)
        })
        .collect()
}
