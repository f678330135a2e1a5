//! Finds the flow of each packet, and its action.

use super::{Context, Element};
use crate::flow::{FlowIndex, FlowKey, Reader};
use crate::switch::set::{MOST, Set};
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;
use crate::switch::upcall::Why;

/// Finds the flow of each packet, and its action.
#[derive(Debug)]
pub(in crate::switch) struct LookUp {
    pub(in crate::switch) reader: Reader,
    /// Keys that are not all of the batch's, one after the other.
    some: Box<[FlowKey; MOST]>,
    found: Box<[Option<FlowIndex>; MOST]>,
}

impl LookUp {
    pub(in crate::switch) fn new(reader: Reader) -> Self {
        Self { reader, some: Box::new([FlowKey::NONE; MOST]), found: Box::new([None; MOST]) }
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
        let Self { reader, some, found } = self;
        let count = set.len();
        let keys = if set == Set::first(count) {
            slots.keys()
        } else {
            for (place, key) in set.places().zip(some.iter_mut()) {
                *key = *slots.key(place);
            }
            &*some
        };
        let (Some(keys), Some(found)) = (keys.get(..count), found.get_mut(..count)) else { return };
        reader.lookup(keys, found);
        let mut matched = 0;
        for (place, found) in set.places().zip(found) {
            let Some(index) = *found else {
                slots.settle(place, Verdict::Up(Why::Miss));
                continue;
            };
            let (action, state) = reader.decision(index);
            if state.holds(reader.number()) && !slots.returned.contains(place) {
                slots.settle(place, Verdict::Hold(index));
                continue;
            }
            matched += 1;
            slots.act(place, action, Some(index));
        }
        context.statistics.flowing.matched += matched;
    }
}
