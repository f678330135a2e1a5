//! Fetching memory into the processor's cache ahead of its use.

#![cfg_attr(all(target_arch = "x86_64", not(miri)), expect(unsafe_code, reason = "prefetching is a raw instruction"))]
#![cfg_attr(not(all(target_arch = "x86_64", not(miri))), expect(unused_variables, reason = "no prefetch there"))]

use core::ptr::NonNull;

/// Fetches the cache line where `place` starts, to be read soon.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    at(NonNull::from(place).cast());
}

/// Fetches the cache line at `pointer`, to be read soon.
#[inline(always)]
pub(crate) fn at(pointer: NonNull<u8>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching neither faults nor changes memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.as_ptr().cast()) };
    }
}

/// Fetches the cache line where `place` starts from whoever has it, to be written soon.
#[inline(always)]
pub fn prefetch_to_write<T>(place: &T) {
    at_to_write(NonNull::from(place).cast());
}

/// Fetches the cache line at `pointer` from whoever has it, to be written soon.
#[inline(always)]
pub(crate) fn at_to_write(pointer: NonNull<u8>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        // The intrinsic may prefetch for reading.
        let pointer = pointer.as_ptr();
        // SAFETY: prefetching neither faults nor changes memory, whatever the address; processors without it do nothing.
        unsafe { core::arch::asm!("prefetchw [{}]", in(reg) pointer, options(nostack, preserves_flags, readonly)) };
    }
}
