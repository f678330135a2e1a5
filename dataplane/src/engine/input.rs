//! A receive queue whose packets are switched.

use std::fmt;
use std::sync::Arc;

use hugemem::Batch;

use super::Receiver;
use super::plan::QueueId;
use super::source::Source;
use crate::stats::PortCells;
use crate::switch::{MOST_PACKETS, PortSlot};

/// A receive queue that feeds the pipeline.
pub struct Input {
    pub(super) source: Source,
    pub(super) from: PortSlot,
    /// What was received.
    pub(super) batch: Batch,
    /// Its packets are divided between all engines by their flows.
    pub(super) spread: bool,
    /// Who pays for it.
    pub(super) account: usize,
}

impl Input {
    /// An input of what port `from` receives by this queue, in bursts of up to `burst`. It counts on from what is published in `cells`, the cells of that port.
    #[must_use]
    pub fn new(receiver: Receiver, from: PortSlot, burst: usize, cells: Arc<PortCells>) -> Self {
        let batch = Batch::new(burst.clamp(1, MOST_PACKETS));
        Self { source: Source::new(receiver, cells), from, batch, spread: false, account: usize::MAX }
    }

    /// Whether its packets are divided between all engines by their flows, instead of all being switched where they are received: for ports with
    /// fewer receive queues than there are engines.
    #[must_use]
    pub fn spread(mut self, on: bool) -> Self {
        self.spread = on;
        self
    }

    /// Which queue it receives from.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.source.id
    }

    /// The slot of the port that it receives for.
    #[must_use]
    pub fn from(&self) -> PortSlot {
        self.from
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("id", &self.id()).field("from", &self.from).finish_non_exhaustive()
    }
}
