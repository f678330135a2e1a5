//! The kernel's VFIO and iommufd calls as safe functions.
//!
//! All `ioctl`s of the crate are here. Each function returns what the kernel said, as an [`io::Result`]; what an error
//! means for the user is worked out by the callers.

#![expect(unsafe_code, reason = "ioctl takes an untyped pointer")]

use std::ffi::{CStr, c_int, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vfio_bindings::bindings::vfio as abi_vfio;

use super::abi::{self, IoasAlloc, IoasMap, IoasRange, IoasRanges, IoasUnmap, size};
use super::space::DmaRange;

/// A structure that one request reads and writes.
///
/// # Safety
/// The request `REQUEST` accesses no more than the structure, and memory that the structure names only as [`DmaRange`] allows.
unsafe trait Argument {
    const REQUEST: u32;
}

macro_rules! argument {
    ($($structure:path = $request:ident),* $(,)?) => {$(
        // SAFETY: the kernel's header gives this structure for this request, and its callers below set its size word.
        unsafe impl Argument for $structure {
            const REQUEST: u32 = abi::$request;
        }
    )*};
}
argument! {
    abi_vfio::vfio_group_status = GROUP_GET_STATUS,
    abi_vfio::vfio_device_info = DEVICE_GET_INFO,
    abi_vfio::vfio_region_info = DEVICE_GET_REGION_INFO,
    abi_vfio::vfio_irq_info = DEVICE_GET_IRQ_INFO,
    abi_vfio::vfio_device_bind_iommufd = DEVICE_BIND_IOMMUFD,
    abi_vfio::vfio_device_attach_iommufd_pt = DEVICE_ATTACH_IOMMUFD_PT,
    abi_vfio::vfio_device_detach_iommufd_pt = DEVICE_DETACH_IOMMUFD_PT,
    abi_vfio::vfio_iommu_type1_info = IOMMU_GET_INFO,
    abi_vfio::vfio_iommu_type1_dma_map = IOMMU_MAP_DMA,
    abi_vfio::vfio_iommu_type1_dma_unmap = IOMMU_UNMAP_DMA,
    IoasAlloc = IOAS_ALLOC,
    IoasMap = IOAS_MAP,
    IoasUnmap = IOAS_UNMAP,
}

fn result(returned: c_int) -> io::Result<c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

fn exchange<A: Argument>(file: BorrowedFd<'_>, argument: &mut A) -> io::Result<c_int> {
    // SAFETY: `argument` is a live, exclusive structure of the kind that `Argument` vouches for.
    result(unsafe { libc::ioctl(file.as_raw_fd(), A::REQUEST as libc::Ioctl, std::ptr::from_mut(argument)) })
}

/// Requests whose argument is a number or nothing.
fn command(file: BorrowedFd<'_>, request: u32, value: c_ulong) -> io::Result<c_int> {
    // SAFETY: the requests that are passed here take no pointer.
    result(unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, value) })
}

pub(crate) fn api_version(container: BorrowedFd<'_>) -> io::Result<c_int> {
    command(container, abi::GET_API_VERSION, 0)
}

pub(crate) fn has_extension(container: BorrowedFd<'_>, extension: u32) -> io::Result<bool> {
    command(container, abi::CHECK_EXTENSION, extension.into()).map(|answer| answer > 0)
}

pub(crate) fn set_iommu(container: BorrowedFd<'_>, kind: u32) -> io::Result<()> {
    command(container, abi::SET_IOMMU, kind.into()).map(drop)
}

pub(crate) fn group_flags(group: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = abi_vfio::vfio_group_status { argsz: size::<abi_vfio::vfio_group_status>(), flags: 0 };
    exchange(group, &mut status)?;
    Ok(status.flags)
}

pub(crate) fn set_container(group: BorrowedFd<'_>, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut number = container.as_raw_fd();
    // SAFETY: the request reads one int.
    result(unsafe {
        libc::ioctl(group.as_raw_fd(), abi::GROUP_SET_CONTAINER as libc::Ioctl, std::ptr::from_mut(&mut number))
    })
    .map(drop)
}

pub(crate) fn unset_container(group: BorrowedFd<'_>) -> io::Result<()> {
    command(group, abi::GROUP_UNSET_CONTAINER, 0).map(drop)
}

pub(crate) fn device_of_group(group: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: the request reads a string that ends with NUL.
    let number =
        result(unsafe { libc::ioctl(group.as_raw_fd(), abi::GROUP_GET_DEVICE_FD as libc::Ioctl, name.as_ptr()) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

pub(crate) fn device_info(device: BorrowedFd<'_>) -> io::Result<abi_vfio::vfio_device_info> {
    let mut info = abi_vfio::vfio_device_info { argsz: size::<abi_vfio::vfio_device_info>(), ..Default::default() };
    exchange(device, &mut info)?;
    Ok(info)
}

/// The answer's fixed part; its `argsz` says how many bytes there are with capabilities.
pub(crate) fn region_info(device: BorrowedFd<'_>, index: u32) -> io::Result<abi_vfio::vfio_region_info> {
    let mut info =
        abi_vfio::vfio_region_info { argsz: size::<abi_vfio::vfio_region_info>(), index, ..Default::default() };
    exchange(device, &mut info)?;
    Ok(info)
}

/// The answer of [`region_info`] with its capabilities, `bytes` long.
pub(crate) fn region_reply(device: BorrowedFd<'_>, index: u32, bytes: u32) -> io::Result<Vec<u8>> {
    reply(device, abi::DEVICE_GET_REGION_INFO, bytes.max(size::<abi_vfio::vfio_region_info>()), index)
}

pub(crate) fn iommu_info(container: BorrowedFd<'_>) -> io::Result<abi_vfio::vfio_iommu_type1_info> {
    let mut info =
        abi_vfio::vfio_iommu_type1_info { argsz: size::<abi_vfio::vfio_iommu_type1_info>(), ..Default::default() };
    exchange(container, &mut info)?;
    Ok(info)
}

/// The answer of [`iommu_info`] with its capabilities, `bytes` long.
pub(crate) fn iommu_reply(container: BorrowedFd<'_>, bytes: u32) -> io::Result<Vec<u8>> {
    reply(container, abi::IOMMU_GET_INFO, bytes.max(size::<abi_vfio::vfio_iommu_type1_info>()), 0)
}

/// A request whose answer may be longer than its structure. `third` is the structure's third 32-bit word.
fn reply(file: BorrowedFd<'_>, request: u32, bytes: u32, third: u32) -> io::Result<Vec<u8>> {
    // The kernel's capability lists have some hundred bytes. More than this is no answer.
    let bytes = bytes.min(1 << 20);
    let mut words = vec![0_u64; (bytes as usize).div_ceil(8).max(2)];
    if let [first, second, ..] = words.as_mut_slice() {
        *first = bytes.into();
        *second = third.into();
    }
    // SAFETY: the first 32 bits say how many bytes the kernel may write, and the buffer has at least as many.
    result(unsafe { libc::ioctl(file.as_raw_fd(), request as libc::Ioctl, words.as_mut_ptr()) })?;
    let mut answer: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    answer.truncate(bytes as usize);
    Ok(answer)
}

pub(crate) fn irq_info(device: BorrowedFd<'_>, index: u32) -> io::Result<abi_vfio::vfio_irq_info> {
    let mut info = abi_vfio::vfio_irq_info { argsz: size::<abi_vfio::vfio_irq_info>(), index, ..Default::default() };
    exchange(device, &mut info)?;
    Ok(info)
}

/// Makes vectors `0..signals.len()` of interrupt `index` signal these eventfds; none disables the interrupt.
/// A number above 0 says that the kernel has only so many vectors, and has enabled none.
pub(crate) fn set_irqs(device: BorrowedFd<'_>, index: u32, signals: &[BorrowedFd<'_>]) -> io::Result<c_int> {
    let count = u32::try_from(signals.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let data = if count == 0 { abi_vfio::VFIO_IRQ_SET_DATA_NONE } else { abi_vfio::VFIO_IRQ_SET_DATA_EVENTFD };
    let bytes = size::<abi_vfio::vfio_irq_set>() + 4 * count;
    // struct vfio_irq_set: size, flags, index, first vector, count, then the descriptors.
    let mut words = vec![bytes, data | abi_vfio::VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, count];
    words.extend(signals.iter().map(|signal| signal.as_raw_fd().cast_unsigned()));
    // SAFETY: the buffer holds as many bytes as its first word says, and the kernel only reads it.
    result(unsafe { libc::ioctl(device.as_raw_fd(), abi::DEVICE_SET_IRQS as libc::Ioctl, words.as_mut_ptr()) })
}

pub(crate) fn reset(device: BorrowedFd<'_>) -> io::Result<()> {
    command(device, abi::DEVICE_RESET, 0).map(drop)
}

pub(crate) fn bind_iommufd(device: BorrowedFd<'_>, iommufd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut bind = abi_vfio::vfio_device_bind_iommufd {
        argsz: size::<abi_vfio::vfio_device_bind_iommufd>(),
        iommufd: iommufd.as_raw_fd(),
        ..Default::default()
    };
    exchange(device, &mut bind)?;
    Ok(bind.out_devid)
}

pub(crate) fn attach(device: BorrowedFd<'_>, ioas: u32) -> io::Result<()> {
    let mut attach = abi_vfio::vfio_device_attach_iommufd_pt {
        argsz: size::<abi_vfio::vfio_device_attach_iommufd_pt>(),
        pt_id: ioas,
        ..Default::default()
    };
    exchange(device, &mut attach).map(drop)
}

pub(crate) fn detach(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut detach = abi_vfio::vfio_device_detach_iommufd_pt {
        argsz: size::<abi_vfio::vfio_device_detach_iommufd_pt>(),
        ..Default::default()
    };
    exchange(device, &mut detach).map(drop)
}

pub(crate) fn type1_map(container: BorrowedFd<'_>, range: &DmaRange) -> io::Result<()> {
    let mut map = abi_vfio::vfio_iommu_type1_dma_map {
        argsz: size::<abi_vfio::vfio_iommu_type1_dma_map>(),
        flags: abi_vfio::VFIO_DMA_MAP_FLAG_READ | abi_vfio::VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: range.address(),
        iova: range.iova(),
        size: range.bytes(),
    };
    exchange(container, &mut map).map(drop)
}

/// Returns how many bytes the kernel took away.
pub(crate) fn type1_unmap(container: BorrowedFd<'_>, iova: u64, bytes: u64) -> io::Result<u64> {
    let mut unmap = abi_vfio::vfio_iommu_type1_dma_unmap {
        argsz: size::<abi_vfio::vfio_iommu_type1_dma_unmap>(),
        flags: 0,
        iova,
        size: bytes,
        ..Default::default()
    };
    exchange(container, &mut unmap)?;
    Ok(unmap.size)
}

pub(crate) fn ioas_alloc(iommufd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut alloc = IoasAlloc { size: size::<IoasAlloc>(), ..Default::default() };
    exchange(iommufd, &mut alloc)?;
    Ok(alloc.ioas)
}

pub(crate) fn ioas_map(iommufd: BorrowedFd<'_>, ioas: u32, range: &DmaRange) -> io::Result<()> {
    let mut map = IoasMap {
        size: size::<IoasMap>(),
        flags: abi::IOAS_MAP_FIXED_IOVA | abi::IOAS_MAP_READABLE | abi::IOAS_MAP_WRITEABLE,
        ioas,
        reserved: 0,
        address: range.address(),
        length: range.bytes(),
        iova: range.iova(),
    };
    exchange(iommufd, &mut map).map(drop)
}

/// Returns how many bytes the kernel took away.
pub(crate) fn ioas_unmap(iommufd: BorrowedFd<'_>, ioas: u32, iova: u64, bytes: u64) -> io::Result<u64> {
    let mut unmap = IoasUnmap { size: size::<IoasUnmap>(), ioas, iova, length: bytes };
    exchange(iommufd, &mut unmap)?;
    Ok(unmap.length)
}

/// The ranges that every device attached to `ioas` can use.
pub(crate) fn ioas_ranges(iommufd: BorrowedFd<'_>, ioas: u32) -> io::Result<Vec<IoasRange>> {
    let mut ranges = vec![IoasRange::default(); 16];
    loop {
        let room = u32::try_from(ranges.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut query = IoasRanges {
            size: size::<IoasRanges>(),
            ioas,
            count: room,
            reserved: 0,
            ranges: ranges.as_mut_ptr().addr() as u64,
            alignment: 0,
        };
        ranges.as_mut_ptr().expose_provenance();
        // SAFETY: the request writes `query` and at most `count` ranges behind `ranges`, and there are that many.
        let returned = result(unsafe {
            libc::ioctl(iommufd.as_raw_fd(), abi::IOAS_IOVA_RANGES as libc::Ioctl, std::ptr::from_mut(&mut query))
        });
        match returned {
            Ok(_) => {
                ranges.truncate(query.count as usize);
                return Ok(ranges);
            }
            // Too few places: the kernel has said how many it wants. It is asked again with exactly as many.
            Err(error)
                if error.raw_os_error() == Some(libc::EMSGSIZE) && query.count > room && query.count < 1 << 16 =>
            {
                ranges.resize(query.count as usize, IoasRange::default());
            }
            Err(error) => return Err(error),
        }
    }
}
