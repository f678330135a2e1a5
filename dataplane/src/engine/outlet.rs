//! Where the packets for a port go that the pipeline gave.

use super::adapt::Gives;
use super::plan::QueueId;
use super::waiting::Waiting;
use crate::switch::PortSlot;

/// Packets that may wait for a transmit queue, beside what they are staged into. A virtual machine has twice as many buffers, so that one slow
/// destination does not keep all that it sends.
const ROOM: usize = 512;

/// Switched packets come from anywhere.
const ANYTHING: Gives = Gives { foreign: true, large: true, tunnels: true };

/// What becomes of packets for a port: they wait for one of its transmit queues, or go to the engine that has one.
#[derive(Debug)]
pub struct Outlet {
    pub(super) slot: PortSlot,
    /// Number of the port.
    pub(super) port: usize,
    pub(super) to: To,
    /// Who pays for it.
    pub(super) account: usize,
    /// Nothing more is taken: it is to go.
    leaving: bool,
}

/// Where an outlet leads.
#[derive(Debug)]
pub(super) enum To {
    /// To a sender of this engine.
    Queue(Box<ToQueue>),
    /// To the engine of that number.
    Engine(usize),
}

/// What waits for a sender of this engine.
#[derive(Debug)]
pub(super) struct ToQueue {
    pub(super) queue: QueueId,
    /// Where the sender stands in the roster.
    pub(super) sender: usize,
    pub(super) waiting: Waiting,
    /// The engine knows that packets wait here.
    pub(super) listed: bool,
}

impl Outlet {
    /// Packets for `slot` are sent by the transmit queue `to`, which is with the same engine.
    #[must_use]
    pub fn to_queue(slot: PortSlot, to: QueueId) -> Self {
        let queue = ToQueue { queue: to, sender: usize::MAX, waiting: Waiting::new(ROOM, ANYTHING), listed: false };
        Self { slot, port: to.port, to: To::Queue(Box::new(queue)), account: usize::MAX, leaving: false }
    }

    /// Packets for `slot`, which is the port of number `port`, go to the engine of number `engine`, which has a transmit queue of it.
    #[must_use]
    pub fn to_engine(slot: PortSlot, port: usize, engine: usize) -> Self {
        Self { slot, port, to: To::Engine(engine), account: usize::MAX, leaving: false }
    }

    /// Nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        match &self.to {
            To::Queue(to) => to.waiting.is_empty(),
            To::Engine(_) => true,
        }
    }

    pub(super) fn leave(&mut self) {
        self.leaving = true;
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// The slot whose packets it takes.
    #[must_use]
    pub fn slot(&self) -> PortSlot {
        self.slot
    }
}
