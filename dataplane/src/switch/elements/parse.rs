//! Reads headers, and makes the keys of flows.

use super::{Context, Element};
use crate::flow::FlowKey;
use crate::headers::parse;
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
            let domain = slots.get(place).domain;
            let packets = slots.packets.as_mut_slice();
            if let Some(packet) = packets.get(place + AHEAD) {
                packet.prefetch();
            }
            let Some(packet) = packets.get_mut(place) else { continue };
            if packet.metadata().vlan.is_some() && take_in(packet).is_err() {
                slots.drop(place, Reason::NoHeadroom);
                continue;
            }
            let headers = parse(packet.bytes(), packet.len());
            if let Some(malformed) = headers.malformed {
                if let Some(count) = context.statistics.malformed.get_mut(malformed.number()) {
                    *count += 1;
                }
                slots.drop(place, Reason::Malformed);
                slots.get_mut(place).headers = headers;
                continue;
            }
            let key = FlowKey::of(&headers, packet.bytes(), domain);
            slots.know(place, &headers, &key);
        }
    }
}
