//! Applies rate limits.

use super::{Context, Element};
use crate::switch::meter::Meters;
use crate::switch::reason::Reason;
use crate::switch::set::Set;
use crate::switch::slots::Slots;
use crate::switch::stage::Stage;

/// Applies rate limits.
#[derive(Debug)]
pub(in crate::switch) struct Metering {
    pub(in crate::switch) meters: Meters,
}

impl Element for Metering {
    const STAGE: Stage = Stage::Meter;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.meter).without(slots.resumed)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        for place in set.places() {
            let Some(packet) = slots.packets.as_slice().get(place) else { continue };
            if !self.meters.pass(slots.get(place).action.meter(), packet.len(), context.now) {
                slots.drop(place, Reason::RateLimited);
            }
        }
    }
}
