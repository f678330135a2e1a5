//! Frames to the VM (virtio 1.3, sections 5.1.6.3 and 5.1.6.4, seen from the device).
//!
//! Each frame is copied from where it lies, buffers of ours or the memory of the VM that sent it, into buffers that the driver made
//! available: the one copy on the way from VM to VM. When too few are available, frames stay in the batch.
//!
//! What was copied while memory turned to zeroes under the copy is not shown to the driver.
//!
//! Large frames from other VMs may be left to a copy engine, when there is one (see [`late`](super::late)).

#![expect(unsafe_code, reason = "the engine is let through the gate")]

use std::fmt;
use std::sync::Arc;

use drivers::nic::{Counters, DropReason, Offloads, TxQueue};
use drivers::virtio::Features;
use drivers::virtio::header::{PLAIN, Sender};
use hugemem::{Batch, Checksum, Packet};

use super::late::Late;
use super::link::{self, AnyRing, Link, Queue, Work, each};
use super::offload;
use super::source::Source;
use crate::copy::CopyDesk;
use crate::guest::{self, Access, GuestAddress, Memory, Piece};
use crate::port::vhost_user::ring::{Chain, Chains, Element, MOST_CHAINS, Ring, RingFault};

/// How many chains ahead of the one that is filled buffers start to travel, so that their cache misses overlap; and how many at a time.
const DISTANCE: usize = 24;
const STEP: usize = 8;
/// Where the header has the number of buffers (5.1.6).
const BUFFERS: usize = 10;

/// The header of a frame without offloads in one buffer, and its bytes from the fifth on as a word.
const PLAIN_HEADER: [u8; PLAIN] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];
const ONE_BUFFER: u64 = 1 << 48;

pub(super) type Shared = link::Shared<Transmitter>;

/// What sending needs beside the ring.
pub(crate) struct Transmitter {
    sender: Sender,
    /// A frame may span several chains.
    mergeable: bool,
    /// Chains that can ever be looked at together.
    most: usize,
    /// How many chains, of those that were not taken yet, have buffers that are on their way.
    foreseen: usize,
    /// Bytes written into each of the chains that the last frame took.
    written: Box<[u32]>,
    /// Frames that are left to a copy engine, and what waits behind them.
    late: Late,
}

/// Why a frame did not go into the ring.
enum Refusal {
    /// It never will.
    Drop(DropReason),
    /// There are too few buffers.
    Short,
    /// The ring cannot be.
    Fault(RingFault),
}

/// How far a burst came.
#[derive(Default)]
struct Progress {
    /// Frames that are done with.
    frames: usize,
    /// Chains that were filled.
    chains: usize,
    fault: Option<RingFault>,
}

#[expect(clippy::cast_possible_truncation, reason = "lengths of frames and headers")]
impl Transmitter {
    pub(super) fn new(desk: Option<Arc<CopyDesk>>) -> Self {
        Self {
            late: Late::new(desk),
            sender: offload::sender(Features::empty()),
            mergeable: false,
            most: MOST_CHAINS,
            foreseen: 0,
            written: vec![0; MOST_CHAINS].into(),
        }
    }

    #[inline(always)]
    fn transmit<R: Ring>(
        &mut self,
        ring: &mut R,
        link: &mut Link,
        chains: &mut Chains,
        batch: &mut Batch,
        counters: &mut Counters,
    ) -> usize {
        if !self.late.is_empty() {
            self.late.collect(ring, link);
            self.late.settle(counters);
        }
        if !link.live {
            return hold(link, batch, counters);
        }
        self.most = MOST_CHAINS.min(ring.size().into());
        let mut done = 0;
        let mut limit = batch.len();
        while done < batch.len() {
            let looked = ring.look(&link.memory, limit, chains);
            let frames = batch.as_mut_slice().get_mut(done..).unwrap_or_default();
            self.late.begin(done);
            let progress = self.deliver(ring, link, chains, frames, counters);
            ring.take(chains, progress.chains);
            done += progress.frames;
            if let Some(fault) = progress.fault.or(looked.err()) {
                link.fail(fault);
                break;
            }
            if chains.len() < limit || (progress.frames == 0 && limit == MOST_CHAINS) {
                // That was all there is.
                break;
            }
            // The next frame may need more than one.
            limit = if progress.frames == 0 { MOST_CHAINS } else { (batch.len() - done).max(1) };
        }
        // Of what waited for nothing.
        self.late.collect(ring, link);
        link.publish(ring);
        if done < batch.len() {
            // The driver may sleep on its full ring, for a signal whose wish was not seen when it was made.
            link.settle(ring);
        }
        self.late.ask(batch.drain_front(done));
        done
    }

    /// Writes frames into the chains that were looked at, as far as they go, and gives these back.
    #[inline(always)]
    fn deliver<R: Ring>(
        &mut self,
        ring: &mut R,
        link: &Link,
        chains: &Chains,
        frames: &mut [Packet],
        counters: &mut Counters,
    ) -> Progress {
        let memory = &*link.memory;
        let mut progress = Progress::default();
        let mut bytes = 0;
        // Frames that are not counted as sent, or not yet.
        let mut uncounted = 0;
        let limit = self.late.threshold();
        let (asked, coming) = (chains.as_slice(), chains.with_ahead());
        let mut foreseen = self.foreseen.min(coming.len());
        for frame in frames {
            if foreseen < progress.chains + DISTANCE {
                // A window of buffers is on its way, into the chains that were read ahead.
                let edge = coming.len().min(progress.chains + DISTANCE + STEP);
                for chain in coming.get(foreseen..edge).unwrap_or_default() {
                    foresee(memory, chain);
                }
                foreseen = foreseen.max(edge);
            }
            let length = frame.len();
            let next = asked.get(progress.chains);
            let target = next.and_then(|chain| whole(memory, chain));
            let outcome = match (next, target) {
                _ if length >= limit || !self.late.is_empty() => {
                    self.send_in_turn(link, chains, progress.chains, frame, progress.frames, length >= limit)
                }
                (Some(chain), Some(target)) if self.sender.is_plain(frame) && fits(target, frame) => {
                    send_plain(link, target, frame).map(|written| {
                        ring.give_back(chain.id, chain.descriptors, written);
                        1
                    })
                }
                _ => self.send(link, chains, progress.chains, frame).inspect(|used| {
                    let used = asked.iter().skip(progress.chains).take(*used);
                    for (chain, written) in used.zip(&self.written) {
                        ring.give_back(chain.id, chain.descriptors, *written);
                    }
                }),
            };
            match outcome {
                Ok(used) => {
                    progress.chains += used;
                    if self.late.is_empty() {
                        bytes += length as u64;
                    } else {
                        uncounted += 1;
                    }
                }
                Err(Refusal::Drop(reason)) => {
                    counters.drop_packets(reason, 1);
                    uncounted += 1;
                }
                Err(Refusal::Short) => break,
                Err(Refusal::Fault(fault)) => {
                    progress.fault = Some(fault);
                    break;
                }
            }
            progress.frames += 1;
        }
        self.foreseen = foreseen.saturating_sub(progress.chains);
        counters.packets += progress.frames as u64 - uncounted;
        counters.bytes += bytes;
        progress
    }

    /// Writes any frame into the chains from number `first` on. Gives how many it took; [`Self::written`] says how much is in each.
    #[inline(never)]
    fn send(&mut self, link: &Link, chains: &Chains, first: usize, frame: &mut Packet) -> Result<usize, Refusal> {
        let header = self.header(frame)?;
        let target = chains.as_slice().get(first).and_then(|chain| whole(&link.memory, chain));
        let used = match target {
            Some(target) if fits(target, frame) => {
                target.copy_out(&header);
                let written = write(link, target, frame);
                if let Some(place) = self.written.first_mut() {
                    *place = written;
                }
                1
            }
            _ => self.scatter(link, chains, first, header, frame, false)?,
        };
        if guest::lost() != 0 {
            survived(&link.memory, frame)?;
        }
        Ok(used)
    }

    /// Sends a frame that is left to a copy engine, if there is room for that, or that has to wait for one in front of it. `number` is its place among the
    /// frames that are delivered. Otherwise as [`Self::send`], but that its chains are given back in their turn.
    #[inline(never)]
    fn send_in_turn(
        &mut self,
        link: &Link,
        chains: &Chains,
        first: usize,
        frame: &mut Packet,
        number: usize,
        large: bool,
    ) -> Result<usize, Refusal> {
        if self.late.is_full() {
            return Err(Refusal::Short);
        }
        let jobs = self.late.planned();
        let used = if large && self.late.suits(frame) {
            let header = self.header(frame)?;
            let sent = self.scatter(link, chains, first, header, frame, true);
            let sent = sent.and_then(|used| {
                if guest::lost() != 0 {
                    survived(&link.memory, frame)?;
                }
                Ok(used)
            });
            sent.inspect_err(|_| self.late.forget(jobs))?
        } else {
            self.send(link, chains, first, frame)?
        };
        let taken = chains.as_slice().iter().skip(first).take(used);
        self.late.push(taken.zip(&self.written).map(|(chain, written)| (*chain, *written)), jobs, frame.len(), number);
        Ok(used)
    }

    /// The header of a frame, for a single buffer.
    fn header(&self, frame: &mut Packet) -> Result<[u8; PLAIN], Refusal> {
        let partial = matches!(frame.metadata().checksum, Checksum::Partial { .. });
        if partial && !frame.foreign().is_empty() && !self.sender.features.contains(Features::CSUM) {
            return Err(Refusal::Drop(DropReason::NoOffload));
        }
        let mut header = self.sender.describe(frame).map_err(Refusal::Drop)?;
        header[BUFFERS] = 1;
        Ok(header)
    }

    /// Writes one frame into as many chains as it takes, in whatever pieces they are. Long pieces may be left to a copy engine.
    fn scatter(
        &mut self,
        link: &Link,
        chains: &Chains,
        first: usize,
        mut header: [u8; PLAIN],
        frame: &Packet,
        may_be_late: bool,
    ) -> Result<usize, Refusal> {
        let mut left = PLAIN + frame.len();
        let available = chains.as_slice().get(first..).unwrap_or_default();
        let mut needed = 0_u16;
        let mut room = 0;
        for chain in available {
            if !chains.readable(chain).is_empty() {
                return Err(Refusal::Fault(RingFault::Direction { head: chain.id }));
            }
            let len: u64 = chains.writable(chain).iter().map(|element| u64::from(element.len)).sum();
            if len < PLAIN as u64 {
                return Err(Refusal::Fault(RingFault::RuntBuffer { len: len as u32 }));
            }
            room += usize::try_from(len).unwrap_or(usize::MAX).min(left);
            needed += 1;
            if room >= left || !self.mergeable {
                break;
            }
        }
        if room < left {
            // One buffer has to do, or there never were as many as this frame would take.
            let never = needed > 0 && !self.mergeable || usize::from(needed) >= self.most;
            return Err(if never { Refusal::Drop(DropReason::TooLong) } else { Refusal::Short });
        }
        let [low, high] = needed.to_le_bytes();
        header[BUFFERS] = low;
        header[BUFFERS + 1] = high;
        let mut source = Source::new(&header, frame);
        let late = &mut self.late;
        for (chain, place) in available.iter().zip(&mut self.written).take(needed.into()) {
            let before = left;
            for Element { address, len } in chains.writable(chain).iter().copied() {
                let len = len.min(left as u32);
                if len == 0 {
                    continue;
                }
                let outcome = link.memory.pieces(GuestAddress(address), len, Access::Write, |piece| {
                    source.fill(piece, |from, offset, to| may_be_late && late.plan(from, offset, to));
                    link.wrote(piece, piece.len());
                });
                outcome.map_err(|reason| Refusal::Fault(RingFault::address(reason, address, len)))?;
                left -= len as usize;
            }
            *place = (before - left) as u32;
        }
        Ok(needed.into())
    }
}

/// Writes a frame without offloads to `target`, which has room for it. Gives the bytes written.
#[inline(always)]
fn send_plain(link: &Link, target: Piece<'_>, frame: &Packet) -> Result<u32, Refusal> {
    // Mostly the header is there from the frame before, and its line stays shared when it is not written to.
    if target.word(0) != Some(0) || target.word(4) != Some(ONE_BUFFER) {
        target.copy_out(&PLAIN_HEADER);
    }
    let written = write(link, target, frame);
    if guest::lost() != 0 {
        survived(&link.memory, frame)?;
    }
    Ok(written)
}

/// Writes a frame behind its header, for which `target` has room. Gives the bytes of both.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths of frames and headers")]
fn write(link: &Link, target: Piece<'_>, frame: &Packet) -> u32 {
    let bytes = frame.bytes();
    let (_, place) = target.split_at(PLAIN as u32);
    place.copy_out(bytes);
    let mut done = bytes.len() as u32;
    for piece in frame.foreign() {
        done += guest::copy_foreign(piece, 0, place.split_at(done).1);
    }
    let total = PLAIN as u32 + done;
    link.wrote(target, total);
    total
}

/// The piece of memory that a chain of a single buffer is.
#[inline(always)]
fn whole<'m>(memory: &'m Memory, chain: &Chain) -> Option<Piece<'m>> {
    let element = chain.sole_writable()?;
    memory.whole(GuestAddress(element.address), element.len)
}

/// Fetches the first lines of a chain's buffer, to be written soon; of the header only to be read.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "length of the header")]
fn foresee(memory: &Memory, chain: &Chain) {
    if let Some(piece) = whole(memory, chain) {
        piece.prefetch();
        piece.prefetch_to_write(PLAIN as u32);
        piece.prefetch_to_write(64);
    }
}

/// `target` has room for the frame and its header, and the frame is in one segment.
#[inline(always)]
fn fits(target: Piece<'_>, frame: &Packet) -> bool {
    target.len() as usize >= PLAIN + frame.len() && !frame.is_chained()
}

/// Some memory is lost: whether a frame that was just copied is what its sender sent, and is in its receiver's memory.
#[cold]
fn survived(memory: &Memory, frame: &Packet) -> Result<(), Refusal> {
    if memory.is_lost() {
        return Err(Refusal::Fault(RingFault::MemoryLost));
    }
    if frame.foreign().iter().any(guest::is_lost) {
        return Err(Refusal::Drop(DropReason::System));
    }
    Ok(())
}

/// The ring does not run: keeps the frames when it goes on in a moment, else drops them. Gives how many were taken.
#[cold]
fn hold(link: &Link, batch: &mut Batch, counters: &mut Counters) -> usize {
    if link.is_waiting() {
        return 0;
    }
    let count = batch.len();
    counters.drop_packets(DropReason::Stopped, count as u64);
    batch.clear();
    count
}

impl Work for Transmitter {
    const WRITES: bool = true;

    fn begin(&mut self, features: Features) {
        self.sender = offload::sender(features);
        self.mergeable = features.contains(Features::MRG_RXBUF);
        self.foreseen = 0;
    }

    fn collect<R: Ring>(&mut self, ring: &mut R, link: &mut Link) {
        self.late.collect(ring, link);
    }

    fn underway(&self) -> usize {
        self.late.chains()
    }

    fn keep(&mut self, memory: Arc<Memory>) {
        self.late.keep(memory);
    }

    fn let_go(&mut self) -> Vec<Arc<Memory>> {
        self.late.let_go()
    }

    fn keeps(&self) -> bool {
        self.late.keeps()
    }

    fn abandon(&mut self) {
        self.late.abandon();
    }

    fn is_armed(&self) -> bool {
        false
    }

    fn offloads(features: Features) -> Offloads {
        offload::offloads(features)
    }
}

/// Sends on one queue of a VM.
pub(crate) struct VmTx {
    shared: Arc<Shared>,
    counters: Counters,
}

impl VmTx {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, counters: Counters::default() }
    }
}

impl TxQueue for VmTx {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else { return 0 };
        let Queue { ring, link, chains, work } = &mut *queue;
        match ring {
            Some(AnyRing::Split(ring)) => work.transmit(ring, link, chains, batch, &mut self.counters),
            Some(AnyRing::Packed(ring)) => work.transmit(ring, link, chains, batch, &mut self.counters),
            None => hold(link, batch, &mut self.counters),
        }
    }

    fn takes_foreign(&self) -> bool {
        true
    }

    fn offloads(&self) -> Offloads {
        self.shared.offloads()
    }

    /// What is underway are frames that are left to a copy engine, and what waits behind them. A late wish for a signal is seen here, too.
    fn reclaim(&mut self) -> usize {
        // SAFETY: this is the gate's one engine, here with an exclusive borrow.
        let Some(mut queue) = (unsafe { self.shared.gate.try_enter() }) else { return 1 };
        let Queue { ring, link, work, .. } = &mut *queue;
        if let Some(ring) = ring {
            each!(ring, ring => {
                work.late.collect(ring, link);
                link.settle(ring);
            });
        } else {
            work.late.sweep();
        }
        work.late.settle(&mut self.counters);
        work.late.len() + usize::from(link.owes())
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl fmt::Debug for VmTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmTx")
            .field("gate", &self.shared.gate)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}
