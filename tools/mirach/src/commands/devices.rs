//! `mirach devices`: who drives what, and what mirach can do with it.

use std::process::ExitCode;

use anyhow::Context;
use drivers::bus::PciAddress;
use serde_json::json;
use vfio::Sysfs;
use vfio::catalogue::{Kind, Names, Support};
use vfio::discover::{Device, Group, Interface, describe, discover};
use vfio::network::Network;

use crate::cli::DevicesArguments;
use crate::output;
use crate::table::Table;

/// Runs the command.
pub(crate) fn execute(arguments: &DevicesArguments) -> anyhow::Result<ExitCode> {
    let sysfs = Sysfs::default();
    let network = Network::of_this_machine().context("cannot read addresses and routes")?;
    let devices = if arguments.all {
        let names = Names::load(&sysfs);
        let all = sysfs.functions().context("cannot list PCI devices in /sys/bus/pci")?;
        all.into_iter().map(|address| describe(&sysfs, &network, &names, address)).collect()
    } else {
        discover(&sysfs, &network).context("cannot list PCI devices in /sys/bus/pci")?
    };
    if arguments.json {
        for device in &devices {
            output::json(&object(device))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if devices.is_empty() {
        let what = if arguments.all { "no PCI devices" } else { "no PCI network cards or DMA engines" };
        output::line(&format!("There are {what} on this machine. Without hardware: mirach demo"))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&table(&devices))?;
    Ok(ExitCode::SUCCESS)
}

fn table(devices: &[Device]) -> String {
    let mut table = Table::new(8, ["address", "name", "driver", "group", "node", "link", "interface", "mirach"]);
    for device in devices {
        table.row([
            device.address.to_string(),
            shortened(&device.name, 48),
            device.driver.clone().unwrap_or_else(|| "-".to_owned()),
            group(device.group.as_ref()),
            device.numa_node.map_or_else(|| "-".to_owned(), |node| node.to_string()),
            joined(device.interfaces.iter().map(link)),
            joined(device.interfaces.iter().map(|interface| {
                let active = if interface.uses().is_empty() { "" } else { " *Active*" };
                format!("{}{active}", interface.name)
            })),
            device.support.to_string(),
        ]);
    }
    table.render(0)
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() { "-".to_owned() } else { parts.join(", ") }
}

fn shortened(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    let kept: String = text.chars().take(longest.saturating_sub(2)).collect();
    format!("{}..", kept.trim_end())
}

fn group(group: Option<&Group>) -> String {
    match group {
        None => "no IOMMU".to_owned(),
        Some(group) if group.lacks_iommu => format!("{} (no IOMMU)", group.number),
        Some(group) => group.number.to_string(),
    }
}

fn link(interface: &Interface) -> String {
    let state = interface.state.to_uppercase();
    match interface.speed_mbps {
        Some(speed) => format!("{state} {speed}Mb/s"),
        None => state,
    }
}

fn object(device: &Device) -> serde_json::Value {
    let others =
        |(address, driver): &(PciAddress, Option<String>)| json!({ "address": address.to_string(), "driver": driver });
    json!({
        "address": device.address.to_string(),
        "vendor": format!("{:04x}", device.id.vendor),
        "device": format!("{:04x}", device.id.device),
        "class": format!("{:06x}", device.id.class),
        "kind": device.kind.map(|kind| match kind {
            Kind::Network => "network",
            Kind::DmaEngine => "dma-engine",
        }),
        "name": device.name,
        "driver": device.driver,
        "iommu_group": device.group.as_ref().filter(|group| !group.lacks_iommu).map(|group| json!({
            "number": group.number,
            "others": group.others.iter().map(others).collect::<Vec<_>>(),
        })),
        "numa_node": device.numa_node,
        "interfaces": device.interfaces.iter().map(|interface| json!({
            "name": interface.name,
            "state": interface.state,
            "speed_mbps": interface.speed_mbps,
            "mac": interface.mac,
            "mtu": interface.mtu,
            "uses": interface.uses(),
        })).collect::<Vec<_>>(),
        "active": device.is_active(),
        "mirach": match device.support {
            Support::Ready(driver) => json!({ "support": "ready", "driver": driver }),
            Support::Planned(driver) => json!({ "support": "planned", "driver": driver }),
            Support::None => json!({ "support": "none" }),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("short", 10), "short");
        assert_eq!(shortened("a rather long name", 10), "a rather..");
    }

    #[test]
    fn a_missing_group_is_said_in_words() {
        assert_eq!(group(None), "no IOMMU");
        assert_eq!(group(Some(&Group { number: 3, others: Vec::new(), lacks_iommu: false })), "3");
        assert_eq!(group(Some(&Group { number: 3, others: Vec::new(), lacks_iommu: true })), "3 (no IOMMU)");
    }
}
