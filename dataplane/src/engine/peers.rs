//! Between engines: packets for a port whose transmit queue another engine has, and packets that another engine is to switch.

use std::fmt;
use std::sync::Arc;

use hugemem::Packet;
use rtrb::{Consumer, Producer, RingBuffer};

use crate::bell::Bell;
use crate::switch::PortSlot;

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

/// An engine's ends of the rings between it and all others.
#[derive(Default)]
pub struct Peers {
    /// To each engine, by its number; `None` for the one itself.
    pub(super) to: Vec<Option<Way>>,
    pub(super) from: Vec<Consumer<Passed>>,
}

/// The way to another engine.
pub(super) struct Way {
    pub(super) ring: Producer<Passed>,
    pub(super) bell: Arc<Bell>,
}

/// The ends of the rings between engines whose bells these are, in the order of their numbers.
#[must_use]
pub fn peers(bells: &[Arc<Bell>]) -> Vec<Peers> {
    let mut peers: Vec<Peers> = bells.iter().map(|_| Peers::default()).collect();
    for sender in 0..bells.len() {
        for (receiver, bell) in bells.iter().enumerate() {
            let mut way = None;
            if receiver != sender {
                let (ring, end) = RingBuffer::new(ROOM);
                way = Some(Way { ring, bell: Arc::clone(bell) });
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

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("engines", &self.to.len()).finish_non_exhaustive()
    }
}
