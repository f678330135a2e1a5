//! Network cards and DMA engines, and what the kernel does with them.

use std::io;
use std::path::Path;

use drivers::bus::{PciAddress, PciId};

use crate::catalogue::{self, Kind, Names, Support};
use crate::network::{Address, Network, Route};
use crate::sysfs::{Sysfs, link_name, names, read};

/// A network card or DMA engine.
#[derive(Clone, PartialEq, Debug)]
pub struct Device {
    /// Where it sits.
    pub address: PciAddress,
    /// What it says it is.
    pub id: PciId,
    /// What it is for; `None` for a device that mirach is not about and that was asked for by its address.
    pub kind: Option<Kind>,
    /// What it is called.
    pub name: String,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// Its IOMMU group; `None` when it is behind no IOMMU.
    pub group: Option<Group>,
    /// The NUMA node that it is attached to, where the machine has several.
    pub numa_node: Option<u32>,
    /// The kernel's network interfaces on it.
    pub interfaces: Vec<Interface>,
    /// Whether mirach can drive it.
    pub support: Support,
}

/// An IOMMU group: the devices that cannot be kept apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its number.
    pub number: u32,
    /// The other members, with their drivers.
    pub others: Vec<(PciAddress, Option<String>)>,
    /// VFIO made it up for a device without IOMMU. mirach does not use such groups.
    pub lacks_iommu: bool,
}

/// A network interface of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// It is switched on (`ip link set up`).
    pub enabled: bool,
    /// State as `ip link` names it: `up`, `down`, `unknown`, ...
    pub state: String,
    /// Megabits per second, when the driver knows.
    pub speed_mbps: Option<u32>,
    /// Its Ethernet address.
    pub mac: String,
    /// Largest payload in bytes.
    pub mtu: Option<u32>,
    /// Its addresses, without link-local ones.
    pub addresses: Vec<Address>,
    /// The routes over it.
    pub routes: Vec<Route>,
    /// The bridge, bond or team that it is enslaved to.
    pub master: Option<String>,
    /// Interfaces stacked on it, such as VLANs.
    pub uppers: Vec<String>,
}

impl Interface {
    /// What would be lost if the interface went, in words: `address 10.0.0.2/24`, `route default via 10.0.0.1`, `master br0`.
    #[must_use]
    pub fn uses(&self) -> Vec<String> {
        let mut uses: Vec<String> = self.addresses.iter().map(|address| format!("address {address}")).collect();
        uses.extend(self.routes.iter().map(|route| format!("route {route}")));
        uses.extend(self.master.iter().map(|master| format!("master {master}")));
        uses.extend(self.uppers.iter().map(|upper| format!("{upper} on top of it")));
        uses
    }
}

impl Device {
    /// Whether the kernel's interfaces on it carry addresses or routes, or are part of something larger.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.interfaces.iter().any(|interface| !interface.uses().is_empty())
    }
}

/// All network cards and DMA engines, by address.
///
/// # Errors
/// When the PCI devices cannot be listed.
pub fn discover(sysfs: &Sysfs, network: &Network) -> io::Result<Vec<Device>> {
    let names = Names::load(sysfs);
    Ok(sysfs
        .functions()?
        .into_iter()
        .filter(|address| catalogue::kind(sysfs.id(*address)).is_some())
        .map(|address| describe(sysfs, network, &names, address))
        .collect())
}

/// One device, of whatever kind.
#[must_use]
pub fn describe(sysfs: &Sysfs, network: &Network, names: &Names, address: PciAddress) -> Device {
    let id = sysfs.id(address);
    let group = sysfs.group(address).map(|number| Group {
        number,
        others: sysfs
            .group_members(number)
            .into_iter()
            .filter(|member| *member != address)
            .map(|member| (member, sysfs.driver(member)))
            .collect(),
        lacks_iommu: sysfs.group_lacks_iommu(number),
    });
    Device {
        address,
        id,
        kind: catalogue::kind(id),
        name: names.of(id),
        driver: sysfs.driver(address),
        group,
        // -1 where the machine has one node, or firmware does not say.
        numa_node: read(&sysfs.function(address).join("numa_node")).and_then(|text| text.parse().ok()),
        interfaces: interfaces(sysfs, network, address),
        support: catalogue::support(id),
    }
}

/// The kernel's interfaces on a device: `net/` below it, or below its virtio device.
#[must_use]
pub fn interfaces(sysfs: &Sysfs, network: &Network, address: PciAddress) -> Vec<Interface> {
    let folder = sysfs.function(address);
    let below = names(&folder).unwrap_or_default();
    let mut folders = vec![folder.join("net")];
    folders.extend(below.iter().filter(|name| name.starts_with("virtio")).map(|name| folder.join(name).join("net")));
    folders
        .iter()
        .flat_map(|folder| {
            names(folder).unwrap_or_default().into_iter().map(|name| interface(network, &folder.join(&name), name))
        })
        .collect()
}

fn interface(network: &Network, folder: &Path, name: String) -> Interface {
    let text = |file: &str| read(&folder.join(file));
    let index: u32 = text("ifindex").and_then(|text| text.parse().ok()).unwrap_or(0);
    let flags = text("flags").and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    let master = link_name(&folder.join("master"));
    let uppers = names(folder)
        .unwrap_or_default()
        .iter()
        .filter_map(|name| name.strip_prefix("upper_"))
        .filter(|upper| Some(*upper) != master.as_deref())
        .map(str::to_owned)
        .collect();
    Interface {
        enabled: flags.unwrap_or(0) & 1 != 0,
        state: text("operstate").unwrap_or_else(|| "unknown".into()),
        speed_mbps: text("speed").and_then(|text| text.parse().ok()),
        mac: text("address").unwrap_or_default(),
        mtu: text("mtu").and_then(|text| text.parse().ok()),
        addresses: network.addresses.iter().filter(|found| found.interface == index).copied().collect(),
        routes: network.routes.iter().filter(|found| found.interface == index).copied().collect(),
        master,
        uppers,
        name,
    }
}

/// The text names no device of this machine.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// A PCI address that nothing sits at.
    #[error("there is no PCI device {0}; `mirach devices` lists those that there are")]
    NoDevice(PciAddress),
    /// Neither an address nor an interface.
    #[error(
        "{0} is neither a PCI address (0000:03:00.0 or 03:00.0) nor a network interface; `mirach devices` lists both"
    )]
    NoInterface(String),
    /// An interface that no PCI device is behind.
    #[error("{0} is a network interface with no PCI device behind it, such as a tap, bridge or bond")]
    NotPci(String),
}

/// Finds the device that is called `text`: `0000:03:00.0`, `03:00.0`, or the name of its interface.
///
/// # Errors
/// When there is none.
pub fn resolve(sysfs: &Sysfs, text: &str) -> Result<PciAddress, ResolveError> {
    if let Ok(address) = text.parse::<PciAddress>() {
        return if sysfs.has_function(address) { Ok(address) } else { Err(ResolveError::NoDevice(address)) };
    }
    // A name with a slash would lead elsewhere.
    let folder = sysfs.path("class/net").join(text);
    if text.is_empty() || text.contains('/') || text.starts_with('.') || !folder.exists() {
        return Err(ResolveError::NoInterface(text.into()));
    }
    // .../0000:00:03.0/net/eth0, or .../0000:00:03.0/virtio0/net/eth0
    let path = std::fs::canonicalize(folder.join("device")).map_err(|_| ResolveError::NotPci(text.into()))?;
    path.ancestors()
        .take(2)
        .filter_map(|part| part.file_name()?.to_str()?.parse().ok())
        .find(|address| sysfs.has_function(*address))
        .ok_or_else(|| ResolveError::NotPci(text.into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::fake::Machine;

    #[test]
    fn a_card_is_found_with_everything_around_it() {
        let machine = Machine::new();
        machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x02_0000, Some(4), Some("virtio-pci"));
        machine.function("0000:00:03.1", 0x8086, 0x1234, 0x06_0400, Some(4), None);
        machine.interface("0000:00:03.0", Some("virtio1"), "eth0", 2);
        machine.file("sys/bus/pci/devices/0000:00:03.0/numa_node", "1");
        let devices = discover(&machine.sysfs(), &machine.network_of(2)).unwrap();
        assert_eq!(devices.len(), 1, "the bridge is no card");
        let device = &devices[0];
        assert_eq!(device.driver.as_deref(), Some("virtio-pci"));
        assert_eq!(device.kind, Some(Kind::Network));
        assert_eq!(device.numa_node, Some(1));
        let group = device.group.as_ref().unwrap();
        assert_eq!((group.number, group.others.len(), group.lacks_iommu), (4, 1, false));
        let interface = &device.interfaces[0];
        assert_eq!((interface.name.as_str(), interface.state.as_str(), interface.enabled), ("eth0", "up", true));
        assert_eq!(interface.uses(), ["address 10.0.0.2/24", "route default via 10.0.0.1"]);
        assert!(device.is_active());
    }

    #[test]
    fn a_machine_without_iommu_has_no_groups() {
        let machine = Machine::new();
        machine.function("0000:00:04.0", 0x8086, 0x10fb, 0x02_0000, None, None);
        machine.file("sys/bus/pci/devices/0000:00:04.0/numa_node", "-1");
        let devices = discover(&machine.sysfs(), &Network::default()).unwrap();
        assert_eq!(devices[0].group, None);
        assert_eq!(devices[0].numa_node, None);
        assert_eq!(devices[0].support, Support::Ready("ixgbe"));
        assert!(!devices[0].is_active());
    }

    #[test]
    fn devices_are_found_by_long_and_short_address_and_by_interface() {
        let machine = Machine::new();
        machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x02_0000, Some(4), Some("virtio-pci"));
        machine.function("0000:00:04.0", 0x8086, 0x10fb, 0x02_0000, Some(5), Some("ixgbe"));
        machine.interface("0000:00:03.0", Some("virtio1"), "eth0", 2);
        machine.interface("0000:00:04.0", None, "ens4", 3);
        machine.file("sys/class/net/br0/ifindex", "9");
        let sysfs = machine.sysfs();
        let expected: PciAddress = "0000:00:03.0".parse().unwrap();
        for text in ["0000:00:03.0", "00:03.0", "eth0"] {
            assert_eq!(resolve(&sysfs, text), Ok(expected), "{text}");
        }
        assert_eq!(resolve(&sysfs, "ens4"), "0000:00:04.0".parse().map_err(|_| unreachable!()));
        assert!(matches!(resolve(&sysfs, "00:09.0"), Err(ResolveError::NoDevice(_))));
        assert!(matches!(resolve(&sysfs, "br0"), Err(ResolveError::NotPci(_))));
        for text in ["eth7", "", "../..", "."] {
            assert!(matches!(resolve(&sysfs, text), Err(ResolveError::NoInterface(_))), "{text}");
        }
    }

    #[test]
    fn a_bridge_port_says_so() {
        let machine = Machine::new();
        machine.function("0000:00:03.0", 0x1af4, 0x1041, 0x02_0000, Some(4), Some("virtio-pci"));
        machine.interface("0000:00:03.0", Some("virtio1"), "eth0", 2);
        machine.enslave("0000:00:03.0", Some("virtio1"), "eth0", "br0");
        let device = &discover(&machine.sysfs(), &Network::default()).unwrap()[0];
        assert_eq!(device.interfaces[0].uses(), ["master br0"]);
    }
}
