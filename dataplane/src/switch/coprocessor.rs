//! Rings to coprocessors: threads that do for the packets of one virtual machine what costs too much for an engine.
//!
//! A packet goes there with what is still to be done with it, comes back the same way, and passes the rest of the pipeline.

use std::fmt;

use hugemem::Packet;
use rtrb::{Consumer, Producer, PushError};

use super::outputs::PortSlot;
use super::slots::Slot;
use crate::flow::{Action, Domain, FlowIndex};

/// Coprocessors that an engine has room for; they are numbered from 1.
pub const MOST_COPROCESSORS: usize = 256;

/// A packet on its way to a coprocessor or back.
#[derive(Debug)]
pub struct Handed {
    /// The packet, whole.
    pub packet: Packet,
    pub(super) action: Action,
    pub(super) index: Option<FlowIndex>,
    pub(super) from: PortSlot,
    pub(super) domain: Domain,
}

/// The engine's ends of the rings to one coprocessor.
pub struct CoprocessorRings {
    number: u16,
    to: Producer<Handed>,
    back: Consumer<Handed>,
}

/// The coprocessor's ends.
#[derive(Debug)]
pub struct CoprocessorEnd {
    /// Packets to work on.
    pub packets: Consumer<Handed>,
    /// Where they go back, in the same order.
    pub back: Producer<Handed>,
}

impl CoprocessorRings {
    /// Rings to coprocessor `number` for up to `room` packets each way.
    #[must_use]
    pub fn new(number: u16, room: usize) -> (Box<Self>, CoprocessorEnd) {
        let (to, packets) = rtrb::RingBuffer::new(room);
        let (give_back, back) = rtrb::RingBuffer::new(room);
        (Box::new(Self { number, to, back }), CoprocessorEnd { packets, back: give_back })
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
}

impl Coprocessors {
    pub(super) fn new() -> Self {
        Self { rings: Vec::with_capacity(MOST_COPROCESSORS), turn: 0 }
    }

    /// Adds a coprocessor.
    ///
    /// # Errors
    /// Gives the rings back when there is one of that number, or no room.
    pub(super) fn attach(&mut self, rings: Box<CoprocessorRings>) -> Result<(), Box<CoprocessorRings>> {
        match self.rings.binary_search_by_key(&rings.number, |rings| rings.number) {
            Err(place) if self.rings.len() < MOST_COPROCESSORS => {
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

    /// Hands a packet over.
    ///
    /// # Errors
    /// Gives it back when the coprocessor does not keep up, or is not there.
    pub(super) fn hand_over(&mut self, number: u16, packet: Packet, slot: &Slot) -> Result<(), Packet> {
        let place = self.rings.binary_search_by_key(&number, |rings| rings.number);
        let Some(rings) = place.ok().and_then(|place| self.rings.get_mut(place)) else { return Err(packet) };
        // What was done before is not to be done again.
        let [_, next] = slot.action.coprocessors();
        let action = Action { meter: 0, coprocessors: [next, 0], ..slot.action.into() };
        let handed = Handed { packet, action, index: None, from: slot.from, domain: slot.domain };
        rings.to.push(handed).map_err(|PushError::Full(handed)| handed.packet)
    }

    /// There is none.
    pub(super) fn is_empty(&self) -> bool {
        self.rings.is_empty()
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
