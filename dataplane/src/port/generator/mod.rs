//! A generator of numbered, time-stamped frames, and a sink that checks those that arrive.
//!
//! Frames are Ethernet, IPv4 and UDP with valid checksums (layout in [`frame`]). Each flow numbers its frames from 0 and
//! has an address of its own in 198.18.0.0/15, the range that RFC 2544 sets aside for benchmarks. The sink finds what
//! was lost, reordered, duplicated or changed on the way, and how long it took; a stamp is a reading of the cycle
//! counter, so both ends have to be on one machine.
//!
//! The sink of a generator port checks the frames of the generator on the far side of the forwarder, so two generator
//! ports joined to each other test both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use drivers::nic::{LinkStatus, Offloads};
use hugemem::PacketPool;

use super::{FrameSize, GeneratorSpec, PortControl, PortError, PortQueue, Rate, Supply};
use crate::clock::CycleClock;
use crate::histogram::{Histogram, SharedHistogram};

pub mod frame;
mod pacer;
mod sink;
mod source;
mod window;

pub use sink::Sink;
pub use source::Source;

/// What a generator and its sink have counted, over all queues.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GeneratorReport {
    /// Frames made and handed to the forwarder.
    pub sent: u64,
    /// Their bytes, without frame check sequence.
    pub sent_bytes: u64,
    /// Frames that a set rate called for but that were not made, because the forwarder did not poll in time or no buffer
    /// was free.
    pub missed: u64,
    /// Intact frames that arrived for the first time.
    pub received: u64,
    /// Numbers skipped so far. Goes down again when such a frame arrives late. Frames lost after the last one that
    /// arrived do not show here: compare what one side sent with what the other received.
    pub lost: u64,
    /// Frames, among those received, that arrived after a later one of their flow.
    pub reordered: u64,
    /// Frames that had arrived before.
    pub duplicates: u64,
    /// Frames of a generator whose bytes were changed.
    pub corrupt: u64,
    /// Frames that no generator made.
    pub foreign: u64,
    /// Time from making to arrival of the frames received, in nanoseconds.
    pub latency: Histogram,
}

impl GeneratorReport {
    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.sent_bytes += other.sent_bytes;
        self.missed += other.missed;
        self.received += other.received;
        // One queue may see a gap and another one the late frame: only their sum is meaningful.
        self.lost = self.lost.wrapping_add(other.lost);
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.corrupt += other.corrupt;
        self.foreign += other.foreign;
        self.latency.merge(&other.latency);
    }
}

/// A counter that one thread writes and any thread reads.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

impl Counter {
    #[inline]
    fn add(&self, more: u64) {
        // One writer: no locked instruction is needed.
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    #[inline]
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one source has counted.
#[derive(Debug, Default)]
struct SourceCounters {
    sent: Counter,
    sent_bytes: Counter,
    missed: Counter,
}

/// What one sink has counted.
#[derive(Debug, Default)]
struct SinkCounters {
    received: Counter,
    lost: Counter,
    reordered: Counter,
    duplicates: Counter,
    corrupt: Counter,
    foreign: Counter,
    latency: SharedHistogram,
}

/// Control side of a generator port.
#[derive(Debug)]
pub struct GeneratorControl {
    spec: GeneratorSpec,
    queues: Vec<(Arc<SourceCounters>, Arc<SinkCounters>)>,
}

/// Makes a generator port with one queue pair for each of `pools`, whose buffers hold the frames that are underway.
/// Rate, count and flows of `spec` are shared out evenly.
#[must_use]
pub fn open(spec: &GeneratorSpec, clock: CycleClock, pools: Vec<PacketPool>) -> (Vec<PortQueue>, GeneratorControl) {
    let total = pools.len().max(1) as u64;
    let flows = sink::flows();
    let mut queues = Vec::with_capacity(pools.len());
    let mut counters = Vec::with_capacity(pools.len());
    for (index, pool) in (0_u64..).zip(pools) {
        let share = Share { index, total };
        let (sent, received) = (Arc::new(SourceCounters::default()), Arc::new(SinkCounters::default()));
        let source = Source::new(spec, share, clock, pool, Arc::clone(&sent));
        let sink = Sink::new(clock, Arc::clone(&flows), Arc::clone(&received));
        queues.push(PortQueue { rx: Box::new(source), tx: Box::new(sink), wake: None, desk: None });
        counters.push((sent, received));
    }
    (queues, GeneratorControl { spec: spec.clone(), queues: counters })
}

/// The part of a port that one queue pair plays.
#[derive(Clone, Copy, Debug)]
struct Share {
    index: u64,
    total: u64,
}

impl Share {
    /// This queue's part of `amount`; the parts of all queues add up to it.
    fn of(self, amount: u64) -> u64 {
        amount / self.total + u64::from(self.index < amount % self.total)
    }
}

impl PortControl for GeneratorControl {
    fn link(&mut self) -> LinkStatus {
        LinkStatus { up: true, ..LinkStatus::default() }
    }

    fn offloads(&self) -> Offloads {
        // The sink completes a partial checksum before it looks; it cannot tell a segment that is cut later.
        Offloads::RX_CHECKSUM | Offloads::TX_CHECKSUM
    }

    fn describe(&mut self) -> String {
        let GeneratorSpec { rate, size, flows, count, .. } = &self.spec;
        let rate = match rate {
            Rate::Maximum => "rate max".to_owned(),
            Rate::PerSecond(_) => format!("rate {rate} packets/s"),
        };
        let FrameSize { shortest, longest } = size;
        let size = if shortest == longest { format!("{shortest}") } else { format!("{shortest} to {longest}") };
        let count = count.map(|count| format!(" count {count}")).unwrap_or_default();
        format!("gen state UP {rate} size {size} bytes flows {flows}{count} queues {}", self.queues.len())
    }

    fn supply(&self) -> Supply {
        let Some(count) = self.spec.count else { return Supply::Endless };
        let sent: u64 = self.queues.iter().map(|(source, _)| source.sent.get()).sum();
        if sent >= count { Supply::Exhausted } else { Supply::Remaining }
    }

    fn generator(&self) -> Option<GeneratorReport> {
        let mut total = GeneratorReport::default();
        for (source, sink) in &self.queues {
            total.merge(&GeneratorReport {
                // Read what arrived before what was sent: a pair of ports then never seems to receive more than was sent.
                received: sink.received.get(),
                lost: sink.lost.get(),
                reordered: sink.reordered.get(),
                duplicates: sink.duplicates.get(),
                corrupt: sink.corrupt.get(),
                foreign: sink.foreign.get(),
                latency: sink.latency.snapshot(),
                sent: source.sent.get(),
                sent_bytes: source.sent_bytes.get(),
                missed: source.missed.get(),
            });
        }
        Some(total)
    }

    fn stop(&mut self, _queues: Vec<PortQueue>) -> Result<(), PortError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
