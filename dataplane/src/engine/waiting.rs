//! Packets that wait for a transmit queue.

use drivers::nic::DropReason;
use hugemem::Batch;

use super::adapt::{Backlog, Gives};
use super::sender::Sender;
use crate::clock::cycles;
use crate::config::LARGEST_BURST;

/// What waits in front of a sender, and since when.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) backlog: Backlog,
    /// Cycle at which something was delivered last.
    pub(super) delivered: u64,
    /// What the sender had no room for.
    held: Option<Held>,
}

/// Packets that wait for room.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Cycle at which they were found waiting.
    since: u64,
    /// How many they are, from the front of the backlog, beside what is staged.
    count: usize,
}

/// What delivering came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    /// Everything was sent.
    Done,
    /// Packets moved, and more of them can be delivered later in this round.
    More,
    /// There was no room for the rest, or for anything.
    Blocked {
        /// Some packets did move.
        moved: bool,
    },
}

impl Waiting {
    /// Room for `room` packets that may be what `gives` says.
    pub(super) fn new(room: usize, gives: Gives) -> Self {
        Self { backlog: Backlog::new(room, gives), delivered: 0, held: None }
    }

    /// Nothing waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    /// Sends a slice of what waits. Gives the cycles that this took. Packets that were found without room `hold` cycles ago are dropped.
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        sender: &mut Sender,
        now: &mut u64,
        hold: u64,
        slice_cycles: u64,
    ) -> (u64, Delivery) {
        let Backlog { batch, stage, gives, .. } = &self.backlog;
        let waited = batch.len();
        // A long queue is not looked through time and again.
        let most = sender.slice().min(LARGEST_BURST);
        let straight = waited <= most && stage.is_empty() && sender.takes(batch, *gives);
        let sent = if straight { sender.transmit(&mut self.backlog.batch) } else { self.deliver_staged(sender) };
        let before = std::mem::replace(now, cycles());
        let spent = now.wrapping_sub(before);
        self.delivered = *now;
        sender.charge(sent, spent, slice_cycles);
        if self.is_empty() {
            self.held = None;
            return (spent, Delivery::Done);
        }
        self.release(waited - self.backlog.batch.len());
        // What was staged went out: it was the slice that ended, not the room.
        if sent > 0 && !straight && self.backlog.stage.is_empty() {
            return (spent, Delivery::More);
        }
        self.hold(sender, *now, hold);
        let delivery = if self.is_empty() { Delivery::Done } else { Delivery::Blocked { moved: sent > 0 } };
        (spent, delivery)
    }

    /// Sends packets that just came, and in front of which nothing waits, as they are, if that is possible. What stays in `batch` was not sent.
    #[inline(always)]
    pub(super) fn send_straight(&mut self, batch: &mut Batch, sender: &mut Sender, now: &mut u64, slice_cycles: u64) {
        if batch.len() > sender.slice() || !sender.takes(batch, self.backlog.gives) {
            return;
        }
        let sent = sender.transmit(batch);
        let before = std::mem::replace(now, cycles());
        self.delivered = *now;
        sender.charge(sent, now.wrapping_sub(before), slice_cycles);
    }

    /// Lets the packets of `batch` wait. Those for which there is no room are dropped, counted with the transmit queue.
    #[inline]
    pub(super) fn append(&mut self, batch: &mut Batch, sender: &mut Sender) {
        let waits = &mut self.backlog.batch;
        for packet in batch.drain_front(waits.room()) {
            // Never full: there are no more than it has room for.
            let _ = waits.push(packet);
        }
        if !batch.is_empty() {
            sender.count_drops(DropReason::Full, batch.len());
            batch.clear();
        }
    }

    /// Makes a slice ready unless one is, and sends it.
    #[cold]
    fn deliver_staged(&mut self, sender: &mut Sender) -> usize {
        if self.backlog.stage.is_empty() {
            sender.adapt(&mut self.backlog);
        }
        if self.backlog.stage.is_empty() { 0 } else { sender.transmit(&mut self.backlog.stage) }
    }

    /// Takes note that so many packets left the front of the backlog.
    #[inline]
    fn release(&mut self, packets: usize) {
        if let Some(held) = &mut self.held {
            held.count = held.count.saturating_sub(packets);
            if held.count == 0 && self.backlog.stage.is_empty() {
                self.held = None;
            }
        }
    }

    /// There was no room for the rest. What was found waiting at a time is dropped together, `limit` cycles later, as far as it is still there: what
    /// trickles out does not wait for ever, and what came later has its own time.
    #[inline]
    fn hold(&mut self, sender: &mut Sender, now: u64, limit: u64) {
        let count = self.backlog.batch.len();
        let held = *self.held.get_or_insert(Held { since: now, count });
        if now.wrapping_sub(held.since) >= limit {
            sender.count_drops(DropReason::Full, self.backlog.drop_front(held.count));
            self.held = None;
        }
    }

    /// Drops all that waits to be sent, counted under `reason` with the transmit queue.
    pub(super) fn drop_waiting(&mut self, sender: &mut Sender, reason: DropReason) {
        sender.count_drops(reason, self.backlog.len());
        self.backlog.clear();
        self.held = None;
    }
}
