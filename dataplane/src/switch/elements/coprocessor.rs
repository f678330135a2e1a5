//! Hands packets to coprocessors.

use super::{Context, Element};
use crate::switch::set::Set;
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;

/// Marks packets for coprocessors. They leave the pipeline at its end, and go on behind this element when they come back.
#[derive(Default, Debug)]
pub(in crate::switch) struct HandOver {
    /// Nothing is handed over: it is only said what would be.
    pub(in crate::switch) skips: bool,
}

impl Element for HandOver {
    const STAGE: Stage = Stage::Coprocessor;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.coprocessor)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, _: &mut Context<'_>) {
        if self.skips {
            return;
        }
        for place in set.places() {
            let slot = slots.get(place);
            let next = match slot.action.coprocessors() {
                [first, _] if !slots.resumed.contains(place) => first,
                [first, second] if first == slot.done => second,
                // It has passed the last one, or the decision is another one by now.
                _ => 0,
            };
            if next != 0 {
                slots.settle(place, Verdict::Coprocessor(next));
            }
        }
    }
}
