//! A PCI device as a port: finds it, takes it through VFIO, and gives it to the driver that knows it.

use std::sync::Arc;

use drivers::bus::{BusError, PciAddress, PciFunction};
use drivers::nic::{NicError, Offloads, ReceiveFilter};
use drivers::virtio::{self, Config, VirtioNet};
use hugemem::{IovaRange, PacketPool, Region};
use vfio::discover::{ResolveError, resolve};
use vfio::{Function, Interface, Sysfs, SystemClock};

use super::nic::{self, NicPort};
use super::{PciName, PciSpec, PortError, RingChoice, VfioChoice};

/// A device that is open and not started.
pub(super) struct PciDevice {
    name: String,
    address: PciAddress,
    function: Function,
    config: Config,
}

impl PciDevice {
    /// Opens the device. Of the offloads of reception, those in `offloads` are of use to whoever gets its packets.
    pub(super) fn open(name: &str, spec: &PciSpec, offloads: Offloads) -> Result<Self, PortError> {
        let address = address(name, &spec.device)?;
        let interface = match spec.vfio {
            VfioChoice::Auto => Interface::Auto,
            VfioChoice::Type1 => Interface::Type1,
            VfioChoice::Iommufd => Interface::Iommufd,
        };
        let function = Function::open(address, interface).map_err(|error| failed(name, error))?;
        let id = function.id();
        if !virtio::matches(id) {
            let reason = format!(
                "{address} is {:04x}:{:04x}, and there is a driver for virtio network devices only (1af4:1041, 1af4:1000); \
                 give it back with: mirach unbind {address}",
                id.vendor, id.device
            );
            return Err(PortError::Device { port: name.into(), reason });
        }
        let config = Config {
            nic: drivers::nic::Config {
                queue_pairs: spec.queues.unwrap_or(1),
                interrupts: true,
                filter: if spec.promiscuous { ReceiveFilter::everything() } else { ReceiveFilter::host() },
                mac: spec.mac,
                offloads,
                ..drivers::nic::Config::default()
            },
            ring: match spec.ring {
                RingChoice::Auto => virtio::RingChoice::Auto,
                RingChoice::Split => virtio::RingChoice::Split,
                RingChoice::Packed => virtio::RingChoice::Packed,
            },
        };
        Ok(Self { name: name.into(), address, function, config })
    }

    pub(super) fn address(&self) -> PciAddress {
        self.address
    }

    /// Queue pairs that are asked for.
    pub(super) fn queue_pairs(&self) -> usize {
        self.config.nic.queue_pairs.into()
    }

    /// Bytes of memory for its rings.
    pub(super) fn ring_memory(&self) -> usize {
        self.config.ring_memory()
    }

    /// Where addresses for it may lie.
    pub(super) fn iova_ranges(&self) -> Result<Vec<IovaRange>, PortError> {
        self.function.iova_ranges().map_err(|error| failed(&self.name, error))
    }

    /// Lets it reach `region`.
    pub(super) fn map(&mut self, region: &Region) -> Result<(), PortError> {
        self.function.map(region).map_err(|error| failed(&self.name, error))
    }

    /// Starts it with rings in `rings`, which no other device reaches, and a pool for each queue pair.
    pub(super) fn start(self, rings: &Region, pools: Vec<PacketPool>) -> Result<NicPort, PortError> {
        let Self { name, function, config, .. } = self;
        let promiscuous = config.nic.filter.promiscuous;
        let wanted = config.nic.queue_pairs;
        let clock = Arc::new(SystemClock::new());
        let nic = VirtioNet::open(function, clock, rings, pools, config)
            .map_err(|source| PortError::Nic { port: name.clone(), source })?;
        let summary = nic.summary();
        tracing::info!("port `{name}`: {summary}");
        let (pairs, most) = (summary.queue_pairs, summary.device_queue_pairs);
        let details = format!("driver virtio-net ring {} vfio {}", summary.ring, nic.function().interface());
        let mut port = nic::open(&name, nic, promiscuous, details)?;
        if pairs < wanted {
            port.notices.push(format!(
                "port `{name}`: uses {pairs} queue pairs instead of {wanted}, because the device has {most}; ask for queues={pairs}"
            ));
        }
        Ok(port)
    }
}

fn failed(name: &str, error: BusError) -> PortError {
    PortError::Nic { port: name.into(), source: NicError::Bus(error) }
}

/// The address of the device that the user named.
fn address(port: &str, device: &PciName) -> Result<PciAddress, PortError> {
    let name = match device {
        PciName::Address(address) => return Ok(*address),
        PciName::Interface(name) => name,
    };
    resolve(&Sysfs::default(), name).map_err(|error| {
        let reason = match error {
            ResolveError::NotPci(_) => format!(
                "the interface `{name}` is on no PCI device, so there is no driver for it; name a PCI device or a tap"
            ),
            _ => format!(
                "there is no interface `{name}` (one that is bound to vfio-pci has lost its name); use the PCI address that \
                 `mirach devices` shows, or tap={name} for a tap"
            ),
        };
        PortError::Device { port: port.into(), reason }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_interface_that_is_no_pci_device_is_refused_by_name() {
        let error = address("x", &PciName::Interface("lo".into())).unwrap_err().to_string();
        assert_eq!(
            error,
            "port `x`: the interface `lo` is on no PCI device, so there is no driver for it; name a PCI device or a tap"
        );
        let error = address("x", &PciName::Interface("nonesuch".into())).unwrap_err().to_string();
        assert!(error.contains("there is no interface `nonesuch`"), "{error}");
    }

    #[test]
    fn a_device_that_is_not_there_is_said_to_be_missing() {
        let spec = PciSpec::new(PciName::Address("ffff:ff:1f.7".parse().unwrap()));
        let error = PciDevice::open("x", &spec, Offloads::all()).err().unwrap().to_string();
        assert!(error.starts_with("port `x`: ffff:ff:1f.7"), "{error}");
    }
}
