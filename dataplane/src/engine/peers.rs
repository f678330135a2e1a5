//! Between engines: packets for a port whose transmit queue another engine has, and packets that another engine is to switch.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hugemem::{Batch, Packet};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::bell::Bell;
use crate::switch::{MOST_PACKETS, PortSlot};

/// Packets that may be on their way from one engine to another.
const ROOM: usize = 1024;

/// A packet on its way to another engine.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) packet: Packet,
    pub(super) slot: PortSlot,
    pub(super) step: Step,
}

/// What is to be done with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// It came from that port and is to be switched.
    Switch,
    /// It is to be sent to that port.
    Send,
}

/// How far an engine is on its way to its end. Those that end together wait for each other, so that nothing is left between them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub(super) enum Phase {
    /// It is not.
    Running,
    /// It receives nothing any more, and passes nothing on to be switched.
    Quiet,
    /// It passes nothing on at all.
    Silent,
    /// It has ended, and takes nothing.
    Gone,
}

/// An engine's ends of the rings between it and all others.
#[derive(Default)]
pub struct Peers {
    number: usize,
    /// To each engine, by its number; `None` for the one itself.
    to: Vec<Option<Way>>,
    pub(super) from: Vec<Consumer<Passed>>,
    /// The [`Phase`] of each engine, by its number.
    phases: Arc<[AtomicU8]>,
}

/// The way to another engine.
struct Way {
    ring: Producer<Passed>,
    bell: Arc<Bell>,
    /// It got something since it was called.
    owed: bool,
    /// What is to go there.
    staged: Batch,
}

/// The ends of the rings between engines whose bells these are, in the order of their numbers.
#[must_use]
pub fn peers(bells: &[Arc<Bell>]) -> Vec<Peers> {
    let phases: Arc<[AtomicU8]> = bells.iter().map(|_| AtomicU8::new(Phase::Running as u8)).collect();
    let peer = |number| Peers { number, phases: Arc::clone(&phases), ..Peers::default() };
    let mut peers: Vec<Peers> = (0..bells.len()).map(peer).collect();
    for sender in 0..bells.len() {
        for (receiver, bell) in bells.iter().enumerate() {
            let mut way = None;
            if receiver != sender {
                let (ring, end) = RingBuffer::new(ROOM);
                way = Some(Way { ring, bell: Arc::clone(bell), owed: false, staged: Batch::new(MOST_PACKETS) });
                if let Some(peer) = peers.get_mut(receiver) {
                    peer.from.push(end);
                }
            }
            if let Some(peer) = peers.get_mut(sender) {
                peer.to.push(way);
            }
        }
    }
    peers
}

impl Peers {
    /// Engines there are, this one included.
    pub(super) fn engines(&self) -> usize {
        self.to.len()
    }

    /// This engine is that far now.
    pub(super) fn set_phase(&self, phase: Phase) {
        if let Some(own) = self.phases.get(self.number) {
            // Release: what was passed on before is seen by who sees this.
            own.store(phase as u8, Ordering::Release);
        }
    }

    /// The engine has ended. Drops what others have passed on, and says how much that was.
    pub(super) fn end(&mut self) -> u64 {
        self.set_phase(Phase::Gone);
        let mut left = 0;
        for ring in &mut self.from {
            let count = ring.slots();
            if let Ok(chunk) = ring.read_chunk(count) {
                left += chunk.len() as u64;
                chunk.commit_all();
            }
        }
        left
    }

    /// All other engines are at least that far.
    pub(super) fn others_are(&self, phase: Phase) -> bool {
        let mut others = self.phases.iter().enumerate().filter(|(number, _)| *number != self.number);
        // Acquire: what they passed on before is seen.
        others.all(|(_, other)| other.load(Ordering::Acquire) >= phase as u8)
    }

    /// What is to go to the engine of that number by [`Peers::pass_staged`]; `None` for the one itself.
    #[inline]
    pub(super) fn staged(&mut self, engine: usize) -> Option<&mut Batch> {
        self.to.get_mut(engine)?.as_mut().map(|way| &mut way.staged)
    }

    /// Passes on what is staged, to be switched as what port `from` gave. Gives how many packets were staged, and how many there was room for. The others are dropped.
    pub(super) fn pass_staged(&mut self, from: PortSlot) -> (u64, u64) {
        let (mut wanted, mut passed) = (0, 0);
        for (way, phase) in self.to.iter_mut().zip(self.phases.iter()) {
            let Some(Way { ring, owed, staged, .. }) = way else { continue };
            if !staged.is_empty() {
                wanted += staged.len() as u64;
                passed += push(ring, phase, from, Step::Switch, staged);
                *owed = true;
                staged.clear();
            }
        }
        (wanted, passed)
    }

    /// Passes packets of `batch` on to an engine, as many as there is room for, and says how many.
    pub(super) fn pass(&mut self, engine: usize, slot: PortSlot, step: Step, batch: &mut Batch) -> u64 {
        let Some(Some(way)) = self.to.get_mut(engine) else { return 0 };
        let Some(phase) = self.phases.get(engine) else { return 0 };
        way.owed = true;
        push(&mut way.ring, phase, slot, step, batch)
    }

    /// Wakes the engines that got something.
    #[inline]
    pub(super) fn call(&mut self) {
        for way in self.to.iter_mut().flatten().filter(|way| way.owed) {
            way.owed = false;
            way.bell.call();
        }
    }

    /// Another engine has passed something on.
    pub(super) fn has_packets(&self) -> bool {
        self.from.iter().any(|ring| !ring.is_empty())
    }
}

/// Passes packets of `batch` on, as many as there is room for, and says how many.
fn push(ring: &mut Producer<Passed>, phase: &AtomicU8, slot: PortSlot, step: Step, batch: &mut Batch) -> u64 {
    if phase.load(Ordering::Relaxed) == Phase::Gone as u8 {
        return 0;
    }
    let count = batch.len().min(ring.slots());
    let Ok(chunk) = ring.write_chunk_uninit(count) else { return 0 };
    chunk.fill_from_iter(batch.drain_front(count).map(|packet| Passed { packet, slot, step })) as u64
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("engines", &self.to.len()).finish_non_exhaustive()
    }
}
