//! Takes devices from their kernel drivers for vfio-pci, and gives them back.
//!
//! The kernel's way is `driver_override`: the name of the only driver that may have the device. Both directions check what came
//! out of it, and [`bind`] puts everything back as it was when a step fails.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use drivers::bus::{PciAddress, wait_until};

use crate::catalogue;
use crate::clock::SystemClock;
use crate::discover::interfaces;
use crate::kernel::explain::iommu_parameters;
use crate::network::Network;
use crate::sysfs::{Sysfs, User, is_vfio, names, read};

const VFIO: &str = "vfio-pci";
/// How long udev and a module may take to give a device its driver back.
const PATIENCE: Duration = Duration::from_secs(2);

/// A device that is bound to vfio-pci now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// The device.
    pub address: PciAddress,
    /// It was bound to vfio-pci before, and nothing was done.
    pub already: bool,
    /// The driver that had it.
    pub former: Option<String>,
    /// The file of its group, whose owner may use it: `/dev/vfio/12`.
    pub node: PathBuf,
    /// Other devices of its IOMMU group, with the kernel drivers that hold them. The device cannot be used before they
    /// are bound too.
    pub blockers: Vec<(PciAddress, String)>,
}

/// A device that was given back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Return {
    /// The device.
    pub address: PciAddress,
    /// It was not bound to vfio-pci, and nothing was done.
    pub already: bool,
    /// The driver that has it now; `None` when none wanted it.
    pub driver: Option<String>,
    /// The network interfaces that came with the driver.
    pub interfaces: Vec<String>,
}

/// A device could not be bound or given back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// Nothing sits at the address.
    #[error("{0}: there is no such PCI device; `mirach devices` lists those that there are")]
    NoDevice(PciAddress),
    /// It is no network card and no DMA engine.
    #[error(
        "{0}: it is neither a network card nor a DMA engine; taking it from the kernel may stop the machine; use --force if you mean it"
    )]
    OtherKind(PciAddress),
    /// It is behind no IOMMU.
    #[error("{address}: it is behind no IOMMU, or the IOMMU is off: {cure}")]
    NoIommu {
        /// The device.
        address: PciAddress,
        /// How to switch it on.
        cure: String,
    },
    /// vfio-pci is not there.
    #[error("{0}: the module vfio-pci is not loaded: run `modprobe vfio-pci`")]
    NoModule(PciAddress),
    /// The kernel's interface on it is in use.
    #[error("{address}: its interface {interface} is in use ({}); move that elsewhere first, or use --force", uses.join(", "))]
    Active {
        /// The device.
        address: PciAddress,
        /// The interface.
        interface: String,
        /// Its addresses, routes, master and what is stacked on it.
        uses: Vec<String>,
    },
    /// The kernel copies with the device.
    #[error("{address}: the kernel copies with it ({}); end what uses it first, or use --force", channels.join(", "))]
    Copying {
        /// The device.
        address: PciAddress,
        /// The kernel's channels that are in use.
        channels: Vec<String>,
    },
    /// A process has the device or another of its group open. The kernel would wait for that process without end.
    #[error("{address}: it or another device of its IOMMU group is in use by process {} ({}): stop that process first", user.process, user.name)]
    InUse {
        /// The device.
        address: PciAddress,
        /// The process.
        user: User,
    },
    /// Only root may do this.
    #[error("{address}: no permission to write {}: run this command as root", path.display())]
    Permission {
        /// The device.
        address: PciAddress,
        /// The attribute.
        path: PathBuf,
    },
    /// The kernel refused a step.
    #[error("{address}: cannot write {}: {reason}; {after}", path.display())]
    Refused {
        /// The device.
        address: PciAddress,
        /// The attribute.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
        /// In which state the device is now.
        after: String,
    },
    /// The kernel did everything that it was asked, and vfio-pci still does not have the device.
    #[error("{address}: vfio-pci did not take the device ({reason}); {after}")]
    NotTaken {
        /// The device.
        address: PciAddress,
        /// Why, as far as can be known.
        reason: String,
        /// In which state the device is now.
        after: String,
    },
}

/// Binds the device at `address` to vfio-pci. With `force` also a device that is in use by the kernel, or of another kind.
///
/// # Errors
/// One sentence with what mends it. The device is then with its former driver again, or the error says that it is not.
pub fn bind(sysfs: &Sysfs, network: &Network, address: PciAddress, force: bool) -> Result<Binding, BindError> {
    if !sysfs.has_function(address) {
        return Err(BindError::NoDevice(address));
    }
    let Some(group) = sysfs.group(address).filter(|group| !sysfs.group_lacks_iommu(*group)) else {
        return Err(BindError::NoIommu { address, cure: iommu_parameters(sysfs).into() });
    };
    let former = sysfs.driver(address);
    let binding = |already: bool, former: Option<String>| Binding {
        address,
        already,
        former,
        node: sysfs.group_node(group),
        blockers: sysfs.group_blockers(group),
    };
    if former.as_deref().is_some_and(is_vfio) {
        return Ok(binding(true, former));
    }
    if !sysfs.path("bus/pci/drivers").join(VFIO).exists() {
        return Err(BindError::NoModule(address));
    }
    if !force {
        if catalogue::kind(sysfs.id(address)).is_none() {
            return Err(BindError::OtherKind(address));
        }
        for interface in interfaces(sysfs, network, address) {
            let uses = interface.uses();
            if !uses.is_empty() {
                return Err(BindError::Active { address, interface: interface.name, uses });
            }
        }
        let channels = channels_in_use(sysfs, address);
        if !channels.is_empty() {
            return Err(BindError::Copying { address, channels });
        }
    }
    let steps = Steps { sysfs, address };
    let former_override = read(&steps.attribute("driver_override")).filter(|text| text != "(null)");
    let result =
        steps.set_override(VFIO).and_then(|()| steps.release()).and_then(|()| steps.probe()).and_then(|()| {
            if sysfs.driver(address).as_deref() == Some(VFIO) { Ok(()) } else { Err(Failure::NotTaken) }
        });
    match result {
        Ok(()) => Ok(binding(false, former)),
        Err(failure) => {
            let after = steps.restore(former_override.as_deref(), former.as_deref());
            Err(failure.while_taking(sysfs, address, after))
        }
    }
}

/// The channels of a copy engine that somebody in the kernel uses, by the kernel's names.
pub(crate) fn channels_in_use(sysfs: &Sysfs, address: PciAddress) -> Vec<String> {
    let folder = sysfs.function(address).join("dma");
    let in_use = |channel: &String| read(&folder.join(channel).join("in_use")).is_some_and(|users| users != "0");
    names(&folder).unwrap_or_default().into_iter().filter(in_use).collect()
}

/// Gives the device at `address` back to the kernel.
///
/// # Errors
/// One sentence with what mends it. That no kernel driver wants the device is no error: see [`Return::driver`].
pub fn unbind(sysfs: &Sysfs, address: PciAddress) -> Result<Return, BindError> {
    if !sysfs.has_function(address) {
        return Err(BindError::NoDevice(address));
    }
    let steps = Steps { sysfs, address };
    let overridden = read(&steps.attribute("driver_override")).is_some_and(|text| is_vfio(&text));
    let bound = sysfs.driver(address).as_deref().is_some_and(is_vfio);
    if !bound && !overridden {
        return Ok(steps.result(true));
    }
    if bound {
        // Also while another device of the group is open: the kernel's driver could not have this one beside it.
        if let Some(user) = sysfs.users(&sysfs.vfio_files(address)).into_iter().next() {
            return Err(BindError::InUse { address, user });
        }
    }
    let given =
        steps.set_override("").and_then(|()| if bound { steps.release() } else { Ok(()) }).and_then(|()| steps.probe());
    if let Err(failure) = given {
        let after = match sysfs.driver(address) {
            Some(driver) => format!("the device is with {driver}"),
            None => "the device is with no driver".into(),
        };
        return Err(failure.at_write(address, after));
    }
    if sysfs.driver(address).is_none() {
        // The driver's module may not be loaded: let udev see the device as if it were new.
        if steps.write(&steps.attribute("uevent"), "add").is_ok() {
            let clock = SystemClock::new();
            wait_until(&clock, PATIENCE, Duration::from_millis(50), || sysfs.driver(address).is_some());
        }
    }
    Ok(steps.result(false))
}

/// The single writes, for one device.
struct Steps<'a> {
    sysfs: &'a Sysfs,
    address: PciAddress,
}

enum Failure {
    Write(PathBuf, io::Error),
    NotTaken,
}

impl Steps<'_> {
    fn attribute(&self, name: &str) -> PathBuf {
        self.sysfs.function(self.address).join(name)
    }

    fn write(&self, path: &Path, value: &str) -> Result<(), Failure> {
        self.sysfs.write(path, value).map_err(|error| Failure::Write(path.to_owned(), error))
    }

    fn set_override(&self, driver: &str) -> Result<(), Failure> {
        self.write(&self.attribute("driver_override"), &format!("{driver}\n"))
    }

    /// Parts the device from its driver, if it has one.
    fn release(&self) -> Result<(), Failure> {
        match self.sysfs.driver(self.address) {
            Some(driver) => {
                let path = self.sysfs.path("bus/pci/drivers").join(driver).join("unbind");
                self.write(&path, &self.address.to_string())
            }
            None => Ok(()),
        }
    }

    /// Lets the kernel choose a driver.
    fn probe(&self) -> Result<(), Failure> {
        self.write(&self.sysfs.path("bus/pci/drivers_probe"), &self.address.to_string())
    }

    /// Puts the device back as it was, as far as possible, and says what came of it.
    fn restore(&self, former_override: Option<&str>, former: Option<&str>) -> String {
        let _ = self.set_override(former_override.unwrap_or(""));
        if self.sysfs.driver(self.address).as_deref() != former {
            let _ = self.release();
            if let Some(former) = former {
                let _ = self.probe();
                if self.sysfs.driver(self.address).is_none() {
                    let path = self.sysfs.path("bus/pci/drivers").join(former).join("bind");
                    let _ = self.write(&path, &self.address.to_string());
                }
            }
        }
        match (self.sysfs.driver(self.address), former) {
            (now, former) if now.as_deref() == former => match former {
                Some(former) => format!("it is with {former} again"),
                None => "it is without a driver, as before".into(),
            },
            (Some(now), _) => format!("it is with {now} now"),
            (None, _) => format!("it is without a driver now: run `mirach unbind {}`", self.address),
        }
    }

    fn result(&self, already: bool) -> Return {
        let found = interfaces(self.sysfs, &Network::default(), self.address);
        let interfaces = found.into_iter().map(|interface| interface.name).collect();
        Return { address: self.address, already, driver: self.sysfs.driver(self.address), interfaces }
    }
}

impl Failure {
    /// A step towards vfio-pci failed.
    fn while_taking(self, sysfs: &Sysfs, address: PciAddress, after: String) -> BindError {
        match self {
            // vfio-pci refuses at this write; what it says there is only an error number.
            Self::Write(path, error)
                if !path.ends_with("drivers_probe") || error.kind() == io::ErrorKind::PermissionDenied =>
            {
                Self::Write(path, error).at_write(address, after)
            }
            Self::Write(..) | Self::NotTaken => {
                let reason = if catalogue::is_dsa(sysfs.id(address)) {
                    "Linux denies it DSA devices for security (INTEL-SA-01084), unless it is loaded with `modprobe vfio-pci disable_denylist=1`"
                } else {
                    "the kernel's log says why: run `dmesg | tail`"
                };
                BindError::NotTaken { address, reason: reason.into(), after }
            }
        }
    }

    fn at_write(self, address: PciAddress, after: String) -> BindError {
        match self {
            Self::Write(path, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                BindError::Permission { address, path }
            }
            Self::Write(path, error) => BindError::Refused { address, path, reason: error.to_string(), after },
            Self::NotTaken => BindError::NotTaken { address, reason: "no reason given".into(), after },
        }
    }
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
