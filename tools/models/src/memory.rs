//! The memory that a model may reach: what was mapped for it, at exactly the bounds of the maps.
//!
//! This is the IOMMU of the model. Every access names an IOVA; one that is not mapped is refused and recorded. This is also the
//! only file of the crate that touches memory by pointer.

#![expect(unsafe_code, reason = "a device reaches memory that its driver owns; addresses are checked here")]

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hugemem::{Backing, Iova, Region};

/// What a device wanted to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

/// A device reached for memory that is not mapped for it: what an IOMMU would log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DmaFault {
    /// I/O virtual address of the first byte.
    pub address: u64,
    /// Bytes wanted.
    pub bytes: u64,
    /// Direction.
    pub access: Access,
}

impl fmt::Debug for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes at IOVA {:#x}", self.access, self.bytes, self.address)
    }
}

/// Faults kept; later ones are only counted.
const FAULTS_KEPT: usize = 256;

struct Mapping {
    first: u64,
    len: u64,
    region: Region,
}

/// All maps of one device.
#[derive(Default)]
pub(crate) struct Memory {
    mappings: Vec<Mapping>,
    /// Index of the mapping that served last.
    last: Cell<usize>,
    faults: RefCell<Vec<DmaFault>>,
    fault_count: Cell<u64>,
    /// Changes with every map and unmap.
    epoch: u64,
}

impl Memory {
    /// Adds a map. `false` when it overlaps another region's.
    pub(crate) fn map(&mut self, region: &Region) -> bool {
        let first = region.iova().raw();
        let len = region.len() as u64;
        if self.mappings.iter().any(|mapping| mapping.region.id() == region.id()) {
            return true;
        }
        let overlaps =
            |mapping: &Mapping| first < mapping.first + mapping.len && mapping.first < first.saturating_add(len);
        if first.checked_add(len).is_none() || self.mappings.iter().any(overlaps) {
            return false;
        }
        self.mappings.push(Mapping { first, len, region: region.clone() });
        self.epoch += 1;
        true
    }

    /// Takes a map away; `false` when there is none of this region.
    pub(crate) fn unmap(&mut self, region: &Region) -> bool {
        let before = self.mappings.len();
        self.mappings.retain(|mapping| mapping.region.id() != region.id());
        self.epoch += 1;
        self.last.set(0);
        self.mappings.len() != before
    }

    /// Takes all maps away.
    pub(crate) fn clear(&mut self) {
        self.mappings.clear();
        self.epoch += 1;
        self.last.set(0);
    }

    /// Number of regions mapped.
    pub(crate) fn mapped(&self) -> usize {
        self.mappings.len()
    }

    /// Changes whenever translations may have changed.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn faults(&self) -> Vec<DmaFault> {
        self.faults.borrow().clone()
    }

    pub(crate) fn fault_count(&self) -> u64 {
        self.fault_count.get()
    }

    #[inline]
    fn find(&self, address: u64, bytes: u64) -> Option<(&Mapping, u64)> {
        let hit = |mapping: &Mapping| {
            let offset = address.checked_sub(mapping.first)?;
            (offset <= mapping.len && bytes <= mapping.len - offset).then_some(offset)
        };
        if let Some(mapping) = self.mappings.get(self.last.get())
            && let Some(offset) = hit(mapping)
        {
            return Some((mapping, offset));
        }
        let (index, offset) =
            self.mappings.iter().enumerate().find_map(|(index, mapping)| Some((index, hit(mapping)?)))?;
        self.last.set(index);
        Some((self.mappings.get(index)?, offset))
    }

    /// Records an access that was refused.
    #[cold]
    pub(crate) fn refuse(&self, address: u64, bytes: u64, access: Access) {
        self.fault_count.set(self.fault_count.get() + 1);
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FAULTS_KEPT {
            faults.push(DmaFault { address, bytes, access });
        }
    }

    /// The bytes at `address`, or a recorded fault.
    #[inline]
    pub(crate) fn span(&self, address: u64, bytes: usize, access: Access) -> Option<Span<'_>> {
        let Some((mapping, offset)) = self.find(address, bytes as u64) else {
            self.refuse(address, bytes as u64, access);
            return None;
        };
        // SAFETY: `find` made sure that `offset` lies inside the region.
        let pointer = unsafe { mapping.region.as_ptr().add(usize::try_from(offset).ok()?) };
        Some(Span { pointer, len: bytes, memory: PhantomData })
    }

    /// Ring memory at `address`, which keeps its region alive. A recorded fault when it is not mapped.
    pub(crate) fn words(&self, address: u64, bytes: usize, access: Access) -> Option<Words> {
        let Some((mapping, offset)) = self.find(address, bytes as u64) else {
            self.refuse(address, bytes as u64, access);
            return None;
        };
        // SAFETY: `find` made sure that `offset` lies inside the region.
        let pointer = unsafe { mapping.region.as_ptr().add(usize::try_from(offset).ok()?) };
        Some(Words { pointer, len: bytes, region: mapping.region.clone() })
    }
}

/// Bytes of a buffer that the driver lent to the device.
#[derive(Clone, Copy)]
pub(crate) struct Span<'memory> {
    pointer: *mut u8,
    len: usize,
    memory: PhantomData<&'memory Memory>,
}

impl Span<'_> {
    /// Copies out from `offset`; `false`, and nothing done, when that exceeds the span.
    #[inline]
    pub(crate) fn read(&self, offset: usize, target: &mut [u8]) -> bool {
        if offset > self.len || target.len() > self.len - offset {
            return false;
        }
        // SAFETY: the offset was just checked.
        let from = unsafe { self.pointer.add(offset) };
        // SAFETY: both ranges are valid for the length: the span by its translation, whose region `Memory` holds; they
        // do not overlap because the driver lent the span and `target` is the model's own.
        unsafe { std::ptr::copy_nonoverlapping(from, target.as_mut_ptr(), target.len()) };
        true
    }

    /// Copies in at `offset`; `false`, and nothing done, when that exceeds the span.
    #[inline]
    pub(crate) fn write(&self, offset: usize, source: &[u8]) -> bool {
        if offset > self.len || source.len() > self.len - offset {
            return false;
        }
        // SAFETY: the offset was just checked.
        let to = unsafe { self.pointer.add(offset) };
        // SAFETY: as in `read`, in the other direction.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), to, source.len()) };
        true
    }
}

/// Memory that driver and device share at any time: only ever touched atomically.
pub(crate) struct Words {
    pointer: *mut u8,
    len: usize,
    /// Keeps the memory in place, so that a stale ring can do no harm before it is noticed.
    region: Region,
}

// SAFETY: all access is atomic, and the region keeps the memory mapped on whichever thread the words are.
unsafe impl Send for Words {}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("len", &self.len).field("region", &self.region.id()).finish_non_exhaustive()
    }
}

macro_rules! word {
    ($load:ident, $store:ident, $atomic:ty, $integer:ty) => {
        /// Reads the word at `offset` bytes with acquire ordering; 0 outside.
        #[inline]
        pub(crate) fn $load(&self, offset: usize) -> $integer {
            let Some(pointer) = self.at(offset, size_of::<$integer>()) else { return 0 };
            // SAFETY: `at` checked bounds and alignment, the region keeps the memory mapped, and the driver too
            // touches ring memory only atomically.
            let word = unsafe { <$atomic>::from_ptr(pointer.cast()) };
            word.load(Ordering::Acquire)
        }

        /// Writes the word at `offset` bytes with release ordering; nothing outside.
        #[inline]
        pub(crate) fn $store(&self, offset: usize, value: $integer) {
            let Some(pointer) = self.at(offset, size_of::<$integer>()) else { return };
            // SAFETY: as for loads.
            let word = unsafe { <$atomic>::from_ptr(pointer.cast()) };
            word.store(value, Ordering::Release);
        }
    };
}

impl Words {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn at(&self, offset: usize, bytes: usize) -> Option<*mut u8> {
        if offset > self.len || bytes > self.len - offset {
            return None;
        }
        // SAFETY: the offset was just checked.
        let pointer = unsafe { self.pointer.add(offset) };
        (pointer.addr() & (bytes - 1) == 0).then_some(pointer)
    }

    word!(load16, store16, AtomicU16, u16);
    word!(load32, store32, AtomicU32, u32);
    word!(load64, store64, AtomicU64, u64);
}

/// A page of zeroes, to make aligned memory of.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u8; 4096]);

/// What a watched region is made of. Nothing reads it: the region's pieces do, by pointer.
struct Watched {
    pages: *mut [Page],
    _alive: Arc<()>,
}

impl Backing for Watched {}

// SAFETY: the pages belong to this value alone and to no thread.
unsafe impl Send for Watched {}
// SAFETY: a shared reference gives nothing away.
unsafe impl Sync for Watched {}

impl Drop for Watched {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `watched_region`, and freed once.
        drop(unsafe { Box::from_raw(self.pages) });
    }
}

/// A region of ordinary memory at `iova` whose end can be watched: the [`Weak`] can no longer be upgraded once the last packet,
/// pool, ring, map and handle of it is gone. A buffer that a driver lost keeps it alive for ever. `len` is rounded up to whole pages.
///
/// # Panics
/// When `len` is 0.
#[must_use]
pub fn watched_region(len: usize, iova: Iova) -> (Region, Weak<()>) {
    assert_ne!(len, 0, "a region has at least one page");
    let pages = Box::into_raw(vec![Page([0; 4096]); len.div_ceil(4096)].into_boxed_slice());
    let alive = Arc::new(());
    let watch = Arc::downgrade(&alive);
    // SAFETY: a box is never null.
    let base = unsafe { NonNull::new_unchecked(pages.cast::<u8>()) };
    let backing = Box::new(Watched { pages, _alive: alive });
    // SAFETY: zeroed whole pages, aligned to a page, which `backing` owns and nobody else uses.
    let region = unsafe { Region::new(base, len.next_multiple_of(4096), iova, 4096, backing) };
    (region, watch)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn region(iova: u64) -> Region {
        Region::on_heap(4096, Iova::new(iova)).unwrap()
    }

    #[test]
    fn only_mapped_memory_is_reached_to_the_byte() {
        let (a, b) = (region(0x10_0000), region(0x10_1000));
        let mut memory = Memory::default();
        assert!(memory.map(&a) && memory.map(&b) && memory.map(&a));
        assert!(memory.span(0x10_0000, 4096, Access::Write).unwrap().write(4095, &[7]));
        let mut byte = [0];
        assert!(memory.span(0x10_0fff, 1, Access::Read).unwrap().read(0, &mut byte));
        assert_eq!(byte, [7]);
        assert!(!memory.span(0x10_0000, 16, Access::Write).unwrap().write(9, &[0; 8]));
        assert_eq!(memory.fault_count(), 0);
        // A span across two maps is two translations for an IOMMU, but no driver here has a reason for it.
        for (address, bytes) in [(0x0f_ffff, 1), (0x10_0fff, 2), (0x10_2000, 1), (u64::MAX, 2), (0, 1)] {
            assert!(memory.span(address, bytes, Access::Read).is_none(), "{address:#x}");
        }
        assert_eq!(memory.fault_count(), 5);
        assert_eq!(memory.faults()[0], DmaFault { address: 0x0f_ffff, bytes: 1, access: Access::Read });
    }

    #[test]
    fn an_access_after_unmap_is_a_fault() {
        let a = region(0x10_0000);
        let mut memory = Memory::default();
        assert!(memory.map(&a));
        assert!(memory.unmap(&a) && !memory.unmap(&a));
        assert!(memory.words(0x10_0000, 2, Access::Read).is_none());
        assert_eq!(memory.fault_count(), 1);
    }

    #[test]
    fn the_end_of_a_watched_region_shows() {
        let (region, watch) = watched_region(5000, Iova::new(0x10_0000));
        let words = region.array::<AtomicU64>(1, 8).unwrap();
        drop(region);
        assert!(watch.upgrade().is_some());
        drop(words);
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn overlapping_maps_are_refused() {
        let mut memory = Memory::default();
        assert!(memory.map(&region(0x10_0000)));
        assert!(!memory.map(&region(0x10_0000)));
    }

    #[test]
    fn words_outside_or_misaligned_are_not_touched() {
        let a = region(0x10_0000);
        let mut memory = Memory::default();
        assert!(memory.map(&a));
        let words = memory.words(0x10_0000, 8, Access::Write).unwrap();
        words.store64(0, 0x1122_3344_5566_7788);
        words.store32(8, 9);
        words.store16(1, 9);
        assert_eq!((words.load16(6), words.load32(8), words.load64(0)), (0x1122, 0, 0x1122_3344_5566_7788));
    }
}
