//! The way home: how buffers return to their pool from any thread, without a lock.
//!
//! Buffers are numbered slots. `next[slot]` links slots into chains: the segments of a packet, the pool's own free list, and the
//! stack of returned slots. Anyone may push a whole chain onto that stack with one atomic operation; only the pool takes,
//! and it takes everything at once, so that a slot never leaves the middle of the stack and the ABA problem cannot arise.
//!
//! The links live in ordinary memory, never beside the packets: a device that writes where it should not can spoil
//! packets, but not this list.

#![expect(unsafe_code, reason = "whoever gives back the last slot frees what this lies in")]

use alloc::boxed::Box;
use core::ptr::NonNull;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicI64, AtomicU32, Ordering};

/// End of a chain; as head of the returned stack: nothing there.
pub(crate) const END: u32 = u32::MAX;
/// Head of the returned stack after the pool is gone.
const CLOSED: u32 = u32::MAX - 1;
/// Most slots that a pool can have.
pub(crate) const MOST: u32 = CLOSED - 1;

/// Links between the slots of one pool, and the stack on which they return.
pub(crate) struct Home {
    next: Box<[AtomicU32]>,
    returned: CachePadded<AtomicU32>,
    /// After closing: slots that are still away. Before: minus the number that came too late for the stack.
    away: AtomicI64,
}

impl Home {
    /// A home for `slots` slots, all linked into one chain that starts at slot 0.
    pub(crate) fn new(slots: u32) -> Self {
        let next = (1..=slots).map(|slot| AtomicU32::new(if slot == slots { END } else { slot })).collect();
        Self { next, returned: CachePadded::new(AtomicU32::new(END)), away: AtomicI64::new(0) }
    }

    /// The slot after `slot`. Only the chain's owner may ask; the answer is that owner's own earlier writing.
    pub(crate) fn next(&self, slot: u32) -> u32 {
        self.next[slot as usize].load(Ordering::Relaxed)
    }

    /// Links `slot` to `next`. Only the owner of `slot` may do so.
    pub(crate) fn link(&self, slot: u32, next: u32) {
        self.next[slot as usize].store(next, Ordering::Relaxed);
    }

    /// Returns the chain `first..=last` of `count` slots, from any thread. `true` when the pool is gone and these were the last
    /// slots that were away: then the caller frees the pool's memory.
    ///
    /// Takes a pointer, because a reference given to a function has to be good until it returns, and this one is not:
    /// once the slots are given, another thread may free the pool.
    ///
    /// # Safety
    /// `home` belongs to a pool that lives while slots are away, and the caller owns these slots.
    #[must_use]
    pub(crate) unsafe fn give_back(home: NonNull<Self>, first: u32, last: u32, count: u32) -> bool {
        // SAFETY: the pool lives up to the operation that gives the slots away, and nothing is touched after that.
        let this = unsafe { home.as_ref() };
        let mut head = this.returned.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                let count = i64::from(count);
                return this.away.fetch_sub(count, Ordering::AcqRel) == count;
            }
            this.link(last, head);
            // Release: whoever takes the chain sees its links, and that we no longer touch its bytes.
            match this.returned.compare_exchange_weak(head, first, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return false,
                Err(now) => head = now,
            }
        }
    }

    /// Takes everything that was returned: the first slot of a chain, or [`END`]. Only the pool calls this.
    pub(crate) fn take_all(&self) -> u32 {
        if self.returned.load(Ordering::Relaxed) == END {
            return END;
        }
        self.returned.swap(END, Ordering::Acquire)
    }

    /// Ends the pool, which holds `held` slots of `slots` itself. `true` when none is away: then the caller frees the
    /// pool's memory; otherwise whoever returns the last slot does. A pointer for the same reason as with
    /// [`Home::give_back`].
    ///
    /// # Safety
    /// `home` belongs to a pool that lives while slots are away, and only its one owner closes it, once.
    #[must_use]
    pub(crate) unsafe fn close(home: NonNull<Self>, held: u32, slots: u32) -> bool {
        // SAFETY: the pool lives up to the addition at the end, and nothing is touched after that.
        let this = unsafe { home.as_ref() };
        let chain = this.returned.swap(CLOSED, Ordering::AcqRel);
        let away = i64::from(slots) - i64::from(held) - i64::from(this.count(chain));
        // Those that come later subtract themselves, perhaps before this addition: the sum is zero exactly once.
        this.away.fetch_add(away, Ordering::AcqRel) + away == 0
    }

    /// Slots in the chain that starts at `first`.
    pub(crate) fn count(&self, first: u32) -> u32 {
        let mut count = 0;
        let mut slot = first;
        while slot != END {
            count += 1;
            slot = self.next(slot);
        }
        count
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicU32 as Counter;
    use loom::thread;

    fn give_back(home: &Home, first: u32, last: u32, count: u32) -> bool {
        // SAFETY: the models keep their home to the end, and pass on the slots that they were given.
        unsafe { Home::give_back(home.into(), first, last, count) }
    }

    fn close(home: &Home, held: u32, slots: u32) -> bool {
        // SAFETY: as above.
        unsafe { Home::close(home.into(), held, slots) }
    }

    /// Takes the slots off `chain` one by one.
    fn slots(home: &Home, chain: u32) -> alloc::vec::Vec<u32> {
        let mut found = alloc::vec::Vec::new();
        let mut slot = chain;
        while slot != END {
            found.push(slot);
            slot = home.next(slot);
        }
        found
    }

    #[test]
    fn loom_every_slot_comes_home_exactly_once() {
        loom::model(|| {
            let home = Arc::new(Home::new(4));
            let threads = [(0, 1), (2, 3)].map(|(first, last)| {
                let home = Arc::clone(&home);
                thread::spawn(move || {
                    home.link(first, last);
                    assert!(!give_back(&home, first, last, 2));
                })
            });
            // The pool takes while the others give.
            let mut found = slots(&home, home.take_all());
            for thread in threads {
                thread.join().expect("a giver finished");
            }
            found.extend(slots(&home, home.take_all()));
            found.sort_unstable();
            assert_eq!(found, [0, 1, 2, 3]);
        });
    }

    #[test]
    fn loom_a_slot_taken_again_while_others_return_is_not_lost() {
        loom::model(|| {
            let home = Arc::new(Home::new(3));
            let givers = [0, 1].map(|slot| {
                let home = Arc::clone(&home);
                thread::spawn(move || assert!(!give_back(&home, slot, slot, 1)))
            });
            // Whatever is home already goes out and returns in reverse: the head repeats with other links below it.
            let mut again = slots(&home, home.take_all());
            again.reverse();
            for slot in again {
                assert!(!give_back(&home, slot, slot, 1));
            }
            for giver in givers {
                giver.join().expect("a giver finished");
            }
            let mut found = slots(&home, home.take_all());
            found.sort_unstable();
            assert_eq!(found, [0, 1]);
        });
    }

    #[test]
    fn loom_exactly_one_party_frees_a_closed_pool() {
        loom::model(|| {
            let home = Arc::new(Home::new(3));
            let freed = Arc::new(Counter::new(0));
            let givers = [0, 1].map(|slot| {
                let home = Arc::clone(&home);
                let freed = Arc::clone(&freed);
                thread::spawn(move || {
                    if give_back(&home, slot, slot, 1) {
                        freed.fetch_add(1, Ordering::Relaxed);
                    }
                })
            });
            if close(&home, 1, 3) {
                freed.fetch_add(1, Ordering::Relaxed);
            }
            for giver in givers {
                giver.join().expect("a giver finished");
            }
            assert_eq!(freed.load(Ordering::Relaxed), 1);
        });
    }
}
