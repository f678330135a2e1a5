//! Receive queues: frames go from the wire into the driver's buffers (section 5.1.6.4).

use super::config::WhenFull;
use super::core::Core;
use super::ring::Broken;
use super::specification::Features;
use super::wire::{Incoming, Wire};
use crate::memory::Access;

/// What became of a frame.
enum Delivery {
    Delivered,
    NoBuffer,
    Unfit,
}

/// Largest payload that is not cut, plus Ethernet header and one VLAN tag.
const LINK_HEADER: usize = 18;

impl Core {
    /// Delivers up to `budget` frames; returns how many.
    pub(super) fn receive<W: Wire>(&mut self, wire: &mut W, budget: usize) -> usize {
        let mut done = 0;
        let mut touched = 0_u64;
        let mut looked_again = false;
        while done < budget {
            let Some(incoming) = wire.peek() else { break };
            if !self.admits(&incoming) {
                wire.advance();
                continue;
            }
            let (pair, value, report) = self.steer(&incoming);
            let index = 2 * usize::from(pair);
            match self.deliver(index, &incoming, value, report) {
                Ok(Delivery::Delivered) => {
                    self.counters.received += 1;
                    match 1_u64.checked_shl(pair.into()) {
                        Some(bit) => touched |= bit,
                        None => self.publish(index),
                    }
                    done += 1;
                    looked_again = false;
                    wire.advance();
                }
                Ok(Delivery::Unfit) => {
                    self.counters.unfit += 1;
                    wire.advance();
                }
                Ok(Delivery::NoBuffer) => {
                    // The driver may wait for the used entries before it makes more room, so they go out first.
                    self.publish_touched(&mut touched);
                    // Once only: what is there may be buffers, and yet too few for this frame.
                    if !looked_again && self.found_empty(index) {
                        looked_again = true;
                        continue;
                    }
                    if self.config.when_full == WhenFull::Wait {
                        self.counters.waits += 1;
                        break;
                    }
                    self.counters.no_buffer += 1;
                    wire.advance();
                }
                Err(reason) => {
                    self.publish_touched(&mut touched);
                    self.break_queue(index, reason);
                    break;
                }
            }
        }
        self.publish_touched(&mut touched);
        done
    }

    fn publish_touched(&mut self, touched: &mut u64) {
        let mut pair = 0;
        while *touched != 0 {
            let skip = touched.trailing_zeros() as usize;
            pair += skip;
            *touched = (*touched >> skip) & !1;
            self.publish(2 * pair);
        }
    }

    /// The frame gets past link, MTU, negotiated offloads and address filter.
    #[inline]
    fn admits(&mut self, incoming: &Incoming<'_>) -> bool {
        if !self.net.link_up {
            self.counters.link_down += 1;
            return false;
        }
        let features = self.negotiated();
        let plain = incoming.header.gso_type == 0;
        let oversize = plain && incoming.bytes.len() > usize::from(self.config.mtu) + LINK_HEADER;
        if oversize
            || incoming.bytes.len() > 1 << 17
            || !(plain && incoming.header.flags == 0 || incoming.header.can_be_received(features))
        {
            self.counters.unfit += 1;
            return false;
        }
        if !self.net.promiscuous && !self.net.accepts(incoming.bytes) {
            self.counters.filtered += 1;
            return false;
        }
        true
    }

    #[inline]
    fn steer(&self, incoming: &Incoming<'_>) -> (u16, u32, u16) {
        let steering = &self.net.steering;
        if steering.is_trivial() {
            return (0, 0, 0);
        }
        let (pair, value, report) = steering.choose(incoming.bytes);
        (incoming.pair.filter(|pair| *pair < steering.pairs).unwrap_or(pair), value, report)
    }

    fn deliver(&mut self, index: usize, incoming: &Incoming<'_>, value: u32, report: u16) -> Result<Delivery, Broken> {
        if !self.is_awake(index) {
            return Ok(Delivery::NoBuffer);
        }
        let features = self.negotiated();
        let header_bytes = features.header_bytes();
        let wanted = header_bytes + incoming.bytes.len();
        let Some(queue) = self.queues.get_mut(index) else { return Ok(Delivery::NoBuffer) };
        let Some(ring) = &mut queue.ring else { return Ok(Delivery::NoBuffer) };
        let chain = &mut queue.chain;
        let start = ring.mark();
        if !ring.peek(&self.memory, chain)? {
            return Ok(Delivery::NoBuffer);
        }
        let mut header = incoming.header;
        header.hash_value = value;
        header.hash_report = report;
        if let [only] = chain.elements[..]
            && only.writable
            && only.len as usize >= wanted
        {
            // The common case: one descriptor holds it all.
            let buffers = if self.trick.is_honest() { 1 } else { self.trick.header(&mut header, 1) };
            let Some(span) = self.memory.span(only.address, wanted, Access::Write) else {
                return Err("a receive buffer is not mapped for the device");
            };
            let image = header.bytes(buffers);
            if header_bytes == 12 {
                span.write(0, &image[..12]);
            } else {
                span.write(0, &image);
            }
            span.write(header_bytes, incoming.bytes);
            ring.advance(chain);
            let len = u32::try_from(wanted).unwrap_or(u32::MAX);
            if self.trick.is_honest() {
                ring.complete(chain.id, len, chain.slots, 1);
            } else {
                self.trick.complete(ring, chain.id, len, chain.slots, only.len);
            }
            return Ok(Delivery::Delivered);
        }
        // Several descriptors or, when negotiated, several buffers.
        let mergeable = features.contains(Features::MRG_RXBUF);
        let mut first = std::mem::take(&mut self.net.first);
        let mut used = std::mem::take(&mut self.net.used);
        used.clear();
        let mut at = 0;
        let result = loop {
            let room = chain.writable_len();
            if chain.elements.first().is_none_or(|element| !element.writable) {
                break Err("a receive buffer with a readable part");
            }
            if used.is_empty() && room < header_bytes {
                break Err("a receive buffer shorter than the header");
            }
            if !mergeable && room < wanted {
                break Ok(Delivery::Unfit);
            }
            let part = room.min(wanted - at);
            let skipped = if used.is_empty() { header_bytes } else { 0 };
            let from = at.saturating_sub(header_bytes);
            let body = incoming.bytes.get(from..from + part - skipped).unwrap_or(&[]);
            if !chain.write_at(&self.memory, skipped, body) {
                break Err("a receive buffer is not mapped for the device");
            }
            if used.is_empty() {
                first.elements.clone_from(&chain.elements);
            }
            used.push((
                chain.id,
                u32::try_from(part).unwrap_or(u32::MAX),
                chain.slots,
                u32::try_from(room).unwrap_or(u32::MAX),
            ));
            at += part;
            ring.advance(chain);
            if at == wanted {
                break Ok(Delivery::Delivered);
            }
            if used.len() >= usize::from(ring.size()) {
                ring.rewind(start);
                break Ok(Delivery::Unfit);
            }
            match ring.peek(&self.memory, chain) {
                Ok(true) => {}
                Ok(false) => {
                    ring.rewind(start);
                    break Ok(Delivery::NoBuffer);
                }
                Err(reason) => break Err(reason),
            }
        };
        if matches!(result, Ok(Delivery::Delivered)) {
            let mut buffers = u16::try_from(used.len()).unwrap_or(u16::MAX);
            if !self.trick.is_honest() {
                buffers = self.trick.header(&mut header, buffers);
            }
            first.write_at(&self.memory, 0, &header.bytes(buffers)[..header_bytes]);
            for (id, len, slots, room) in used.iter().copied() {
                if self.trick.is_honest() {
                    ring.complete(id, len, slots, 1);
                } else {
                    self.trick.complete(ring, id, len, slots, room);
                }
            }
        }
        self.net.first = first;
        self.net.used = used;
        result
    }
}
