//! Where a queue leaves copies for the copier of its engine, and finds what became of them.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};

use drivers::copy_engine::CopyJob;
use hugemem::Iova;

/// Copies that a queue can have underway: what bounds one virtual machine. A power of two.
pub const JOBS: u32 = 256;

/// What became of a copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// It is done.
    Copied,
    /// It is not, and no device will touch its memory any more.
    Failed,
}

const ASKED: u8 = 0;
const COPIED: u8 = 1;
const FAILED: u8 = 2;

/// One copy.
#[derive(Default)]
struct Slot {
    state: AtomicU8,
    length: AtomicU32,
    source: AtomicU64,
    target: AtomicU64,
}

/// A ring of copies. The queue writes them in order and looks at the answers in order; the copier takes them in order and answers as it likes.
///
/// Copies are known by counters that run freely. The queue never has more than [`JOBS`] between the first that it has not looked
/// at and the last that it asked for, so a slot belongs to one copy at a time.
pub struct CopyDesk {
    slots: Box<[Slot]>,
    /// Counter of the next copy that is asked for. The queue's.
    asked: Line<AtomicU32>,
    /// Counter of the next copy that is taken. Of the copier that has the queue.
    taken: Line<AtomicU32>,
    /// Somebody takes copies.
    open: AtomicBool,
    /// The device whose addresses are meant.
    device: u32,
    /// Bytes of a frame from which on it pays to leave it to the device.
    threshold: AtomicU32,
    /// What was done so far, by the queue.
    counters: Counters,
}

/// What a queue had copied so far.
#[derive(Default)]
struct Counters {
    copies: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    crowded: AtomicU64,
}

/// What a queue had copied so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CopyCounts {
    /// Copies that a device did.
    pub copies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that a device did not do, and that the CPU did again.
    pub failed: u64,
    /// Large frames that the CPU copied because as many copies as can be were underway.
    pub crowded: u64,
}

impl CopyCounts {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            copies: self.copies + other.copies,
            bytes: self.bytes + other.bytes,
            failed: self.failed + other.failed,
            crowded: self.crowded + other.crowded,
        }
    }
}

/// A cache line of its own.
#[repr(align(128))]
struct Line<T>(T);

impl CopyDesk {
    /// A desk for a queue that wants frames of `threshold` bytes or more to be copied by the device of that number.
    #[must_use]
    pub fn new(device: u32, threshold: u32) -> Self {
        Self {
            slots: (0..JOBS).map(|_| Slot::default()).collect(),
            asked: Line(AtomicU32::new(0)),
            taken: Line(AtomicU32::new(0)),
            open: AtomicBool::new(false),
            device,
            threshold: AtomicU32::new(threshold),
            counters: Counters::default(),
        }
    }

    #[inline]
    fn slot(&self, job: u32) -> Option<&Slot> {
        self.slots.get((job % JOBS) as usize)
    }

    /// The device whose addresses are meant.
    #[inline]
    #[must_use]
    pub fn device(&self) -> u32 {
        self.device
    }

    /// Frames of so many bytes and more are to be left to the device, if anybody takes them now.
    #[inline]
    #[must_use]
    pub fn threshold(&self) -> Option<u32> {
        self.open.load(Ordering::Relaxed).then(|| self.threshold.load(Ordering::Relaxed))
    }

    /// The queue's: writes a copy, which nobody sees before [`CopyDesk::ask`].
    #[inline]
    pub(crate) fn write(&self, job: u32, source: Iova, target: Iova, length: u32) {
        let Some(slot) = self.slot(job) else { return };
        slot.source.store(source.raw(), Ordering::Relaxed);
        slot.target.store(target.raw(), Ordering::Relaxed);
        slot.length.store(length, Ordering::Relaxed);
        slot.state.store(ASKED, Ordering::Relaxed);
    }

    /// The queue's: asks for all copies in front of number `next`.
    #[inline]
    pub(crate) fn ask(&self, next: u32) {
        self.asked.0.store(next, Ordering::Release);
    }

    /// The queue's: what became of a copy, when that is known.
    #[inline]
    pub(crate) fn answer(&self, job: u32) -> Option<Answer> {
        // Acquire: what the copier knew when it answered.
        match self.slot(job)?.state.load(Ordering::Acquire) {
            COPIED => Some(Answer::Copied),
            FAILED => Some(Answer::Failed),
            _ => None,
        }
    }

    /// The queue's: counts copies that it looked at, their bytes, and how many of them failed.
    #[inline]
    pub(crate) fn count(&self, copies: u64, bytes: u64, failed: u64) {
        add(&self.counters.copies, copies);
        add(&self.counters.bytes, bytes);
        if failed > 0 {
            add(&self.counters.failed, failed);
        }
    }

    /// The queue's: a frame found no room.
    #[inline]
    pub(crate) fn count_crowded(&self) {
        add(&self.counters.crowded, 1);
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> CopyCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { copies, bytes, failed, crowded } = &self.counters;
        CopyCounts { copies: read(copies), bytes: read(bytes), failed: read(failed), crowded: read(crowded) }
    }

    /// The copier's: whether copies wait.
    #[inline]
    pub(crate) fn has_jobs(&self) -> bool {
        self.asked.0.load(Ordering::Relaxed) != self.taken.0.load(Ordering::Relaxed)
    }

    /// The copier's: takes the next copy; gives its number, and what to do with `token` unless its addresses cannot be.
    #[inline]
    pub(crate) fn take(&self, token: u64) -> Option<(u32, Option<CopyJob>)> {
        let job = self.taken.0.load(Ordering::Relaxed);
        // Acquire: what the queue wrote.
        if job == self.asked.0.load(Ordering::Acquire) {
            return None;
        }
        self.taken.0.store(job.wrapping_add(1), Ordering::Relaxed);
        let slot = self.slot(job)?;
        let [source, target] = [&slot.source, &slot.target].map(|word| Iova::new(word.load(Ordering::Relaxed)));
        Some((job, CopyJob::new(source, target, slot.length.load(Ordering::Relaxed), token)))
    }

    /// The copier's: says what became of a copy.
    #[inline]
    pub(crate) fn tell(&self, job: u32, answer: Answer) {
        let Some(slot) = self.slot(job) else { return };
        let state = if answer == Answer::Copied { COPIED } else { FAILED };
        slot.state.store(state, Ordering::Release);
    }

    /// The copier's: gives all copies back that nobody has begun with.
    pub(crate) fn refuse(&self) {
        while let Some((job, _)) = self.take(0) {
            self.tell(job, Answer::Failed);
        }
    }

    /// The copier's: takes copies from now on, or no more. What was asked for is still answered.
    pub(crate) fn set_open(&self, open: bool) {
        if self.open.load(Ordering::Relaxed) != open {
            self.open.store(open, Ordering::Relaxed);
        }
    }
}

/// Adds to a counter that one thread at a time writes.
#[inline]
fn add(counter: &AtomicU64, more: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl fmt::Debug for CopyDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyDesk")
            .field("device", &self.device)
            .field("open", &self.open)
            .field("threshold", &self.threshold)
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
