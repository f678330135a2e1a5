//! What receive and transmit rings have in common: descriptors in a circle, and buffers that come back.
#![expect(unsafe_code, reason = "only the ring knows when the card is done with a packet")]

use core::sync::atomic::Ordering;

use hugemem::{DmaArray, Iova, Lent, OutOfMemory, Packet, Region};

use super::descriptor::Descriptor;
use crate::stopped::Stopped;

/// Rings start at a multiple of this (RDBAL, TDBAL: 8.2.3.8.1, 8.2.3.9.5).
const ALIGNMENT: usize = 128;

/// Descriptors in a circle.
#[derive(Debug)]
pub(super) struct Ring {
    descriptors: DmaArray<Descriptor>,
    size: u16,
}

impl Ring {
    /// Takes memory for `size` descriptors.
    pub(super) fn new(memory: &Region, size: u16) -> Result<Self, OutOfMemory> {
        Ok(Self { descriptors: memory.array(size.into(), ALIGNMENT)?, size })
    }

    /// Descriptors in all.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Where the card finds them.
    pub(super) fn address(&self) -> Iova {
        self.descriptors.iova()
    }

    /// Makes them as new.
    pub(super) fn clear(&self, _: &Stopped) {
        for word in self.descriptors.iter().flatten() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// The descriptors from `first` on: `count`, or fewer where the memory ends before the circle does.
    #[inline(always)]
    pub(super) fn run(&self, first: u16, count: usize) -> &[Descriptor] {
        let rest = self.descriptors.get(usize::from(first)..).unwrap_or_default();
        rest.get(..count).unwrap_or(rest)
    }

    /// The descriptor `index`; `None` for one that the ring does not have.
    #[inline(always)]
    pub(super) fn get(&self, index: u16) -> Option<&Descriptor> {
        self.descriptors.get(usize::from(index))
    }

    /// The index `count` descriptors behind `index`, for a `count` of at most a whole ring.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "smaller than the ring")]
    pub(super) fn advance(&self, index: u16, count: usize) -> u16 {
        let next = usize::from(index) + count;
        let size = usize::from(self.size);
        (if next >= size { next - size } else { next }) as u16
    }
}

/// A packet that the card is done with.
#[derive(Debug)]
#[must_use = "dropping it leaks its buffers"]
pub(super) struct Returned(Lent);

impl Returned {
    /// Only for a packet whose descriptor was read as done with `Acquire` and is on the driver's own record as the
    /// packet's, and for any packet after the card was stopped.
    #[inline(always)]
    pub(super) fn new(lent: Lent) -> Self {
        Self(lent)
    }

    /// The buffer with the `len` bytes that the card wrote; `None` when that is more than the `most` that it was
    /// allowed, and the buffer has gone home.
    #[inline(always)]
    pub(super) fn received(self, len: u16, most: u16) -> Option<Packet> {
        let len = if len <= most { u32::from(len) } else { u32::MAX };
        // SAFETY: the card is done with the buffer, see `Returned::new`.
        unsafe { self.0.reclaim_received(len) }
    }

    /// The packet, which the card only read.
    #[inline(always)]
    pub(super) fn sent(self) -> Packet {
        // SAFETY: the card is done with the packet, see `Returned::new`.
        unsafe { self.0.reclaim_sent() }
    }
}
