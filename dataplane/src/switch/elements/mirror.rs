//! Copies packets to mirror ports.

use super::{Context, Element};
use crate::switch::copy;
use crate::switch::set::Set;
use crate::switch::slots::Slots;
use crate::switch::stage::Stage;

/// Copies packets to mirror ports, as they came: nothing in them was changed yet. A mirror port that is full loses its copies, and nobody else notices.
#[derive(Debug)]
pub(in crate::switch) struct Mirror;

impl Element for Mirror {
    const STAGE: Stage = Stage::Mirror;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.mirror)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        let layout = context.layout;
        for place in set.places() {
            let Some(packet) = slots.packets.as_slice().get(place) else { continue };
            let slot = slots.get(place);
            for port in layout.mirrors(slot.action.mirror()) {
                if let Some(copy) = copy::make(packet, slot, context, |_| Ok(())) {
                    copy::send(copy, slot, port, context);
                }
            }
        }
    }
}
