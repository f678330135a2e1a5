//! A transmit queue, and what is done in software for it.

use std::fmt;
use std::sync::Arc;

use drivers::nic::{DropReason, TxQueue};
use hugemem::Batch;

use super::Transmitter;
use super::adapt::{Adapter, Backlog, Gives};
use super::plan::QueueId;
use crate::copy::CopyDesk;
use crate::stats::{PortCells, QueueStatistics};

/// Packets in the first slice, before it is known what they cost; most that a slice grows to, and fewest that it shrinks to.
const FIRST_SLICE: usize = 32;
const LARGEST_SLICE: usize = 1024;
const SMALLEST_SLICE: usize = 1;

/// A transmit queue. Several lanes of one engine may feed it.
pub struct Sender {
    id: QueueId,
    tx: Box<dyn TxQueue>,
    /// Where the queue leaves copies for a device.
    desk: Option<Arc<CopyDesk>>,
    adapter: Adapter,
    /// The queue may have packets that it holds back or has not reclaimed.
    underway: bool,
    /// Packets that it is given at once, so that others get their turn: as many as take about so long as the scheduler allows.
    slice: usize,
    /// Nothing more is sent: it is to be given back.
    leaving: bool,
    statistics: QueueStatistics,
    /// What had been published before this sender was made, less what the queue itself remembers.
    base: QueueStatistics,
    cells: Arc<PortCells>,
}

impl Sender {
    /// A sender on the queue of `transmitter`. It counts on from what is published in `cells`, the cells of the port that it sends to.
    #[must_use]
    pub fn new(transmitter: Transmitter, cells: Arc<PortCells>) -> Self {
        let Transmitter { id, tx, pool, desk } = transmitter;
        let published = cells.tx.get(id.queue).map(|cell| cell.read()).unwrap_or_default();
        Self {
            base: published.since(&QueueStatistics { counters: tx.counters(), ..QueueStatistics::default() }),
            adapter: Adapter::new(tx.takes_foreign(), pool),
            id,
            tx,
            desk,
            underway: false,
            slice: FIRST_SLICE,
            leaving: false,
            statistics: QueueStatistics::default(),
            cells,
        }
    }

    /// Which queue it is.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Gives it all that there is at once, whatever that takes.
    pub(super) fn unslice(&mut self) {
        self.slice = usize::MAX;
    }

    #[inline]
    pub(super) fn slice(&self) -> usize {
        self.slice
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The queue takes everything in `batch` as it is, which may be what `gives` says.
    #[inline]
    pub(super) fn takes(&self, batch: &Batch, gives: Option<Gives>) -> bool {
        gives.is_none_or(|gives| self.adapter.fits(batch, gives, self.tx.offloads()))
    }

    #[inline]
    pub(super) fn transmit(&mut self, batch: &mut Batch) -> usize {
        self.tx.transmit(batch)
    }

    /// Stages up to a slice of packets, made into what the queue takes.
    pub(super) fn adapt(&mut self, backlog: &mut Backlog) {
        let offloads = self.tx.offloads();
        if !self.adapter.adapt(backlog, self.slice, offloads, &mut self.statistics) && self.underway {
            // The buffers that are missing may be with the device, which has finished with them.
            self.reclaim();
        }
    }

    /// Accounts for a call that sent `sent` packets in `spent` cycles, and fits the slice to what packets cost.
    #[inline(always)]
    pub(super) fn charge(&mut self, sent: usize, spent: u64, slice_cycles: u64) {
        if sent == 0 {
            self.statistics.empty_polls += 1;
            self.statistics.empty_cycles += spent;
            return;
        }
        self.underway = true;
        self.statistics.busy_polls += 1;
        self.statistics.busy_cycles += spent;
        if spent > slice_cycles {
            self.slice = (sent / 2).max(SMALLEST_SLICE);
        } else if sent >= self.slice && self.slice < LARGEST_SLICE && spent < slice_cycles / 2 {
            self.slice *= 2;
        }
    }

    pub(super) fn count_drops(&mut self, reason: DropReason, packets: usize) {
        self.statistics.counters.drop_packets(reason, packets as u64);
    }

    /// Takes finished packets back and sends what was held back. `false` when nothing is underway any more.
    pub(super) fn reclaim(&mut self) -> bool {
        self.underway = self.tx.reclaim() > 0;
        self.underway
    }

    pub(super) fn is_underway(&self) -> bool {
        self.underway
    }

    #[inline]
    pub(super) fn desk(&self) -> Option<&Arc<CopyDesk>> {
        self.desk.as_ref()
    }

    pub(super) fn publish(&self) {
        if let Some(cell) = self.cells.tx.get(self.id.queue) {
            // Drops that the engine decided on are counted here, those of the queue there.
            let of_queue = QueueStatistics { counters: self.tx.counters(), ..QueueStatistics::default() };
            cell.publish(&self.base.plus(&of_queue).plus(&self.statistics));
        }
    }

    pub(super) fn into_transmitter(self) -> Transmitter {
        if let Some(desk) = &self.desk {
            // Nobody takes copies any more. What was not begun with is done by the CPU.
            desk.set_open(false);
            desk.refuse();
        }
        Transmitter { id: self.id, tx: self.tx, pool: self.adapter.into_pool(), desk: self.desk }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("id", &self.id).field("underway", &self.underway).finish_non_exhaustive()
    }
}
