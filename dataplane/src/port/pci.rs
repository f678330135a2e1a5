//! A PCI device as a port: finds it, takes it through VFIO or a vfio-user socket, and gives it to the driver that knows it.

use std::os::fd::AsFd;
use std::sync::Arc;

use drivers::bus::{BusError, PciAddress, PciFunction, PciId};
use drivers::ixgbe::{self, Ixgbe};
use drivers::nic::{self, NicError, Offloads, ReceiveFilter};
use drivers::virtio::{self, VirtioNet};
use hugemem::{IovaRange, PacketPool, Region};
use vfio::discover::{ResolveError, resolve};
use vfio::{Interface, Sysfs, SystemClock, user};

use super::nic::{self as nic_port, NicPort};
use super::open::Card;
use super::{PciName, PciSpec, PortError, RingChoice, VfioChoice};

/// A device that is open and not started.
pub(super) struct PciDevice {
    name: String,
    /// The device itself, however it was named.
    identity: String,
    bus: Bus,
    driver: Driver,
}

/// How the device is reached.
enum Bus {
    Kernel(vfio::Function),
    Socket(user::Function),
}

/// The driver that knows it, and what is asked of that.
enum Driver {
    Virtio(virtio::Config),
    Ixgbe(ixgbe::Config),
}

impl Driver {
    fn choose(name: &str, id: PciId, spec: &PciSpec, nic: nic::Config) -> Result<Self, PortError> {
        let refused = |reason| Err(PortError::Device { port: name.into(), reason });
        if virtio::matches(id) {
            if spec.pause.is_some() {
                return refused("virtio devices know no pause frames; leave pause= out".into());
            }
            let ring = match spec.ring {
                RingChoice::Auto => virtio::RingChoice::Auto,
                RingChoice::Split => virtio::RingChoice::Split,
                RingChoice::Packed => virtio::RingChoice::Packed,
            };
            return Ok(Self::Virtio(virtio::Config { nic, ring }));
        }
        if ixgbe::matches(id) {
            if spec.ring != RingChoice::Auto {
                return refused("ring= is for virtio devices, and this one is an ixgbe; leave it out".into());
            }
            let mut config = ixgbe::Config { nic, ..ixgbe::Config::default() };
            if let Some(pause) = spec.pause {
                config.flow_control = pause;
            }
            return Ok(Self::Ixgbe(config));
        }
        let cure = match &spec.device {
            PciName::Socket(_) => "serve one of these there".into(),
            device => format!("give it back with: mirach unbind {device}"),
        };
        refused(format!(
            "{} is {:04x}:{:04x}, and there are drivers for virtio-net (1af4:1041, 1af4:1000) and ixgbe (82599, X540, X550) \
             only; {cure}",
            spec.device, id.vendor, id.device
        ))
    }

    fn nic(&self) -> &nic::Config {
        match self {
            Self::Virtio(config) => &config.nic,
            Self::Ixgbe(config) => &config.nic,
        }
    }
}

impl PciDevice {
    /// Opens the device. Of the offloads of reception, those in `offloads` are of use to whoever gets its packets.
    pub(super) fn open(name: &str, spec: &PciSpec, offloads: Offloads) -> Result<Self, PortError> {
        let (bus, identity) = match &spec.device {
            PciName::Socket(path) => {
                let options = user::Options { name: Some(spec.device.to_string()), ..user::Options::default() };
                let function = user::Function::connect(path, options).map_err(|error| failed(name, error))?;
                (Bus::Socket(function), spec.device.to_string())
            }
            PciName::Address(address) => (Bus::Kernel(take(name, *address, spec.vfio)?), address.to_string()),
            PciName::Interface(interface) => {
                let address = address(name, interface)?;
                (Bus::Kernel(take(name, address, spec.vfio)?), address.to_string())
            }
        };
        let id = match &bus {
            Bus::Kernel(function) => function.id(),
            Bus::Socket(function) => function.id(),
        };
        let wishes = nic::Config {
            queue_pairs: spec.queues.unwrap_or(1),
            interrupts: true,
            mtu: spec.mtu,
            mac: spec.mac,
            filter: if spec.promiscuous { ReceiveFilter::everything() } else { ReceiveFilter::host() },
            // A forwarder that does not look at tags has no use for having them taken out.
            offloads: offloads - Offloads::VLAN_STRIP,
            ..nic::Config::default()
        };
        Ok(Self { name: name.into(), identity, bus, driver: Driver::choose(name, id, spec, wishes)? })
    }
}

impl Card for PciDevice {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn queue_pairs(&self) -> usize {
        self.driver.nic().queue_pairs.into()
    }

    fn ring_memory(&self) -> usize {
        match &self.driver {
            Driver::Virtio(config) => config.ring_memory(),
            Driver::Ixgbe(config) => config.ring_memory(),
        }
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, PortError> {
        let ranges = match &self.bus {
            Bus::Kernel(function) => function.iova_ranges(),
            Bus::Socket(function) => function.iova_ranges(),
        };
        ranges.map_err(|error| failed(&self.name, error))
    }

    fn map(&mut self, region: &Region) -> Result<(), PortError> {
        let mapped = match &mut self.bus {
            Bus::Kernel(function) => function.map(region),
            Bus::Socket(function) => function.map(region),
        };
        mapped.map_err(|error| failed(&self.name, error))
    }

    fn start(self: Box<Self>, rings: &Region, pools: Vec<PacketPool>) -> Result<NicPort, PortError> {
        let Self { name, bus, driver, .. } = *self;
        match bus {
            Bus::Kernel(function) => {
                let interface = format!("vfio {}", function.interface());
                start(&name, function, &interface, driver, rings, pools)
            }
            Bus::Socket(function) => start(&name, function, "vfio user", driver, rings, pools),
        }
    }
}

/// Starts `driver` on `function`, whose bus is described by `bus`.
fn start<F>(
    name: &str,
    function: F,
    bus: &str,
    driver: Driver,
    rings: &Region,
    pools: Vec<PacketPool>,
) -> Result<NicPort, PortError>
where
    F: PciFunction,
    F::Interrupt: AsFd,
{
    let clock = Arc::new(SystemClock::new());
    let failed = |source| PortError::Nic { port: name.into(), source };
    let (wanted, promiscuous) = (driver.nic().queue_pairs, driver.nic().filter.promiscuous);
    let (mut port, pairs, most) = match driver {
        Driver::Virtio(config) => {
            let nic = VirtioNet::open(function, clock, rings, pools, config).map_err(failed)?;
            let summary = nic.summary().clone();
            tracing::info!("port `{name}`: {summary}");
            let details = format!("driver virtio-net ring {} {bus}", summary.ring);
            (nic_port::open(name, nic, promiscuous, details)?, summary.queue_pairs, summary.device_queue_pairs)
        }
        Driver::Ixgbe(config) => {
            let nic = Ixgbe::open(function, clock, rings, pools, config).map_err(failed)?;
            let summary = nic.summary().clone();
            tracing::info!("port `{name}`: {summary}");
            let details = format!("driver ixgbe {bus}");
            (nic_port::open(name, nic, promiscuous, details)?, summary.queue_pairs, summary.device_queue_pairs)
        }
    };
    if pairs < wanted {
        port.notices.push(format!(
            "port `{name}`: uses {pairs} queue pairs instead of {wanted}, because the device has {most}; ask for queues={pairs}"
        ));
    }
    Ok(port)
}

fn take(port: &str, address: PciAddress, choice: VfioChoice) -> Result<vfio::Function, PortError> {
    let interface = match choice {
        VfioChoice::Auto => Interface::Auto,
        VfioChoice::Type1 => Interface::Type1,
        VfioChoice::Iommufd => Interface::Iommufd,
    };
    vfio::Function::open(address, interface).map_err(|error| failed(port, error))
}

fn failed(name: &str, error: BusError) -> PortError {
    PortError::Nic { port: name.into(), source: NicError::Bus(error) }
}

/// The address of the device that the kernel's interface `name` is on.
fn address(port: &str, name: &str) -> Result<PciAddress, PortError> {
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
        let error = address("x", "lo").unwrap_err().to_string();
        assert_eq!(
            error,
            "port `x`: the interface `lo` is on no PCI device, so there is no driver for it; name a PCI device or a tap"
        );
        let error = address("x", "nonesuch").unwrap_err().to_string();
        assert!(error.contains("there is no interface `nonesuch`"), "{error}");
    }

    #[test]
    fn what_a_device_has_no_driver_for_is_refused_with_the_cure() {
        let refusal = |device, id, change: fn(&mut PciSpec)| {
            let mut spec = PciSpec::new(device);
            change(&mut spec);
            let chosen = Driver::choose("x", id, &spec, nic::Config::default());
            chosen.err().map(|error| error.to_string()).unwrap_or_default()
        };
        let id = |vendor, device| PciId { vendor, device, ..PciId::default() };
        let address = || PciName::Address("0000:03:00.0".parse().unwrap());
        let socket = || PciName::Socket("/run/nic0.sock".into());
        let error = refusal(address(), id(0x8086, 0x100e), |_| ());
        assert!(
            error.contains("0000:03:00.0 is 8086:100e") && error.ends_with("mirach unbind 0000:03:00.0"),
            "{error}"
        );
        let error = refusal(socket(), id(0x8086, 0x100e), |_| ());
        assert!(error.contains("vfio-user=/run/nic0.sock is 8086:100e") && !error.contains("unbind"), "{error}");
        let error = refusal(socket(), id(0x8086, 0x10fb), |spec| spec.ring = RingChoice::Packed);
        assert!(error.contains("ring= is for virtio devices"), "{error}");
        let error = refusal(address(), id(0x1af4, 0x1041), |spec| spec.pause = Some(nic::FlowControl::default()));
        assert!(error.contains("leave pause= out"), "{error}");
        assert_eq!(refusal(socket(), id(0x8086, 0x10fb), |_| ()), "");
    }

    #[test]
    fn a_device_that_is_not_there_is_said_to_be_missing() {
        let spec = PciSpec::new(PciName::Address("ffff:ff:1f.7".parse().unwrap()));
        let error = PciDevice::open("x", &spec, Offloads::all()).err().unwrap().to_string();
        assert!(error.starts_with("port `x`: ffff:ff:1f.7"), "{error}");
    }
}
