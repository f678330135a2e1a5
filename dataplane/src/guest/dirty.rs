//! The log of pages that were written, for live migration.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use super::address::GuestAddress;
use super::error::GuestError;
use super::mapping::{MapOptions, Mapping};
use super::words::Words;
use super::{file, memory};

/// Bytes of guest memory that one bit of the log stands for (`VHOST_LOG_PAGE`).
const PAGE: u64 = 4096;

/// A bit for each page of guest-physical memory, in memory that the frontend gave: bit `n % 8` of byte `n / 8` is set when page `n` was
/// written. What lies beyond the log is not noted.
#[derive(Debug)]
pub struct DirtyLog {
    bits: Words<AtomicU8>,
}

impl DirtyLog {
    /// Maps the `size` bytes from `offset` of `file` on as log.
    ///
    /// # Errors
    /// As [`Memory::with`](super::Memory::with).
    pub fn new(file: OwnedFd, offset: u64, size: u64, options: &MapOptions) -> Result<Arc<Self>, GuestError> {
        let extent = file::check(&file, offset, size)?;
        let mapping = Arc::new(Mapping::new(&file, extent, options)?);
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        Ok(Arc::new(Self { bits: memory::bytes(&mapping, extent, len) }))
    }

    /// Notes that `len` bytes from `at` (guest-physical) on were written. To be called after they were.
    #[inline]
    pub fn mark(&self, at: GuestAddress, len: u32) {
        let Some(more) = len.checked_sub(1) else { return };
        let last = at.0.saturating_add(more.into()) / PAGE;
        // The frontend clears a bit and then copies the page. Who finds the bit set must have written to the page before.
        fence(Ordering::SeqCst);
        for page in at.0 / PAGE..=last {
            let Some(byte) = usize::try_from(page / 8).ok().and_then(|index| self.bits.get(index)) else { return };
            let bit = 1 << (page % 8);
            // A bit that is set already needs no write, so that the line of a busy page stays shared.
            if byte.load(Ordering::Relaxed) & bit == 0 {
                byte.fetch_or(bit, Ordering::SeqCst);
            }
        }
    }

    /// The log was taken away.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.bits.is_lost()
    }
}
