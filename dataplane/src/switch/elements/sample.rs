//! Notes how long packets took.

use super::{Context, Element};
use crate::clock::cycles;
use crate::switch::set::Set;
use crate::switch::slots::Slots;
use crate::switch::stage::Stage;

/// Notes how long packets took from the receipt of their batch to here.
#[derive(Debug)]
pub(in crate::switch) struct Sample;

impl Element for Sample {
    const STAGE: Stage = Stage::Sample;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.sampled)
    }

    fn process(&mut self, set: Set, _: &mut Slots, context: &mut Context<'_>) {
        let took = cycles().saturating_sub(context.now);
        for _ in set.places() {
            context.cells.through.record(took);
        }
    }
}
