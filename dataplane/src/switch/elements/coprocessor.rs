//! Hands packets to coprocessors.

use super::{Context, Element};
use crate::switch::set::Set;
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;

/// Marks packets for coprocessors. They leave the pipeline at its end, and come back to it behind this element.
#[derive(Debug)]
pub(in crate::switch) struct HandOver;

impl Element for HandOver {
    const STAGE: Stage = Stage::Coprocessor;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.coprocessor)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, _: &mut Context<'_>) {
        for place in set.places() {
            let [number, _] = slots.get(place).action.coprocessors();
            slots.settle(place, Verdict::Coprocessor(number));
        }
    }
}
