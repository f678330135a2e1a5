//! Memory whose end can be watched, to prove that a driver lost none of it.

#![expect(unsafe_code, reason = "memory from the allocator becomes a region")]

use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use hugemem::{Backing, Iova, Region};

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
