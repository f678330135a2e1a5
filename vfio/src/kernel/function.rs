//! One PCI function behind VFIO.

use std::path::PathBuf;
use std::sync::Arc;

use drivers::bus::{BusError, PciAddress, PciFunction, PciId};
use hugemem::{IovaRange, Region};
use rustix::fs::{Access, access};

use super::container::Container;
use super::device::Device;
use super::iommufd::Ioas;
use super::space::{AddressSpace, Ledger};
use super::{Interface, Interrupt, explain};
use crate::bar::Bar;
use crate::configuration::{BUS_MASTER, COMMAND, Configuration, MEMORY_SPACE};
use crate::sysfs::Sysfs;

#[derive(Debug)]
enum Space {
    Type1(Container),
    Iommufd(Ioas),
}

impl Space {
    fn as_dyn(&self) -> &dyn AddressSpace {
        match self {
            Self::Type1(container) => container,
            Self::Iommufd(ioas) => ioas,
        }
    }
}

/// One PCI function that is bound to vfio-pci, owned until it is dropped. The order of its teardown is described in
/// [the module's text](crate::kernel).
#[derive(Debug)]
pub struct Function {
    address: PciAddress,
    id: PciId,
    bars: [Option<Bar>; 6],
    /// `None` only while being dropped.
    device: Option<Device>,
    /// `None` only while being dropped.
    space: Option<Space>,
    /// Last: the memory goes after everything that could reach it.
    ledger: Ledger,
    sysfs: Sysfs,
}

impl Function {
    /// Opens the function at `address` on this machine.
    ///
    /// # Errors
    /// One sentence with what mends it: not bound to vfio-pci, no IOMMU, group not viable, in use, no permission, no
    /// support in the kernel.
    pub fn open(address: PciAddress, interface: Interface) -> Result<Self, BusError> {
        Self::open_in(&Sysfs::default(), address, interface)
    }

    /// Opens the function at `address` as `sysfs` shows it.
    ///
    /// # Errors
    /// As [`Function::open`].
    pub fn open_in(sysfs: &Sysfs, address: PciAddress, interface: Interface) -> Result<Self, BusError> {
        let group = explain::before_opening(sysfs, address)?;
        let iommufd = match interface {
            Interface::Auto => prefers_iommufd(sysfs, address, group),
            Interface::Type1 => false,
            Interface::Iommufd => true,
        };
        let (space, file) = if iommufd {
            let (ioas, file) = Ioas::open(sysfs, address, group)?;
            (Space::Iommufd(ioas), file)
        } else {
            let (container, file) = Container::open(sysfs, address, group)?;
            (Space::Type1(container), Arc::new(file))
        };
        let device = Device::new(address.to_string(), file)?;
        let mut function = Self {
            address,
            id: PciId::default(),
            bars: Default::default(),
            device: Some(device),
            space: Some(space),
            ledger: Ledger::default(),
            sysfs: sysfs.clone(),
        };
        function.id = function.device()?.identity()?;
        // The registers must answer before the first access: the kernel raises SIGBUS for a mapped window otherwise.
        function.device()?.change_command(MEMORY_SPACE, BUS_MASTER)?;
        Ok(function)
    }

    /// Where it sits.
    #[must_use]
    pub fn address(&self) -> PciAddress {
        self.address
    }

    /// The interface in use: never [`Interface::Auto`].
    #[must_use]
    pub fn interface(&self) -> Interface {
        match self.space {
            Some(Space::Iommufd(_)) => Interface::Iommufd,
            _ => Interface::Type1,
        }
    }

    fn device(&self) -> Result<&Device, BusError> {
        self.device.as_ref().ok_or_else(|| closed(self.address))
    }

    /// Steps 1 to 6 of the teardown. Nothing stops it: what fails is said, and the next step follows.
    fn close(&mut self) {
        let address = self.address;
        let say = |step: &str, error: &dyn std::fmt::Display| {
            tracing::warn!(device = %address, %error, "{step} failed while letting the device go");
        };
        if let Err(error) = self.set_bus_master(false) {
            say("bus mastering off", &error);
        }
        if let Some(mut device) = self.device.take() {
            if device.can_reset()
                && let Err(error) = device.reset()
            {
                say("reset", &error);
            }
            if let Err(error) = device.disable_interrupts() {
                say("interrupts off", &error);
            }
            for bar in self.bars.iter_mut().filter_map(Option::take) {
                if let Err(error) = bar.revoke() {
                    say("revoking a register window", &error);
                }
            }
            if let Some(space) = self.space.as_ref() {
                for (iova, error) in self.ledger.unmap_all(space.as_dyn()) {
                    // No harm: the kernel keeps the pages pinned until the address space itself is gone, below.
                    say(&format!("unmapping at {iova:#x}"), &error);
                }
            }
            // type1: the group leaves its container only after the device's file is closed. iommufd: the address space
            // holds the file too, detaches and closes it.
            drop(device);
        }
        self.space = None;
    }
}

/// Whether the character device is there and may be used. A user who was given only the group gets the group.
fn prefers_iommufd(sysfs: &Sysfs, address: PciAddress, group: u32) -> bool {
    let Some(device) = sysfs.vfio_device(address) else { return false };
    let nodes = [sysfs.device_node("iommu"), device];
    let usable = |node: &PathBuf| access(node, Access::READ_OK | Access::WRITE_OK).is_ok();
    nodes.iter().all(|node| node.exists()) && (nodes.iter().all(usable) || !usable(&sysfs.group_node(group)))
}

fn closed(address: PciAddress) -> BusError {
    BusError::Gone { device: address.to_string(), reason: "it has been closed".into() }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.close();
    }
}

impl PciFunction for Function {
    type Bar = Bar;
    type Interrupt = Interrupt;

    fn name(&self) -> &str {
        self.device.as_ref().map_or("closed", Configuration::name)
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn read_config(&self, offset: u16) -> Result<u32, BusError> {
        self.device()?.read(offset)
    }

    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError> {
        // A window whose device does not decode memory raises SIGBUS when touched, so memory decoding stays on.
        let value = if offset == COMMAND { value | u32::from(MEMORY_SPACE) } else { value };
        self.device()?.write(offset, &value.to_le_bytes())
    }

    fn bar(&mut self, index: u8) -> Result<Bar, BusError> {
        if let Some(Some(bar)) = self.bars.get(usize::from(index)) {
            return Ok(bar.clone());
        }
        let bar = self.device()?.bar(index)?;
        if let Some(place) = self.bars.get_mut(usize::from(index)) {
            *place = Some(bar.clone());
        }
        Ok(bar)
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        let space = self.space.as_ref().ok_or_else(|| closed(self.address))?;
        space.as_dyn().ranges().map_err(|error| {
            super::device::system(&self.address.to_string(), "cannot learn the usable IOVA ranges", &error)
        })
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        let space = self.space.as_ref().ok_or_else(|| closed(self.address))?;
        let bytes = region.len() as u64;
        self.ledger.map(space.as_dyn(), region).map_err(|error| BusError::Mapping {
            device: self.address.to_string(),
            action: "map",
            iova: region.iova().raw(),
            bytes,
            reason: explain::mapping(&self.sysfs, bytes, &error),
        })
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        let space = self.space.as_ref().ok_or_else(|| closed(self.address))?;
        let reason = match self.ledger.unmap(space.as_dyn(), region) {
            Ok(true) => return Ok(()),
            Ok(false) => "it is not mapped".into(),
            Err(error) => error.to_string(),
        };
        Err(BusError::Mapping {
            device: self.address.to_string(),
            action: "unmap",
            iova: region.iova().raw(),
            bytes: region.len() as u64,
            reason,
        })
    }

    fn interrupt_count(&self) -> u16 {
        self.device.as_ref().map_or(0, Device::vectors)
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<Interrupt>, BusError> {
        self.device.as_mut().ok_or_else(|| closed(self.address))?.interrupts(count)
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        let device = self.device()?;
        if enabled { device.change_command(BUS_MASTER | MEMORY_SPACE, 0) } else { device.change_command(0, BUS_MASTER) }
    }

    fn reset(&mut self) -> Result<(), BusError> {
        let device = self.device()?;
        if device.can_reset() {
            // The kernel restores the Command register after the reset as it was before.
            device.change_command(0, BUS_MASTER)?;
        }
        device.reset()
    }
}
