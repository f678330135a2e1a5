//! Sending (82599 datasheet, section 7.2).
//!
//! A packet is one descriptor for each buffer, and one more in front when its headers need a context that the card does
//! not have. The card reports what it has sent only where it is asked to: at the last packet of a burst and every so many
//! descriptors between, so that it writes and the driver reads few cache lines. The driver keeps a list of the
//! places where it asked; packets return in the order in which they were given away.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::fmt;

use hugemem::{Batch, Checksum, Iova, OutOfMemory, Packet, Piece, Region};

use super::descriptor::{self, data};
use super::doorbell::Doorbell;
use super::frames::SHORTEST;
use super::offload::{self, Contexts, Plan};
use super::options::TransmitSetup;
use super::ring::{Returned, Ring};
use crate::bus::Bar;
use crate::health::{Health, Progress};
use crate::home::Half;
use crate::nic::{Counters, DropReason, Offloads, TxQueue};
use crate::stopped::Stopped;

/// Descriptors after which the card is asked to report.
const REPORT: u16 = 32;
/// Descriptors in use from which on finished ones are looked for. Few, so that their buffers are reused while they are in
/// the cache.
const RECLAIM: u16 = 64;
/// Most descriptors of one packet, its context aside: 40 - WTHRESH - 2 (7.2.1.1), and WTHRESH is zero.
const MOST_PIECES: usize = 38;
/// Shortest packet that the card takes; it pads to the shortest frame itself (7.2.1.1).
const SHORTEST_SENT: usize = 17;

/// Sends on one queue of an 82599 or one of its kin.
pub struct Tx<B: Bar> {
    ring: Ring,
    /// The first descriptor that the card holds.
    oldest: u16,
    /// The descriptor to be written next.
    next: u16,
    /// Packets that the card holds.
    held: u16,
    /// The descriptors that ask for a report, in order.
    reports: VecDeque<u16>,
    /// Descriptors written since the last that asks for one.
    unasked: u16,
    /// What the descriptor in front of `next` says, which must not be read back.
    last: [u64; 2],
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
            oldest: 0,
            next: 0,
            held: 0,
            reports: VecDeque::with_capacity(size.into()),
            unasked: 0,
            last: [0; 2],
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

    pub(super) fn size(&self) -> u16 {
        self.ring.size()
    }

    /// Where the ring lies.
    pub(super) fn address(&self) -> Iova {
        self.ring.address()
    }

    /// Takes all packets back from a card that has stopped, and makes the ring as new.
    pub(super) fn reset(&mut self, stopped: &Stopped, setup: TransmitSetup) {
        self.tail = None;
        self.ring.reset(stopped);
        (self.oldest, self.next, self.held, self.unasked) = (0, 0, 0, 0);
        self.reports.clear();
        self.setup = setup;
        self.contexts = Contexts::default();
        self.progress = Progress::default();
    }

    /// Connects the queue to its doorbell. The card's head and tail are zero.
    pub(super) fn begin(&mut self, tail: Doorbell<B>) {
        self.tail = Some(tail);
    }

    /// Descriptors that the card holds.
    #[inline(always)]
    fn used(&self) -> u16 {
        self.ring.distance(self.oldest, self.next)
    }

    /// Descriptors that can be written: all but one, because a tail that meets the head means an empty ring (7.2.1.2).
    #[inline(always)]
    fn free(&self) -> usize {
        usize::from(self.ring.size() - 1 - self.used())
    }

    /// Writes packets of which [`is_plain`] is true, and for which there is room. Gives their bytes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no more than the ring has")]
    fn write_plain(&mut self, mut packets: impl ExactSizeIterator<Item = Packet>) -> u64 {
        let mut bytes = 0;
        while packets.len() > 0 {
            let most = usize::from(REPORT - self.unasked).min(packets.len());
            let (descriptors, places) = self.ring.run(self.next, most);
            let count = descriptors.len();
            let mut last = [0; 2];
            for ((descriptor, place), packet) in descriptors.iter().zip(places).zip(&mut packets) {
                let length = packet.len() as u64;
                bytes += length;
                let lent = packet.lend();
                last = [lent.iova().raw(), data::BASE | data::EOP | length | length << data::PAYLEN];
                descriptor::write(descriptor, last);
                *place = Some(lent);
            }
            self.last = last;
            self.held += count as u16;
            self.wrote(count);
        }
        bytes
    }

    /// Keeps the books after `count` descriptors were written; asks for a report when it is time.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "no more than the ring has")]
    fn wrote(&mut self, count: usize) {
        self.next = self.ring.advance(self.next, count);
        self.unasked += count as u16;
        if self.unasked >= REPORT {
            self.ask();
        }
    }

    /// Asks for a report in the descriptor written last, which the card has not seen yet.
    #[inline(always)]
    fn ask(&mut self) {
        self.unasked = 0;
        let index = self.ring.distance(1, self.next);
        if let Some(descriptor) = self.ring.get(index) {
            let [low, high] = self.last;
            descriptor::write(descriptor, [low, high | data::RS]);
            self.reports.push_back(index);
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
        if let Some(context) = plan.context {
            let (index, new) = self.contexts.place(context);
            command |= u64::from(index) << data::IDX;
            if new {
                self.write(context.words(index));
            }
        }
        let lent = packet.lend();
        // Each is written when the next is known to follow, so that the last one can say that it is the last.
        let mut waiting: Option<[u64; 2]> = None;
        for piece in lent.pieces().flat_map(parts) {
            if let Some(words) = waiting.replace([piece.iova.raw(), command | u64::from(piece.len)]) {
                self.write(words);
            }
        }
        let end = self.next;
        if let Some([low, high]) = waiting {
            self.write([low, high | data::EOP]);
        }
        self.ring.lend(end, lent);
        self.held += 1;
        self.wrote(0);
    }

    /// Writes the next descriptor.
    fn write(&mut self, words: [u64; 2]) {
        if let Some(descriptor) = self.ring.get(self.next) {
            descriptor::write(descriptor, words);
        }
        self.last = words;
        self.next = self.ring.advance(self.next, 1);
        self.unasked += 1;
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
        if self.tail.is_none() || self.held == 0 {
            return;
        }
        let done = |index: &&u16| self.ring.get(**index).is_some_and(descriptor::is_sent);
        let done = self.reports.iter().take_while(done).count();
        let mut packets = 0;
        if let Some(last) = self.reports.drain(..done).next_back() {
            let end = self.ring.advance(last, 1);
            while self.oldest != end {
                let (run, lent) = self.ring.run(self.oldest, self.ring.distance(self.oldest, end).into());
                let count = run.len();
                let returned = lent.iter_mut().filter_map(Option::take).inspect(|_| packets += 1);
                hugemem::recycle(returned.map(|lent| Returned::new(lent).sent()));
                self.oldest = self.ring.advance(self.oldest, count);
            }
        }
        self.held -= packets;
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

impl<B: Bar> Half for Tx<B> {
    fn pair(&self) -> u16 {
        self.pair
    }

    fn belongs_to(&self, health: &Arc<Health>) -> bool {
        Arc::ptr_eq(&self.health, health)
    }
}

impl<B: Bar> TxQueue for Tx<B> {
    #[inline]
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        if self.tail.is_none() {
            return self.discard(batch);
        }
        self.ring.prefetch(self.next, batch.len().min(self.free()));
        if self.used() >= self.reclaim_at {
            self.take_back();
        }
        let next = self.next;
        let mut taken = self.send(batch);
        if !batch.is_empty() {
            self.take_back();
            taken += self.send(batch);
        }
        if self.unasked > 0 {
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
        if self.tail.is_none() { 0 } else { self.held.into() }
    }

    fn offloads(&self) -> Offloads {
        self.setup.offloads
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
    if packet.len() < usize::from(SHORTEST) {
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
