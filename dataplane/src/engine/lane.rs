//! One receive queue on its way to one transmit queue: the packet path itself.

use std::fmt;
use std::sync::Arc;

use super::Receiver;
use super::adapt::{Backlog, Gives};
use super::plan::QueueId;
use super::sender::Sender;
use crate::clock::cycles;
use crate::port::Wake;
use crate::stats::{PortCells, QueueStatistics};
use drivers::nic::{DropReason, RxQueue};

/// Empty polls between two looks at a transmit queue that still has packets underway.
const RECLAIM_INTERVAL: u64 = 16;

/// A receive queue, the packets that it gave and that wait to be sent, and which sender takes them.
pub struct Lane {
    id: QueueId,
    to: QueueId,
    rx: Box<dyn RxQueue>,
    wake: Option<Wake>,
    /// What the wake-up is known by to [`Watch`](super::idle::Watch).
    pub(super) token: u64,
    backlog: Backlog,
    /// Nothing more is received: the lane is to be given back.
    leaving: bool,
    /// Where the sender stands in the roster.
    pub(super) sender: usize,
    /// Whose account its polls go to, and who pays for delivery.
    pub(super) accounts: [usize; 2],
    /// Cycle at which something was delivered last.
    pub(super) delivered: u64,
    /// Cycle at which the sender first had no room for what waits.
    held_since: Option<u64>,
    statistics: QueueStatistics,
    /// What had been published before this lane was made, less what the queue itself remembers.
    base: QueueStatistics,
    cells: Arc<PortCells>,
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

impl Lane {
    /// A lane from `receiver` to the transmit queue `to`, in bursts of up to `burst`. It counts on from what is published in `cells`,
    /// the cells of the port that it receives from.
    #[must_use]
    pub fn new(receiver: Receiver, to: QueueId, burst: usize, cells: Arc<PortCells>) -> Self {
        let Receiver { id, rx, wake } = receiver;
        let published = cells.rx.get(id.queue).map(|cell| cell.read()).unwrap_or_default();
        let gives = Gives { foreign: rx.gives_foreign(), large: rx.gives_large(), tunnels: rx.gives_tunnels() };
        Self {
            base: published.since(&QueueStatistics { counters: rx.counters(), ..QueueStatistics::default() }),
            id,
            to,
            rx,
            wake,
            token: 0,
            backlog: Backlog::new(burst.max(1), gives),
            leaving: false,
            sender: usize::MAX,
            accounts: [usize::MAX; 2],
            delivered: 0,
            held_since: None,
            statistics: QueueStatistics::default(),
            cells,
        }
    }

    /// Which queue it receives from.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Which queue it sends to.
    #[must_use]
    pub fn to(&self) -> QueueId {
        self.to
    }

    pub(super) fn wake(&self) -> Option<&Wake> {
        self.wake.as_ref()
    }

    /// Nothing of what it received waits any more.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.backlog.is_empty()
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Receives a burst, unless the one before still waits. Gives the cycles that this took and whether anything waits
    /// for delivery now. `now` is the cycle counter and is moved on, so that calls in a row need one reading each.
    #[inline(always)]
    pub(super) fn poll(&mut self, sender: &mut Sender, now: &mut u64) -> (u64, bool) {
        if !self.is_empty() {
            return (0, true);
        }
        if self.leaving {
            return (0, false);
        }
        let received = self.rx.receive(&mut self.backlog.batch);
        let before = std::mem::replace(now, cycles());
        let spent = now.wrapping_sub(before);
        if received == 0 {
            self.statistics.empty_polls += 1;
            self.statistics.empty_cycles += spent;
            if sender.is_underway() && self.statistics.empty_polls.is_multiple_of(RECLAIM_INTERVAL) {
                sender.reclaim();
            }
            return (spent, false);
        }
        self.statistics.busy_polls += 1;
        self.statistics.busy_cycles += spent;
        (spent, true)
    }

    /// Sends a slice of what waits. Gives the cycles that this took. Packets that have waited longer than `hold` cycles are dropped.
    #[inline(always)]
    pub(super) fn deliver(
        &mut self,
        sender: &mut Sender,
        now: &mut u64,
        hold: u64,
        slice_cycles: u64,
    ) -> (u64, Delivery) {
        let Backlog { batch, stage, .. } = &self.backlog;
        let straight = batch.len() <= sender.slice() && stage.is_empty() && sender.takes(&self.backlog);
        let sent = if straight { sender.transmit(&mut self.backlog.batch) } else { self.deliver_staged(sender) };
        let before = std::mem::replace(now, cycles());
        let spent = now.wrapping_sub(before);
        self.delivered = *now;
        sender.charge(sent, spent, slice_cycles);
        if self.is_empty() {
            self.held_since = None;
            return (spent, Delivery::Done);
        }
        // What was staged went out: it was the slice that ended, not the room.
        if sent > 0 && !straight && self.backlog.stage.is_empty() {
            return (spent, Delivery::More);
        }
        // From the first time that there was no room until all of the burst is gone: what trickles out does not wait for ever.
        let since = *self.held_since.get_or_insert(*now);
        if now.wrapping_sub(since) >= hold {
            self.drop_waiting(sender, DropReason::Full);
            return (spent, Delivery::Done);
        }
        (spent, Delivery::Blocked { moved: sent > 0 })
    }

    /// Makes a slice ready unless one is, and sends it.
    #[cold]
    fn deliver_staged(&mut self, sender: &mut Sender) -> usize {
        if self.backlog.stage.is_empty() {
            sender.adapt(&mut self.backlog);
        }
        if self.backlog.stage.is_empty() { 0 } else { sender.transmit(&mut self.backlog.stage) }
    }

    /// Drops what waits to be sent, counted under `reason` with the transmit queue.
    pub(super) fn drop_waiting(&mut self, sender: &mut Sender, reason: DropReason) {
        sender.count_drops(reason, self.backlog.len());
        self.backlog.clear();
        self.held_since = None;
    }

    /// Asks for a wake-up; see [`RxQueue::arm`].
    pub(super) fn arm(&mut self) -> bool {
        self.leaving || self.rx.arm()
    }

    /// Takes back [`Lane::arm`].
    pub(super) fn disarm(&mut self) {
        self.rx.disarm();
    }

    /// Takes away what the wake-up signalled.
    pub(super) fn consume(&self) {
        if let Some(wake) = &self.wake {
            wake.consume();
        }
    }

    pub(super) fn publish(&self) {
        if let Some(cell) = self.cells.rx.get(self.id.queue) {
            let now = QueueStatistics { counters: self.rx.counters(), ..self.statistics };
            cell.publish(&self.base.plus(&now));
        }
    }

    /// Lets the queue notice that all its packets have come home, which some queues only do when asked for more.
    pub(super) fn rest(&mut self) {
        self.rx.arm();
        self.rx.disarm();
    }

    pub(super) fn into_receiver(self) -> Receiver {
        Receiver { id: self.id, rx: self.rx, wake: self.wake }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.id)
            .field("to", &self.to)
            .field("waiting", &self.backlog.len())
            .finish_non_exhaustive()
    }
}
