//! Checks frames.

use std::sync::Arc;

use drivers::nic::{Counters, Offloads, TxQueue};
use hugemem::{Batch, Packet};

use super::SinkCounters;
use super::frame::{self, Identity, Verdict};
use super::window::{Arrival, Window};
use crate::checksum::render;
use crate::clock::{self, CycleClock};
use crate::port::{MAXIMUM_FLOWS, MAXIMUM_FRAME};
use hugemem::Checksum;

/// What has arrived of every flow there can be; shared by the sinks of a port, so that a flow may move among queues.
#[must_use]
pub(super) fn flows() -> Arc<[Window]> {
    (0..MAXIMUM_FLOWS).map(|_| Window::default()).collect()
}

/// The checking half of a queue pair: frees what is "sent", after a close look.
#[derive(Debug)]
pub struct Sink {
    flows: Arc<[Window]>,
    /// Nanoseconds a cycle, with 32 binary places.
    nanoseconds_per_cycle: u64,
    counters: Counters,
    shared: Arc<SinkCounters>,
}

/// What one batch brought.
#[derive(Default)]
struct Tally {
    received: u64,
    lost: u64,
    reordered: u64,
    duplicates: u64,
    corrupt: u64,
    foreign: u64,
}

impl Sink {
    pub(super) fn new(clock: CycleClock, flows: Arc<[Window]>, shared: Arc<SinkCounters>) -> Self {
        let scaled = (1_000_000_000_u128 << 32) / u128::from(clock.cycles_per_second());
        Self {
            flows,
            nanoseconds_per_cycle: u64::try_from(scaled).unwrap_or(u64::MAX),
            counters: Counters::default(),
            shared,
        }
    }

    #[inline]
    fn check(&self, packet: &Packet, now: u64, tally: &mut Tally) {
        let plain = !packet.is_chained()
            && packet.metadata().vlan.is_none()
            && !matches!(packet.metadata().checksum, Checksum::Partial { .. });
        let verdict = if plain { frame::read(packet.bytes()) } else { read_rendered(packet) };
        match verdict {
            Verdict::Intact(identity) => self.arrived(identity, now, tally),
            Verdict::Corrupt => tally.corrupt += 1,
            Verdict::Foreign => tally.foreign += 1,
        }
    }

    #[inline]
    fn arrived(&self, identity: Identity, now: u64, tally: &mut Tally) {
        let Some(window) = self.flows.get(usize::from(identity.flow)) else { return };
        match window.note(identity.sequence) {
            Arrival::After(skipped) => tally.lost = tally.lost.wrapping_add(skipped),
            Arrival::Late => {
                tally.reordered += 1;
                tally.lost = tally.lost.wrapping_sub(1);
            }
            Arrival::Duplicate | Arrival::Stale => {
                tally.duplicates += 1;
                return;
            }
        }
        tally.received += 1;
        // Counters of two processors may differ by some cycles: that is no time at all.
        let cycles = now.saturating_sub(identity.stamp);
        let nanoseconds = (u128::from(cycles) * u128::from(self.nanoseconds_per_cycle)) >> 32;
        self.shared.latency.record(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    }
}

/// Reads a frame that lies in pieces or is not finished.
#[cold]
fn read_rendered(packet: &Packet) -> Verdict {
    let mut buffer = [0; MAXIMUM_FRAME as usize + 4];
    render(packet, &mut buffer).map_or(Verdict::Foreign, frame::read)
}

impl TxQueue for Sink {
    fn transmit(&mut self, batch: &mut Batch) -> usize {
        let packets = batch.len();
        if packets == 0 {
            return 0;
        }
        let now = clock::cycles();
        let mut tally = Tally::default();
        for packet in batch.iter() {
            self.counters.bytes += packet.len() as u64;
            self.check(packet, now, &mut tally);
        }
        self.counters.packets += packets as u64;
        let shared = &self.shared;
        for (counter, more) in [
            (&shared.received, tally.received),
            (&shared.lost, tally.lost),
            (&shared.reordered, tally.reordered),
            (&shared.duplicates, tally.duplicates),
            (&shared.corrupt, tally.corrupt),
            (&shared.foreign, tally.foreign),
        ] {
            if more != 0 {
                counter.add(more);
            }
        }
        batch.clear();
        packets
    }

    fn offloads(&self) -> Offloads {
        Offloads::TX_CHECKSUM
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
