//! The bus over Linux VFIO, by either of the kernel's two interfaces.
//!
//! [`Function::open`] gives one PCI function that is bound to vfio-pci. Each function has an I/O address space of its own (a
//! container, or an IOAS), so that a device reaches only what was mapped for it. There is no way around the IOMMU:
//! a group without one is refused.
//!
//! # Teardown
//!
//! Dropping a [`Function`] goes through these steps, and never waits for the device:
//! 1. bus mastering off, so that the device starts no access to memory;
//! 2. function reset, where the device has one;
//! 3. interrupts off;
//! 4. register windows revoked: handles that are left show all ones (see [`crate::bar`]);
//! 5. DMA unmapped;
//! 6. files closed: device, group and container, or device and iommufd;
//! 7. only then the memory that was mapped is let go.
//!
//! A process that is killed leaves steps 1 to 6 to the kernel, which does the same when it closes the files.

mod abi;
pub(crate) mod capabilities;
mod container;
mod device;
pub(crate) mod explain;
mod function;
mod ioctl;
mod iommufd;
mod space;

use std::fs::File;
use std::path::Path;

use drivers::bus::{BusError, PciAddress};

pub use crate::interrupt::Interrupt;
pub use function::Function;

use crate::sysfs::Sysfs;

/// Which of the kernel's interfaces to use.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Interface {
    /// iommufd when the device has a character device and the kernel has `/dev/iommu`, else type1; of the two, the one that
    /// this process has permission for.
    #[default]
    Auto,
    /// Group and container, `/dev/vfio/vfio` and `/dev/vfio/N`.
    Type1,
    /// Character device and iommufd, `/dev/vfio/devices/vfioN` and `/dev/iommu` (Linux 6.6 or later).
    Iommufd,
}

/// The text names no interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a VFIO interface (expected auto, type1 or iommufd)")]
pub struct NotInterface;

impl std::str::FromStr for Interface {
    type Err = NotInterface;

    fn from_str(text: &str) -> Result<Self, NotInterface> {
        match text {
            "auto" => Ok(Self::Auto),
            "type1" => Ok(Self::Type1),
            "iommufd" => Ok(Self::Iommufd),
            _ => Err(NotInterface),
        }
    }
}

impl std::fmt::Display for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Type1 => "type1",
            Self::Iommufd => "iommufd",
        })
    }
}

/// Opens a file of the kernel's for reading and writing, or says why it cannot.
fn open_node(sysfs: &Sysfs, address: PciAddress, path: &Path) -> Result<File, BusError> {
    File::options().read(true).write(true).open(path).map_err(|error| explain::node(sysfs, address, path, &error))
}
