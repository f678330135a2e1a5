//! Sending (82599 datasheet, section 7.2).
//!
//! A packet is one descriptor for each buffer, and one more in front when its headers need a context that the card does
//! not have. The card reports what it has sent only where it is asked to: at the last packet of a burst and every so many
//! descriptors between, so that it writes and the driver reads few cache lines. The driver keeps a list of the
//! places where it asked; packets return in the order in which they were given away.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;

use hugemem::{Batch, Checksum, Iova, Lent, OutOfMemory, Packet, Piece, Region};

use super::descriptor::{self, data};
use super::doorbell::Doorbell;
use super::frames::SHORTEST;
use super::offload::{self, Contexts, Plan};
use super::options::TransmitSetup;
use super::ring::{Returned, Ring};
use crate::bus::Bar;
use crate::health::{Health, Progress};
use crate::nic::{Counters, DropReason, TxQueue};
use crate::stopped::Stopped;

/// Descriptors after which the card is asked to report.
const REPORT: usize = 32;
/// Descriptors in use from which on finished ones are looked for. Few, so that their buffers are reused while they are in
/// the cache.
const RECLAIM: u16 = 64;
/// Most descriptors of one packet, its context aside: 40 - WTHRESH - 2 (7.2.1.1), and WTHRESH is zero.
const MOST_PIECES: usize = 38;
/// Shortest packet that the card takes; it pads to the shortest frame itself (7.2.1.1).
const SHORTEST_SENT: usize = 17;

/// A place where the card was asked to report, and what is finished when it does.
#[derive(Clone, Copy, Default, Debug)]
struct Report {
    descriptor: u16,
    packets: u16,
    descriptors: u16,
}

/// Sends on one queue of an 82599 or one of its kin.
pub struct Tx<B: Bar> {
    ring: Ring,
    /// The packets that the card holds, in order.
    held: VecDeque<Lent>,
    /// Reports that are still to come, in order.
    reports: VecDeque<Report>,
    /// What the next report will be for; its descriptor is the one written last.
    open: Report,
    /// Upper word of the descriptor written last.
    last_word: u64,
    /// Lower word of the descriptor written last.
    last_address: u64,
    /// The descriptor to be written next.
    next: u16,
    /// Descriptors that the card holds.
    used: u16,
    reclaim_at: u16,
    setup: TransmitSetup,
    contexts: Contexts,
    tail: Option<Doorbell<B>>,
    progress: Progress,
    counters: Counters,
    health: Arc<Health>,
    pair: u16,
}

impl<B: Bar> Tx<B> {
    /// Takes memory for the transmit queue of `pair`, with `size` descriptors. It is halted until [`Tx::begin`].
    pub(super) fn new(memory: &Region, size: u16, health: Arc<Health>, pair: u16) -> Result<Self, OutOfMemory> {
        Ok(Self {
            ring: Ring::new(memory, size)?,
            held: VecDeque::with_capacity(size.into()),
            reports: VecDeque::with_capacity(size.into()),
            open: Report::default(),
            last_word: 0,
            last_address: 0,
            next: 0,
            used: 0,
            reclaim_at: RECLAIM.min(size / 2).max(1),
            setup: TransmitSetup::default(),
            contexts: Contexts::default(),
            tail: None,
            progress: Progress::default(),
            counters: Counters::default(),
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

    pub(super) fn belongs_to(&self, health: &Arc<Health>) -> bool {
        Arc::ptr_eq(&self.health, health)
    }

    /// Takes all packets back from a card that has stopped, and makes the ring as new.
    pub(super) fn reset(&mut self, stopped: &Stopped, setup: TransmitSetup) {
        self.tail = None;
        hugemem::recycle(self.held.drain(..).map(|lent| Returned::new(lent).sent()));
        self.reports.clear();
        self.open = Report::default();
        (self.next, self.used) = (0, 0);
        self.ring.clear(stopped);
        self.setup = setup;
        self.contexts = Contexts::default();
        self.progress = Progress::default();
    }

    /// Connects the queue to its doorbell. The card's head and tail are zero.
    pub(super) fn begin(&mut self, tail: Doorbell<B>) {
        self.tail = Some(tail);
    }

    /// Descriptors that can be written: all but one, because a tail that meets the head means an empty ring (7.2.1.2).
    #[inline(always)]
    fn free(&self) -> usize {
        usize::from(self.ring.size() - 1 - self.used)
    }

    /// Writes packets of which [`is_plain`] is true, and for which there is room. Gives their bytes.
    #[inline(always)]
    fn write_plain(&mut self, mut packets: impl ExactSizeIterator<Item = Packet>) -> u64 {
        let mut bytes = 0;
        while packets.len() > 0 {
            let most = REPORT.saturating_sub(self.open.descriptors.into()).max(1);
            let run = self.ring.run(self.next, packets.len().min(most));
            let (mut address, mut word) = (0, 0);
            for (descriptor, packet) in run.iter().zip(&mut packets) {
                let length = packet.len() as u64;
                bytes += length;
                let lent = packet.lend();
                address = lent.iova().raw();
                word = data::BASE | data::EOP | length | length << data::PAYLEN;
                descriptor::write(descriptor, address, word);
                self.held.push_back(lent);
            }
            (self.last_address, self.last_word) = (address, word);
            let count = run.len();
            self.wrote(count, count);
        }
        bytes
    }

    /// Keeps the books after `descriptors` were written for `packets`; asks for a report when it is time.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no more than the ring has")]
    fn wrote(&mut self, descriptors: usize, packets: usize) {
        self.open.descriptor = self.ring.advance(self.next, descriptors - 1);
        self.open.packets += packets as u16;
        self.open.descriptors += descriptors as u16;
        self.next = self.ring.advance(self.next, descriptors);
        self.used += descriptors as u16;
        if usize::from(self.open.descriptors) >= REPORT {
            self.ask();
        }
    }

    /// Asks for a report at the packet written last. The card has not seen it yet.
    #[inline(always)]
    fn ask(&mut self) {
        let report = core::mem::take(&mut self.open);
        if let Some(descriptor) = self.ring.get(report.descriptor) {
            descriptor::write(descriptor, self.last_address, self.last_word | data::RS);
            self.reports.push_back(report);
        }
    }

    /// Writes packets of all kinds, as far as there is room. Gives how many it took.
    #[inline(never)]
    fn write_mixed(&mut self, batch: &mut Batch) -> usize {
        let mut free = self.free();
        let fits = |packet: &&Packet| match free.checked_sub(descriptors_for(packet).unwrap_or(0)) {
            Some(left) => {
                free = left;
                true
            }
            None => false,
        };
        let count = batch.as_slice().iter().take_while(fits).count();
        for mut packet in batch.drain_front(count) {
            match check(&mut packet).and_then(|()| offload::plan(&mut packet, self.setup)) {
                Ok(plan) => {
                    self.counters.packets += 1;
                    self.counters.bytes += packet.len() as u64;
                    self.write_planned(packet, plan);
                }
                Err(reason) => {
                    drop(packet);
                    self.counters.drop_packets(reason, 1);
                }
            }
        }
        count
    }

    /// Writes the descriptors of one packet. There is room.
    fn write_planned(&mut self, packet: Packet, plan: Plan) {
        let mut command = data::BASE | plan.command | (plan.payload as u64) << data::PAYLEN;
        let mut place = self.next;
        let mut count = 0;
        if let Some(context) = plan.context {
            let (index, new) = self.contexts.place(context);
            command |= u64::from(index) << data::IDX;
            if new && let Some(descriptor) = self.ring.get(place) {
                let [low, high] = context.words(index);
                descriptor::write(descriptor, low, high);
                place = self.ring.advance(place, 1);
                count += 1;
            }
        }
        let lent = packet.lend();
        // Each is written when the next is known to follow, so that the last one can say that it is the last.
        let mut waiting: Option<Piece> = None;
        for piece in lent.pieces().flat_map(parts) {
            if let Some(before) = waiting.replace(piece)
                && let Some(descriptor) = self.ring.get(place)
            {
                descriptor::write(descriptor, before.iova.raw(), command | u64::from(before.len));
                place = self.ring.advance(place, 1);
                count += 1;
            }
        }
        if let Some(last) = waiting
            && let Some(descriptor) = self.ring.get(place)
        {
            self.last_address = last.iova.raw();
            self.last_word = command | data::EOP | u64::from(last.len);
            descriptor::write(descriptor, self.last_address, self.last_word);
            count += 1;
        }
        self.held.push_back(lent);
        self.wrote(count, 1);
    }

    /// Writes as many packets from the front of `batch` as there is room for. Gives how many it took.
    #[inline(always)]
    fn send(&mut self, batch: &mut Batch) -> usize {
        let longest = self.setup.longest;
        let plain = batch.as_slice().iter().take(self.free()).take_while(|packet| is_plain(packet, longest)).count();
        self.counters.packets += plain as u64;
        self.counters.bytes += self.write_plain(batch.drain_front(plain));
        if batch.is_empty() { plain } else { plain + self.write_mixed(batch) }
    }

    /// Takes back what the card reported, all of a pool with one atomic operation.
    fn take_back(&mut self) {
        if self.tail.is_none() || self.held.is_empty() {
            return;
        }
        let (mut reports, mut packets, mut descriptors) = (0, 0_u16, 0);
        for report in &self.reports {
            if !self.ring.get(report.descriptor).is_some_and(descriptor::is_sent) {
                break;
            }
            reports += 1;
            packets += report.packets;
            descriptors += report.descriptors;
        }
        self.reports.drain(..reports);
        hugemem::recycle(self.held.drain(..usize::from(packets)).map(|lent| Returned::new(lent).sent()));
        self.used -= descriptors;
        self.progress.looked(packets);
        self.health.publish(2 * self.pair + 1, self.progress);
    }

    #[cold]
    fn discard(&mut self, batch: &mut Batch) -> usize {
        let count = batch.len();
        self.counters.drop_packets(DropReason::Stopped, count as u64);
        batch.clear();
        count
    }
}

impl<B: Bar> TxQueue for Tx<B> {
    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        if self.tail.is_none() {
            return self.discard(batch);
        }
        if self.used >= self.reclaim_at {
            self.take_back();
        }
        let next = self.next;
        let mut taken = self.send(batch);
        if !batch.is_empty() {
            self.take_back();
            taken += self.send(batch);
        }
        if self.open.packets > 0 {
            self.ask();
        }
        if self.next != next
            && let Some(tail) = &self.tail
        {
            tail.ring(self.next);
        }
        taken
    }

    fn reclaim(&mut self) -> usize {
        self.take_back();
        if self.tail.is_none() { 0 } else { self.held.len() }
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

/// The packet is one buffer that asks for nothing and that one descriptor can describe.
#[inline(always)]
fn is_plain(packet: &Packet, longest: usize) -> bool {
    let metadata = packet.metadata();
    let asks = matches!(metadata.checksum, Checksum::Partial { .. })
        || metadata.segmentation.is_some()
        || metadata.vlan.is_some();
    let longest = longest.min(data::LONGEST as usize);
    !asks && !packet.is_chained() && (SHORTEST_SENT..=longest).contains(&packet.len())
}

/// Descriptors that a packet takes at most; `None` when it has too many pieces to be sent.
fn descriptors_for(packet: &Packet) -> Option<usize> {
    let longest = data::LONGEST as usize;
    let pieces: usize = packet.segments().map(|segment| segment.len().div_ceil(longest)).sum();
    (pieces <= MOST_PIECES).then_some(pieces + 1)
}

/// Checks and mends what the card would choke on.
fn check(packet: &mut Packet) -> Result<(), DropReason> {
    if packet.len() < SHORTEST {
        return Err(DropReason::BadLength);
    }
    if descriptors_for(packet).is_none() {
        return Err(DropReason::TooLong);
    }
    if packet.len() < SHORTEST_SENT {
        let mut bytes = [0; SHORTEST_SENT];
        packet.copy_to(0, &mut bytes);
        // All of it in the first buffer.
        packet.truncate(packet.bytes().len());
        packet.write(&bytes).map_err(|_| DropReason::BadLength)?;
    }
    Ok(())
}

/// A piece in parts that a descriptor can describe. A piece of no bytes has none.
fn parts(piece: Piece) -> impl Iterator<Item = Piece> {
    (0..piece.len).step_by(data::LONGEST as usize).filter_map(move |offset| {
        let iova = piece.iova.checked_add(offset.into())?;
        Some(Piece { iova, len: (piece.len - offset).min(data::LONGEST) })
    })
}

impl<B: Bar> fmt::Debug for Tx<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("pair", &self.pair).field("size", &self.size()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "transmit_tests.rs"]
mod tests;
