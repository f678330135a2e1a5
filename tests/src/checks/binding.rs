//! Taking devices from the kernel and giving them back.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::pair::Pair;
use crate::site::{Booted, DEVICES, INTERFACES, Site};
use crate::suite::Suite;
use crate::traffic::{ping, wait_for_path};

/// `mirach devices` and `mirach bind`.
pub fn bind(suite: &mut Suite, site: &mut Site, prefix: &str) {
    let kernel_driver = site.plan().kernel_driver();
    suite.check(&format!("{prefix}::devices-shows-the-kernel-driver"), || shows(site.up()?, kernel_driver));
    if let Some(kernel_driver) = kernel_driver {
        suite.check(&format!("{prefix}::bind-refuses-an-interface-with-an-address"), || {
            refuses_an_interface_in_use(site.up()?, kernel_driver)
        });
    }
    suite.check(&format!("{prefix}::bind"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {}", DEVICES.join(" ")))?;
        has_driver(site, "vfio-pci")
    });
    suite.check(&format!("{prefix}::devices-shows-vfio-pci"), || shows(site.up()?, Some("vfio-pci")));
    suite.check(&format!("{prefix}::doctor-reports"), || {
        let printed = site.up()?.guest.run("mirach doctor --json", Duration::from_secs(60))?.output;
        if objects(&printed)?.is_empty() {
            bail!("it printed nothing");
        }
        Ok(())
    });
}

/// `mirach unbind`: the kernel has its interfaces again, and they work.
pub fn unbind(suite: &mut Suite, site: &mut Site, prefix: &str) {
    let kernel_driver = site.plan().kernel_driver();
    suite.check(&format!("{prefix}::unbind"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach unbind {}", DEVICES.join(" ")))?;
        has_driver(site, kernel_driver.unwrap_or_default())
    });
    if kernel_driver.is_none() {
        return;
    }
    suite.check(&format!("{prefix}::the-kernel-driver-passes-traffic-again"), || {
        let site = site.up()?;
        for (device, left) in DEVICES.into_iter().zip([true, false]) {
            let interface = site.interface(device)?;
            site.link_up(&interface)?;
            site.guest.must(&format!("ip address add {}/24 dev {interface}", Pair::GUEST))?;
            let namespace = if left { &site.pair.left } else { &site.pair.right };
            wait_for_path(namespace, Pair::GUEST)?;
            ping(namespace, Pair::GUEST, 50)?;
            site.guest.must(&format!("ip address flush dev {interface} && ip link set {interface} down"))?;
        }
        site.no_iommu_fault()
    });
}

fn refuses_an_interface_in_use(site: &mut Booted, kernel_driver: &str) -> Result<()> {
    let [left, _] = INTERFACES;
    let [device, _] = DEVICES;
    site.guest.must(&format!("ip link set {left} up && ip address add {}/24 dev {left}", Pair::GUEST))?;
    let answer = site.guest.run(&format!("mirach bind {device}"), Duration::from_secs(60))?;
    let driver = site.driver(device)?;
    site.guest.must(&format!("ip address flush dev {left} && ip link set {left} down"))?;
    if answer.status != 1 || driver != kernel_driver || !answer.output.contains("--force") {
        bail!("status {}, driver {driver}: {}", answer.status, answer.output);
    }
    Ok(())
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

/// Both devices are in both forms of the list, with this driver or with none.
fn shows(site: &mut Booted, driver: Option<&str>) -> Result<()> {
    let text = site.guest.must("mirach devices")?;
    let json = site.guest.must("mirach devices --json")?;
    let objects = objects(&json)?;
    for device in DEVICES {
        if !text.lines().any(|line| line.contains(device) && line.contains(driver.unwrap_or_default())) {
            bail!("no line with {device} and {driver:?} in:\n{text}");
        }
        let named = |object: &Value| object["address"] == device && object["driver"].as_str() == driver;
        if !objects.iter().any(named) {
            bail!("no object with {device} and {driver:?} in:\n{json}");
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
