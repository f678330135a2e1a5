//! The copy between host and guest, and from guest to guest.
//!
//! Guests write to their memory whenever they like, so the bytes have no value that the compiler may reason about: a plain `memcpy` of them
//! would be a data race, and a load that is done twice may see two values. The copies here are machine instructions that the compiler sees
//! nothing of: what they read is read once.

#![expect(unsafe_code, reason = "copies between addresses")]

use std::ptr::NonNull;

/// Copies `len` bytes. Overlapping ranges give mixed-up bytes.
///
/// # Safety
/// Both ranges are mapped, the target's writable. What Rust has borrowed of them is borrowed by the caller for this.
#[inline]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the instruction touches just these two ranges; the caller vouches for them.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
            options(nostack, preserves_flags));
    }
}

/// Fetches the cache line at `pointer`, to be read soon.
#[inline(always)]
pub(super) fn prefetch(pointer: NonNull<u8>) {
    // SAFETY: prefetching neither faults nor changes memory, whatever the address.
    unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.as_ptr().cast()) };
}

/// Fetches the cache line `offset` bytes behind `pointer`, to be written soon.
#[inline(always)]
pub(super) fn prefetch_to_write(pointer: NonNull<u8>, offset: u32) {
    let pointer = pointer.as_ptr().wrapping_add(offset as usize);
    // SAFETY: prefetching neither faults nor changes memory, whatever the address; processors without it do nothing.
    unsafe { std::arch::asm!("prefetchw [{}]", in(reg) pointer, options(nostack, preserves_flags, readonly)) };
}
