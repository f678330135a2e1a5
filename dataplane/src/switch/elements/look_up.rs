//! Finds the flow of each packet, and its action.

use super::{Context, Element};
use crate::flow::{Domain, FlowIndex, FlowKey, Reader};
use crate::headers::Headers;
use crate::switch::set::{MOST, Set};
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;
use crate::switch::upcall::Why;

/// Finds the flow of each packet, and its action.
#[derive(Debug)]
pub(in crate::switch) struct LookUp {
    pub(in crate::switch) reader: Reader,
    keys: Box<[FlowKey; MOST]>,
    found: Box<[Option<FlowIndex>; MOST]>,
}

impl LookUp {
    pub(in crate::switch) fn new(reader: Reader) -> Self {
        let key = FlowKey::of(&Headers::default(), &[], Domain::port(0));
        Self { reader, keys: Box::new([key; MOST]), found: Box::new([None; MOST]) }
    }
}

impl Element for LookUp {
    const STAGE: Stage = Stage::LookUp;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.without(slots.decided)
    }

    #[inline]
    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        let Self { reader, keys, found } = self;
        for (place, key) in set.places().zip(keys.iter_mut()) {
            let Some(packet) = slots.packets.as_slice().get(place) else { continue };
            let slot = slots.get(place);
            *key = FlowKey::of(&slot.headers, packet.bytes(), slot.domain);
        }
        let count = set.len();
        let (Some(keys), Some(found)) = (keys.get(..count), found.get_mut(..count)) else { return };
        reader.lookup(keys, found);
        for (place, found) in set.places().zip(found) {
            let Some(index) = *found else {
                slots.settle(place, Verdict::Up(Why::Miss));
                continue;
            };
            if reader.state(index).holds(reader.number()) && !slots.returned.contains(place) {
                slots.settle(place, Verdict::Hold(index));
                continue;
            }
            let action = reader.action(index);
            context.statistics.flowing.matched += 1;
            slots.act(place, action, Some(index));
        }
    }
}
