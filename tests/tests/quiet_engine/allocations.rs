//! An allocator that counts, for each thread, how often memory is taken and given back.

#![expect(unsafe_code, reason = "an allocator is unsafe by nature; this one hands everything on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};

/// Threads that are told apart: those after them are counted together.
const THREADS: usize = 1024;

/// What a thread did.
struct Count {
    thread: AtomicI32,
    calls: AtomicU64,
}

static COUNTS: [Count; THREADS] = [const { Count { thread: AtomicI32::new(0), calls: AtomicU64::new(0) } }; THREADS];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Place of this thread in the counts; `usize::MAX` until it has one.
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn note() {
    // A thread that ends has none any more.
    let place = PLACE.try_with(|place| {
        if place.get() == usize::MAX {
            place.set(NEXT.fetch_add(1, Ordering::Relaxed).min(THREADS - 1));
            if let Some(count) = COUNTS.get(place.get()) {
                count.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
            }
        }
        place.get()
    });
    if let Some(count) = place.ok().and_then(|place| COUNTS.get(place)) {
        count.calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often a thread took memory or gave some back; `None` when it never did.
pub(crate) fn calls_of(thread: i32) -> Option<u64> {
    let counts = COUNTS.iter().rev().find(|count| count.thread.load(Ordering::Relaxed) == thread);
    counts.map(|count| count.calls.load(Ordering::Relaxed))
}

/// The system's allocator, counted.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments that came; counting takes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note();
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
