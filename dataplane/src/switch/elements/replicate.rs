//! Copies packets for several destinations.

use hugemem::Packet;

use super::policy::longest;
use super::{Context, Element};
use crate::overlay::encapsulate;
use crate::switch::copy::{self, Due};
use crate::switch::layout::{Layout, Member, Target};
use crate::switch::outputs::PortSlot;
use crate::switch::reason::Reason;
use crate::switch::rewrite::retag;
use crate::switch::set::Set;
use crate::switch::slots::{Slot, Slots, Verdict};
use crate::switch::stage::Stage;

/// Copies that one batch may ask for.
pub(in crate::switch) const MOST_COPIES: usize = 1024;

/// Copies packets for each member of a set but the port that they came from. The last member gets the packet itself. [`Queue`](super::Queue) sends the copies.
#[derive(Debug)]
pub(in crate::switch) struct Replicate;

impl Element for Replicate {
    const STAGE: Stage = Stage::Replicate;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.replicate)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        let layout = context.layout;
        let mut budget = MOST_COPIES;
        for place in set.places() {
            let slot = *slots.get(place);
            let Verdict::Replicate(number) = slot.verdict else { continue };
            let Some(members) = layout.sets.get(usize::from(number)) else {
                slots.drop(place, Reason::NoPort);
                continue;
            };
            let Some(packet) = slots.packets.as_mut_slice().get_mut(place) else { continue };
            let mut others = members.iter().filter(|member| member.target != Target::Port(slot.from));
            let Some(mut last) = others.next() else {
                slots.drop(place, Reason::Filtered);
                continue;
            };
            for next in others {
                let member = std::mem::replace(&mut last, next);
                if budget == 0 {
                    copy::refuse(Reason::TooManyCopies, context);
                    continue;
                }
                budget -= 1;
                if let Some(copy) = copy::make(packet, &slot, context, |copy| prepare(copy, member, &slot, layout)) {
                    // It is sent when it is the packet's turn: one before may be of the same flow, and go to a port alone.
                    slots.copies.push(Due { place, port: port_of(member, layout), packet: copy });
                }
            }
            match prepare(packet, last, &slot, layout) {
                Ok(()) => slots.get_mut(place).verdict = Verdict::Port(port_of(last, layout)),
                Err(reason) => slots.drop(place, reason),
            }
        }
    }
}

fn port_of(member: &Member, layout: &Layout) -> PortSlot {
    match member.target {
        Target::Port(port) => port,
        // A tunnel that is not there is noticed in `prepare`.
        Target::Tunnel(number) => layout.tunnels.get(usize::from(number)).map_or(PortSlot(0), |tunnel| tunnel.port),
    }
}

/// Makes of a copy what its destination is to get.
fn prepare(packet: &mut Packet, member: &Member, slot: &Slot, layout: &Layout) -> Result<(), Reason> {
    retag(packet, member.vlan).map_err(|_| Reason::CannotRewrite)?;
    let Target::Tunnel(number) = member.target else { return Ok(()) };
    let tunnel = layout.tunnels.get(usize::from(number)).ok_or(Reason::NoPort)?;
    if longest(packet, &slot.headers) > usize::from(tunnel.longest) {
        return Err(Reason::TooLong);
    }
    encapsulate(packet, &tunnel.template, slot.hash).map_err(Reason::from)
}
