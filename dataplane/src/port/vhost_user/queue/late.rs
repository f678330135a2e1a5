//! Frames whose copies a device does, and those that wait behind them.
//!
//! The header of such a frame, and what of it lies in a buffer of ours, is copied at once; long pieces that lie in the memory of the VM that sent it
//! become [`Transfer`]s, which are left on the queue's [`CopyDesk`]. The frame's chains wait in line, and so do those of every frame behind it,
//! so that all go back to the driver in the order in which they were taken. When all copies of the frame in front are answered, those that
//! failed are done here, writes are noted in the log, and its chains go back. Only then is the packet dropped, and with it the sender's
//! hold on its memory.
//!
//! What lies in memory that was lost meanwhile is not shown: the chains of such a frame go back empty.
//!
//! When the ring stops or moves before all is done, the frames that still have copies underway stay in line, and the memory of both ends with them, until a device that was
//! stopped cannot write there any more.

#![expect(unsafe_code, reason = "copies that a device did not do are done by their addresses")]

use std::collections::VecDeque;
use std::sync::Arc;

use drivers::nic::{Counters, DropReason};
use hugemem::{Foreign, Packet};

use super::link::Link;
use crate::copy::{Answer, CopyDesk, JOBS, SMALLEST_THRESHOLD};
use crate::guest::{self, Finder, Memory, Piece, Transfer};
use crate::port::vhost_user::ring::{Chain, MOST_CHAINS, Ring, RingFault};

/// Runs of frames that can be in line, and chains.
const FRAMES: usize = 256;
const CHAINS: usize = 2048;
/// Shorter pieces of a frame are copied at once.
const SHORTEST: u32 = SMALLEST_THRESHOLD / 2;

/// A frame with copies underway, or a run of frames that only wait.
struct Frame {
    /// Holds the memory that is copied from. Comes a moment after the frame.
    packet: Option<Packet>,
    /// Copies that it is made of; 0 for a run of frames that only wait.
    jobs: u32,
    chains: usize,
    frames: u64,
    bytes: u64,
}

/// A chain that was filled, or is being filled.
struct Filled {
    id: u16,
    descriptors: u16,
    written: u32,
}

/// Memory that outlives its ring, because copies to it are underway.
struct Kept {
    memory: Arc<Memory>,
    /// The copy behind the last of these.
    until: u32,
}

/// What became of frames that were in line, and was not counted yet.
#[derive(Default)]
struct Settled {
    sent: u64,
    bytes: u64,
    lost: u64,
    stopped: u64,
}

/// Frames in line.
pub(super) struct Late {
    desk: Option<Arc<CopyDesk>>,
    finders: [Finder; 2],
    /// The copies between `first` and `planned`, by counter.
    transfers: Box<[Option<Transfer>]>,
    /// The first copy that was not looked at, and the next that is planned. They run freely.
    first: u32,
    planned: u32,
    frames: VecDeque<Frame>,
    /// Frames at the front whose ring has stopped.
    stale: usize,
    chains: VecDeque<Filled>,
    /// Where the frames that are delivered stand in their batch.
    base: usize,
    /// Places in the batch of the packets that belong to frames in line.
    retained: Vec<usize>,
    kept: Vec<Kept>,
    settled: Settled,
}

impl Late {
    pub(super) fn new(desk: Option<Arc<CopyDesk>>) -> Self {
        let used = desk.is_some();
        let room = |count: usize| if used { count } else { 0 };
        Self {
            finders: Default::default(),
            transfers: vec![None; room(JOBS as usize)].into(),
            first: 0,
            planned: 0,
            frames: VecDeque::with_capacity(room(FRAMES)),
            stale: 0,
            chains: VecDeque::with_capacity(room(CHAINS)),
            base: 0,
            retained: Vec::with_capacity(room(FRAMES)),
            kept: Vec::new(),
            settled: Settled::default(),
            desk,
        }
    }

    /// Nothing is in line.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames, and runs of frames, in line.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Chains in line.
    pub(super) fn chains(&self) -> usize {
        self.chains.len()
    }

    /// There is no room for another frame.
    pub(super) fn is_full(&self) -> bool {
        self.frames.len() >= FRAMES || self.chains.len() + MOST_CHAINS > CHAINS
    }

    /// Frames of so many bytes and more may be left to the device.
    #[inline(always)]
    pub(super) fn threshold(&self) -> usize {
        match &self.desk {
            None => usize::MAX,
            Some(desk) => desk.threshold().map_or(usize::MAX, |bytes| bytes as usize),
        }
    }

    /// A large frame can be left to the device.
    pub(super) fn suits(&self, frame: &Packet) -> bool {
        if frame.foreign().is_empty() {
            return false;
        }
        let Some(desk) = &self.desk else { return false };
        let has_room = self.room() > 0;
        if !has_room {
            desk.count_crowded();
        }
        has_room
    }

    /// Copies that can be planned.
    fn room(&self) -> u32 {
        JOBS - self.planned.wrapping_sub(self.first).min(JOBS)
    }

    /// Where the next copy that is planned will be.
    pub(super) fn planned(&self) -> u32 {
        self.planned
    }

    /// Forgets the copies that were planned since `planned`, and that nobody was asked for.
    pub(super) fn forget(&mut self, planned: u32) {
        self.planned = planned;
    }

    /// Leaves a copy to the device, if it is worth it and there is room. `false` when it is to be done at once.
    pub(super) fn plan(&mut self, from: &Foreign, offset: u32, to: Piece<'_>) -> bool {
        let Some(desk) = &self.desk else { return false };
        let short = to.len().min(from.len() - offset.min(from.len())) < SHORTEST;
        if short || self.room() == 0 {
            return false;
        }
        let Some(transfer) = Transfer::plan(from, offset, to, desk.device(), &mut self.finders) else { return false };
        desk.write(self.planned, transfer.source(), transfer.target(), transfer.len());
        if let Some(place) = self.transfers.get_mut((self.planned % JOBS) as usize) {
            *place = Some(transfer);
        }
        self.planned = self.planned.wrapping_add(1);
        true
    }

    /// The frames that follow stand in their batch from place `base` on.
    #[inline(always)]
    pub(super) fn begin(&mut self, base: usize) {
        self.base = base;
    }

    /// Puts a frame of `length` bytes in line: its chains with the bytes written into each, and the copies that were planned from `jobs` on.
    /// `number` is its place among the frames that are delivered.
    pub(super) fn push(&mut self, chains: impl Iterator<Item = (Chain, u32)>, jobs: u32, length: usize, number: usize) {
        let before = self.chains.len();
        let filled = |(chain, written): (Chain, u32)| Filled { id: chain.id, descriptors: chain.descriptors, written };
        self.chains.extend(chains.map(filled));
        let chains = self.chains.len() - before;
        let (jobs, bytes) = (self.planned.wrapping_sub(jobs), length as u64);
        if jobs > 0 {
            self.retained.push(self.base + number);
        } else if self.frames.len() > self.stale
            && let Some(run) = self.frames.back_mut().filter(|run| run.jobs == 0)
        {
            run.chains += chains;
            run.frames += 1;
            run.bytes += bytes;
            return;
        }
        self.frames.push_back(Frame { packet: None, jobs, chains, frames: 1, bytes });
    }

    /// Asks the device for what was planned. Takes the packets that were delivered: those of frames in line stay, all others go home.
    #[inline(always)]
    pub(super) fn ask(&mut self, delivered: impl Iterator<Item = Packet>) {
        if self.retained.is_empty() {
            hugemem::recycle(delivered);
        } else {
            self.retain(delivered);
        }
    }

    #[cold]
    fn retain(&mut self, delivered: impl Iterator<Item = Packet>) {
        let new = self.frames.len().saturating_sub(2 * self.retained.len() + 1);
        let mut frames = self.frames.iter_mut().skip(new).filter(|frame| frame.jobs > 0 && frame.packet.is_none());
        let mut places = self.retained.iter().copied().peekable();
        hugemem::recycle(delivered.enumerate().filter_map(|(place, packet)| {
            if places.next_if_eq(&place).is_none() {
                return Some(packet);
            }
            match frames.next() {
                Some(frame) => {
                    frame.packet = Some(packet);
                    None
                }
                None => Some(packet),
            }
        }));
        self.retained.clear();
        if let Some(desk) = &self.desk {
            desk.ask(self.planned);
        }
    }

    /// Whether all copies of the frame in front are answered, which has so many; and whether any failed.
    fn answered(&self, jobs: u32) -> Option<bool> {
        let Some(desk) = &self.desk else { return Some(true) };
        let mut failed = false;
        for job in 0..jobs {
            failed |= desk.answer(self.first.wrapping_add(job))? == Answer::Failed;
        }
        Some(failed)
    }

    /// Gives chains back of all frames in front whose copies are done.
    #[inline(always)]
    pub(super) fn collect<R: Ring>(&mut self, ring: &mut R, link: &mut Link) {
        if !self.frames.is_empty() {
            self.collect_some(ring, link);
        }
    }

    #[inline(never)]
    fn collect_some<R: Ring>(&mut self, ring: &mut R, link: &mut Link) {
        self.sweep();
        if self.stale > 0 {
            return;
        }
        let mut any = false;
        while let Some(frame) = self.frames.front()
            && let Some(failed) = self.answered(frame.jobs)
        {
            let Some(frame) = self.frames.pop_front() else { break };
            let survived = frame.jobs == 0 || self.finish(&frame, failed, link);
            for _ in 0..frame.chains {
                let Some(Filled { id, descriptors, written }) = self.chains.pop_front() else { break };
                ring.give_back(id, descriptors, if survived { written } else { 0 });
            }
            if survived {
                self.settled.sent += frame.frames;
                self.settled.bytes += frame.bytes;
            } else {
                self.settled.lost += frame.frames;
            }
            if guest::lost() != 0 && link.memory.is_lost() {
                link.fail(RingFault::MemoryLost);
                return;
            }
            any = true;
        }
        if any {
            link.publish(ring);
        }
    }

    /// Does what the device did not do of a frame, and notes what was written. `false` when memory of either end was lost.
    fn finish(&mut self, frame: &Frame, failed: bool, link: &Link) -> bool {
        let (mut bytes, mut redone) = (0, 0);
        for job in 0..frame.jobs {
            let number = self.first.wrapping_add(job);
            let Some(transfer) = self.transfers.get((number % JOBS) as usize).copied().flatten() else { continue };
            if failed && self.desk.as_ref().is_some_and(|desk| desk.answer(number) == Some(Answer::Failed)) {
                // SAFETY: the packet is here, so the memory that it lies in is; that of the target is the link's, or kept until the copy was looked at.
                unsafe { transfer.run() };
                redone += 1;
            }
            bytes += u64::from(transfer.len());
            link.marked(transfer.guest(), transfer.len());
        }
        self.first = self.first.wrapping_add(frame.jobs);
        if let Some(desk) = &self.desk {
            desk.count(u64::from(frame.jobs) - redone, bytes, redone);
        }
        if guest::lost() == 0 {
            return true;
        }
        let foreign = frame.packet.as_ref().map(Packet::foreign).unwrap_or_default();
        !link.memory.is_lost() && !foreign.iter().any(guest::is_lost)
    }

    /// Forgets frames in front whose ring has stopped, as far as their copies are answered.
    pub(super) fn sweep(&mut self) {
        while self.stale > 0
            && let Some(frame) = self.frames.front()
            && self.answered(frame.jobs).is_some()
            && let Some(frame) = self.frames.pop_front()
        {
            self.first = self.first.wrapping_add(frame.jobs);
            self.stale -= 1;
        }
    }

    /// The ring has stopped: chains in line are forgotten. Frames with copies underway stay in line until these are answered.
    pub(super) fn abandon(&mut self) {
        let stale = std::mem::take(&mut self.stale);
        for frame in self.frames.iter_mut().skip(stale) {
            self.settled.stopped += frame.frames;
            frame.chains = 0;
        }
        self.frames.retain(|frame| frame.jobs > 0);
        self.stale = self.frames.len();
        self.chains.clear();
        self.sweep();
    }

    /// Counts what became of frames that were in line.
    #[inline]
    pub(super) fn settle(&mut self, counters: &mut Counters) {
        let Settled { sent, bytes, lost, stopped } = std::mem::take(&mut self.settled);
        counters.packets += sent;
        counters.bytes += bytes;
        if lost + stopped > 0 {
            counters.drop_packets(DropReason::System, lost);
            counters.drop_packets(DropReason::Stopped, stopped);
        }
    }

    /// Keeps `memory` until all copies that were planned so far have been looked at.
    pub(super) fn keep(&mut self, memory: Arc<Memory>) {
        self.kept.push(Kept { memory, until: self.planned });
    }

    /// Takes out memory that was kept and that nothing is copied to any more.
    pub(super) fn let_go(&mut self) -> Vec<Arc<Memory>> {
        self.sweep();
        let (first, underway) = (self.first, self.planned.wrapping_sub(self.first));
        let gone = |kept: &mut Kept| {
            let left = kept.until.wrapping_sub(first);
            left == 0 || left > underway
        };
        self.kept.extract_if(.., gone).map(|kept| kept.memory).collect()
    }

    /// Memory is kept.
    pub(super) fn keeps(&self) -> bool {
        !self.kept.is_empty()
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        drop(self.let_go());
        // Whoever did not answer until now may still copy: what is copied from and to stays for ever.
        while let Some(frame) = self.frames.pop_front() {
            let answered = self.answered(frame.jobs).is_some();
            self.first = self.first.wrapping_add(frame.jobs);
            if !answered {
                std::mem::forget(frame.packet);
            }
        }
        std::mem::take(&mut self.kept).into_iter().for_each(|kept| std::mem::forget(kept.memory));
    }
}
