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
            let Some((packet, slot, key)) = slots.at_mut(place) else { continue };
            if take_in(packet).is_err() {
                slots.drop(place, Reason::NoHeadroom);
                continue;
            }
            let headers = parse(packet.bytes(), packet.len());
            match decapsulate(packet, &headers, &context.layout.terminations) {
                Ok(Some(arrival)) => slot.domain = Domain::tunnel(arrival.tunnel),
                Ok(None) => {
                    *key = FlowKey::of(&headers, packet.bytes(), slot.domain);
                    slot.headers = headers;
                    slots.settle(place, Verdict::Up(Why::Underlay));
                }
                Err(reason) => slots.drop(place, reason.into()),
            }
        }
    }
}
