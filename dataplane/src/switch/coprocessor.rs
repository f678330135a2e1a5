//! Rings to coprocessors: threads that do for the packets of one virtual machine what costs too much for an engine.
//!
//! A packet goes there as a copy in buffers of the coprocessor's own, and comes back the same way. It is looked up again then, since what was decided on it may not
//! hold any more, and passes the rest of the pipeline.

use std::fmt;
use std::sync::Arc;

use hugemem::{Packet, PacketPool};
use rtrb::{Consumer, Producer, RingBuffer};

use super::copy;
use super::outputs::PortSlot;
use super::reason::Reason;
use super::slots::Slot;
use crate::bell::Bell;
use crate::flow::Domain;

/// Coprocessors that an engine has room for; they are numbered from 1.
pub const MOST_COPROCESSORS: u16 = 256;

/// In an action, the bit beside a coprocessor's number that says: its machine is to get the packet. Without it, its machine sent it.
pub const INCOMING: u16 = 1 << 15;

/// A packet on its way to a coprocessor or back.
#[derive(Debug)]
pub struct Handed {
    /// The packet, whole.
    pub packet: Packet,
    /// The number as it stood in the action.
    pub(super) number: u16,
    pub(super) from: PortSlot,
    pub(super) domain: Domain,
}

impl Handed {
    /// It is for the coprocessor's machine, not from it.
    #[must_use]
    pub fn is_incoming(&self) -> bool {
        self.number & INCOMING != 0
    }

    /// A packet that its machine sent.
    #[cfg(test)]
    pub(crate) fn of(packet: Packet) -> Self {
        Self { packet, number: 1, from: PortSlot(0), domain: Domain::port(0) }
    }

    /// Where it came from, as its key says it.
    #[must_use]
    pub fn domain(&self) -> Domain {
        self.domain
    }
}

/// The engine's ends of the rings to one coprocessor.
pub struct CoprocessorRings {
    number: u16,
    pool: PacketPool,
    to: Producer<Handed>,
    back: Consumer<Handed>,
    bell: Arc<Bell>,
    /// It got packets since its bell was called.
    owed: bool,
}

/// The coprocessor's ends.
#[derive(Debug)]
pub struct CoprocessorEnd {
    /// Packets to work on.
    pub packets: Consumer<Handed>,
    /// Where they go back. There is room for all that there can be.
    pub back: Producer<Handed>,
}

impl CoprocessorRings {
    /// Rings to coprocessor `number`, whose thread `bell` wakes. `pool` has the buffers for its packets: no more of them can be there at a time.
    #[must_use]
    pub fn new(number: u16, pool: PacketPool, bell: Arc<Bell>) -> (Box<Self>, CoprocessorEnd) {
        let room = pool.capacity();
        let (to, packets) = RingBuffer::new(room);
        let (give_back, back) = RingBuffer::new(room);
        let rings = Self { number, pool, to, back, bell, owed: false };
        (Box::new(rings), CoprocessorEnd { packets, back: give_back })
    }
}

impl fmt::Debug for CoprocessorRings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoprocessorRings").field("number", &self.number).finish_non_exhaustive()
    }
}

/// The coprocessors of an engine.
#[derive(Debug)]
pub(super) struct Coprocessors {
    #[expect(clippy::vec_box, reason = "the box goes back to control as it came: nothing is freed here")]
    rings: Vec<Box<CoprocessorRings>>,
    /// The one that is asked first for what comes back.
    turn: usize,
    /// Some bell is to be called.
    owed: bool,
}

impl Coprocessors {
    pub(super) fn new() -> Self {
        Self { rings: Vec::with_capacity(usize::from(MOST_COPROCESSORS)), turn: 0, owed: false }
    }

    /// Adds a coprocessor.
    ///
    /// # Errors
    /// Gives the rings back when there is one of that number, or no room.
    pub(super) fn attach(&mut self, rings: Box<CoprocessorRings>) -> Result<(), Box<CoprocessorRings>> {
        match self.rings.binary_search_by_key(&rings.number, |rings| rings.number) {
            Err(place) if self.rings.len() < usize::from(MOST_COPROCESSORS) => {
                self.rings.insert(place, rings);
                Ok(())
            }
            _ => Err(rings),
        }
    }

    /// Takes a coprocessor out.
    pub(super) fn detach(&mut self, number: u16) -> Option<Box<CoprocessorRings>> {
        let place = self.rings.binary_search_by_key(&number, |rings| rings.number).ok()?;
        Some(self.rings.remove(place))
    }

    /// Hands a copy of a packet over.
    ///
    /// # Errors
    /// Why there is none: the coprocessor does not keep up, or is not there.
    pub(super) fn hand_over(&mut self, number: u16, packet: &Packet, slot: &Slot) -> Result<(), Reason> {
        let place = self.rings.binary_search_by_key(&(number & !INCOMING), |rings| rings.number);
        let rings = place.ok().and_then(|place| self.rings.get_mut(place)).ok_or(Reason::CoprocessorFull)?;
        let packet = copy::whole(packet, &mut rings.pool).map_err(|reason| match reason {
            // They are all with it.
            Reason::NoBuffer => Reason::CoprocessorFull,
            other => other,
        })?;
        let handed = Handed { packet, number, from: slot.from, domain: slot.domain };
        rings.to.push(handed).map_err(|_| Reason::CoprocessorFull)?;
        (rings.owed, self.owed) = (true, true);
        Ok(())
    }

    /// Wakes the coprocessors that got something.
    #[inline]
    pub(super) fn call(&mut self) {
        if !std::mem::take(&mut self.owed) {
            return;
        }
        for rings in self.rings.iter_mut().filter(|rings| rings.owed) {
            rings.owed = false;
            rings.bell.call();
        }
    }

    /// Packets have come back.
    pub(super) fn has_packets(&self) -> bool {
        self.rings.iter().any(|rings| !rings.back.is_empty())
    }

    /// The next packet that came back.
    pub(super) fn take(&mut self) -> Option<Handed> {
        for _ in 0..self.rings.len() {
            self.turn = if self.turn + 1 < self.rings.len() { self.turn + 1 } else { 0 };
            if let Some(handed) = self.rings.get_mut(self.turn).and_then(|rings| rings.back.pop().ok()) {
                return Some(handed);
            }
        }
        None
    }
}
