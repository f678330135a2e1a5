//! Takes the headers of tunnels off.

use super::{Context, Element};
use crate::flow::{Domain, FlowKey};
use crate::headers::parse;
use crate::overlay::decapsulate;
use crate::switch::reason::Reason;
use crate::switch::rewrite::take_in;
use crate::switch::set::Set;
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;
use crate::switch::upcall::Why;

/// Takes the headers of tunnels off what underlay ports received. Control gets what is not in a tunnel.
#[derive(Debug)]
pub(in crate::switch) struct Decapsulate;

impl Element for Decapsulate {
    const STAGE: Stage = Stage::Decapsulate;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.underlay
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        for place in set.places() {
            let domain = slots.get(place).domain;
            let Some(packet) = slots.packets.as_mut_slice().get_mut(place) else { continue };
            if take_in(packet).is_err() {
                slots.drop(place, Reason::NoHeadroom);
                continue;
            }
            let headers = parse(packet.bytes(), packet.len());
            match decapsulate(packet, &headers, &context.layout.terminations) {
                Ok(Some(arrival)) => slots.get_mut(place).domain = Domain::tunnel(arrival.tunnel),
                Ok(None) => {
                    let key = FlowKey::of(&headers, packet.bytes(), domain);
                    slots.know(place, &headers, &key);
                    slots.settle(place, Verdict::Up(Why::Underlay));
                }
                Err(reason) => slots.drop(place, reason.into()),
            }
        }
    }
}
