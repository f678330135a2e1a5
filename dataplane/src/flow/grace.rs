//! When nobody can still hold an index: generations that the writer counts and readers say to have seen.

use std::sync::Arc;

use super::sync::{AtomicU64, Ordering};

/// What a reader has seen that holds nothing at all.
const AWAY: u64 = u64::MAX;

/// One reader's word, alone on its cache lines.
#[repr(align(128))]
struct Seen(AtomicU64);

/// The generation, and what each reader has seen of it.
pub(super) struct Readers {
    generation: AtomicU64,
    seen: Box<[Seen]>,
}

impl Readers {
    pub(super) fn new(count: usize) -> Arc<Self> {
        let seen = (0..count).map(|_| Seen(AtomicU64::new(AWAY))).collect();
        Arc::new(Self { generation: AtomicU64::new(0), seen })
    }

    /// Writer: begins a generation after something was taken out of a table, and says which it is: what was taken out is gone
    /// when every reader has seen it.
    pub(super) fn begin(&self) -> u64 {
        let next = self.generation.load(Ordering::Relaxed) + 1;
        // Release: who sees the number sees what was taken out.
        self.generation.store(next, Ordering::Release);
        next
    }

    /// Writer: the newest generation that every reader has seen.
    pub(super) fn passed(&self) -> u64 {
        // With the fence in `wake`: either a reader that we see as away sees all that was taken out before, or we see it awake.
        super::sync::fence(Ordering::SeqCst);
        // Acquire: what a reader did with an index before it said so has happened.
        self.seen.iter().map(|seen| seen.0.load(Ordering::Acquire)).min().unwrap_or(AWAY)
    }

    /// Reader `number` holds no index.
    #[inline]
    pub(super) fn quiesce(&self, number: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(seen) = self.seen.get(number) {
            // Release: what was done with an index stays before.
            seen.0.store(generation, Ordering::Release);
        }
    }

    /// Reader `number` holds no index and will look nothing up before it wakes.
    pub(super) fn sleep(&self, number: usize) {
        if let Some(seen) = self.seen.get(number) {
            seen.0.store(AWAY, Ordering::Release);
        }
    }

    /// Reader `number` looks up again from here on.
    pub(super) fn wake(&self, number: usize) {
        let generation = self.generation.load(Ordering::Acquire);
        if let Some(seen) = self.seen.get(number) {
            seen.0.store(generation, Ordering::Relaxed);
        }
        super::sync::fence(Ordering::SeqCst);
    }
}
