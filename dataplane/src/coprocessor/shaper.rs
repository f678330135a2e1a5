//! Lets packets go at a rate: a token bucket with a queue in front of it. Packets that come too fast wait; those for which the queue has no room are dropped.

use std::collections::VecDeque;

use crate::switch::Handed;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A rate, and how far it may be left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bits a second, at least 1.
    pub bits_per_second: u64,
    /// Bytes that may go at once after a pause.
    pub burst: u64,
    /// Bytes that may wait.
    pub queue: u64,
}

impl Shape {
    /// Nanoseconds that so many bytes take.
    fn time(&self, bytes: u64) -> u64 {
        let bits = u128::from(bytes) * 8 * u128::from(SECOND);
        u64::try_from(bits / u128::from(self.bits_per_second.max(1))).unwrap_or(u64::MAX)
    }
}

/// The queue and its bucket. Times are nanoseconds since any fixed moment.
#[derive(Debug)]
pub(super) struct Shaper {
    shape: Option<Shape>,
    queue: VecDeque<(usize, Handed)>,
    bytes: u64,
    /// When what was let go would be through at the rate, had nothing gone at once.
    busy_until: u64,
}

impl Shaper {
    pub(super) fn new(shape: Option<Shape>) -> Self {
        Self { shape, queue: VecDeque::new(), bytes: 0, busy_until: 0 }
    }

    /// Another rate. What waits goes at it.
    pub(super) fn set(&mut self, shape: Option<Shape>) {
        if self.shape != shape {
            self.shape = shape;
            self.busy_until = 0;
        }
    }

    /// Packets that wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes a packet of an engine in.
    ///
    /// # Errors
    /// Gives it back when there is no room. A queue that is empty has room for any packet.
    pub(super) fn push(&mut self, engine: usize, handed: Handed) -> Result<(), Handed> {
        let len = handed.packet.len() as u64;
        let full = self.shape.is_some_and(|shape| self.bytes + len > shape.queue);
        if full && !self.queue.is_empty() {
            return Err(handed);
        }
        self.bytes += len;
        self.queue.push_back((engine, handed));
        Ok(())
    }

    /// Nanoseconds till the first packet may go; `None` when none waits.
    pub(super) fn wait(&self, now: u64) -> Option<u64> {
        let (_, first) = self.queue.front()?;
        let Some(shape) = self.shape else { return Some(0) };
        // A packet longer than the bucket goes when the bucket is full.
        let credit = shape.time(shape.burst.max(first.packet.len() as u64));
        let due = self.busy_until.saturating_add(shape.time(first.packet.len() as u64)).saturating_sub(credit);
        Some(due.saturating_sub(now))
    }

    /// The next packet that may go.
    pub(super) fn pop(&mut self, now: u64) -> Option<(usize, Handed)> {
        if self.wait(now)? > 0 {
            return None;
        }
        let (engine, handed) = self.queue.pop_front()?;
        let len = handed.packet.len() as u64;
        self.bytes -= len;
        if let Some(shape) = self.shape {
            self.busy_until = self.busy_until.max(now).saturating_add(shape.time(len));
        }
        Some((engine, handed))
    }
}
