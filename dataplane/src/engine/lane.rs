//! One receive queue on its way to one transmit queue: the packet path of ports that are joined.

use std::fmt;
use std::sync::Arc;

use super::Receiver;
use super::plan::QueueId;
use super::sender::Sender;
use super::source::Source;
use super::waiting::Waiting;
use crate::stats::PortCells;

/// Empty polls between two looks at a transmit queue that still has packets underway.
const RECLAIM_INTERVAL: u64 = 16;

/// A receive queue, the packets that it gave and that wait to be sent, and which sender takes them.
pub struct Lane {
    pub(super) source: Source,
    pub(super) waiting: Waiting,
    to: QueueId,
    /// Where the sender stands in the roster.
    pub(super) sender: usize,
    /// Whose account its polls go to, and who pays for delivery.
    pub(super) accounts: [usize; 2],
}

impl Lane {
    /// A lane from `receiver` to the transmit queue `to`, in bursts of up to `burst`. It counts on from what is published in `cells`,
    /// the cells of the port that it receives from.
    #[must_use]
    pub fn new(receiver: Receiver, to: QueueId, burst: usize, cells: Arc<PortCells>) -> Self {
        let source = Source::new(receiver, cells);
        let waiting = Waiting::new(burst.max(1), source.gives());
        Self { source, waiting, to, sender: usize::MAX, accounts: [usize::MAX; 2] }
    }

    /// Which queue it receives from.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.source.id
    }

    /// Which queue it sends to.
    #[must_use]
    pub fn to(&self) -> QueueId {
        self.to
    }

    /// Receives a burst, unless the one before still waits. Gives the cycles that this took and whether anything waits
    /// for delivery now. `now` is the cycle counter and is moved on.
    #[inline(always)]
    pub(super) fn poll(&mut self, sender: &mut Sender, now: &mut u64) -> (u64, bool) {
        if !self.waiting.is_empty() {
            return (0, true);
        }
        let (spent, received) = self.source.receive(&mut self.waiting.backlog.batch, now);
        if received == 0 && sender.is_underway() && self.source.empty_polls().is_multiple_of(RECLAIM_INTERVAL) {
            sender.reclaim();
        }
        (spent, received > 0)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.id())
            .field("to", &self.to)
            .field("waiting", &self.waiting.backlog.len())
            .finish_non_exhaustive()
    }
}
