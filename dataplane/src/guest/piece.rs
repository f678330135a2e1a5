//! Pieces of payload in guest memory, and how bytes leave and enter them.

#![expect(unsafe_code, reason = "payload of guests is only known by its address")]

use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;

use hugemem::Foreign;

use super::address::GuestAddress;
use super::copy;
use super::memory::Memory;

/// A contiguous piece of guest memory, mapped for as long as `'m`. Its bytes can only be copied.
///
/// Invariant: `len` bytes at `pointer` lie in a mapping that `'m` keeps, readable and writable, whose faults are contained.
#[derive(Clone, Copy)]
pub struct Piece<'m> {
    pointer: NonNull<u8>,
    len: u32,
    guest: u64,
    memory: PhantomData<&'m Memory>,
}

impl<'m> Piece<'m> {
    /// The piece of `len` bytes at `pointer`, which is `guest` for the guest.
    ///
    /// # Safety
    /// The bytes lie in one mapping of guest memory that is registered for fault containment and kept for `'m`.
    #[inline(always)]
    pub(super) unsafe fn new(pointer: NonNull<u8>, len: u32, guest: u64) -> Self {
        Self { pointer, len, guest, memory: PhantomData }
    }

    /// Its length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// It has no bytes.
    #[inline(always)]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Address of its first byte here.
    #[inline(always)]
    pub(super) fn pointer(&self) -> NonNull<u8> {
        self.pointer
    }

    /// Guest-physical address of its first byte: what a [`DirtyLog`](super::DirtyLog) is told.
    #[inline(always)]
    #[must_use]
    pub fn guest(&self) -> GuestAddress {
        GuestAddress(self.guest)
    }

    /// The first `at` bytes and the rest; a piece that is shorter than `at` is all in the first.
    #[inline]
    #[must_use]
    pub fn split_at(self, at: u32) -> (Self, Self) {
        let at = at.min(self.len);
        // SAFETY: `at` is at most `len`, and the bytes up to there are mapped.
        let pointer = unsafe { self.pointer.add(at as usize) };
        let rest = Self { pointer, len: self.len - at, guest: self.guest + u64::from(at), memory: PhantomData };
        (Self { len: at, ..self }, rest)
    }

    /// Fetches its first cache line, to be read soon.
    #[inline(always)]
    pub fn prefetch(&self) {
        copy::prefetch(self.pointer);
    }

    /// Fetches the cache line `offset` bytes from its start, to be written soon. Beyond the end it does nothing useful and no harm.
    #[inline(always)]
    pub fn prefetch_to_write(&self, offset: u32) {
        copy::prefetch_to_write(self.pointer, offset);
    }

    /// The 8 bytes from `offset` on, read once, the first of them lowest; `None` when the piece ends before.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, offset: u32) -> Option<u64> {
        let end = offset.checked_add(8)?;
        if end > self.len {
            return None;
        }
        // SAFETY: 8 bytes from there on lie in the piece, which is mapped.
        let word = unsafe { copy::load(self.pointer.as_ptr().wrapping_add(offset as usize)) };
        Some(u64::from_le(word))
    }

    /// Copies its first bytes into `to`, as many as both have; gives how many.
    #[inline]
    pub fn copy_in(&self, to: &mut [u8]) -> usize {
        let len = to.len().min(self.len as usize);
        // SAFETY: both sides have `len` bytes, ours borrowed exclusively; the guest's are as the invariant says.
        unsafe { copy::copy(self.pointer.as_ptr(), to.as_mut_ptr(), len) };
        len
    }

    /// Copies `from` over its first bytes, as many as both have; gives how many.
    #[inline]
    pub fn copy_out(&self, from: &[u8]) -> usize {
        let len = from.len().min(self.len as usize);
        // SAFETY: both sides have `len` bytes, ours borrowed; the guest's are as the invariant says.
        unsafe { copy::copy(from.as_ptr(), self.pointer.as_ptr(), len) };
        len
    }

    /// Copies its first bytes over those of `to`, as many as both have; gives how many.
    #[inline]
    pub fn copy_to(&self, to: Piece<'_>) -> u32 {
        let len = self.len.min(to.len);
        // SAFETY: both pieces have `len` bytes, as the invariant says. Should they overlap, bytes are mixed up and nothing else.
        unsafe { copy::copy(self.pointer.as_ptr(), to.pointer.as_ptr(), len as usize) };
        len
    }

    /// The piece as something that a packet can carry away.
    ///
    /// # Safety
    /// The caller keeps the [`Memory`] that the piece is of until the packet that the result is attached to has come home.
    #[inline(always)]
    #[must_use]
    pub unsafe fn foreign(self) -> Foreign {
        // SAFETY: the memory is mapped for as long as the caller promises, and copies of it bear with writers and with faults.
        unsafe { Foreign::new(self.pointer, self.len) }
    }
}

impl fmt::Debug for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("guest", &self.guest()).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Copies bytes of `from`, from its byte `offset` on, over the first bytes of `to`, as many as both have; gives how many. This is
/// the one copy of a frame between two guests.
#[inline]
pub fn copy_foreign(from: &Foreign, offset: u32, to: Piece<'_>) -> u32 {
    let offset = offset.min(from.len());
    let len = (from.len() - offset).min(to.len);
    // SAFETY: `offset` is at most the piece's length.
    let source = unsafe { from.address().add(offset as usize) };
    // SAFETY: both sides have `len` bytes: one by the promise behind `Foreign`, the other by the invariant of `Piece`.
    // Should a guest have made them overlap, bytes are mixed up and nothing else.
    unsafe { copy::copy(source.as_ptr(), to.pointer.as_ptr(), len as usize) };
    len
}

/// Copies bytes of `from`, from its byte `offset` on, into `to`, as many as both have; gives how many.
#[inline]
pub fn read_foreign(from: &Foreign, offset: u32, to: &mut [u8]) -> usize {
    let offset = offset.min(from.len());
    let len = to.len().min((from.len() - offset) as usize);
    // SAFETY: `offset` is at most the piece's length.
    let source = unsafe { from.address().add(offset as usize) };
    // SAFETY: both sides have `len` bytes: one by the promise behind `Foreign`, the other borrowed exclusively.
    unsafe { copy::copy(source.as_ptr(), to.as_mut_ptr(), len) };
    len
}
