//! Receiving (82599 datasheet, section 7.1).
//!
//! The card fills buffers in the order of the ring, so the driver's own list of the buffers that it gave away says which
//! buffer a descriptor means, whatever the card writes there. Descriptors are looked at in groups: first the done words
//! of a group, so that the misses of its cache lines overlap, then everything else.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;

use hugemem::{Batch, Iova, Lent, OutOfMemory, PacketPool, Region};

use super::descriptor::{ReceiveInfo, ReceiveStatus, write_buffer};
use super::doorbell::Doorbell;
use super::frames::Frames;
use super::interrupts::Vector;
use super::options::ReceiveSetup;
use super::ring::{Returned, Ring};
use crate::bus::Bar;
use crate::health::Health;
use crate::nic::{Counters, RxQueue};
use crate::stopped::Stopped;

/// Buffers that are handled together.
const GROUP: usize = 32;
/// Free descriptors at which the ring is filled up again, so that doorbells and cache lines are shared by many.
const REFILL: u16 = 32;
/// The unit in which the card is told the size of a buffer (SRRCTL.BSIZEPACKET, 8.2.3.8.7), and the most of them.
const KIB: usize = 1024;
const MOST_KIB: u8 = 16;

/// Receives from one queue of an 82599 or one of its kin.
pub struct Rx<B: Bar> {
    ring: Ring,
    pool: PacketPool,
    /// The buffers that the card holds, in the order of their descriptors.
    held: VecDeque<Lent>,
    /// The descriptor of the first of them.
    next: u16,
    frames: Frames,
    refill_at: usize,
    buffer_kib: u8,
    tail: Option<Doorbell<B>>,
    vector: Option<Vector<B>>,
    health: Arc<Health>,
    pair: u16,
}

impl<B: Bar> Rx<B> {
    /// Takes memory for the receive queue of `pair`, with `size` descriptors. It is halted until [`Rx::begin`].
    pub(super) fn new(
        memory: &Region,
        size: u16,
        pool: PacketPool,
        health: Arc<Health>,
        pair: u16,
    ) -> Result<Self, OutOfMemory> {
        let buffer_kib = u8::try_from(pool.room() / KIB).unwrap_or(MOST_KIB).min(MOST_KIB);
        Ok(Self {
            ring: Ring::new(memory, size)?,
            pool,
            held: VecDeque::with_capacity(size.into()),
            next: 0,
            frames: Frames::new(u16::from(buffer_kib) << 10),
            refill_at: REFILL.min(size / 4).max(1).into(),
            buffer_kib,
            tail: None,
            vector: None,
            health,
            pair,
        })
    }

    pub(super) fn pair(&self) -> u16 {
        self.pair
    }

    pub(super) fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Where the ring lies.
    pub(super) fn address(&self) -> Iova {
        self.ring.address()
    }

    /// Size of a buffer in KiB.
    pub(super) fn buffer_kib(&self) -> u8 {
        self.buffer_kib
    }

    pub(super) fn belongs_to(&self, health: &Arc<Health>) -> bool {
        Arc::ptr_eq(&self.health, health)
    }

    /// The pool that the queue takes its buffers from.
    pub fn pool(&mut self) -> &mut PacketPool {
        &mut self.pool
    }

    /// Takes all buffers back from a card that has stopped, and makes the ring as new.
    pub(super) fn reset(&mut self, stopped: &Stopped, setup: ReceiveSetup) {
        self.tail = None;
        self.vector = None;
        hugemem::recycle(self.held.drain(..).map(|lent| Returned::new(lent).sent()));
        self.next = 0;
        self.ring.clear(stopped);
        self.frames.reset(setup);
    }

    /// Fills the ring and tells the card, whose head and tail are zero.
    pub(super) fn begin(&mut self, tail: Doorbell<B>, vector: Option<Vector<B>>) {
        self.tail = Some(tail);
        self.vector = vector;
        self.refill();
    }

    /// Looks at up to `most` descriptors in a row. Gives how many of them it looked at and how many were done.
    #[inline(always)]
    fn receive_group(&mut self, batch: &mut Batch, bytes: &mut u64) -> (usize, usize) {
        let most = GROUP.min(batch.room()).min(self.held.len());
        let run = self.ring.run(self.next, most);
        let mut statuses = [ReceiveStatus::default(); GROUP];
        let mut done = 0;
        for (descriptor, place) in run.iter().zip(&mut statuses) {
            let status = ReceiveStatus::read(descriptor);
            if !status.is_done() {
                break;
            }
            *place = status;
            done += 1;
        }
        let buffers = self.held.drain(..done);
        for ((descriptor, status), lent) in run.iter().zip(statuses).zip(buffers) {
            let info = ReceiveInfo::read(descriptor);
            if let Some(frame) = self.frames.accept(Returned::new(lent), status, info) {
                *bytes += frame.len() as u64;
                // There is room: a group is no larger.
                let _ = batch.push(frame);
            }
        }
        let looked_at = run.len();
        self.next = self.ring.advance(self.next, done);
        (looked_at, done)
    }

    /// Gives the card fresh buffers for all free descriptors but one, or as many as the pool has: a tail that meets the
    /// head means an empty ring (7.1.9).
    fn refill(&mut self) {
        let before = self.held.len();
        let full = usize::from(self.ring.size()) - 1;
        let mut place = self.ring.advance(self.next, before);
        while self.held.len() < full {
            let run = self.ring.run(place, full - self.held.len());
            let mut count = 0;
            for descriptor in run {
                let Some(packet) = self.pool.take() else { break };
                let lent = packet.lend();
                write_buffer(descriptor, lent.iova());
                self.held.push_back(lent);
                count += 1;
            }
            place = self.ring.advance(place, count);
            if count < run.len() {
                break;
            }
        }
        if self.held.is_empty() {
            self.frames.give_up();
        }
        if self.held.len() > before
            && let Some(tail) = &self.tail
        {
            tail.ring(place);
        }
    }
}

impl<B: Bar> RxQueue for Rx<B> {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        if self.tail.is_none() {
            return 0;
        }
        let before = batch.len();
        let mut bytes = 0;
        loop {
            // Ends, because the card holds fewer buffers after each turn.
            let (looked_at, done) = self.receive_group(batch, &mut bytes);
            if looked_at == 0 || done < looked_at {
                break;
            }
        }
        let received = batch.len() - before;
        self.frames.counters.packets += received as u64;
        self.frames.counters.bytes += bytes;
        if usize::from(self.ring.size()) - 1 - self.held.len() >= self.refill_at {
            self.refill();
        }
        received
    }

    fn arm(&mut self) -> bool {
        if self.tail.is_none() || self.vector.is_none() {
            return false;
        }
        self.refill();
        // With no buffer out there is nothing that could ever interrupt: the pool is dry and has to be asked again.
        let Some(vector) = self.vector.as_ref().filter(|_| !self.held.is_empty()) else {
            return false;
        };
        vector.arm();
        // What came before interrupts too, but sleeping until then would be a detour.
        let waiting = self.ring.get(self.next).is_some_and(|descriptor| ReceiveStatus::read(descriptor).is_done());
        if waiting {
            vector.disarm();
        }
        !waiting
    }

    fn disarm(&mut self) {
        if let Some(vector) = &self.vector {
            vector.disarm();
        }
    }

    fn counters(&self) -> Counters {
        self.frames.counters
    }
}

impl<B: Bar> fmt::Debug for Rx<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rx").field("pair", &self.pair).field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod tests;
