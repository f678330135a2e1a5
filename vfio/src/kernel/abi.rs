//! The numbers and structures of the kernel's interface that `vfio-bindings` does not have.
//!
//! Sources: `include/uapi/linux/vfio.h` and `include/uapi/linux/iommufd.h` of Linux.

/// `_IO(';', number)`: direction and size are not encoded, both interfaces put the size into the structure.
const fn request(number: u32) -> u32 {
    (b';' as u32) << 8 | number
}

pub(crate) const GET_API_VERSION: u32 = request(100);
pub(crate) const CHECK_EXTENSION: u32 = request(101);
pub(crate) const SET_IOMMU: u32 = request(102);
pub(crate) const GROUP_GET_STATUS: u32 = request(103);
pub(crate) const GROUP_SET_CONTAINER: u32 = request(104);
pub(crate) const GROUP_UNSET_CONTAINER: u32 = request(105);
pub(crate) const GROUP_GET_DEVICE_FD: u32 = request(106);
pub(crate) const DEVICE_GET_INFO: u32 = request(107);
pub(crate) const DEVICE_GET_REGION_INFO: u32 = request(108);
pub(crate) const DEVICE_GET_IRQ_INFO: u32 = request(109);
pub(crate) const DEVICE_SET_IRQS: u32 = request(110);
pub(crate) const DEVICE_RESET: u32 = request(111);
pub(crate) const DEVICE_BIND_IOMMUFD: u32 = request(118);
pub(crate) const DEVICE_ATTACH_IOMMUFD_PT: u32 = request(119);
pub(crate) const DEVICE_DETACH_IOMMUFD_PT: u32 = request(120);
/// On a container; the same number means another thing on a device.
pub(crate) const IOMMU_GET_INFO: u32 = request(112);
pub(crate) const IOMMU_MAP_DMA: u32 = request(113);
pub(crate) const IOMMU_UNMAP_DMA: u32 = request(114);

pub(crate) const IOAS_ALLOC: u32 = request(0x81);
pub(crate) const IOAS_IOVA_RANGES: u32 = request(0x84);
pub(crate) const IOAS_MAP: u32 = request(0x85);
pub(crate) const IOAS_UNMAP: u32 = request(0x86);

pub(crate) const IOAS_MAP_FIXED_IOVA: u32 = 1 << 0;
pub(crate) const IOAS_MAP_WRITEABLE: u32 = 1 << 1;
pub(crate) const IOAS_MAP_READABLE: u32 = 1 << 2;

/// `struct iommu_ioas_alloc`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IoasAlloc {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) ioas: u32,
}

/// `struct iommu_ioas_iova_ranges`; `ranges` is the address of an array of [`IoasRange`].
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IoasRanges {
    pub(crate) size: u32,
    pub(crate) ioas: u32,
    pub(crate) count: u32,
    pub(crate) reserved: u32,
    pub(crate) ranges: u64,
    pub(crate) alignment: u64,
}

/// `struct iommu_iova_range`, inclusive at both ends.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IoasRange {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// `struct iommu_ioas_map`.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IoasMap {
    pub(crate) size: u32,
    pub(crate) flags: u32,
    pub(crate) ioas: u32,
    pub(crate) reserved: u32,
    pub(crate) address: u64,
    pub(crate) length: u64,
    pub(crate) iova: u64,
}

/// `struct iommu_ioas_unmap`; the kernel writes back how much it took away.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct IoasUnmap {
    pub(crate) size: u32,
    pub(crate) ioas: u32,
    pub(crate) iova: u64,
    pub(crate) length: u64,
}

/// Size of a structure, as the kernel wants it in the structure's first word.
#[expect(clippy::cast_possible_truncation, reason = "the structures here have less than a hundred bytes")]
pub(crate) const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;
    use vfio_bindings::bindings::vfio::*;

    #[test]
    fn requests_have_the_numbers_of_the_kernel_headers() {
        assert_eq!(GET_API_VERSION, 0x3b64);
        assert_eq!(DEVICE_RESET, 0x3b6f);
        assert_eq!(IOMMU_UNMAP_DMA, 0x3b72);
        assert_eq!(DEVICE_BIND_IOMMUFD, 0x3b76);
        assert_eq!(IOAS_ALLOC, 0x3b81);
        assert_eq!(IOAS_UNMAP, 0x3b86);
    }

    #[test]
    fn structures_have_the_layout_of_the_kernel_headers() {
        assert_eq!(size::<IoasAlloc>(), 12);
        assert_eq!(size::<IoasRanges>(), 32);
        assert_eq!(size::<IoasRange>(), 16);
        assert_eq!(size::<IoasMap>(), 40);
        assert_eq!(size::<IoasUnmap>(), 24);
        assert_eq!(offset_of!(IoasRanges, ranges), 16);
        assert_eq!(offset_of!(IoasMap, address), 16);
        assert_eq!(offset_of!(IoasMap, iova), 32);
        assert_eq!(offset_of!(IoasUnmap, length), 16);
        assert_eq!(size::<vfio_iommu_type1_dma_map>(), 32);
        assert_eq!(size::<vfio_iommu_type1_dma_unmap>(), 24);
        assert_eq!(size::<vfio_region_info>(), 32);
        assert_eq!(size::<vfio_irq_set>(), 20);
        assert_eq!(size::<vfio_device_info>(), 24);
        assert_eq!(size::<vfio_iommu_type1_info>(), 24);
    }
}
