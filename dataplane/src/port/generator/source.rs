//! Makes frames.

use std::sync::Arc;

use drivers::nic::{Counters, DropReason, RxQueue};
use hugemem::{Batch, PacketPool};

use super::frame::{self, HEAD, Identity, Writer};
use super::pacer::Pacer;
use super::{Share, SourceCounters};
use crate::clock::{self, CycleClock};
use crate::port::{FrameSize, GeneratorSpec, Rate};

/// The generating half of a queue pair: "receives" frames that it makes itself.
///
/// The pattern behind the first 60 bytes is written once into every buffer; after that, a frame costs its first line of memory.
#[derive(Debug)]
pub struct Source {
    pool: PacketPool,
    pacer: Pacer,
    writer: Writer,
    size: FrameSize,
    /// State of the generator of frame lengths.
    random: u32,
    /// First flow of this queue, distance to its next, and how many there are in the port.
    first_flow: u32,
    flow_step: u32,
    flows: u32,
    flow: u32,
    sequence: u64,
    /// Frames still to make.
    left: u64,
    counters: Counters,
    shared: Arc<SourceCounters>,
}

impl Source {
    pub(super) fn new(
        spec: &GeneratorSpec,
        share: Share,
        clock: CycleClock,
        mut pool: PacketPool,
        shared: Arc<SourceCounters>,
    ) -> Self {
        write_pattern(&mut pool, spec.size.longest);
        let rate = match spec.rate {
            Rate::Maximum => Rate::Maximum,
            // Every queue sends at last; one frame a second more than asked for is no matter.
            Rate::PerSecond(rate) => Rate::PerSecond(share.of(rate).max(1)),
        };
        let index = u32::try_from(share.index).unwrap_or(0);
        let queues = u32::try_from(share.total).unwrap_or(1);
        Self {
            pool,
            pacer: Pacer::new(rate, clock),
            writer: Writer::new(spec.size.longest),
            size: spec.size,
            random: 0x9e37_79b9_u32.wrapping_add(index),
            first_flow: index,
            flow_step: queues,
            // Every queue has a flow of its own at least.
            flows: spec.flows.max(queues),
            flow: index,
            sequence: 0,
            left: spec.count.map_or(u64::MAX, |count| share.of(count)),
            counters: Counters::default(),
            shared,
        }
    }

    /// Length of the next frame.
    #[inline]
    fn next_len(&mut self) -> u16 {
        let FrameSize { shortest, longest } = self.size;
        if shortest == longest {
            return shortest;
        }
        // xorshift32 (Marsaglia 2003): cheap, and the same sequence on every run.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        let span = u64::from(longest - shortest) + 1;
        let within = (u64::from(self.random) * span) >> 32;
        shortest + u16::try_from(within).unwrap_or(0)
    }

    /// What the next frame is to say.
    #[inline]
    fn next_identity(&mut self, stamp: u64) -> Identity {
        let identity = Identity { flow: u16::try_from(self.flow).unwrap_or(u16::MAX), sequence: self.sequence, stamp };
        self.flow += self.flow_step;
        if self.flow >= self.flows {
            self.flow = self.first_flow;
            self.sequence += 1;
        }
        identity
    }
}

/// Writes the pattern into every buffer of the pool.
fn write_pattern(pool: &mut PacketPool, longest: u16) {
    let bytes: Vec<u8> = (0..usize::from(longest)).map(frame::pattern).collect();
    let mut packets = Vec::with_capacity(pool.capacity());
    while let Some(mut packet) = pool.take() {
        // A buffer that is too small makes no frames of that length either: `receive` counts it.
        let _ = packet.write(&bytes);
        packets.push(packet);
    }
    hugemem::recycle(packets);
}

impl RxQueue for Source {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let room = batch.room() as u64;
        if room == 0 || self.left == 0 {
            return 0;
        }
        let now = clock::cycles();
        let (due, missed) = self.pacer.due(now);
        let wanted = due.min(room).min(self.left);
        let (mut made, mut bytes) = (0_u64, 0_u64);
        while made < wanted {
            let Some(mut packet) = self.pool.take() else { break };
            let len = self.next_len();
            if packet.resize(usize::from(len)).is_err() {
                self.counters.drop_packets(DropReason::TooLong, 1);
                break;
            }
            let identity = self.next_identity(now);
            if let Some(start) = packet.bytes_mut().first_chunk_mut::<HEAD>() {
                self.writer.write(start, identity, len);
            }
            made += 1;
            bytes += u64::from(len);
            if batch.push(packet).is_err() {
                break;
            }
        }
        self.pacer.sent(made);
        self.left -= made;
        self.counters.packets += made;
        self.counters.bytes += bytes;
        if made > 0 {
            self.shared.sent.add(made);
            self.shared.sent_bytes.add(bytes);
        }
        if missed > 0 {
            self.shared.missed.add(missed);
        }
        usize::try_from(made).unwrap_or(usize::MAX)
    }

    fn arm(&mut self) -> bool {
        // Nobody signals when the next frame is due; sleeping is right only when there is none.
        self.left == 0
    }

    fn gives_large(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
