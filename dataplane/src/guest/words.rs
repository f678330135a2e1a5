//! Ring memory: guest words that both sides use at any time.

#![expect(unsafe_code, reason = "guest memory is shown as atomics")]

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use hugemem::SharedWord;

use super::address::GuestAddress;
use super::copy;
use super::mapping::Mapping;

/// Words of a guest's memory, as a slice of atomics that keeps the memory mapped. The counterpart of [`hugemem::DmaArray`].
///
/// Invariant: `len` aligned words at `base` lie in `mapping`.
pub struct Words<W> {
    base: NonNull<W>,
    len: usize,
    guest: GuestAddress,
    mapping: Arc<Mapping>,
}

// SAFETY: `W` is `Send + Sync` by `SharedWord`, and the memory is not bound to a thread.
unsafe impl<W: SharedWord> Send for Words<W> {}
// SAFETY: as above.
unsafe impl<W: SharedWord> Sync for Words<W> {}

impl<W: SharedWord> Words<W> {
    /// The `len` words at `base`.
    ///
    /// # Safety
    /// They are aligned and lie in `mapping`.
    pub(super) unsafe fn new(base: NonNull<W>, len: usize, guest: GuestAddress, mapping: Arc<Mapping>) -> Self {
        Self { base, len, guest, mapping }
    }

    /// Guest-physical address of the first word: what a [`DirtyLog`](super::DirtyLog) is told.
    #[must_use]
    pub fn guest(&self) -> GuestAddress {
        self.guest
    }

    /// The memory was taken away, and the words are zeroes that nobody shares.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }

    /// Fetches the cache line of word `index`, to be read soon. Beyond the end it does nothing.
    #[inline(always)]
    pub fn prefetch(&self, index: usize) {
        if let Some(word) = self.get(index) {
            copy::prefetch(NonNull::from(word).cast());
        }
    }

    /// Fetches the cache line of word `index`, to be written soon. Beyond the end it does nothing.
    #[inline(always)]
    pub fn prefetch_to_write(&self, index: usize) {
        if let Some(word) = self.get(index) {
            copy::prefetch_to_write(NonNull::from(word).cast(), 0);
        }
    }
}

impl<W: SharedWord> Deref for Words<W> {
    type Target = [W];

    #[inline(always)]
    fn deref(&self) -> &[W] {
        // SAFETY: by the invariant, and `mapping` keeps them mapped. `SharedWord` allows every value and makes the guest's writes
        // atomic accesses; a fault is contained, and the words read as zeroes from then on.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<W> fmt::Debug for Words<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base: _, len, guest, mapping } = self;
        f.debug_struct("Words").field("len", len).field("guest", guest).field("mapping", mapping).finish()
    }
}
