#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]
use super::super::ring::tests::{Numbered, Peer, Seen, table_parts};
use super::*;
use std::vec::Vec;

/// The device's side. Its places and wrap counters are kept apart, as the specification words it.
pub(in super::super) struct Device {
    available: (u16, bool),
    used: (u16, bool),
}

impl Default for Device {
    fn default() -> Self {
        Self { available: (0, true), used: (0, true) }
    }
}

fn advance((place, wrap): (u16, bool), by: u16, size: u16) -> (u16, bool) {
    let next = place + by;
    if next >= size { (next - size, !wrap) } else { (next, wrap) }
}

fn part(address: u64, rest: u64) -> Seen {
    (address, rest as u32, (rest >> 48) as u16 & WRITE != 0)
}

impl Peer for Device {
    type Ring = Packed<Numbered>;

    fn take(&mut self, ring: &Self::Ring) -> Option<(u16, u16, Vec<Seen>)> {
        let mut parts = Vec::new();
        let mut descriptors = 0;
        let (mut place, mut wrap) = self.available;
        let identifier = loop {
            let [address, rest] =
                ring.descriptors[usize::from(place)].each_ref().map(|word| word.load(Ordering::Acquire));
            let flags = (rest >> 48) as u16;
            let available = (flags & AVAILABLE != 0) == wrap && (flags & USED != 0) != wrap;
            if !available {
                assert!(parts.is_empty(), "a chain is available as a whole");
                return None;
            }
            (place, wrap) = advance((place, wrap), 1, ring.size());
            descriptors += 1;
            if flags & INDIRECT != 0 {
                let table = table_parts(ring.tables.as_ref().unwrap(), address, rest as u32);
                parts.extend(table.into_iter().map(|(address, rest)| part(address, rest)));
            } else {
                parts.push(part(address, rest));
            }
            if flags & NEXT == 0 {
                break (rest >> 32) as u16;
            }
        };
        self.available = (place, wrap);
        Some((identifier, descriptors, parts))
    }

    fn give(&mut self, ring: &Self::Ring, identifier: u16, descriptors: u16, len: u32) {
        let (place, wrap) = self.used;
        let flags = if wrap { AVAILABLE | USED } else { 0 };
        ring.descriptors[usize::from(place)][1].store(word(len, identifier, flags), Ordering::Release);
        self.used = advance(self.used, descriptors, ring.size());
    }

    fn want_notification(&mut self, ring: &Self::Ring, wanted: bool, event_index: bool) {
        let (place, wrap) = self.available;
        let (place, wrap) = if wanted {
            (place, wrap)
        } else if place == 0 {
            (ring.size() - 1, !wrap)
        } else {
            (place - 1, wrap)
        };
        let event = u32::from(place) | u32::from(wrap) << 15;
        let events = match (wanted, event_index) {
            (_, true) => event | EVENTS_AT_PLACE << 16,
            (true, false) => 0,
            (false, false) => EVENTS_OFF << 16,
        };
        ring.device_events[0].store(events, Ordering::Relaxed);
    }

    fn interrupt_wanted(&self, ring: &Self::Ring, _: bool) -> bool {
        ring.driver_events[0].load(Ordering::Relaxed) >> 16 == 0
    }
}
