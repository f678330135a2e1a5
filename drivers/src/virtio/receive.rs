//! Receiving (virtio 1.3, sections 5.1.6.3 and 5.1.6.4).
//!
//! Buffers wait in the ring with the device's header right in front of the place where a fresh packet's data starts, so
//! that the frame itself begins on a cache line and leaves the whole headroom free once the header is gone.
//!
//! Returned buffers are handled in groups: first all of a group are taken out of the ring and their headers prefetched,
//! then they are looked at. So the cache misses of a group overlap.

use alloc::sync::Arc;

use hugemem::{Batch, Lent, Packet, PacketPool};

use super::features::Features;
use super::header::{self, Header};
use super::ring::{Part, Returned, Ring};
use super::transport::Doorbell;
use crate::health::{Fault, Health};
use crate::nic::{Counters, DropReason};
use crate::stopped::Stopped;

/// Buffers that are handled together.
const GROUP: usize = 32;
/// Free descriptors at which the ring is filled up again: one cache line of the available ring, so that doorbells and
/// lines are shared by many.
const REFILL: u16 = 32;

/// A frame of which buffers are still to come.
struct Partial {
    /// What has come; `None` when the frame is being discarded.
    frame: Option<Packet>,
    /// The header of its first buffer.
    header: Header,
    /// Buffers to come.
    missing: u16,
}

/// The receive half of a queue pair over a ring format.
pub(super) struct Receiver<R, D> {
    pub(super) ring: R,
    pub(super) pool: PacketPool,
    doorbell: Option<D>,
    pub(super) health: Arc<Health>,
    /// Index of the queue on the device.
    pub(super) queue: u16,
    features: Features,
    header_length: usize,
    refill_at: u16,
    partial: Option<Partial>,
    /// Nothing more from this queue: not started, or the device broke the ring.
    halted: bool,
    interrupt: bool,
    pub(super) counters: Counters,
}

impl<R: Ring<Lent>, D: Doorbell> Receiver<R, D> {
    /// A queue that is not started yet.
    pub(super) fn new(ring: R, pool: PacketPool, health: Arc<Health>, queue: u16) -> Self {
        let refill_at = REFILL.min(ring.size() / 4).max(1);
        Self {
            ring,
            pool,
            doorbell: None,
            health,
            queue,
            features: Features::empty(),
            header_length: header::PLAIN,
            refill_at,
            partial: None,
            halted: true,
            interrupt: false,
            counters: Counters::default(),
        }
    }

    /// Takes all buffers back and makes the ring as new, for a device that is stopped.
    pub(super) fn reset(&mut self, stopped: &Stopped, features: Features) {
        self.halted = true;
        self.doorbell = None;
        self.partial = None;
        hugemem::recycle(self.ring.drain(stopped).map(Returned::sent));
        self.features = features;
        self.header_length = header::length(features);
        self.ring.start(stopped, features.contains(Features::EVENT_IDX), features.contains(Features::INDIRECT_DESC));
    }

    /// Connects the queue to its doorbell and fills it. The device must not be notified before it is told that the
    /// driver is ready (3.1.1), hence [`Receiver::kick`].
    pub(super) fn begin(&mut self, doorbell: D, interrupt: bool) {
        self.interrupt = interrupt;
        self.halted = false;
        self.refill();
        self.doorbell = Some(doorbell);
    }

    /// Notifies the device of what [`Receiver::begin`] put there.
    pub(super) fn kick(&self) {
        if let Some(doorbell) = &self.doorbell {
            doorbell.ring();
        }
    }

    #[inline]
    pub(super) fn receive(&mut self, batch: &mut Batch) -> usize {
        if self.halted {
            return 0;
        }
        let before = batch.len();
        let mut bytes = 0_u64;
        // Bounds the work whatever the device does while we work.
        let mut budget = usize::from(self.ring.size());
        let mut outcome = self.ring.poll();
        while outcome.is_ok() {
            let most = batch.room().min(budget).min(GROUP);
            let mut group = [const { None }; GROUP];
            let mut count = 0;
            for place in group.get_mut(..most).unwrap_or_default() {
                match self.ring.pop() {
                    Ok(Some(returned)) => {
                        returned.prefetch();
                        *place = Some(returned);
                        count += 1;
                    }
                    Ok(None) => break,
                    Err(fault) => {
                        outcome = Err(fault);
                        break;
                    }
                }
            }
            budget -= count;
            for returned in group.get_mut(..count).unwrap_or_default().iter_mut().filter_map(Option::take) {
                match self.accept(returned) {
                    Ok(Some(packet)) => {
                        bytes += packet.len() as u64;
                        // There is room: a group is no larger.
                        let _ = batch.push(packet);
                    }
                    Ok(None) => {}
                    Err(fault) => outcome = Err(fault),
                }
            }
            if count < GROUP {
                break;
            }
        }
        let received = batch.len() - before;
        self.counters.packets += received as u64;
        self.counters.bytes += bytes;
        if let Err(fault) = outcome {
            self.fail(fault);
        } else if self.ring.free() >= self.refill_at {
            self.refill();
        }
        received
    }

    /// Looks at one buffer; gives the frame that it completes.
    #[inline(always)]
    fn accept(&mut self, returned: Returned<Lent>) -> Result<Option<Packet>, Fault> {
        if self.partial.is_some() {
            return Ok(self.go_on(returned));
        }
        let Some(mut packet) = returned.received() else {
            return self.lost_head();
        };
        let header = Header::read(packet.bytes(), self.header_length == header::WITH_HASH);
        let Some(header) = header.filter(|_| packet.trim_front(self.header_length)) else {
            return self.lost_head();
        };
        if header.buffers != 1 && self.features.contains(Features::MRG_RXBUF) {
            return self.begin_partial(packet, header);
        }
        packet.prefetch();
        Ok(self.finish(packet, header))
    }

    /// Checks a whole frame and its header.
    #[inline(always)]
    fn finish(&mut self, mut frame: Packet, header: Header) -> Option<Packet> {
        if frame.len() < header::SHORTEST {
            self.drop_frame(DropReason::BadLength);
            return None;
        }
        if header.is_plain() {
            return Some(frame);
        }
        let Some(metadata) = header.metadata(&frame, self.features) else {
            self.drop_frame(DropReason::BadHeader);
            return None;
        };
        *frame.metadata_mut() = metadata;
        Some(frame)
    }

    /// The first buffer of a frame has an impossible length, so that nothing is known of its header.
    #[cold]
    fn lost_head(&mut self) -> Result<Option<Packet>, Fault> {
        self.drop_frame(DropReason::BadLength);
        Ok(None)
    }

    /// A frame of several buffers begins (5.1.6.4.1).
    #[cold]
    fn begin_partial(&mut self, frame: Packet, header: Header) -> Result<Option<Packet>, Fault> {
        let missing = header.buffers.wrapping_sub(1);
        if missing >= self.ring.size() {
            self.drop_frame(DropReason::BadHeader);
            return Err(Fault::BufferCount);
        }
        self.partial = Some(Partial { frame: Some(frame), header, missing });
        Ok(None)
    }

    /// The next buffer of a frame that has begun. A device that never sends the rest ends here too: with the ring
    /// drained and the partial frame waiting, until it is stopped.
    #[inline(never)]
    fn go_on(&mut self, returned: Returned<Lent>) -> Option<Packet> {
        let mut partial = self.partial.take()?;
        let piece = returned.received();
        if let Some(mut frame) = partial.frame.take() {
            let fits = piece.filter(|piece| !piece.is_empty() && frame.len() + piece.len() <= header::LONGEST);
            if fits.is_some_and(|piece| frame.append(piece).is_ok()) {
                partial.frame = Some(frame);
            } else {
                self.drop_frame(DropReason::BadLength);
            }
        }
        partial.missing = partial.missing.saturating_sub(1);
        if partial.missing > 0 {
            self.partial = Some(partial);
            return None;
        }
        let frame = partial.frame?;
        self.finish(frame, partial.header)
    }

    /// Hands the device fresh buffers for all free descriptors, or as many as the pool has.
    fn refill(&mut self) {
        while self.ring.free() > 0 {
            let Some(mut packet) = self.pool.take() else {
                break;
            };
            if packet.prepend(self.header_length).is_none() {
                break;
            }
            let lent = packet.lend();
            let len = u32::try_from(lent.capacity()).unwrap_or(u32::MAX);
            let part = Part { iova: lent.iova(), len, writable: true };
            if self.ring.post(part, lent).is_err() {
                break;
            }
        }
        if self.ring.publish()
            && let Some(doorbell) = &self.doorbell
        {
            doorbell.ring();
        }
    }

    #[cold]
    fn drop_frame(&mut self, reason: DropReason) {
        self.counters.drop_packets(reason, 1);
    }

    /// The ring cannot be trusted any more: the queue halts, and the device's handle hears of it.
    #[cold]
    fn fail(&mut self, fault: Fault) {
        self.halted = true;
        if fault != Fault::BufferCount {
            self.drop_frame(DropReason::BadIndex);
        }
        self.health.report(self.queue, fault);
    }

    /// Whether the device may give segments of more than one frame's size.
    pub(super) fn gives_large(&self) -> bool {
        let large = Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::GUEST_USO4 | Features::GUEST_USO6;
        self.features.intersects(large)
    }

    pub(super) fn arm(&mut self) -> bool {
        if self.halted || !self.interrupt {
            return false;
        }
        self.refill();
        // With no buffer out there is nothing that could ever interrupt: the pool is dry and has to be asked again.
        self.ring.outstanding() > 0 && self.ring.enable_interrupt()
    }

    pub(super) fn disarm(&mut self) {
        if !self.halted {
            self.ring.disable_interrupt();
        }
    }
}
