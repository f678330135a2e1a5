//! One range of a memory file, mapped and watched for faults.

#![expect(unsafe_code, reason = "files become memory")]

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags};

use super::error::GuestError;
use super::fault::Registration;
use super::file::Extent;

/// How memory is mapped.
#[derive(Clone, Debug, Default)]
pub struct MapOptions {
    /// Get all pages now instead of at first use. Takes the time that it takes, on the calling thread.
    pub prefault: bool,
    /// An eventfd of ours that is written to when the memory is taken away, so that its session wakes up.
    pub wake: Option<Arc<OwnedFd>>,
}

/// A range of a memory file, mapped for reading and writing. Unmapped when dropped.
///
/// Invariant: the range is mapped and registered for fault containment for as long as this exists.
pub(super) struct Mapping {
    /// Goes before the range does.
    registration: Registration,
    range: Range,
}

impl Mapping {
    /// Maps `extent` of `file`, which was checked.
    pub(super) fn new(file: impl AsFd, extent: Extent, options: &MapOptions) -> Result<Self, GuestError> {
        let range = Range::map(file, extent)?;
        // SAFETY: the range was just mapped; it goes after its registration, and is only used by copies and atomics.
        let registration = unsafe { Registration::new(range.base, range.len, options.wake.clone()) }?;
        let mapping = Self { registration, range };
        if options.prefault {
            mapping.populate()?;
        }
        Ok(mapping)
    }

    /// Its first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.range.base
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> usize {
        self.range.len
    }

    /// The file was cut off under it, and it is zeroes that nobody shares.
    pub(super) fn is_lost(&self) -> bool {
        self.registration.is_lost()
    }

    /// Gets all its pages.
    fn populate(&self) -> Result<(), GuestError> {
        let advice = rustix::mm::Advice::LinuxPopulateWrite;
        // SAFETY: the range is this mapping, and populating changes no byte.
        let done = unsafe { rustix::mm::madvise(self.range.base.as_ptr().cast(), self.range.len, advice) };
        done.map_err(|source| GuestError::System { action: "get the pages", source: source.into() })
    }
}

/// Addresses that a file is mapped at. Unmapped when dropped.
struct Range {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is not bound to a thread, and nothing is reached through it but by atomics and copies.
unsafe impl Send for Range {}
// SAFETY: as above.
unsafe impl Sync for Range {}

impl Range {
    fn map(file: impl AsFd, extent: Extent) -> Result<Self, GuestError> {
        let refused = |source: rustix::io::Errno| GuestError::System { action: "map the file", source: source.into() };
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice takes nobody's memory.
        let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), extent.len, protection, flags, file, extent.start) };
        let base =
            NonNull::new(base.map_err(refused)?.cast::<u8>()).ok_or_else(|| refused(rustix::io::Errno::INVAL))?;
        // The handler of faults gets at the range by its number.
        base.as_ptr().expose_provenance();
        Ok(Self { base, len: extent.len })
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // SAFETY: the range is a mapping of ours that nobody uses any more.
        let result = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(result.is_ok(), "the range was mapped");
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping")
            .field("base", &self.base())
            .field("len", &self.len())
            .field("lost", &self.is_lost())
            .finish()
    }
}
