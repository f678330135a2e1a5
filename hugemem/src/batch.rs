//! A bounded run of packets, the unit in which everything on the packet path works.

use alloc::vec::Vec;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;

use crate::packet::Packet;
use crate::pool::{Header, Shared, give_back};

/// A run of packets in order, with a fixed capacity. Never allocates after it was made.
#[derive(Debug)]
pub struct Batch {
    packets: Vec<Packet>,
    capacity: usize,
}

impl Batch {
    /// An empty batch for up to `capacity` packets.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { packets: Vec::with_capacity(capacity), capacity }
    }

    /// Packets that it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Packets that can still be added.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.packets.len()
    }

    /// Packets in it.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// It holds no packet.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Adds a packet at the end.
    ///
    /// # Errors
    /// Gives the packet back when the batch is full.
    #[inline]
    pub fn push(&mut self, packet: Packet) -> Result<(), Packet> {
        // The second never is without the first, but it tells the compiler that nothing has to grow.
        if self.packets.len() == self.capacity || self.packets.len() == self.packets.capacity() {
            return Err(packet);
        }
        self.packets.push(packet);
        Ok(())
    }

    /// Moves the first packets of `other` to the end of this one, as many as there is room for.
    #[inline]
    pub fn take_from(&mut self, other: &mut Self) {
        let count = other.len().min(self.room());
        self.packets.extend(other.packets.drain(..count));
    }

    /// Takes the first `count` packets, or all when there are fewer. What the caller does not use of them is dropped.
    #[inline]
    pub fn drain_front(&mut self, count: usize) -> alloc::vec::Drain<'_, Packet> {
        let count = count.min(self.packets.len());
        self.packets.drain(..count)
    }

    /// The packets, in order.
    #[inline]
    #[must_use]
    pub fn as_slice(&self) -> &[Packet] {
        &self.packets
    }

    /// The packets, in order, to change.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [Packet] {
        &mut self.packets
    }

    /// The packets, in order.
    pub fn iter(&self) -> core::slice::Iter<'_, Packet> {
        self.packets.iter()
    }

    /// The packets, in order, to change.
    pub fn iter_mut(&mut self) -> core::slice::IterMut<'_, Packet> {
        self.packets.iter_mut()
    }

    /// Drops the packets for which `keep` is false.
    pub fn retain(&mut self, keep: impl FnMut(&Packet) -> bool) {
        self.packets.retain(keep);
    }

    /// Keeps the first `count` packets and sends the others home.
    pub fn truncate(&mut self, count: usize) {
        recycle(self.packets.drain(count.min(self.packets.len())..));
    }

    /// Sends all packets home, with one atomic operation for each run of one pool.
    pub fn clear(&mut self) {
        recycle(self.packets.drain(..));
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = &'a Packet;
    type IntoIter = core::slice::Iter<'a, Packet>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Sends packets home, with one atomic operation for each run of one pool instead of one for each packet. (When the
/// iterator panics, the run that it was in is leaked.)
pub fn recycle(packets: impl IntoIterator<Item = Packet>) {
    // One place that asks for the next packet, so that the iterator is compiled into the loop.
    let mut run: Option<Run> = None;
    for packet in packets.into_iter().map(ManuallyDrop::new) {
        let header = packet.header();
        match &mut run {
            Some(run) if run.pool == header.pool => {
                packet.shared().home.link(run.last, header.slot);
                run.last = header.last;
                run.count += u32::from(header.segments);
            }
            _ => {
                if let Some(done) = run.replace(Run::new(&packet)) {
                    done.give_back();
                }
            }
        }
    }
    if let Some(run) = run {
        run.give_back();
    }
}

/// Buffers of one pool on their way home, linked to one chain.
struct Run {
    pool: NonNull<Shared>,
    first: u32,
    last: u32,
    count: u32,
}

impl Run {
    #[inline]
    fn new(packet: &Packet) -> Self {
        let Header { pool, slot, last, segments, .. } = *packet.header();
        Self { pool, first: slot, last, count: segments.into() }
    }

    #[inline]
    fn give_back(&self) {
        give_back(self.pool, self.first, self.last, self.count);
    }
}
