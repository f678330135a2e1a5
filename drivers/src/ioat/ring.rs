//! Which descriptors are whose: the driver's own record of a ring.
//!
//! Positions count descriptors since the ring was made and never go back:
//! `told` ≤ `proven` ≤ `settled` ≤ `issued` ≤ `written`, at most half of the ring apart. Before `told` all jobs have been given back; up to
//! `proven` they are done; up to `settled` they failed; up to `issued` they are the engine's; up to `written` they wait to be.

use alloc::boxed::Box;
use alloc::vec::Vec;

use hugemem::{DmaArray, Iova, OutOfMemory, Region};

use super::descriptor::{self, BYTES, Descriptor};
use crate::bus::Width;
use crate::copy_engine::{CopyDone, CopyFailure, CopyJob, CopyOutcome};

/// What the driver knows about a descriptor.
#[derive(Clone, Copy, Default, Debug)]
struct Slot {
    token: u64,
    /// The last one of its job.
    ends: bool,
}

/// A ring of descriptors, chained in a circle.
#[derive(Debug)]
pub(super) struct Ring {
    descriptors: DmaArray<Descriptor>,
    slots: Box<[Slot]>,
    /// Bytes that a descriptor can copy.
    unit: u32,
    told: u64,
    proven: u64,
    settled: u64,
    failure: CopyFailure,
    issued: u64,
    written: u64,
    /// Jobs that were pushed and have not come back.
    jobs: usize,
}

impl Ring {
    /// A ring in which `underway` descriptors, a power of two, may wait for the engine.
    pub(super) fn new(memory: &Region, underway: u16, unit: u32) -> Result<Self, OutOfMemory> {
        let size = usize::from(underway) * 2;
        let descriptors = memory.array::<Descriptor>(size, 64)?;
        for (index, descriptor) in descriptors.iter().enumerate() {
            let next = if index + 1 == size { 0 } else { index + 1 };
            if let Some(next) = descriptors.iova_of(next) {
                descriptor::link(descriptor, next);
            }
        }
        let slots = core::iter::repeat_n(Slot::default(), size).collect();
        let failure = CopyFailure::Unproven;
        let (told, proven, settled, issued, written) = (0, 0, 0, 0, 0);
        Ok(Self { descriptors, slots, unit, told, proven, settled, failure, issued, written, jobs: 0 })
    }

    /// The place of a position.
    fn place(&self, position: u64) -> usize {
        // The ring's size is a power of two, so the low bits are the place.
        usize::try_from(position & (self.slots.len() as u64 - 1)).unwrap_or(0)
    }

    fn slot(&self, position: u64) -> Slot {
        self.slots.get(self.place(position)).copied().unwrap_or_default()
    }

    /// The address of a position.
    pub(super) fn address(&self, position: u64) -> u64 {
        self.descriptors.iova_of(self.place(position)).map_or(0, Iova::raw)
    }

    /// Descriptors that may be underway.
    fn depth(&self) -> u64 {
        self.slots.len() as u64 / 2
    }

    pub(super) fn unit(&self) -> u32 {
        self.unit
    }

    /// Bytes of the longest job.
    pub(super) fn longest(&self) -> u32 {
        u32::try_from(self.depth() * u64::from(self.unit)).unwrap_or(u32::MAX)
    }

    /// Descriptors that can be written now.
    pub(super) fn room(&self) -> u64 {
        self.depth().saturating_sub(self.written - self.told)
    }

    pub(super) fn jobs(&self) -> usize {
        self.jobs
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    /// The engine has descriptors that are not settled.
    #[inline(always)]
    pub(super) fn is_underway(&self) -> bool {
        self.issued != self.settled
    }

    /// Writes a job.
    #[inline(always)]
    pub(super) fn push(&mut self, job: CopyJob, interrupt: bool) -> Result<(), CopyJob> {
        let pieces = u64::from(job.length().div_ceil(self.unit).max(1));
        if pieces > self.room() {
            return Err(job);
        }
        let (mut source, mut target, mut left) = (job.source().raw(), job.target().raw(), job.length());
        for piece in 1..=pieces {
            let (place, length, ends) = (self.place(self.written), left.min(self.unit), piece == pieces);
            if let (Some(descriptor), Some(slot)) = (self.descriptors.get(place), self.slots.get_mut(place)) {
                descriptor::write(descriptor, source, target, length, interrupt && ends);
                *slot = Slot { token: job.token(), ends };
            }
            // The job's ends lie in the address space.
            source = source.wrapping_add(length.into());
            target = target.wrapping_add(length.into());
            left -= length;
            self.written += 1;
        }
        self.jobs += 1;
        Ok(())
    }

    /// What was written is the engine's. Whether anything was.
    #[inline(always)]
    pub(super) fn issue(&mut self) -> bool {
        let more = self.issued != self.written;
        self.issued = self.written;
        more
    }

    /// Everything up to the descriptor at `address` is done. `false` when it is none that is underway.
    #[inline(always)]
    pub(super) fn prove(&mut self, address: u64) -> bool {
        let Some(offset) = address.checked_sub(self.descriptors.iova().raw()) else { return false };
        if offset % BYTES != 0 || offset / BYTES >= self.slots.len() as u64 {
            return false;
        }
        let ahead = (offset / BYTES).wrapping_sub(self.settled) & (self.slots.len() as u64 - 1);
        if ahead >= self.issued - self.settled {
            return false;
        }
        // Nothing has failed that was not told: see `tell`.
        self.settled += ahead + 1;
        self.proven = self.settled;
        true
    }

    /// The job that is next failed.
    pub(super) fn fail_one(&mut self, failure: CopyFailure) {
        let last = (self.settled..self.issued).find(|position| self.slot(*position).ends);
        if let Some(last) = last {
            self.settled = last + 1;
            self.failure = failure;
        }
    }

    /// All jobs that the engine has failed.
    pub(super) fn fail_issued(&mut self) {
        self.settled = self.issued;
        self.failure = CopyFailure::Unproven;
    }

    /// All jobs failed, also those that the engine was never told of.
    pub(super) fn fail_all(&mut self) {
        self.issued = self.written;
        self.fail_issued();
    }

    /// Everything that is settled has been given back. Nothing may be settled anew before.
    #[inline(always)]
    pub(super) fn is_told(&self) -> bool {
        self.told == self.settled
    }

    /// Gives back what is settled, as far as there is room for it.
    #[inline(always)]
    pub(super) fn tell(&mut self, done: &mut Vec<CopyDone>) -> usize {
        let before = done.len();
        while self.told != self.settled && done.len() < done.capacity() {
            let Slot { token, ends } = self.slot(self.told);
            self.told += 1;
            if ends {
                // A job of which only the first part is done is not done.
                let copied = self.told <= self.proven;
                let outcome = if copied { CopyOutcome::Copied } else { CopyOutcome::Failed(self.failure) };
                done.push(CopyDone { token, outcome });
                self.jobs = self.jobs.saturating_sub(1);
            }
        }
        done.len() - before
    }

    /// Descriptors from position `start` to what the engine was told of, as DMACOUNT counts them.
    #[inline(always)]
    pub(super) fn count_since(&self, start: u64) -> u16 {
        u16::narrow(self.issued.wrapping_sub(start) & 0xffff)
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
