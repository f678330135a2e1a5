//! The copy between host and guest, and from guest to guest.
//!
//! Guests write to their memory whenever they like, so its bytes have no value that the compiler may reason about: a plain `memcpy` of them
//! would be a data race, and a value that is used twice might be loaded twice. The copies here are machine instructions that the compiler sees
//! nothing of: what they read is read once, before the next line of ours.
//!
//! Up to 128 bytes (headers, small frames) they are a few moves in line, the last of which overlaps the one before instead of looping. Beyond
//! that they are a loop of cache lines with aligned stores. `rep movsb`, to which C libraries turn for a few KiB and more, is as fast at best, and
//! ten times slower on some processors when the source is further into its cache line than the target, which is what taking a
//! header off leads to.

#![expect(unsafe_code, reason = "copies between addresses")]

use std::ptr::NonNull;

/// Copies `len` bytes. Overlapping ranges give mixed-up bytes.
///
/// # Safety
/// Both ranges are mapped, the target's writable. What Rust has borrowed of them is borrowed by the caller for this.
#[inline]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    match len {
        // SAFETY: the caller vouches for both ranges, here and below; each function moves as many bytes as it says, none beyond.
        65..=128 => unsafe { moves::twice_64(from, to, len) },
        // SAFETY: as above.
        33..=64 => unsafe { moves::twice_32(from, to, len) },
        // SAFETY: as above.
        16..=32 => unsafe { moves::twice_16(from, to, len) },
        // SAFETY: as above.
        0..16 => unsafe { moves::few(from, to, len) },
        // SAFETY: as above.
        _ => unsafe { moves::many(from, to, len) },
    }
}

/// Copies `len` bytes. Overlapping ranges give mixed-up bytes.
///
/// # Safety
/// Both ranges are mapped, the target's writable. What Rust has borrowed of them is borrowed by the caller for this.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    for index in 0..len {
        // SAFETY: `index` is inside the range.
        let byte = unsafe { from.wrapping_add(index).read_volatile() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(index).write_volatile(byte) };
    }
}

/// The moves, in machine instructions. In each, everything that is loaded at once is loaded before anything is stored.
///
/// All functions copy `len` bytes, and are safe to call when both ranges are mapped, the target's writable, and `len` is in the range that
/// the function names.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod moves {
    use std::arch::asm;

    /// Fewer than 16 bytes.
    #[inline]
    pub(super) unsafe fn few(from: *const u8, to: *mut u8, len: usize) {
        match len {
            // SAFETY: the first and the last 8 bytes of both ranges, as the caller promises.
            8.. => unsafe {
                asm!("mov {a}, [{from}]", "mov {b}, [{from} + {last}]", "mov [{to}], {a}", "mov [{to} + {last}], {b}",
                    from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(8), a = out(reg) _, b = out(reg) _,
                    options(nostack, preserves_flags));
            },
            // SAFETY: the first and the last 4 bytes of both ranges, as the caller promises.
            4.. => unsafe {
                asm!("mov {a:e}, [{from}]", "mov {b:e}, [{from} + {last}]", "mov [{to}], {a:e}", "mov [{to} + {last}], {b:e}",
                    from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(4), a = out(reg) _, b = out(reg) _,
                    options(nostack, preserves_flags));
            },
            // SAFETY: the first and the last 2 bytes of both ranges, as the caller promises.
            2.. => unsafe {
                asm!("movzx {a:e}, word ptr [{from}]", "movzx {b:e}, word ptr [{from} + {last}]",
                    "mov [{to}], {a:x}", "mov [{to} + {last}], {b:x}",
                    from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(2), a = out(reg) _, b = out(reg) _,
                    options(nostack, preserves_flags));
            },
            // SAFETY: the only byte of both ranges, as the caller promises.
            1 => unsafe {
                asm!("mov {a}, [{from}]", "mov [{to}], {a}",
                    from = in(reg) from, to = in(reg) to, a = out(reg_byte) _, options(nostack, preserves_flags));
            },
            0 => {}
        }
    }

    /// 16 to 32 bytes.
    #[inline]
    pub(super) unsafe fn twice_16(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the first and the last 16 bytes of both ranges, as the caller promises.
        unsafe {
            asm!("movups {a}, [{from}]", "movups {b}, [{from} + {last}]", "movups [{to}], {a}", "movups [{to} + {last}], {b}",
                from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(16),
                a = out(xmm_reg) _, b = out(xmm_reg) _, options(nostack, preserves_flags));
        }
    }

    /// 32 to 64 bytes.
    #[inline]
    pub(super) unsafe fn twice_32(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the first and the last 32 bytes of both ranges, as the caller promises.
        unsafe {
            asm!("movups {a}, [{from}]", "movups {b}, [{from} + 16]",
                "movups {c}, [{from} + {last}]", "movups {d}, [{from} + {last} + 16]",
                "movups [{to}], {a}", "movups [{to} + 16], {b}",
                "movups [{to} + {last}], {c}", "movups [{to} + {last} + 16], {d}",
                from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(32),
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                options(nostack, preserves_flags));
        }
    }

    /// 64 to 128 bytes.
    #[inline]
    pub(super) unsafe fn twice_64(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: the first and the last 64 bytes of both ranges, as the caller promises.
        unsafe {
            asm!("movups {a}, [{from}]", "movups {b}, [{from} + 16]", "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
                "movups {e}, [{from} + {last}]", "movups {f}, [{from} + {last} + 16]",
                "movups {g}, [{from} + {last} + 32]", "movups {h}, [{from} + {last} + 48]",
                "movups [{to}], {a}", "movups [{to} + 16], {b}", "movups [{to} + 32], {c}", "movups [{to} + 48], {d}",
                "movups [{to} + {last}], {e}", "movups [{to} + {last} + 16], {f}",
                "movups [{to} + {last} + 32], {g}", "movups [{to} + {last} + 48], {h}",
                from = in(reg) from, to = in(reg) to, last = in(reg) len.wrapping_sub(64),
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                e = out(xmm_reg) _, f = out(xmm_reg) _, g = out(xmm_reg) _, h = out(xmm_reg) _,
                options(nostack, preserves_flags));
        }
    }

    /// 128 bytes or more.
    #[inline(never)]
    pub(super) unsafe fn many(from: *const u8, to: *mut u8, len: usize) {
        // The first line unaligned; then lines from where the target's next line starts, which is 1 to 64 bytes on; then the last line unaligned.
        let skip = 64 - to.addr() % 64;
        let last = len.wrapping_sub(64);
        // SAFETY: `skip` is at most `last`, and the loop ends when it has passed `last`, so that no line starts behind it: all lie in the ranges.
        unsafe {
            asm!("movups {a}, [{from}]", "movups {b}, [{from} + 16]", "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
                "movups [{to}], {a}", "movups [{to} + 16], {b}", "movups [{to} + 32], {c}", "movups [{to} + 48], {d}",
                "add {from}, {skip}", "add {to}, {skip}",
                "2:",
                "movups {a}, [{from}]", "movups {b}, [{from} + 16]", "movups {c}, [{from} + 32]", "movups {d}, [{from} + 48]",
                "movaps [{to}], {a}", "movaps [{to} + 16], {b}", "movaps [{to} + 32], {c}", "movaps [{to} + 48], {d}",
                "add {from}, 64", "add {to}, 64", "cmp {from}, {from_last}", "jb 2b",
                "movups {a}, [{from_last}]", "movups {b}, [{from_last} + 16]",
                "movups {c}, [{from_last} + 32]", "movups {d}, [{from_last} + 48]",
                "movups [{to_last}], {a}", "movups [{to_last} + 16], {b}",
                "movups [{to_last} + 32], {c}", "movups [{to_last} + 48], {d}",
                from = inout(reg) from => _, to = inout(reg) to => _, skip = in(reg) skip,
                from_last = in(reg) from.wrapping_add(last), to_last = in(reg) to.wrapping_add(last),
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                options(nostack));
        }
    }
}

/// Reads 8 bytes at once.
///
/// # Safety
/// They are mapped.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) unsafe fn load(from: *const u8) -> u64 {
    let word;
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        std::arch::asm!("mov {word}, [{from}]", word = out(reg) word, from = in(reg) from, options(nostack, preserves_flags, readonly))
    };
    word
}

/// Reads 8 bytes, each once.
///
/// # Safety
/// They are mapped.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) unsafe fn load(from: *const u8) -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the caller vouches for the bytes.
    unsafe { copy(from, bytes.as_mut_ptr(), bytes.len()) };
    u64::from_ne_bytes(bytes)
}

/// Fetches the cache line at `pointer`, to be read soon.
#[inline(always)]
#[cfg_attr(not(all(target_arch = "x86_64", not(miri))), expect(unused_variables, reason = "no prefetch there"))]
pub(super) fn prefetch(pointer: NonNull<u8>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: prefetching neither faults nor changes memory, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer.as_ptr().cast());
    }
}

/// Fetches the cache line `offset` bytes behind `pointer`, to be written soon.
#[inline(always)]
#[cfg_attr(not(all(target_arch = "x86_64", not(miri))), expect(unused_variables, reason = "no prefetch there"))]
pub(super) fn prefetch_to_write(pointer: NonNull<u8>, offset: u32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let pointer = pointer.as_ptr().wrapping_add(offset as usize);
        // SAFETY: prefetching neither faults nor changes memory, whatever the address; processors without it do nothing.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) pointer, options(nostack, preserves_flags, readonly)) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    /// Every length up to a few lines at every alignment: the bytes move, and none beside them.
    #[test]
    fn every_length_moves_and_nothing_beside_it() {
        let source: Vec<u8> = (0..700_u32).map(|index| (index % 251) as u8 + 1).collect();
        let most = if cfg!(miri) { 70 } else { 420 };
        for len in 0..most {
            for (from, to) in [(0, 0), (12, 0), (0, 12), (3, 50), (63, 1), (10, 10)] {
                let mut target = vec![0; 700];
                let (bytes, place) = (&source[from..from + len], &mut target[to..to + len]);
                // SAFETY: both slices have `len` bytes.
                unsafe { super::copy(bytes.as_ptr(), place.as_mut_ptr(), len) };
                assert_eq!(target[to..to + len], source[from..from + len], "{len} bytes from {from} to {to}");
                let beside = target[..to].iter().chain(&target[to + len..]);
                assert!(beside.copied().all(|byte| byte == 0), "{len} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn a_whole_segment_moves() {
        let source: Vec<u8> = (0..65_550_u32).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        for (from, to) in [(0, 0), (12, 1), (1, 12)] {
            let mut target = vec![0; 65_550];
            let len = 65_535;
            // SAFETY: both have 15 bytes more than that.
            unsafe { super::copy(source[from..].as_ptr(), target[to..].as_mut_ptr(), len) };
            assert!(target[to..to + len] == source[from..from + len]);
        }
    }
}
