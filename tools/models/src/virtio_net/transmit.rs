//! Transmit queues: frames go from the driver's memory to the wire (section 5.1.6.2).

use super::core::Core;
use super::header::NetHeader;
use super::specification::Features;
use super::wire::{Outgoing, Wire};
use crate::memory::Access;

impl Core {
    /// Takes up to `budget` frames from a transmit queue; returns how many.
    pub(super) fn transmit<W: Wire>(&mut self, pair: u16, index: usize, wire: &mut W, budget: usize) -> usize {
        let mut done = 0;
        loop {
            let (count, exhausted) = match self.transmit_batch(pair, index, wire, budget - done) {
                Ok(result) => result,
                Err(reason) => {
                    self.publish(index);
                    self.break_queue(index, reason);
                    return done;
                }
            };
            done += count;
            if count > 0 {
                self.publish(index);
            }
            if !exhausted || done >= budget || !self.found_empty(index) {
                return done;
            }
        }
    }

    fn transmit_batch<W: Wire>(
        &mut self,
        pair: u16,
        index: usize,
        wire: &mut W,
        budget: usize,
    ) -> Result<(usize, bool), &'static str> {
        let features = self.negotiated();
        let header_bytes = features.header_bytes();
        let active = self.net.transmit_queues(features);
        let learns = self.net.steering.pairs > 1;
        let batches = features.contains(Features::IN_ORDER) && self.config.batch_in_order && self.trick.is_honest();
        let Some(queue) = self.queues.get_mut(index) else { return Ok((0, false)) };
        let Some(ring) = &mut queue.ring else { return Ok((0, false)) };
        let chain = &mut queue.chain;
        let (mut done, mut exhausted) = (0, false);
        // With in-order use: the last buffer taken, and the slots and buffers since the last entry.
        let mut pending: Option<(u16, u16, u16)> = None;
        let mut complaint = None;
        while done < budget {
            if !ring.peek(&self.memory, chain)? {
                exhausted = true;
                break;
            }
            let total = chain.readable_len();
            if chain.elements.last().is_some_and(|last| last.writable) {
                return Err("a transmit buffer with a writable part");
            }
            if total < header_bytes {
                return Err("a transmit buffer shorter than its header");
            }
            let mapped = |element: &super::wire::Element| {
                self.memory.span(element.address, element.len as usize, Access::Read).is_some()
            };
            if !chain.elements.iter().all(mapped) {
                return Err("a transmit buffer is not mapped for the device");
            }
            let mut frame = Outgoing {
                pair,
                header: NetHeader::default(),
                memory: &self.memory,
                elements: &chain.elements,
                skip: 0,
                len: total - header_bytes,
            };
            let mut head = [0; 12];
            frame.copy_to(0, &mut head);
            frame.header = NetHeader::parse(&head).0;
            frame.skip = header_bytes;
            let wrong = if head[..2] == [0, 0] { None } else { frame.header.transmit_error(features, frame.len) };
            if let Some(reason) = wrong {
                self.counters.bad_header += 1;
                complaint = Some(reason);
            } else if pair >= active {
                complaint = Some("a frame on a transmit queue that is not active");
            } else if !self.net.link_up {
                self.counters.link_down += 1;
            } else {
                if !wire.transmit(&frame) {
                    break;
                }
                self.counters.transmitted += 1;
                if learns {
                    let mut start = [0; 64];
                    let len = frame.copy_to(0, &mut start);
                    self.net.steering.learn(&start[..len], pair);
                }
            }
            ring.advance(chain);
            done += 1;
            if batches {
                let (slots, chains) = pending.map_or((0, 0), |(_, slots, chains)| (slots, chains));
                pending = Some((chain.id, slots + chain.slots, chains + 1));
            } else if self.trick.is_honest() {
                ring.complete(chain.id, 0, chain.slots, 1);
            } else {
                self.trick.complete(ring, chain.id, 0, chain.slots, 0);
            }
        }
        if let Some((id, slots, chains)) = pending {
            ring.complete(id, 0, slots, chains);
        }
        if let Some(reason) = complaint
            && self.trick.is_honest()
        {
            self.violation(format!("queue {index}: {reason}"));
        }
        Ok((done, exhausted))
    }
}
