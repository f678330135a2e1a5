//! Memory that a peer shares by a file descriptor.

use std::os::fd::BorrowedFd;

use rustix::fs::{SealFlags, fcntl_get_seals, fstat};

/// Whether a file has `end` bytes, and will keep them. Touching a mapping of one that was made shorter raises a signal that ends the
/// process, so only what its owner has sealed against that is ever mapped.
pub(super) fn is_lasting(file: BorrowedFd<'_>, end: u64) -> bool {
    let sealed = fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    let size = fstat(file).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    sealed && size.is_some_and(|size| size >= end)
}
