//! Checks that decisions can be carried out, before anything is changed; and counts for flows.

use hugemem::Packet;

use super::{Context, Element, LookUp};
use crate::flow::{FlowIndex, FlowKey, Output};
use crate::headers::{Headers, NetworkKind};
use crate::switch::outputs::PortSlot;
use crate::switch::reason::Reason;
use crate::switch::set::Set;
use crate::switch::slots::{Slots, Verdict};
use crate::switch::stage::Stage;
use crate::switch::upcall::Why;

/// A number for a flow, the same for all its packets. It picks the way of a tunnel's datagrams, and need not be secret.
#[inline]
fn hash(key: &FlowKey) -> u32 {
    let mixed =
        key.words().iter().fold(0, |sum: u64, word| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29));
    let [.., a, b, c, d] = mixed.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Checks that decisions can be carried out.
#[derive(Debug)]
pub(in crate::switch) struct Policy;

impl Element for Policy {
    const STAGE: Stage = Stage::Policy;

    #[inline]
    fn wanted(&self, slots: &Slots) -> Set {
        slots.live
    }

    #[inline]
    fn process(&mut self, _: Set, slots: &mut Slots, context: &mut Context<'_>) {
        // Their verdicts stand already.
        slots.live = slots.live.without(slots.wants.end);
        for place in slots.live.and(slots.wants.rewrite).places() {
            let slot = slots.get(place);
            let is_ip = matches!(slot.headers.network, NetworkKind::Ipv4 | NetworkKind::Ipv6);
            if !slot.action.decrements_ttl() || !is_ip {
                continue;
            }
            if slot.headers.ttl <= 1 {
                slots.settle(place, Verdict::Up(Why::TimeExceeded));
            } else if let Some(room) = too_long_for_port(place, slots, context) {
                slots.settle(place, Verdict::Up(Why::TooBig(room)));
            }
        }
        let far = slots.wants.tunnel.or(slots.wants.replicate);
        if !far.is_empty() {
            tunnels(slots.live.and(far), slots, context);
        }
    }
}

/// Bytes of the longest frame that the port takes which a packet is routed to, when it is longer.
fn too_long_for_port(place: usize, slots: &Slots, context: &Context<'_>) -> Option<u16> {
    let slot = slots.get(place);
    let Output::Port(to) = slot.action.output() else { return None };
    let mtu = context.layout.port(PortSlot(to)).map_or(0, |port| port.mtu);
    let room = mtu.saturating_add(slot.headers.network_at);
    let packet = slots.packets.as_slice().get(place)?;
    (mtu > 0 && longest(packet, &slot.headers) > usize::from(room)).then_some(room)
}

/// Checks that packets fit through their tunnel, and names their flows.
fn tunnels(set: Set, slots: &mut Slots, context: &Context<'_>) {
    for place in set.places() {
        let Some(packet) = slots.packets.as_slice().get(place) else { continue };
        let slot = slots.get(place);
        let hash = hash(slots.key(place));
        if let Output::Tunnel(number) = slot.action.output() {
            let Some(tunnel) = context.layout.tunnels.get(usize::from(number)) else {
                slots.drop(place, Reason::NoPort);
                continue;
            };
            if longest(packet, &slot.headers) > usize::from(tunnel.longest) {
                slots.settle(place, Verdict::Up(Why::TooBig(tunnel.longest)));
                continue;
            }
        }
        slots.get_mut(place).hash = hash;
    }
}

/// Bytes of the longest frame that the packet will be on a wire: of one that is to be cut, its segments.
pub(super) fn longest(packet: &Packet, headers: &Headers) -> usize {
    match packet.metadata().segmentation {
        Some(segmentation) => packet.len().min(usize::from(headers.payload_at) + usize::from(segmentation.size)),
        None => packet.len(),
    }
}

impl LookUp {
    /// Counts the packets in `set` for their flows, those in a row together.
    #[inline]
    pub(in crate::switch) fn count(&mut self, set: Set, slots: &Slots, now: u64) {
        let mut run: Option<(FlowIndex, u64, u64)> = None;
        for place in set.places() {
            let Some(index) = slots.get(place).index else { continue };
            let bytes = slots.packets.as_slice().get(place).map_or(0, Packet::len) as u64;
            match &mut run {
                Some((flow, packets, sum)) if *flow == index => {
                    *packets += 1;
                    *sum += bytes;
                }
                _ => {
                    if let Some((flow, packets, sum)) = run.replace((index, 1, bytes)) {
                        self.reader.count(flow, packets, sum, now);
                    }
                }
            }
        }
        if let Some((flow, packets, sum)) = run {
            self.reader.count(flow, packets, sum, now);
        }
    }
}
