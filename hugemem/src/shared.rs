//! Memory that processor and device use at the same time: rings and other tables.

use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use crate::iova::Iova;
use crate::prefetch::prefetch_to_write;
use crate::region::{Holding, OutOfMemory, Region};

/// What memory shared with a device may be made of: atomics and arrays of them, nothing else.
///
/// # Safety
/// Every bit pattern is a value of the type, all access through `&Self` is atomic, it has no padding, and it needs no drop.
#[expect(unsafe_code, reason = "a promise about memory layout")]
pub unsafe trait SharedWord: Sync + Send + 'static {}

macro_rules! shared_word {
    ($($atomic:ty),*) => {$(
        #[expect(unsafe_code, reason = "a promise about memory layout")]
        // SAFETY: an integer atomic has the layout of its integer and no invalid values.
        unsafe impl SharedWord for $atomic {}
    )*};
}
shared_word!(AtomicU8, AtomicU16, AtomicU32, AtomicU64);

#[expect(unsafe_code, reason = "a promise about memory layout")]
// SAFETY: an array adds neither padding nor invalid values.
unsafe impl<W: SharedWord, const N: usize> SharedWord for [W; N] {}

/// Words that processor and device share at any time. Zero at first; gives a slice of atomics.
pub struct DmaArray<W> {
    base: NonNull<W>,
    len: usize,
    iova: Iova,
    /// Keeps the memory in place.
    region: Holding,
}

#[expect(unsafe_code, reason = "the array is the only handle to its words")]
// SAFETY: `W` is `Send + Sync` by `SharedWord`, and the memory is not bound to a thread.
unsafe impl<W: SharedWord> Send for DmaArray<W> {}
#[expect(unsafe_code, reason = "the array is the only handle to its words")]
// SAFETY: as above.
unsafe impl<W: SharedWord> Sync for DmaArray<W> {}

impl<W: SharedWord> DmaArray<W> {
    pub(crate) fn carve(region: &Region, len: usize, alignment: usize) -> Result<Self, OutOfMemory> {
        let bytes = len.checked_mul(size_of::<W>());
        let bytes = bytes.ok_or(OutOfMemory { wanted: usize::MAX, left: region.remaining() })?;
        let offset = region.take(bytes, alignment.max(align_of::<W>()))?;
        let base = region.pointer(offset).cast();
        Ok(Self { base, len, iova: region.iova().offset(offset), region: Holding::new(region) })
    }

    /// Address of the first word for devices.
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.iova
    }

    /// Address of word `index` for devices; `None` beyond the end.
    #[must_use]
    pub fn iova_of(&self, index: usize) -> Option<Iova> {
        (index < self.len).then(|| self.iova.offset(index * size_of::<W>()))
    }

    /// Fetches the cache line of word `index` from whoever has it, to be written soon: a line that a device on another
    /// core wrote or read is then travelling while the processor does other things. Beyond the end it does nothing.
    #[inline(always)]
    pub fn prefetch_to_write(&self, index: usize) {
        if let Some(word) = self.get(index) {
            prefetch_to_write(word);
        }
    }
}

impl<W: SharedWord> Deref for DmaArray<W> {
    type Target = [W];

    #[expect(unsafe_code, reason = "raw memory is shown as atomics")]
    fn deref(&self) -> &[W] {
        // SAFETY: `carve` took `len` aligned words of the region for this array alone; `SharedWord` allows every
        // value and makes concurrent writes by a device atomic accesses; `region` keeps the memory mapped.
        unsafe { core::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl<W> fmt::Debug for DmaArray<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base: _, len, iova, region } = self;
        f.debug_struct("DmaArray")
            .field("len", len)
            .field("iova", iova)
            .field("region", &region.id())
            .finish_non_exhaustive()
    }
}
