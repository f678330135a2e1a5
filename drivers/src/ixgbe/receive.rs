//! Receiving (82599 datasheet, section 7.1).
//!
//! The card fills buffers in the order of the ring, so the driver's own list of the buffers that it gave away says which
//! buffer a descriptor means, whatever the card writes there. Descriptors are looked at in groups: first the done words
//! of a group, so that the misses of its cache lines overlap, then everything else.

use alloc::sync::Arc;
use core::fmt;

use hugemem::{Batch, Iova, OutOfMemory, PacketPool, Region};

use super::descriptor::{ReceiveInfo, ReceiveStatus, write_buffer};
use super::doorbell::Doorbell;
use super::frames::Frames;
use super::interrupts::Vector;
use super::options::ReceiveSetup;
use super::ring::{Returned, Ring};
use crate::bus::Bar;
use crate::health::{Fault, Health, Progress};
use crate::home::Half;
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
    /// The descriptor that the card is to be done with next.
    next: u16,
    /// Descriptors from there on whose buffers the card holds.
    held: u16,
    /// What the last burst brought, and so perhaps the next.
    expected: usize,
    frames: Frames,
    refill_at: u16,
    buffer_kib: u8,
    tail: Option<Doorbell<B>>,
    vector: Option<Vector<B>>,
    progress: Progress,
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
            next: 0,
            held: 0,
            expected: 0,
            frames: Frames::new(u16::from(buffer_kib) << 10),
            refill_at: REFILL.min(size / 4).max(1),
            buffer_kib,
            tail: None,
            vector: None,
            progress: Progress::default(),
            health,
            pair,
        })
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

    /// The pool that the queue takes its buffers from.
    pub fn pool(&mut self) -> &mut PacketPool {
        &mut self.pool
    }

    /// Takes all buffers back from a card that has stopped, and makes the ring as new.
    pub(super) fn reset(&mut self, stopped: &Stopped, setup: ReceiveSetup) {
        self.tail = None;
        self.vector = None;
        self.ring.reset(stopped);
        (self.next, self.held, self.expected) = (0, 0, 0);
        self.frames.reset(setup);
        self.progress = Progress::default();
    }

    /// Fills the ring and tells the card, whose head and tail are zero.
    pub(super) fn begin(&mut self, tail: Doorbell<B>, vector: Option<Vector<B>>) {
        self.tail = Some(tail);
        self.vector = vector;
        self.refill();
    }

    /// Descriptors that could be given to the card: all but one, because a tail that meets the head means an empty ring
    /// (7.1.9).
    #[inline(always)]
    fn free(&self) -> u16 {
        self.ring.size() - 1 - self.held
    }

    /// Notes for [`Health`] what the card did with `held` buffers. Only a look that found nothing and a refill publish it:
    /// that is often enough, and costs a busy queue nothing.
    #[inline(always)]
    fn looked(&mut self, held: u16, publish: bool) {
        let returned = held - self.held;
        if held > 0 {
            self.progress.looked(returned);
        }
        if publish || returned == 0 {
            self.health.publish(2 * self.pair, self.progress);
        }
    }

    /// Looks at the next descriptors, and takes the buffers of those that are done. `false` when it came to one that is
    /// not, or to the end of the buffers or the batch.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no more than a group")]
    fn receive_group(&mut self, batch: &mut Batch, bytes: &mut u64) -> bool {
        let most = GROUP.min(batch.room()).min(self.held.into());
        let (descriptors, buffers) = self.ring.run(self.next, most);
        let mut statuses = [ReceiveStatus::default(); GROUP];
        let mut done = 0;
        for (descriptor, place) in descriptors.iter().zip(&mut statuses) {
            let status = ReceiveStatus::read(descriptor);
            if !status.is_done() {
                break;
            }
            *place = status;
            done += 1;
        }
        let all = done > 0 && done == descriptors.len();
        for ((descriptor, buffer), status) in
            descriptors.iter().zip(buffers).zip(statuses.get(..done).unwrap_or_default())
        {
            // Always there: the driver's record says that the card holds it.
            let Some(lent) = buffer.take() else { continue };
            let info = ReceiveInfo::read(descriptor);
            if let Some(frame) = self.frames.accept(Returned::new(lent), *status, info) {
                *bytes += frame.len() as u64;
                // There is room: a group is no larger.
                let _ = batch.push(frame);
            }
        }
        self.next = self.ring.advance(self.next, done);
        self.held -= done as u16;
        all
    }

    /// Gives the card fresh buffers for all free descriptors, or as many as the pool has.
    #[expect(clippy::cast_possible_truncation, reason = "no more than the ring has")]
    fn refill(&mut self) {
        let before = self.held;
        loop {
            let place = self.ring.advance(self.next, self.held.into());
            let (descriptors, buffers) = self.ring.run(place, self.free().into());
            let places = descriptors.iter().zip(buffers);
            let wanted = places.len();
            let count = self.pool.lend_to(places, |(descriptor, place), lent| {
                write_buffer(descriptor, lent.iova());
                *place = Some(lent);
            });
            self.held += count as u16;
            if count == 0 || count < wanted {
                break;
            }
        }
        if self.held == 0 {
            self.frames.give_up();
        }
        // The longest frame takes a fraction of the ring.
        if self.frames.unended() >= self.ring.size() {
            self.health.report(2 * self.pair, Fault::BufferCount);
        }
        if self.held > before
            && let Some(tail) = &self.tail
        {
            tail.ring(self.ring.advance(self.next, self.held.into()));
        }
    }
}

impl<B: Bar> Half for Rx<B> {
    fn pair(&self) -> u16 {
        self.pair
    }

    fn belongs_to(&self, health: &Arc<Health>) -> bool {
        Arc::ptr_eq(&self.health, health)
    }
}

impl<B: Bar> RxQueue for Rx<B> {
    #[inline]
    fn receive(&mut self, batch: &mut Batch) -> usize {
        if self.tail.is_none() {
            return 0;
        }
        let (before, held) = (batch.len(), self.held);
        let mut bytes = 0;
        self.ring.prefetch(self.next, self.expected.min(batch.room()));
        // Ends, because the card holds fewer buffers after each turn.
        while self.receive_group(batch, &mut bytes) {}
        let received = batch.len() - before;
        self.expected = received;
        self.frames.counters.packets += received as u64;
        self.frames.counters.bytes += bytes;
        let refills = self.free() >= self.refill_at;
        self.looked(held, refills);
        if refills {
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
        let Some(vector) = self.vector.as_ref().filter(|_| self.held > 0) else {
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

    fn gives_large(&self) -> bool {
        // Received segments are never put together.
        false
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
