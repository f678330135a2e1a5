//! Sending (virtio 1.3, section 5.1.6.2).
//!
//! The header goes into the packet's headroom, so that a packet in one buffer is one descriptor; a packet in several is
//! one descriptor too where the device knows indirect tables, else a chain.
//!
//! The device never interrupts for what it has sent: finished packets are taken back when there are enough of them to
//! be worth the look, or when their descriptors are needed.

use alloc::sync::Arc;

use hugemem::{Batch, Lent, Packet};

use super::features::{self, Features};
use super::header::Sender;
use super::ring::{Part, Returned, Ring};
use super::transport::Doorbell;
use crate::health::{Fault, Health, Progress};
use crate::nic::{Counters, DropReason, Offloads};
use crate::stopped::Stopped;

/// Packets underway from which on finished ones are looked for. Few, so that their buffers are reused while
/// they are in the cache; enough, so that the device's cache line is fetched once for many.
const RECLAIM: u16 = 64;

/// The transmit half of a queue pair over a ring format.
pub(super) struct Transmitter<R, D> {
    pub(super) ring: R,
    doorbell: Option<D>,
    pub(super) health: Arc<Health>,
    /// Index of the queue on the device.
    pub(super) queue: u16,
    sender: Sender,
    offloads: Offloads,
    reclaim_at: u16,
    /// Nothing more through this queue: not started, or the device broke the ring.
    halted: bool,
    progress: Progress,
    pub(super) counters: Counters,
}

impl<R: Ring<Lent>, D: Doorbell> Transmitter<R, D> {
    /// A queue that is not started yet.
    pub(super) fn new(ring: R, health: Arc<Health>, queue: u16) -> Self {
        let reclaim_at = RECLAIM.min(ring.size() / 2).max(1);
        Self {
            ring,
            doorbell: None,
            health,
            queue,
            sender: Sender { features: Features::empty(), longest: 0 },
            offloads: Offloads::empty(),
            reclaim_at,
            halted: true,
            progress: Progress::default(),
            counters: Counters::default(),
        }
    }

    /// Takes all packets back and makes the ring as new, for a device that is stopped. `longest` is the
    /// longest frame that may be sent uncut.
    pub(super) fn reset(&mut self, stopped: &Stopped, features: Features, longest: usize) {
        self.halted = true;
        self.doorbell = None;
        self.progress = Progress::default();
        hugemem::recycle(self.ring.drain(stopped).map(Returned::sent));
        self.sender = Sender { features, longest };
        self.offloads = features::offloads(features);
        self.ring.start(stopped, features.contains(Features::EVENT_IDX), features.contains(Features::INDIRECT_DESC));
    }

    /// Connects the queue to its doorbell.
    pub(super) fn begin(&mut self, doorbell: D) {
        self.doorbell = Some(doorbell);
        self.halted = false;
    }

    #[inline]
    pub(super) fn transmit(&mut self, batch: &mut Batch) -> usize {
        if self.ring.outstanding() >= self.reclaim_at {
            self.take_back();
        }
        let mut count = self.fitting(batch);
        if count < batch.len() {
            self.take_back();
            count = self.fitting(batch);
        }
        if self.halted {
            return self.discard(batch);
        }
        let (mut packets, mut bytes) = (0_u64, 0_u64);
        for mut packet in batch.drain_front(count) {
            let length = packet.len() as u64;
            let checked = if packet.is_chained() { no_empty_segment(&packet) } else { Ok(()) };
            match checked.and_then(|()| self.sender.prepare(&mut packet)) {
                Ok(()) => match post(&mut self.ring, packet) {
                    Ok(()) => {
                        packets += 1;
                        bytes += length;
                    }
                    // There was room, so it is one that never fits.
                    Err(packet) => self.refuse(packet, DropReason::TooLong),
                },
                Err(reason) => self.refuse(packet, reason),
            }
        }
        self.counters.packets += packets;
        self.counters.bytes += bytes;
        if self.ring.publish()
            && let Some(doorbell) = &self.doorbell
        {
            doorbell.ring();
        }
        count
    }

    /// How many packets from the front of `batch` the ring has room for. One that could never fit counts as fitting: it
    /// is refused when its turn comes.
    #[inline(always)]
    fn fitting(&self, batch: &Batch) -> usize {
        let mut free = self.ring.free();
        let mut count = 0;
        for packet in batch.as_slice() {
            let needed = if packet.is_chained() { self.ring.descriptors_for(packet.segment_count()) } else { Some(1) };
            let Some(left) = free.checked_sub(needed.unwrap_or(0)) else {
                break;
            };
            free = left;
            count += 1;
        }
        count
    }

    /// Takes back what the device is done with, all of a pool with one atomic operation.
    fn take_back(&mut self) {
        let before = self.ring.outstanding();
        if self.halted || before == 0 {
            return;
        }
        let mut outcome = self.ring.poll();
        let ring = &mut self.ring;
        if outcome.is_ok() {
            // No more than the ring holds, so this ends whatever the device does meanwhile.
            let most = usize::from(before);
            let finished = core::iter::from_fn(|| match ring.pop() {
                Ok(returned) => returned.map(Returned::sent),
                Err(fault) => {
                    outcome = Err(fault);
                    None
                }
            });
            hugemem::recycle(finished.take(most));
        }
        self.progress.looked(before.wrapping_sub(self.ring.outstanding()));
        self.health.publish(self.queue, self.progress);
        if let Err(fault) = outcome {
            self.fail(fault);
        }
    }

    #[cold]
    fn refuse(&mut self, packet: Packet, reason: DropReason) {
        drop(packet);
        self.counters.drop_packets(reason, 1);
    }

    #[cold]
    fn discard(&mut self, batch: &mut Batch) -> usize {
        let count = batch.len();
        self.counters.drop_packets(DropReason::Stopped, count as u64);
        batch.clear();
        count
    }

    /// The ring cannot be trusted any more: the queue halts, and the device's handle hears of it. What the device
    /// holds stays lent until it has been reset.
    #[cold]
    fn fail(&mut self, fault: Fault) {
        self.halted = true;
        self.health.report(self.queue, fault);
    }

    /// What the device does for packets.
    #[inline]
    pub(super) fn offloads(&self) -> Offloads {
        self.offloads
    }

    pub(super) fn reclaim(&mut self) -> usize {
        self.take_back();
        usize::from(if self.halted { 0 } else { self.ring.outstanding() })
    }
}

/// A descriptor of no bytes is something that devices stop at.
#[inline(never)]
fn no_empty_segment(packet: &Packet) -> Result<(), DropReason> {
    if packet.segments().skip(1).any(<[u8]>::is_empty) { Err(DropReason::BadLength) } else { Ok(()) }
}

/// Gives a packet with its header to the ring; gives it back when it does not fit.
#[inline(always)]
fn post<R: Ring<Lent>>(ring: &mut R, packet: Packet) -> Result<(), Packet> {
    let chained = packet.is_chained();
    let lent = packet.lend();
    let posted = if chained {
        ring.post_parts(lent)
    } else {
        let len = u32::try_from(lent.len()).unwrap_or(0);
        let part = Part { iova: lent.iova(), len, writable: false };
        ring.post(part, lent)
    };
    posted.map_err(Returned::sent)
}
