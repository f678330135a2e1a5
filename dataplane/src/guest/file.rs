//! Whether a file that was handed over is memory.

use std::os::fd::{AsFd, AsRawFd};

use super::error::GuestError;

/// `TMPFS_MAGIC` and `HUGETLBFS_MAGIC` in linux/magic.h. A memfd is on one of these.
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;

/// The whole pages of a file that a region needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Offset in the file, a multiple of its page size.
    pub(super) start: u64,
    /// Bytes from there on, a multiple of its page size.
    pub(super) len: usize,
    /// Distance of the region's first byte from `start`.
    pub(super) inset: usize,
}

/// Most bytes of a file that are mapped, and of all regions of a VM: 4 TiB. Files of any size cost their makers nothing, and the
/// addresses of this process are for all VMs.
pub(super) const MOST_BYTES: u64 = 1 << 42;

/// Checks that `file` is memory and has the `size` bytes from `offset` on.
///
/// Regular files on memory file systems only: a page of any other file may block for ever (FUSE), have side effects (devices), or
/// be none (sockets). Only these have seals, and the kernel looks for them without asking the file system, which might never answer.
/// So that comes first.
pub(super) fn check(file: impl AsFd, offset: u64, size: u64) -> Result<Extent, GuestError> {
    let system = |action| move |source: rustix::io::Errno| GuestError::System { action, source: source.into() };
    if rustix::fs::fcntl_get_seals(&file).is_err() {
        return Err(GuestError::NotMemory { file: name(&file) });
    }
    let status = rustix::fs::fstat(&file).map_err(system("ask for the size of the file"))?;
    let system = rustix::fs::fstatfs(&file).map_err(system("ask for the file system of the file"))?;
    // Types of file systems are 32 bits wide, and sign-extended by some.
    let magic = system.f_type.cast_unsigned() & u64::from(u32::MAX);
    if magic != TMPFS && magic != HUGETLBFS {
        return Err(GuestError::NotMemory { file: name(&file) });
    }
    let geometry = GuestError::Geometry { what: "offset in the file", at: offset, size };
    if size > MOST_BYTES {
        return Err(GuestError::TooLarge { most: MOST_BYTES });
    }
    let Some(end) = offset.checked_add(size).filter(|_| size > 0) else { return Err(geometry) };
    let has = u64::try_from(status.st_size).unwrap_or(0);
    if end > has {
        return Err(GuestError::TooShort { needed: end, has });
    }
    // A huge page is the block of its file system, and mapped whole.
    let page = if magic == HUGETLBFS { u64::try_from(system.f_bsize).unwrap_or(0) } else { 0 };
    let page = page.max(rustix::param::page_size() as u64);
    let start = offset - offset % page;
    let len = end.checked_next_multiple_of(page).and_then(|end| usize::try_from(end - start).ok());
    let inset = usize::try_from(offset - start).ok();
    let (Some(len), Some(inset)) = (len, inset) else { return Err(geometry) };
    Ok(Extent { start, len, inset })
}

/// What the kernel calls `file`, which no file system is asked for.
fn name(file: impl AsFd) -> String {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    std::fs::read_link(link).map_or_else(|_| "a descriptor".into(), |name| format!("{name:?}"))
}
