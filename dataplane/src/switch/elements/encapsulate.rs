//! Puts the headers of tunnels in front.

use super::{Context, Element};
use crate::flow::Output;
use crate::overlay::encapsulate;
use crate::switch::reason::Reason;
use crate::switch::set::Set;
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;

/// Puts the headers of tunnels in front.
#[derive(Debug)]
pub(in crate::switch) struct Encapsulate;

impl Element for Encapsulate {
    const STAGE: Stage = Stage::Encapsulate;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live.and(slots.wants.tunnel)
    }

    fn process(&mut self, set: Set, slots: &mut Slots, context: &mut Context<'_>) {
        for place in set.places() {
            let slot = slots.get(place);
            let Output::Tunnel(number) = slot.action.output() else { continue };
            let hash = slot.hash;
            let Some(tunnel) = context.layout.tunnels.get(usize::from(number)) else {
                slots.drop(place, Reason::NoPort);
                continue;
            };
            let Some(packet) = slots.packets.as_mut_slice().get_mut(place) else { continue };
            match encapsulate(packet, &tunnel.template, hash) {
                Ok(()) => slots.get_mut(place).verdict = Verdict::Port(tunnel.port),
                Err(reason) => slots.drop(place, reason.into()),
            }
        }
    }
}
