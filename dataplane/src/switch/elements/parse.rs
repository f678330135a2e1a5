//! Reads headers, and makes the keys of flows.

use super::{Context, Element};
use crate::headers::parse_into;
use crate::switch::reason::Reason;
use crate::switch::rewrite::take_in;
use crate::switch::set::Set;
use crate::switch::slots::Slots;
use crate::switch::stage::Stage;

/// How many packets ahead bytes are fetched.
const AHEAD: usize = 4;

/// Reads headers and makes the keys of flows, while the bytes are at hand; drops what makes no sense.
#[derive(Debug)]
pub(in crate::switch) struct Parse;

impl Element for Parse {
    const STAGE: Stage = Stage::Parse;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live
    }

    #[inline]
    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        for place in set.places() {
            if let Some(packet) = slots.packets.as_slice().get(place + AHEAD) {
                packet.prefetch();
            }
            let Some((packet, slot, key)) = slots.at_mut(place) else { continue };
            if packet.metadata().vlan.is_some() && take_in(packet).is_err() {
                slots.drop(place, Reason::NoHeadroom);
                continue;
            }
            parse_into(&mut slot.headers, packet.bytes(), packet.len());
            if let Some(malformed) = slot.headers.malformed {
                if let Some(count) = context.statistics.malformed.get_mut(malformed.number()) {
                    *count += 1;
                }
                slots.drop(place, Reason::Malformed);
                continue;
            }
            key.become_of(&slot.headers, packet.bytes(), slot.domain);
        }
    }
}
