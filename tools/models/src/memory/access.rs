//! Access to the memory behind a map, by pointer, once its address has been checked.

#![expect(unsafe_code, reason = "a device reaches memory that its driver owns; addresses are checked by `Memory`")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::{Memory, Source};

/// Longest access that is copied word by word, each word whole: descriptors, a few cache lines of them.
const WHOLE_WORDS: usize = 256;

/// Where some bytes of a map are: checked to be inside, and valid as long as `Memory` is borrowed.
#[derive(Clone, Copy)]
pub(crate) struct Place<'memory> {
    pointer: NonNull<u8>,
    memory: PhantomData<&'memory Memory>,
}

impl Place<'_> {
    /// The byte `offset` behind `base`.
    ///
    /// # Safety
    /// `offset` and the bytes that are to be copied lie inside the memory at `base`, which lives as long as `Self`.
    #[inline]
    pub(super) unsafe fn at(base: NonNull<u8>, offset: usize) -> Self {
        // SAFETY: passed on to the caller.
        let pointer = unsafe { base.add(offset) };
        Self { pointer, memory: PhantomData }
    }

    fn is_aligned(self) -> bool {
        self.pointer.addr().get().is_multiple_of(8)
    }

    /// The word at `offset`.
    ///
    /// # Safety
    /// The place is aligned to 8 bytes, `offset` is a multiple of 8, and the word lies inside what was checked.
    #[inline]
    unsafe fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: inside, says the caller.
        let pointer = unsafe { self.pointer.add(offset) };
        // SAFETY: aligned and valid, says the caller.
        unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) }
    }

    /// Copies out. As many bytes as were checked.
    #[inline]
    pub(crate) fn read(self, target: &mut [u8]) {
        if target.len() <= WHOLE_WORDS && target.len().is_multiple_of(8) && self.is_aligned() {
            for (index, chunk) in target.chunks_exact_mut(8).enumerate() {
                // SAFETY: aligned, and inside the checked bytes because the chunk is.
                let word = unsafe { self.word(8 * index) };
                chunk.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
            fence(Ordering::Acquire);
            return;
        }
        // SAFETY: both are valid for the length, and `target` is the model's own.
        unsafe { std::ptr::copy_nonoverlapping(self.pointer.as_ptr(), target.as_mut_ptr(), target.len()) };
    }

    /// Copies `bytes` bytes to `target`, which may overlap. As many as were checked for both.
    #[inline]
    pub(crate) fn copy_to(self, target: Self, bytes: usize) {
        // SAFETY: both are valid for the length.
        unsafe { std::ptr::copy(self.pointer.as_ptr(), target.pointer.as_ptr(), bytes) };
    }

    /// Copies in. As many bytes as were checked. The last 8 bytes, where they are aligned, become visible last.
    #[inline]
    pub(crate) fn write(self, source: &[u8]) {
        if source.len() == 16 && self.is_aligned() {
            let (first, last) = source.split_at(8);
            // SAFETY: aligned, and inside the 16 checked bytes.
            let word = unsafe { self.word(0) };
            word.store(whole(first), Ordering::Relaxed);
            // SAFETY: as above.
            let word = unsafe { self.word(8) };
            word.store(whole(last), Ordering::Release);
            return;
        }
        let end = self.pointer.addr().get().wrapping_add(source.len());
        let last = if source.len() >= 8 && end.is_multiple_of(8) { source.len() - 8 } else { source.len() };
        let (first, status) = source.split_at(last);
        // SAFETY: as for reads, in the other direction.
        unsafe { std::ptr::copy_nonoverlapping(first.as_ptr(), self.pointer.as_ptr(), first.len()) };
        if !status.is_empty() {
            // SAFETY: inside the checked bytes.
            let pointer = unsafe { self.pointer.add(last) };
            // SAFETY: `end`, and so the word in front of it, is aligned.
            let word = unsafe { AtomicU64::from_ptr(pointer.as_ptr().cast()) };
            word.store(whole(status), Ordering::Release);
        }
    }
}

fn whole(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

/// Bytes of a buffer that the driver lent to the device.
#[derive(Clone, Copy)]
pub(crate) struct Span<'memory> {
    pointer: *mut u8,
    len: usize,
    memory: PhantomData<&'memory Memory>,
}

impl<'memory> Span<'memory> {
    /// The `len` checked bytes at `place`.
    #[inline]
    pub(super) fn new(place: Place<'memory>, len: usize) -> Self {
        Self { pointer: place.pointer.as_ptr(), len, memory: PhantomData }
    }

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
    _source: Source,
}

// SAFETY: all access is atomic, and the source keeps the memory mapped on whichever thread the words are.
unsafe impl Send for Words {}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Words").field("len", &self.len).finish_non_exhaustive()
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
    /// The words of a span, in memory that `source` keeps in place.
    pub(super) fn new(span: &Span<'_>, source: Source) -> Self {
        Self { pointer: span.pointer, len: span.len, _source: source }
    }

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
