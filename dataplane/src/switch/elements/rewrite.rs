//! Changes addresses, tags and time to live.

use super::{Context, Element};
use crate::switch::reason::Reason;
use crate::switch::rewrite::rewrite;
use crate::switch::set::Set;
use crate::switch::slots::Slots;
use crate::switch::stage::Stage;

/// Changes addresses, tags and time to live.
#[derive(Debug)]
pub(in crate::switch) struct Rewriting;

impl Element for Rewriting {
    const STAGE: Stage = Stage::Rewrite;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.rewrite)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        for place in set.places() {
            let slot = *slots.get(place);
            let Some(packet) = slots.packets.as_mut_slice().get_mut(place) else { continue };
            let done = rewrite(packet, &slot.headers, &slot.action.rewrite(), &context.layout.translations);
            if done.is_err() {
                slots.drop(place, Reason::CannotRewrite);
            }
        }
    }
}
