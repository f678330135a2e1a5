//! What receive and transmit rings have in common: descriptors in a circle, and buffers that come back.
#![expect(unsafe_code, reason = "only the ring knows when the card is done with a packet")]

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use hugemem::{DmaArray, Iova, Lent, OutOfMemory, Packet, Region};

use super::descriptor::Descriptor;
use crate::stopped::Stopped;

/// Rings start at a multiple of this (RDBAL, TDBAL: 8.2.3.8.1, 8.2.3.9.5).
const ALIGNMENT: usize = 128;
/// Descriptors in a cache line.
const LINE: usize = 4;

/// Descriptors in a circle, and beside them, where the card cannot reach it, the driver's record of what it lent with
/// each.
#[derive(Debug)]
pub(super) struct Ring {
    descriptors: DmaArray<Descriptor>,
    lent: Box<[Option<Lent>]>,
    size: u16,
}

/// A part of a ring that is in one piece: descriptors, and what is lent with each.
pub(super) type Run<'a> = (&'a [Descriptor], &'a mut [Option<Lent>]);

impl Ring {
    /// Takes memory for `size` descriptors, a power of two.
    pub(super) fn new(memory: &Region, size: u16) -> Result<Self, OutOfMemory> {
        let lent = (0..size).map(|_| None).collect();
        Ok(Self { descriptors: memory.array(size.into(), ALIGNMENT)?, lent, size })
    }

    /// Descriptors in all.
    pub(super) fn size(&self) -> u16 {
        self.size
    }

    /// Where the card finds them.
    pub(super) fn address(&self) -> Iova {
        self.descriptors.iova()
    }

    /// Takes everything back from a card that has stopped, and makes the descriptors as new.
    pub(super) fn reset(&mut self, _: &Stopped) {
        hugemem::recycle(self.lent.iter_mut().filter_map(Option::take).map(|lent| Returned::new(lent).sent()));
        for word in self.descriptors.iter().flatten() {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// What lies at `first` and behind it: `count`, or fewer where the memory ends before the circle does.
    #[inline(always)]
    pub(super) fn run(&mut self, first: u16, count: usize) -> Run<'_> {
        let first = usize::from(first);
        let count = count.min(usize::from(self.size).saturating_sub(first));
        let places = first..first + count;
        (self.descriptors.get(places.clone()).unwrap_or_default(), self.lent.get_mut(places).unwrap_or_default())
    }

    /// Fetches `count` descriptors from `first` on into the cache, to be read and written.
    #[inline(always)]
    pub(super) fn prefetch(&self, first: u16, count: usize) {
        let mut place = usize::from(first);
        let end = place + count;
        while place < end {
            self.descriptors.prefetch_to_write(place & (usize::from(self.size) - 1));
            place += LINE;
        }
    }

    /// The descriptor `index`; `None` for one that the ring does not have.
    #[inline(always)]
    pub(super) fn get(&self, index: u16) -> Option<&Descriptor> {
        self.descriptors.get(usize::from(index))
    }

    /// Notes what is lent with descriptor `index`.
    pub(super) fn lend(&mut self, index: u16, lent: Lent) {
        if let Some(place) = self.lent.get_mut(usize::from(index)) {
            *place = Some(lent);
        }
    }

    /// The index `count` descriptors behind `index`, for a `count` of at most a whole ring.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a remainder of the ring's size")]
    pub(super) fn advance(&self, index: u16, count: usize) -> u16 {
        ((usize::from(index) + count) & (usize::from(self.size) - 1)) as u16
    }

    /// How many descriptors `to` lies behind `from`.
    pub(super) fn distance(&self, from: u16, to: u16) -> u16 {
        to.wrapping_sub(from) & (self.size - 1)
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

    /// The buffer with the `len` bytes that the card wrote. `None`, and the buffer has gone home, when it has no room for
    /// as many.
    #[inline(always)]
    pub(super) fn received(self, len: u16) -> Option<Packet> {
        // SAFETY: the card is done with the buffer, see `Returned::new`.
        unsafe { self.0.reclaim_received(len.into()) }
    }

    /// The packet, which the card only read.
    #[inline(always)]
    pub(super) fn sent(self) -> Packet {
        // SAFETY: the card is done with the packet, see `Returned::new`.
        unsafe { self.0.reclaim_sent() }
    }
}
