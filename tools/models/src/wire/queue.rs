//! Wires that are queues in this process.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use super::Wire;

/// Two queues of frames, for tests: `incoming` is what the driver will receive, `outgoing` what it transmitted.
#[derive(Debug)]
pub struct Queues<F> {
    /// To be received by the driver.
    pub incoming: VecDeque<F>,
    /// Transmitted by the driver.
    pub outgoing: VecDeque<F>,
    /// Longest that `outgoing` may become; 0 is no limit.
    pub room: usize,
}

/// Two queues of plain frames.
pub type QueueWire = Queues<Vec<u8>>;

impl<F> Default for Queues<F> {
    fn default() -> Self {
        Self { incoming: VecDeque::new(), outgoing: VecDeque::new(), room: 0 }
    }
}

impl<F> Queues<F> {
    /// Puts what `frame` makes behind what was transmitted, if there is room.
    pub(crate) fn send(&mut self, frame: impl FnOnce() -> F) -> bool {
        let room = self.room == 0 || self.outgoing.len() < self.room;
        if room {
            self.outgoing.push_back(frame());
        }
        room
    }
}

impl Wire for QueueWire {
    fn peek(&mut self) -> Option<&[u8]> {
        self.incoming.front().map(Vec::as_slice)
    }

    fn advance(&mut self) {
        self.incoming.pop_front();
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.send(|| frame.to_vec())
    }
}

/// What the driver transmits comes back to it.
#[derive(Debug)]
pub struct Loopback<F = Vec<u8>>(pub(crate) VecDeque<F>);

impl<F> Default for Loopback<F> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<F> Loopback<F> {
    /// Puts what `frame` makes at the end, if there is room.
    pub(crate) fn send(&mut self, frame: impl FnOnce() -> F) -> bool {
        let room = self.0.len() < CABLE_ROOM;
        if room {
            self.0.push_back(frame());
        }
        room
    }
}

impl Wire for Loopback {
    fn peek(&mut self) -> Option<&[u8]> {
        self.0.front().map(Vec::as_slice)
    }

    fn advance(&mut self) {
        self.0.pop_front();
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.send(|| frame.to_vec())
    }
}

/// One end of a cable between two cards: what one transmits, the other receives.
#[derive(Debug)]
pub struct CableEnd<F = Vec<u8>> {
    sent: Arc<Mutex<VecDeque<F>>>,
    arriving: Arc<Mutex<VecDeque<F>>>,
    /// Taken from `arriving` and not received yet.
    ready: VecDeque<F>,
}

/// Frames that a cable holds in each direction before the sender has to wait.
const CABLE_ROOM: usize = 1024;

/// A cable: its two ends.
#[must_use]
pub fn cable() -> (CableEnd, CableEnd) {
    cable_of()
}

/// A cable for frames of some kind.
pub(crate) fn cable_of<F>() -> (CableEnd<F>, CableEnd<F>) {
    let (a, b) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Mutex::new(VecDeque::new())));
    let first = CableEnd { sent: Arc::clone(&a), arriving: Arc::clone(&b), ready: VecDeque::new() };
    (first, CableEnd { sent: b, arriving: a, ready: VecDeque::new() })
}

impl<F> CableEnd<F> {
    /// The frame that arrived first.
    pub(crate) fn first(&mut self) -> Option<&F> {
        if self.ready.is_empty() {
            // All at once, so that the lock is taken once for a batch.
            std::mem::swap(&mut *self.arriving.lock().unwrap_or_else(PoisonError::into_inner), &mut self.ready);
        }
        self.ready.front()
    }

    /// Goes on to the next one.
    pub(crate) fn pop(&mut self) {
        self.ready.pop_front();
    }

    /// Sends what `frame` makes, if there is room.
    pub(crate) fn send(&mut self, frame: impl FnOnce() -> F) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let room = sent.len() < CABLE_ROOM;
        if room {
            sent.push_back(frame());
        }
        room
    }
}

impl Wire for CableEnd {
    fn peek(&mut self) -> Option<&[u8]> {
        self.first().map(Vec::as_slice)
    }

    fn advance(&mut self) {
        self.pop();
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.send(|| frame.to_vec())
    }
}
