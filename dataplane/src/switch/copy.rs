//! Copies of packets for further destinations.

use drivers::nic::DropReason;
use hugemem::{Packet, PacketPool};

use super::elements::Context;
use super::outputs::PortSlot;
use super::reason::Reason;
use super::slots::Slot;
use crate::whole::{self, Shortage};

/// A copy of a packet in buffers of ours.
pub(super) fn whole(packet: &Packet, pool: &mut PacketPool) -> Result<Packet, Reason> {
    whole::copy(pool, packet, packet.len()).map_err(|shortage| match shortage {
        Shortage::Now | Shortage::Never(DropReason::NoBuffer) => Reason::NoBuffer,
        Shortage::Never(DropReason::TooLong) => Reason::TooLong,
        Shortage::Never(_) => Reason::MemoryLost,
    })
}

/// A copy that waits for its turn behind the packets before the one that it was made of.
#[derive(Debug)]
pub(super) struct Due {
    /// The place of the packet that it was made of.
    pub(super) place: usize,
    pub(super) port: PortSlot,
    pub(super) packet: Packet,
}

/// A copy of a packet, changed by `prepare`. One that cannot be made is counted as made and dropped.
pub(super) fn make(
    packet: &Packet,
    slot: &Slot,
    context: &mut Context<'_>,
    prepare: impl FnOnce(&mut Packet) -> Result<(), Reason>,
) -> Option<Packet> {
    let copy = whole(packet, context.pool).and_then(|mut copy| prepare(&mut copy).map(|()| copy));
    context.statistics.flowing.copied += 1;
    copy.inspect_err(|reason| {
        context.taps.drops(packet, *reason, (slot.from, slot.domain), context.now);
        context.statistics.drop(*reason);
    })
    .ok()
}

/// Sends a copy to `port`.
pub(super) fn send(copy: Packet, slot: &Slot, port: PortSlot, context: &mut Context<'_>) {
    let (origin, now) = ((slot.from, slot.domain), context.now);
    context.taps.leaves(&copy, port, origin, now);
    match context.outputs.push(port, copy) {
        Ok(()) => context.statistics.flowing.delivered += 1,
        Err(copy) => {
            let reason = no_room(port, context);
            context.taps.drops(&copy, reason, origin, now);
            context.statistics.drop(reason);
        }
    }
}

/// Counts a copy that is not made.
pub(super) fn refuse(reason: Reason, context: &mut Context<'_>) {
    context.statistics.flowing.copied += 1;
    context.statistics.drop(reason);
}

/// Why the outputs did not take a packet for `port`.
#[cold]
pub(super) fn no_room(port: PortSlot, context: &Context<'_>) -> Reason {
    if usize::from(port.0) < context.outputs.ports() { Reason::OutputFull } else { Reason::NoPort }
}
