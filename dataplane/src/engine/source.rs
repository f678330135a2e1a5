//! A receive queue as an engine polls it.

use std::sync::Arc;

use drivers::nic::RxQueue;
use hugemem::Batch;

use super::Receiver;
use super::adapt::Gives;
use super::plan::QueueId;
use crate::clock::cycles;
use crate::port::Wake;
use crate::stats::{PortCells, QueueStatistics};

/// What receives: a queue, its wake-up and its counters.
pub(super) struct Source {
    pub(super) id: QueueId,
    rx: Box<dyn RxQueue>,
    wake: Option<Wake>,
    /// What the wake-up is known by to [`Watch`](super::idle::Watch).
    pub(super) token: u64,
    /// Nothing more is received: the queue is to be given back.
    leaving: bool,
    statistics: QueueStatistics,
    /// What had been published before this was made, less what the queue itself remembers.
    base: QueueStatistics,
    cells: Arc<PortCells>,
}

impl Source {
    /// It counts on from what is published in `cells`, the cells of the port that it receives from.
    pub(super) fn new(receiver: Receiver, cells: Arc<PortCells>) -> Self {
        let Receiver { id, rx, wake } = receiver;
        let published = cells.rx.get(id.queue).map(|cell| cell.read()).unwrap_or_default();
        Self {
            base: published.since(&QueueStatistics { counters: rx.counters(), ..QueueStatistics::default() }),
            id,
            rx,
            wake,
            token: 0,
            leaving: false,
            statistics: QueueStatistics::default(),
            cells,
        }
    }

    /// What its packets may be.
    pub(super) fn gives(&self) -> Gives {
        Gives { foreign: self.rx.gives_foreign(), large: self.rx.gives_large(), tunnels: self.rx.gives_tunnels() }
    }

    pub(super) fn wake(&self) -> Option<&Wake> {
        self.wake.as_ref()
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Receives into `batch`. Gives the cycles that this took and how many packets came. `now` is the cycle counter and is moved on, so that calls in a
    /// row need one reading each.
    #[inline(always)]
    pub(super) fn receive(&mut self, batch: &mut Batch, now: &mut u64) -> (u64, usize) {
        if self.leaving {
            return (0, 0);
        }
        let received = self.rx.receive(batch);
        let before = std::mem::replace(now, cycles());
        let spent = now.wrapping_sub(before);
        if received == 0 {
            self.statistics.empty_polls += 1;
            self.statistics.empty_cycles += spent;
        } else {
            self.statistics.busy_polls += 1;
            self.statistics.busy_cycles += spent;
        }
        (spent, received)
    }

    /// Polls that found nothing, so far.
    #[inline]
    pub(super) fn empty_polls(&self) -> u64 {
        self.statistics.empty_polls
    }

    /// Asks for a wake-up; see [`RxQueue::arm`].
    pub(super) fn arm(&mut self) -> bool {
        self.leaving || self.rx.arm()
    }

    /// Takes back [`Source::arm`].
    pub(super) fn disarm(&mut self) {
        self.rx.disarm();
    }

    /// Takes away what the wake-up signalled.
    pub(super) fn consume(&self) {
        if let Some(wake) = &self.wake {
            wake.consume();
        }
    }

    /// Packets of it are still with somebody, in memory that belongs to the queue.
    pub(super) fn is_underway(&mut self) -> bool {
        self.rx.underway() > 0
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
