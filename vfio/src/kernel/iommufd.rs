//! The character-device interface: one I/O address space (IOAS) in an iommufd of its own, one device attached to it.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use drivers::bus::{BusError, PciAddress};
use hugemem::IovaRange;

use super::space::{AddressSpace, DmaRange};
use super::{Interface, explain, ioctl, open_node};
use crate::sysfs::Sysfs;

/// An I/O address space with one device attached.
///
/// Dropped before the device's file is closed, which ends the binding; closing the iommufd then removes the address space with every
/// mapping that is left.
#[derive(Debug)]
pub(crate) struct Ioas {
    iommufd: File,
    ioas: u32,
    device: Arc<File>,
}

impl Ioas {
    /// Opens the character device of `address` and attaches it to a new address space.
    pub(crate) fn open(sysfs: &Sysfs, address: PciAddress, group: u32) -> Result<(Self, Arc<File>), BusError> {
        let fail = |error: &io::Error| explain::attach(sysfs, address, group, Interface::Iommufd, error);
        let iommufd = open_node(sysfs, address, &sysfs.device_node("iommu"))?;
        let Some(path) = sysfs.vfio_device(address) else {
            return Err(explain::refused(
                address,
                "the kernel has made no character device for it (CONFIG_VFIO_DEVICE_CDEV, Linux 6.6 or later): use the type1 interface",
            ));
        };
        let device = Arc::new(open_node(sysfs, address, &path)?);
        ioctl::bind_iommufd(device.as_fd(), iommufd.as_fd()).map_err(|error| fail(&error))?;
        let ioas = ioctl::ioas_alloc(iommufd.as_fd()).map_err(|error| fail(&error))?;
        ioctl::attach(device.as_fd(), ioas).map_err(|error| fail(&error))?;
        Ok((Self { iommufd, ioas, device: Arc::clone(&device) }, device))
    }
}

impl AddressSpace for Ioas {
    fn map(&self, range: &DmaRange) -> io::Result<()> {
        ioctl::ioas_map(self.iommufd.as_fd(), self.ioas, range)
    }

    fn unmap(&self, iova: u64, bytes: u64) -> io::Result<u64> {
        ioctl::ioas_unmap(self.iommufd.as_fd(), self.ioas, iova, bytes)
    }

    fn ranges(&self) -> io::Result<Vec<IovaRange>> {
        let mut ranges: Vec<IovaRange> = ioctl::ioas_ranges(self.iommufd.as_fd(), self.ioas)?
            .into_iter()
            .map(|range| IovaRange { first: range.first, last: range.last })
            .collect();
        ranges.sort_unstable_by_key(|range| range.first);
        Ok(ranges)
    }
}

impl Drop for Ioas {
    fn drop(&mut self) {
        if let Err(error) = ioctl::detach(self.device.as_fd()) {
            tracing::debug!(%error, "the device stays attached until its file is closed");
        }
    }
}
