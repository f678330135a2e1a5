//! One receive queue on its way to one transmit queue: the packet path itself.

use std::fmt;

use drivers::nic::{DropReason, RxQueue, TxQueue};
use hugemem::Batch;

use super::Receiver;
use super::plan::QueueId;
use crate::clock::cycles;
use crate::port::Wake;
use crate::stats::{PortCells, QueueStatistics};

/// Empty polls between two looks at a transmit queue that still has packets underway.
const RECLAIM_INTERVAL: u64 = 16;

/// A receive queue, the packets that it gave and that wait to be sent, and which sender takes them.
pub struct Lane {
    id: QueueId,
    rx: Box<dyn RxQueue>,
    wake: Option<Wake>,
    batch: Batch,
    sender: usize,
    /// Cycle at which the sender first had no room for what is in `batch`.
    held_since: Option<u64>,
    statistics: QueueStatistics,
    cell: usize,
}

/// A transmit queue. Several lanes of one engine may feed it.
pub struct Sender {
    id: QueueId,
    tx: Box<dyn TxQueue>,
    /// The queue may have packets that it holds back or has not reclaimed.
    underway: bool,
    statistics: QueueStatistics,
    cell: usize,
}

/// What a look at a lane came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// Packets moved.
    Moved,
    /// Packets wait for room.
    Waiting,
    /// There was nothing.
    Empty,
}

impl Lane {
    /// A lane from `receiver` to the engine's sender number `sender`, in bursts of up to `burst`.
    #[must_use]
    pub fn new(receiver: Receiver, sender: usize, burst: usize) -> Self {
        let Receiver { id, rx, wake } = receiver;
        Self {
            id,
            rx,
            wake,
            batch: Batch::new(burst.max(1)),
            sender,
            held_since: None,
            statistics: QueueStatistics::default(),
            cell: id.queue,
        }
    }

    pub(super) fn sender(&self) -> usize {
        self.sender
    }

    pub(super) fn wake(&self) -> Option<&Wake> {
        self.wake.as_ref()
    }

    /// Receives a burst, unless the one before still waits, and sends it. `now` is the cycle counter and is moved on, so that two
    /// lanes in a row need three readings, not four. Packets that have waited longer than `hold` cycles are dropped.
    #[inline]
    pub(super) fn forward(&mut self, sender: &mut Sender, now: &mut u64, hold: u64) -> Outcome {
        if self.batch.is_empty() {
            let received = self.rx.receive(&mut self.batch);
            let before = std::mem::replace(now, cycles());
            if received == 0 {
                self.statistics.empty_polls += 1;
                if sender.underway && self.statistics.empty_polls.is_multiple_of(RECLAIM_INTERVAL) {
                    sender.reclaim();
                }
                return Outcome::Empty;
            }
            self.statistics.busy_polls += 1;
            self.statistics.busy_cycles += now.wrapping_sub(before);
        }
        self.send(sender, now, hold)
    }

    /// Sends what waits, without receiving. `false` when some of it still waits.
    pub(super) fn flush(&mut self, sender: &mut Sender, now: &mut u64) -> bool {
        if !self.batch.is_empty() {
            self.send(sender, now, u64::MAX);
        }
        self.batch.is_empty()
    }

    #[inline]
    fn send(&mut self, sender: &mut Sender, now: &mut u64, hold: u64) -> Outcome {
        let sent = sender.tx.transmit(&mut self.batch);
        let before = std::mem::replace(now, cycles());
        if sent > 0 {
            sender.underway = true;
            sender.statistics.busy_polls += 1;
            sender.statistics.busy_cycles += now.wrapping_sub(before);
            self.held_since = None;
        } else {
            sender.statistics.empty_polls += 1;
        }
        if self.batch.is_empty() {
            return Outcome::Moved;
        }
        let since = *self.held_since.get_or_insert(*now);
        if now.wrapping_sub(since) >= hold {
            self.drop_waiting(sender, DropReason::Full);
            return Outcome::Moved;
        }
        if sent > 0 { Outcome::Moved } else { Outcome::Waiting }
    }

    /// Drops what waits to be sent, counted under `reason` with the transmit queue.
    pub(super) fn drop_waiting(&mut self, sender: &mut Sender, reason: DropReason) {
        sender.statistics.counters.drop_packets(reason, self.batch.len() as u64);
        self.batch.clear();
        self.held_since = None;
    }

    /// Asks for a wake-up; see [`RxQueue::arm`].
    pub(super) fn arm(&mut self) -> bool {
        self.rx.arm()
    }

    /// Takes back [`Lane::arm`] and what it may have signalled.
    pub(super) fn disarm(&mut self) {
        self.rx.disarm();
        if let Some(wake) = &self.wake {
            wake.consume();
        }
    }

    pub(super) fn publish(&self, cells: &[PortCells]) {
        let cell = cells.get(self.id.port).and_then(|port| port.rx.get(self.cell));
        if let Some(cell) = cell {
            let counters = self.rx.counters();
            cell.publish(&QueueStatistics { counters, ..self.statistics });
        }
    }

    pub(super) fn into_receiver(self) -> Receiver {
        Receiver { id: self.id, rx: self.rx, wake: self.wake }
    }
}

impl Sender {
    /// A sender on the queue `tx`.
    #[must_use]
    pub fn new(id: QueueId, tx: Box<dyn TxQueue>) -> Self {
        Self { id, tx, underway: false, statistics: QueueStatistics::default(), cell: id.queue }
    }

    /// Which queue it is.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Takes finished packets back and sends what was held back. `false` when nothing is underway any more.
    pub(super) fn reclaim(&mut self) -> bool {
        self.underway = self.tx.reclaim() > 0;
        self.underway
    }

    pub(super) fn is_underway(&self) -> bool {
        self.underway
    }

    pub(super) fn publish(&self, cells: &[PortCells]) {
        let cell = cells.get(self.id.port).and_then(|port| port.tx.get(self.cell));
        if let Some(cell) = cell {
            let mut counters = self.tx.counters();
            // Drops that the engine decided on are counted here, those of the queue there.
            for reason in [DropReason::Full, DropReason::Stopped] {
                counters.drop_packets(reason, self.statistics.counters.dropped(reason));
            }
            cell.publish(&QueueStatistics { counters, ..self.statistics });
        }
    }

    pub(super) fn into_queue(self) -> (QueueId, Box<dyn TxQueue>) {
        (self.id, self.tx)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane").field("id", &self.id).field("waiting", &self.batch.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("id", &self.id).field("underway", &self.underway).finish_non_exhaustive()
    }
}
