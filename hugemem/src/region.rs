//! One pinned range of memory with one I/O virtual address.

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use alloc::sync::Arc;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
#[cfg(feature = "std")]
use std::os::fd::BorrowedFd;

use crate::iova::Iova;
use crate::pool::PacketPool;
use crate::shared::{DmaArray, SharedWord};

/// Smallest page of the machine, and so the smallest unit that an IOMMU maps.
pub(crate) const PAGE: usize = 4096;

/// A region has too little memory left, or the request itself cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{wanted} bytes wanted, {left} left in the region; give it more memory")]
pub struct OutOfMemory {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes that are left.
    pub left: usize,
}

/// What keeps a region's memory in place. Dropped when nobody uses the region any more.
pub trait Backing: Send + Sync {
    /// The file that the memory is a mapping of, and the offset of its first byte there: what another process needs to
    /// map the same memory.
    #[cfg(feature = "std")]
    fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        None
    }
}

struct Inner {
    base: NonNull<u8>,
    len: usize,
    iova: Iova,
    page_size: usize,
    id: u64,
    /// Bytes handed out so far.
    used: AtomicUsize,
    /// Pieces that somebody still holds.
    pieces: AtomicUsize,
    #[cfg_attr(not(feature = "std"), expect(dead_code, reason = "held for its Drop alone"))]
    backing: alloc::boxed::Box<dyn Backing>,
}

/// One pinned range of memory with one I/O virtual address, the same on every bus. Cloning gives another handle.
///
/// Pieces are handed out from its start and never come back, so that what a device could still write to is never
/// given to someone else. The memory itself goes when the last handle, piece and packet is gone.
#[derive(Clone)]
pub struct Region {
    inner: Arc<Inner>,
}

/// The region of a piece, which counts as one for as long as this lives.
pub(crate) struct Holding(Region);

impl Holding {
    pub(crate) fn new(region: &Region) -> Self {
        region.inner.pieces.fetch_add(1, Ordering::Relaxed);
        Self(region.clone())
    }
}

impl core::ops::Deref for Holding {
    type Target = Region;

    fn deref(&self) -> &Region {
        &self.0
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        // Whoever sees the count go down sees all that the holder did before.
        self.0.inner.pieces.fetch_sub(1, Ordering::Release);
    }
}

#[expect(unsafe_code, reason = "the pointer is only ever used through pieces that are handed out once")]
// SAFETY: `Inner` owns its memory; handing out pieces is atomic; `Backing` is `Send + Sync`.
unsafe impl Send for Inner {}
#[expect(unsafe_code, reason = "the pointer is only ever used through pieces that are handed out once")]
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Region {
    /// Wraps memory that a system has made reachable.
    ///
    /// # Safety
    /// For as long as `backing` lives, the `len` bytes at `base` must be mapped, readable and writable, used by nobody
    /// else in this process, zero at first, and stay at the same physical place while a bus maps them. `base` and `iova`
    /// are aligned to `page_size`, which is a power of two of at least 4096 and divides `len`.
    #[expect(unsafe_code, reason = "the one place where raw memory becomes a region")]
    #[must_use]
    pub unsafe fn new(
        base: NonNull<u8>,
        len: usize,
        iova: Iova,
        page_size: usize,
        backing: alloc::boxed::Box<dyn Backing>,
    ) -> Self {
        Self::wrap(base, len, iova, page_size, backing, 0)
    }

    /// Shows memory that others use to devices: they reach it at `iova`, and nothing of it is ever handed out.
    ///
    /// # Safety
    /// For as long as `backing` lives, the `len` bytes at `base` must be mapped, readable and writable, and whoever uses them must bear with their
    /// being read and written by devices at any time. `base` and `iova` are aligned to `page_size`, which is a power of two of
    /// at least 4096 and divides `len`.
    #[expect(unsafe_code, reason = "only the caller knows whose memory it is")]
    #[must_use]
    pub unsafe fn window(
        base: NonNull<u8>,
        len: usize,
        iova: Iova,
        page_size: usize,
        backing: alloc::boxed::Box<dyn Backing>,
    ) -> Self {
        Self::wrap(base, len, iova, page_size, backing, len)
    }

    /// A region whose first `used` bytes are handed out already.
    fn wrap(
        base: NonNull<u8>,
        len: usize,
        iova: Iova,
        page_size: usize,
        backing: alloc::boxed::Box<dyn Backing>,
        used: usize,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self {
            inner: Arc::new(Inner {
                base,
                len,
                iova,
                page_size,
                id,
                used: AtomicUsize::new(used),
                pieces: AtomicUsize::new(0),
                backing,
            }),
        }
    }

    /// A region of ordinary memory at `iova`, for models in the same process and for tests: no other process and no
    /// kernel can map it. `len` is rounded up to whole pages.
    ///
    /// # Errors
    /// When the allocator has no such amount.
    #[expect(unsafe_code, reason = "memory from the allocator becomes a region")]
    pub fn on_heap(len: usize, iova: Iova) -> Result<Self, OutOfMemory> {
        struct Heap(NonNull<u8>, Layout);
        impl Backing for Heap {}
        // SAFETY: the allocation is owned by this value alone and is not bound to a thread.
        unsafe impl Send for Heap {}
        // SAFETY: as above; nothing is reachable through a shared reference.
        unsafe impl Sync for Heap {}
        impl Drop for Heap {
            fn drop(&mut self) {
                // SAFETY: allocated below with this very layout, and freed once.
                unsafe { dealloc(self.0.as_ptr(), self.1) }
            }
        }
        let failure = OutOfMemory { wanted: len, left: 0 };
        let len = len.max(1).checked_next_multiple_of(PAGE).ok_or(failure)?;
        let layout = Layout::from_size_align(len, PAGE).map_err(|_| failure)?;
        // SAFETY: the layout's size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(failure)?;
        // SAFETY: fresh zeroed memory, owned by `Heap`, aligned to a page and a multiple of it long.
        Ok(unsafe { Self::new(base, len, iova, PAGE, alloc::boxed::Box::new(Heap(base, layout))) })
    }

    /// Address of its first byte for devices.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.inner.iova
    }

    /// Its length in bytes, a multiple of [`Region::page_size`].
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Size in bytes of the pages that it is made of.
    #[must_use]
    pub fn page_size(&self) -> usize {
        self.inner.page_size
    }

    /// A number that no other region of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.id
    }

    /// Address of its first byte for the processor. For buses and models only: the bytes behind it belong to whoever holds the pieces.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.inner.base.as_ptr()
    }

    /// The file that it is a mapping of, with the offset of its first byte there.
    #[cfg(feature = "std")]
    #[must_use]
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        self.inner.backing.file()
    }

    /// Bytes not handed out yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.inner.len - self.inner.used.load(Ordering::Relaxed)
    }

    /// Arrays and pools of this region that are still there, pools that are gone but for packets on their way included. With none,
    /// nobody but who maps the region can still get at its memory.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.inner.pieces.load(Ordering::Acquire)
    }

    /// Hands out `len` zeroed words at a multiple of `alignment` bytes (a power of two up to a page), to share with a device.
    ///
    /// # Errors
    /// When the region has too little left, or the request cannot be.
    pub fn array<W: SharedWord>(&self, len: usize, alignment: usize) -> Result<DmaArray<W>, OutOfMemory> {
        DmaArray::carve(self, len, alignment)
    }

    /// Hands out a pool of `count` packet buffers, each with room for `room` bytes behind its headroom.
    ///
    /// # Errors
    /// When the region has too little left, or the request cannot be.
    pub fn packets(&self, count: usize, room: usize) -> Result<PacketPool, OutOfMemory> {
        PacketPool::carve(self, count, room, 0)
    }

    /// As [`Region::packets`], of packets that may each have up to `pieces` [foreign pieces](crate::Foreign). Buffers that come home are
    /// taken in by [`PacketPool::sweep`] alone.
    ///
    /// # Errors
    /// As [`Region::packets`].
    pub fn packets_with_foreign(&self, count: usize, room: usize, pieces: u16) -> Result<PacketPool, OutOfMemory> {
        PacketPool::carve(self, count, room, pieces)
    }

    /// Takes `bytes` bytes at a multiple of `alignment`; returns their offset. No two calls give the same byte.
    pub(crate) fn take(&self, bytes: usize, alignment: usize) -> Result<usize, OutOfMemory> {
        let mut used = self.inner.used.load(Ordering::Relaxed);
        loop {
            let failure = OutOfMemory { wanted: bytes, left: self.inner.len - used };
            if !alignment.is_power_of_two() || alignment > PAGE {
                return Err(failure);
            }
            let start = used.checked_next_multiple_of(alignment).ok_or(failure)?;
            let end = start.checked_add(bytes).filter(|end| *end <= self.inner.len).ok_or(failure)?;
            match self.inner.used.compare_exchange_weak(used, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(start),
                Err(now) => used = now,
            }
        }
    }

    /// Pointer to the byte at `offset`, which must lie inside.
    #[expect(unsafe_code, reason = "pointer arithmetic inside the region")]
    pub(crate) fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= self.inner.len, "a piece lies inside its region");
        // SAFETY: `offset` is within the allocation, as just checked.
        unsafe { self.inner.base.add(offset) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("id", &self.inner.id)
            .field("iova", &self.inner.iova)
            .field("len", &self.inner.len)
            .field("page_size", &self.inner.page_size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use core::sync::atomic::AtomicU16;

    #[test]
    fn pieces_are_aligned_and_disjoint_and_end_with_the_region() {
        let region = Region::on_heap(PAGE, Iova::new(0x10_0000)).unwrap();
        let first = region.array::<AtomicU16>(3, 2).unwrap();
        let second = region.array::<AtomicU16>(8, 64).unwrap();
        assert_eq!(first.iova().raw(), 0x10_0000);
        assert_eq!(second.iova().raw(), 0x10_0040);
        assert_eq!(region.remaining(), PAGE - 80);
        let refused = region.array::<AtomicU16>(PAGE, 2).unwrap_err();
        assert_eq!(refused, OutOfMemory { wanted: 2 * PAGE, left: PAGE - 80 });
    }

    #[test]
    #[expect(unsafe_code, reason = "a window needs a promise")]
    fn nothing_of_a_window_is_handed_out() {
        struct Kept(#[expect(dead_code, reason = "held for its memory")] Region);
        impl Backing for Kept {}
        let region = Region::on_heap(2 * PAGE, Iova::new(0x10_0000)).unwrap();
        let base = NonNull::new(region.as_ptr()).unwrap();
        let kept = alloc::boxed::Box::new(Kept(region.clone()));
        // SAFETY: nobody uses the memory, which the backing keeps.
        let window = unsafe { Region::window(base, 2 * PAGE, Iova::new(0x20_0000), PAGE, kept) };
        assert_eq!((window.remaining(), window.len(), window.iova().raw()), (0, 2 * PAGE, 0x20_0000));
        assert!(window.array::<AtomicU16>(1, 2).is_err());
        assert_eq!(region.remaining(), 2 * PAGE);
    }

    #[test]
    fn a_request_that_overflows_is_refused() {
        let region = Region::on_heap(PAGE, Iova::new(0)).unwrap();
        assert!(region.array::<AtomicU16>(usize::MAX, 2).is_err());
        assert!(region.packets(usize::MAX, 2048).is_err());
        assert!(region.array::<AtomicU16>(1, 3).is_err());
        assert!(region.array::<AtomicU16>(1, 2 * PAGE).is_err());
    }

    #[test]
    fn pieces_are_counted_until_the_last_packet_is_home() {
        let region = Region::on_heap(16 * PAGE, Iova::new(0)).unwrap();
        let words = region.array::<AtomicU16>(4, 2).unwrap();
        let mut pool = region.packets(2, 2048).unwrap();
        let packet = pool.take().unwrap();
        let other = region.clone();
        assert_eq!((region.pieces(), other.pieces()), (2, 2));
        drop(words);
        drop(pool);
        assert_eq!(region.pieces(), 1, "a packet is on its way");
        drop(packet);
        assert_eq!(region.pieces(), 0);
    }

    #[test]
    fn memory_outlives_the_region_handle_while_a_piece_is_held() {
        let region = Region::on_heap(PAGE, Iova::new(0)).unwrap();
        let words = region.array::<AtomicU16>(4, 2).unwrap();
        drop(region);
        words[3].store(7, Ordering::Relaxed);
        assert_eq!(words[3].load(Ordering::Relaxed), 7);
    }
}
