//! The group interface: one container, one group in it, one device in that (`vfio_iommu_type1`, version 2).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use drivers::bus::{BusError, PciAddress};
use hugemem::IovaRange;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_GROUP_FLAGS_VIABLE, VFIO_IOMMU_INFO_CAPS, VFIO_TYPE1v2_IOMMU,
};

use super::space::{AddressSpace, DmaRange};
use super::{Interface, capabilities, explain, ioctl, open_node};
use crate::sysfs::Sysfs;

/// A container that holds one group.
///
/// Dropped after the device's file: the group leaves the container, then both files close, which removes every
/// mapping that is left.
#[derive(Debug)]
pub(crate) struct Container {
    group: File,
    container: File,
}

impl Container {
    /// Opens the group of `address` in a container of its own, and the device in it.
    pub(crate) fn open(sysfs: &Sysfs, address: PciAddress, group: u32) -> Result<(Self, File), BusError> {
        let fail = |error: &io::Error| explain::attach(sysfs, address, group, Interface::Type1, error);
        let container = open_node(sysfs, address, &sysfs.device_node("vfio/vfio"))?;
        let version = ioctl::api_version(container.as_fd()).map_err(|error| fail(&error))?;
        if u32::try_from(version) != Ok(VFIO_API_VERSION) {
            return Err(explain::refused(
                address,
                format!("the kernel speaks version {version} of VFIO's interface, mirach version {VFIO_API_VERSION}"),
            ));
        }
        if !ioctl::has_extension(container.as_fd(), VFIO_TYPE1v2_IOMMU).map_err(|error| fail(&error))? {
            return Err(fail(&io::Error::from_raw_os_error(libc::ENODEV)));
        }
        let group_file = open_node(sysfs, address, &sysfs.group_node(group))?;
        let flags = ioctl::group_flags(group_file.as_fd()).map_err(|error| fail(&error))?;
        if flags & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(explain::refused(address, explain::not_viable(sysfs, address, group)));
        }
        ioctl::set_container(group_file.as_fd(), container.as_fd()).map_err(|error| fail(&error))?;
        // From here on, dropping takes the group out of the container again.
        let container = Self { group: group_file, container };
        ioctl::set_iommu(container.container.as_fd(), VFIO_TYPE1v2_IOMMU).map_err(|error| fail(&error))?;
        let name = CString::new(address.to_string()).map_err(|error| fail(&error.into()))?;
        let device = ioctl::device_of_group(container.group.as_fd(), &name).map_err(|error| fail(&error))?;
        Ok((container, File::from(device)))
    }
}

impl AddressSpace for Container {
    fn map(&self, range: &DmaRange) -> io::Result<()> {
        ioctl::type1_map(self.container.as_fd(), range)
    }

    fn unmap(&self, iova: u64, bytes: u64) -> io::Result<u64> {
        ioctl::type1_unmap(self.container.as_fd(), iova, bytes)
    }

    fn ranges(&self) -> io::Result<Vec<IovaRange>> {
        let info = ioctl::iommu_info(self.container.as_fd())?;
        let mut ranges = None;
        if info.flags & VFIO_IOMMU_INFO_CAPS != 0 {
            let reply = ioctl::iommu_reply(self.container.as_fd(), info.argsz)?;
            // struct vfio_iommu_type1_info: the list's offset is the word at 16.
            let first = reply.get(16..20).and_then(|raw| raw.try_into().ok()).map_or(0, u32::from_ne_bytes);
            ranges = capabilities::iova_ranges(&reply, first);
        }
        let mut ranges = ranges.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "the kernel does not say which IOVA ranges are usable; Linux 5.4 or later does",
            )
        })?;
        ranges.sort_unstable_by_key(|range| range.first);
        Ok(ranges)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Err(error) = ioctl::unset_container(self.group.as_fd()) {
            // A register window that is still mapped somewhere keeps the group; the kernel ends it with the last one.
            tracing::debug!(%error, "the group stays in its container until the last register window is gone");
        }
    }
}
