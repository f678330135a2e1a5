//! Frames from the VM (virtio 1.3, section 5.1.6.2, seen from the device).
//!
//! The first bytes of a frame are copied into a buffer of ours, where they are checked and stay as they were checked; the rest
//! hangs on the packet as foreign pieces, to be copied once, by whoever delivers it. The frame's descriptors go back to the driver after
//! its buffer came home, in the order in which they were taken. So what cannot be delivered yet waits in the memory of the VM that sent it.

#![expect(unsafe_code, reason = "packets carry pieces of guest memory away; the engine is let through the gate")]

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use drivers::nic::{Counters, DropReason, Offloads, RxQueue};
use drivers::virtio::Features;
use drivers::virtio::header::{Header, LONGEST, PLAIN};
use hugemem::{Batch, Packet, PacketPool};

use super::link::{self, AnyRing, Link, Queue, Work, each};
use super::taken::TakenChains;
use super::{SLOT_ROOM, offload};
use crate::guest::{self, Access, GuestAddress, Memory, Piece};
use crate::port::vhost_user::ring::{Chain, Chains, Element, Ring, RingFault};

/// Shortest frame: an Ethernet header.
const SHORTEST: usize = 14;
/// How many chains ahead of the one at hand frames start to travel, so that their cache misses overlap; and how many at a time.
const DISTANCE: usize = 24;
const STEP: usize = 8;
/// Flags and kind of segmentation (5.1.6): the bits of a header's first bytes without which the rest says nothing.
const SAYS_SOMETHING: u64 = 0xffff;

pub(super) type Shared = link::Shared<Receiver>;

impl Shared {
    /// A queue without a ring.
    pub(super) fn for_pool(pool: PacketPool, attention: Arc<OwnedFd>) -> Arc<Self> {
        Self::new(Receiver::new(pool), attention)
    }
}

/// Why a chain gave no packet.
enum Refusal {
    /// The frame cannot be.
    Drop(DropReason),
    /// The ring cannot be.
    Fault(RingFault),
    /// No buffer is free. The chain stays available.
    Dry,
}

/// Memory that outlives its ring, because frames lie in it that did not come home in time.
struct Kept {
    memory: Arc<Memory>,
    /// Numbers of their buffers.
    slots: Vec<u32>,
}

/// What receiving needs beside the ring.
pub(crate) struct Receiver {
    pool: PacketPool,
    taken: TakenChains,
    kept: Vec<Kept>,
    /// What headers may say; when nothing, they are not even read.
    receivable: Features,
    /// How many chains, of those that were not taken yet, have frames that are on their way.
    foreseen: usize,
    armed: bool,
}

#[expect(clippy::cast_possible_truncation, reason = "a pool has fewer than 2^32 buffers, a frame less than 2^17 bytes")]
impl Receiver {
    fn new(pool: PacketPool) -> Self {
        Self {
            taken: TakenChains::new(pool.capacity()),
            kept: Vec::new(),
            receivable: Features::empty(),
            foreseen: 0,
            armed: false,
            pool,
        }
    }

    /// Learns which buffers came home.
    fn sweep(&mut self) {
        let Self { pool, taken, kept, .. } = self;
        pool.sweep(|slot| come_home(slot, taken, kept));
    }

    /// Takes available frames, as many as there is room for.
    #[inline(always)]
    fn receive<R: Ring>(
        &mut self,
        ring: &mut R,
        link: &mut Link,
        chains: &mut Chains,
        batch: &mut Batch,
        counters: &mut Counters,
    ) -> usize {
        self.collect(ring, link);
        if !link.live {
            return 0;
        }
        let limit = batch.room().min(self.taken.room());
        let mut outcome = ring.look(&link.memory, limit, chains);
        if chains.len() == 0 {
            match outcome {
                Ok(()) => link.settle(ring),
                Err(fault) => link.fail(fault),
            }
            return 0;
        }
        let before = batch.len();
        let faults = guest::faults();
        let memory = &*link.memory;
        let mut taken = 0;
        let mut bytes = 0;
        let coming = chains.with_ahead();
        let mut foreseen = self.foreseen.min(coming.len());
        for (index, chain) in chains.as_slice().iter().enumerate() {
            if foreseen < index + DISTANCE {
                // A window of frames is on its way, into the chains that were read ahead.
                let edge = coming.len().min(index + DISTANCE + STEP);
                for chain in coming.get(foreseen..edge).unwrap_or_default() {
                    self.foresee(memory, chain);
                }
                foreseen = foreseen.max(edge);
            }
            let frame = match whole(memory, chain) {
                Some(piece) => self.frame(piece),
                None => self.scattered(memory, chain, chains.readable(chain)),
            };
            match frame {
                Ok(packet) => {
                    bytes += packet.len() as u64;
                    self.taken.push(chain, Some(packet.slot()));
                    // There is room: no more chains were looked at.
                    let _ = batch.push(packet);
                }
                Err(Refusal::Drop(reason)) => {
                    counters.drop_packets(reason, 1);
                    self.taken.push(chain, None);
                }
                Err(Refusal::Fault(fault)) => {
                    outcome = Err(fault);
                    break;
                }
                Err(Refusal::Dry) => break,
            }
            taken += 1;
        }
        self.foreseen = foreseen.saturating_sub(taken);
        ring.take(chains, taken);
        if guest::faults() != faults && link.memory.is_lost() {
            // Nobody knows which of these frames are what the VM sent.
            batch.truncate(before);
            outcome = Err(RingFault::MemoryLost);
        } else {
            counters.packets += (batch.len() - before) as u64;
            counters.bytes += bytes;
        }
        if let Err(fault) = outcome {
            link.fail(fault);
        }
        batch.len() - before
    }

    /// Fetches the first bytes of a frame, to be read soon.
    #[inline(always)]
    fn foresee(&self, memory: &Memory, chain: &Chain) {
        let Some(piece) = whole(memory, chain) else { return };
        let (_, frame) = piece.split_at(PLAIN as u32);
        if !self.receivable.is_empty() {
            piece.prefetch();
        }
        frame.prefetch();
        let (_, second) = frame.split_at(64);
        if !second.is_empty() {
            second.prefetch();
        }
    }

    /// Makes a packet of a header and a frame in one piece, of good length.
    #[inline(always)]
    fn frame(&mut self, piece: Piece<'_>) -> Result<Packet, Refusal> {
        let (header, frame) = piece.split_at(PLAIN as u32);
        let (own, rest) = frame.split_at(SLOT_ROOM as u32);
        let mut packet = self.pool.take().ok_or(Refusal::Dry)?;
        // A buffer has room for that much.
        let _ = packet.resize(own.len() as usize);
        own.copy_in(packet.bytes_mut());
        if !rest.is_empty() {
            // SAFETY: the memory is let go only after all packets with pieces of it came home, or never.
            let foreign = unsafe { rest.foreign() };
            // There is room for one.
            let _ = packet.attach(foreign);
        }
        if !self.receivable.is_empty() {
            // Both words are read once, and the second only when the first says something.
            let first = header.word(0).unwrap_or_default();
            if first & SAYS_SOMETHING != 0 {
                let second = header.word(PLAIN as u32 - 8).unwrap_or_default() >> 32;
                self.describe(&mut packet, u128::from(first) | u128::from(second) << 64)?;
            }
        }
        Ok(packet)
    }

    /// Makes a packet of a chain in whatever pieces.
    #[inline(never)]
    fn scattered(&mut self, memory: &Memory, chain: &Chain, elements: &[Element]) -> Result<Packet, Refusal> {
        let total: u64 = elements.iter().map(|element| u64::from(element.len)).sum();
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        if chain.cut || total > PLAIN + LONGEST {
            return Err(Refusal::Drop(DropReason::TooLong));
        }
        if total < PLAIN + SHORTEST {
            return Err(Refusal::Drop(DropReason::BadLength));
        }
        let mut packet = self.pool.take().ok_or(Refusal::Dry)?;
        let _ = packet.resize((total - PLAIN).min(SLOT_ROOM));
        let mut header = [0; 16];
        let mut done = 0;
        let mut attached = true;
        for element in elements.iter().filter(|element| element.len > 0) {
            let outcome = memory.pieces(GuestAddress(element.address), element.len, Access::Read, |piece| {
                let to_header = header.get_mut(done..PLAIN).unwrap_or_default();
                let count = piece.copy_in(to_header);
                let (_, piece) = piece.split_at(count as u32);
                done += count;
                if piece.is_empty() {
                    return;
                }
                let to_slot = packet.bytes_mut().get_mut(done - PLAIN..).unwrap_or_default();
                let count = if to_slot.is_empty() { 0 } else { piece.copy_in(to_slot) };
                let (_, piece) = piece.split_at(count as u32);
                done += count;
                if !piece.is_empty() {
                    // SAFETY: as in `frame`.
                    let foreign = unsafe { piece.foreign() };
                    attached &= packet.attach(foreign);
                }
            });
            outcome.map_err(|reason| Refusal::Fault(RingFault::address(reason, element.address, element.len)))?;
        }
        if !attached {
            return Err(Refusal::Drop(DropReason::TooLong));
        }
        self.describe(&mut packet, u128::from_le_bytes(header))?;
        Ok(packet)
    }

    /// Puts what the header, the lower bytes of `word`, says about the frame into the packet.
    #[inline(never)]
    fn describe(&self, packet: &mut Packet, word: u128) -> Result<(), Refusal> {
        let read = Header::read(&word.to_le_bytes(), false);
        let metadata = read.and_then(|header| header.metadata(packet, self.receivable));
        *packet.metadata_mut() = metadata.ok_or(Refusal::Drop(DropReason::BadHeader))?;
        Ok(())
    }
}

/// A buffer came home, before its chain's turn or after its ring has stopped.
#[inline(never)]
fn come_home(slot: u32, taken: &mut TakenChains, kept: &mut [Kept]) {
    if !taken.come_home(slot) {
        kept.iter_mut().for_each(|kept| kept.slots.retain(|late| *late != slot));
    }
}

/// The piece of memory that a chain of a single buffer is, when header and frame have good lengths.
#[inline(always)]
fn whole<'m>(memory: &'m Memory, chain: &Chain) -> Option<Piece<'m>> {
    let element = chain.sole_readable()?;
    if !(PLAIN + SHORTEST..=PLAIN + LONGEST).contains(&(element.len as usize)) {
        return None;
    }
    memory.whole(GuestAddress(element.address), element.len)
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.let_go());
        // See the drop of a queue.
        std::mem::take(&mut self.kept).into_iter().for_each(|kept| std::mem::forget(kept.memory));
    }
}

impl Work for Receiver {
    const WRITES: bool = false;

    fn begin(&mut self, features: Features) {
        self.receivable = offload::receivable(features);
        self.foreseen = 0;
        // Buffers of an earlier ring that came home late.
        self.sweep();
    }

    #[inline(always)]
    fn collect<R: Ring>(&mut self, ring: &mut R, link: &mut Link) {
        if self.taken.len() == 0 {
            return;
        }
        let Self { pool, taken, kept, .. } = self;
        pool.sweep(|slot| match taken.pop_of(slot) {
            // Mostly they come home in the order in which they were taken.
            Some((id, descriptors)) => ring.give_back(id, descriptors, 0),
            None => come_home(slot, taken, kept),
        });
        while let Some((id, descriptors)) = taken.pop() {
            ring.give_back(id, descriptors, 0);
        }
        link.publish(ring);
    }

    fn underway(&self) -> usize {
        self.taken.len()
    }

    fn keep(&mut self, memory: Arc<Memory>) {
        self.kept.push(Kept { memory, slots: self.taken.out().collect() });
    }

    fn let_go(&mut self) -> Vec<Arc<Memory>> {
        self.sweep();
        self.kept.extract_if(.., |kept| kept.slots.is_empty()).map(|kept| kept.memory).collect()
    }

    fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }

    fn abandon(&mut self) {
        self.taken.clear();
    }

    fn is_armed(&self) -> bool {
        self.armed
    }

    fn offloads(_: Features) -> Offloads {
        Offloads::all()
    }
}

/// Receives from one queue of a VM.
pub(crate) struct VmRx {
    shared: Arc<Shared>,
    /// Control was inside when the engine wanted to have no kicks any more.
    disarm: bool,
    counters: Counters,
}

impl VmRx {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, disarm: false, counters: Counters::default() }
    }
}

impl RxQueue for VmRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        if self.disarm {
            self.disarm();
        }
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else { return 0 };
        let Queue { ring, link, chains, work } = &mut *queue;
        match ring {
            Some(AnyRing::Split(ring)) => work.receive(ring, link, chains, batch, &mut self.counters),
            Some(AnyRing::Packed(ring)) => work.receive(ring, link, chains, batch, &mut self.counters),
            None => 0,
        }
    }

    fn arm(&mut self) -> bool {
        self.disarm = false;
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else { return false };
        let Queue { ring, link, work, .. } = &mut *queue;
        work.armed = true;
        let Some(ring) = ring else { return true };
        each!(ring, ring => {
            work.collect(ring, link);
            link.settle(ring);
            let quiet = work.underway() == 0 && !link.owes();
            // Armed in any case: whoever starts or enables the ring later wakes the engine.
            let nothing = (ring.arm() && !link.polled) || !link.live;
            if !(quiet && nothing) {
                ring.disarm();
                work.armed = false;
            }
            work.armed
        })
    }

    fn disarm(&mut self) {
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else {
            self.disarm = true;
            return;
        };
        self.disarm = false;
        let Queue { ring, work, .. } = &mut *queue;
        work.armed = false;
        if let Some(ring) = ring {
            each!(ring, ring => ring.disarm());
        }
    }

    fn gives_foreign(&self) -> bool {
        true
    }

    fn underway(&mut self) -> usize {
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else {
            // Whoever asks asks again.
            return 1;
        };
        let Queue { ring, link, work, .. } = &mut *queue;
        match ring {
            Some(ring) => each!(ring, ring => work.collect(ring, link)),
            None => work.sweep(),
        }
        work.underway() + work.kept.iter().map(|kept| kept.slots.len()).sum::<usize>()
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl fmt::Debug for VmRx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmRx")
            .field("gate", &self.shared.gate)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
