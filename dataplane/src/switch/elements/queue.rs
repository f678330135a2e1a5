//! Puts packets on the queue of their destination, sends them up, or lets them wait.

use hugemem::{Batch, Packet};

use super::{Context, Element};
use crate::flow::{FlowIndex, FlowKey};
use crate::switch::copy;
use crate::switch::reason::Reason;
use crate::switch::set::{MOST, Set};
use crate::switch::slots::{Slot, Slots, Verdict};
use crate::switch::stage::Stage;
use crate::switch::upcall::{Held, Hold, Link, Why};

/// The end of the pipeline.
#[derive(Debug)]
pub(in crate::switch) struct Queue {
    pub(in crate::switch) link: Link,
    pub(in crate::switch) hold: Hold,
    /// What is dropped goes home together.
    trash: Batch,
}

impl Queue {
    pub(in crate::switch) fn new(link: Link, hold: Hold) -> Self {
        Self { link, hold, trash: Batch::new(MOST) }
    }

    /// Drops a packet that was meant for something else till now.
    #[cold]
    fn refuse(&mut self, packet: Packet, slot: &mut Slot, reason: Reason, context: &mut Context<'_>) {
        slot.verdict = Verdict::Drop(reason);
        context.taps.drops(&packet, reason, (slot.from, slot.domain), context.now);
        self.discard(packet, reason, context);
    }

    /// Drops a packet.
    #[inline]
    fn discard(&mut self, packet: Packet, reason: Reason, context: &mut Context<'_>) {
        context.statistics.drop(reason);
        self.bin(packet);
    }

    #[inline]
    fn bin(&mut self, packet: Packet) {
        if let Err(packet) = self.trash.push(packet) {
            self.trash.clear();
            drop(packet);
        }
    }

    /// Makes a packet whole that outlives its batch, and that lies in the memory of a virtual machine or in one of the buffers that this has few of: the machine gets
    /// what it sent back in order, and nothing of that after a packet that is kept.
    fn keep(&mut self, packet: Packet, slot: &mut Slot, context: &mut Context<'_>) -> Option<Packet> {
        if !packet.may_be_foreign() {
            return Some(packet);
        }
        match copy::whole(&packet, context.pool) {
            Ok(whole) => {
                self.bin(packet);
                Some(whole)
            }
            Err(reason) => {
                self.refuse(packet, slot, reason, context);
                None
            }
        }
    }

    #[cold]
    fn raise(&mut self, packet: Packet, slot: &mut Slot, key: &FlowKey, why: Why, context: &mut Context<'_>) {
        let quota = context.layout.port(slot.from).map_or(0, |port| port.upcalls);
        if let Err(reason) = self.link.admits(slot.from, quota) {
            return self.refuse(packet, slot, reason, context);
        }
        let Some(packet) = self.keep(packet, slot, context) else { return };
        match self.link.raise(packet, (slot.from, slot.domain), *key, why, context.now, slot.done) {
            Ok(()) => context.statistics.flowing.raised += 1,
            Err(packet) => self.refuse(packet, slot, Reason::UpcallFull, context),
        }
    }

    #[cold]
    fn hold(&mut self, packet: Packet, slot: &mut Slot, index: FlowIndex, context: &mut Context<'_>) {
        let quota = context.layout.port(slot.from).map_or(0, |port| port.upcalls);
        // Before it costs a copy.
        if !self.hold.has_room(index, slot.from, quota) {
            return self.refuse(packet, slot, Reason::HoldFull, context);
        }
        let Some(packet) = self.keep(packet, slot, context) else { return };
        let held = Held { packet, from: slot.from, domain: slot.domain, since: context.now };
        match self.hold.push(index, held, quota) {
            Ok(()) => context.statistics.flowing.waited += 1,
            Err(held) => self.refuse(held.packet, slot, Reason::HoldFull, context),
        }
    }

    #[cold]
    fn hand_over(&mut self, packet: Packet, slot: &mut Slot, number: u16, context: &mut Context<'_>) {
        match context.coprocessors.hand_over(number, &packet, slot) {
            Ok(()) => {
                context.statistics.flowing.handed_over += 1;
                self.bin(packet);
            }
            Err(reason) => self.refuse(packet, slot, reason, context),
        }
    }
}

impl Element for Queue {
    const STAGE: Stage = Stage::Queue;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        Set::first(slots.packets.len())
    }

    #[inline]
    fn process(&mut self, _: Set, slots: &mut Slots, context: &mut Context<'_>) {
        let mut delivered = 0;
        let mut copies = std::mem::take(&mut slots.copies);
        let mut waiting = copies.drain(..).peekable();
        let mut places = 0..;
        let resumed = slots.resumed;
        slots.drain(|slot, key, packet| {
            let place = places.next();
            while let Some(copy) = waiting.next_if(|copy| Some(copy.place) == place) {
                copy::send(copy.packet, slot, copy.port, context);
            }
            match slot.verdict {
                Verdict::Port(port) => match context.outputs.push(port, packet) {
                    Ok(()) => delivered += 1,
                    Err(packet) => self.refuse(packet, slot, copy::no_room(port, context), context),
                },
                Verdict::Drop(reason) => self.discard(packet, reason, context),
                Verdict::Up(why) => {
                    if !place.is_some_and(|place| resumed.contains(place)) {
                        slot.done = 0;
                    }
                    self.raise(packet, slot, key, why, context);
                }
                Verdict::Hold(index) => self.hold(packet, slot, index, context),
                Verdict::Coprocessor(number) => self.hand_over(packet, slot, number, context),
                // Nobody knew what to do with it.
                Verdict::Open | Verdict::Replicate(_) => self.refuse(packet, slot, Reason::NoPort, context),
            }
        });
        drop(waiting);
        slots.copies = copies;
        context.statistics.flowing.delivered += delivered;
        context.statistics.flowing.held = self.hold.len() as u64;
        self.trash.clear();
    }
}
