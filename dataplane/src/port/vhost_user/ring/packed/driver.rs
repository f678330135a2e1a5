//! An honest driver of a packed ring, for tests. Written from the specification (2.8), with nothing of the device side's.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::super::inflight::Inflight;
use super::super::{Addresses, Base, Layout};
use crate::guest::testing;
use crate::guest::{Access, GuestAddress, Memory, Words};

/// Where things lie for the guest; the frontend's addresses are 4 GiB higher.
pub(in super::super) const RING: u64 = 0x10_0000;
pub(in super::super) const DRIVER_EVENTS: u64 = 0x1000;
pub(in super::super) const DEVICE_EVENTS: u64 = 0x2000;
const TABLES: u64 = 0x20_0000;
/// Bytes that a table may take.
const TABLE: u64 = 0x1000;
/// Where buffers lie.
pub(in super::super) const BUFFERS: u64 = 0x40_0000;

/// One descriptor of a buffer: address, length, writable.
pub(in super::super) type Part = (u64, u32, bool);

/// An honest driver, with the memory of its guest.
#[derive(Debug)]
pub(in super::super) struct Driver {
    pub(in super::super) memory: Arc<Memory>,
    _file: File,
    pub(in super::super) ring: Words<[AtomicU64; 2]>,
    pub(in super::super) events: Words<AtomicU32>,
    device_events: Words<AtomicU32>,
    tables: Words<[AtomicU64; 2]>,
    size: u32,
    /// Next place to fill, and its wrap counter.
    next: (u32, bool),
    /// Next place at which something comes back.
    used: (u32, bool),
    free: u32,
    /// By identifier: descriptors that it takes.
    posted: HashMap<u16, u32>,
    /// Identifiers in the order of posting.
    order: VecDeque<u16>,
    identifiers: Vec<u16>,
    in_order: bool,
}

impl Driver {
    /// A driver and its empty ring of `size` descriptors. `in_order`: one used descriptor stands for all up to its identifier.
    pub(in super::super) fn new(size: u16, in_order: bool) -> Self {
        let (memory, file) = testing::memory(0x80_0000);
        Self {
            ring: memory.words(GuestAddress(RING), size.into(), Access::Write).unwrap(),
            events: memory.words(GuestAddress(DRIVER_EVENTS), 1, Access::Write).unwrap(),
            device_events: memory.words(GuestAddress(DEVICE_EVENTS), 1, Access::Write).unwrap(),
            tables: memory.words(GuestAddress(TABLES), 0x1_0000, Access::Write).unwrap(),
            memory,
            _file: file,
            size: size.into(),
            next: (0, true),
            used: (0, true),
            free: size.into(),
            posted: HashMap::new(),
            order: VecDeque::new(),
            identifiers: (0..size).rev().collect(),
            in_order,
        }
    }

    /// What the device is told of the ring.
    pub(in super::super) fn layout(&self, base: Base, inflight: Option<Inflight>) -> Layout {
        let user = |address| address + (4 << 30);
        let addresses = Addresses { descriptors: user(RING), driver: user(DRIVER_EVENTS), device: user(DEVICE_EVENTS) };
        Layout {
            size: self.size as u16,
            addresses,
            base,
            event_index: true,
            indirect: true,
            skip_used: self.in_order,
            reads_only: false,
            inflight,
        }
    }

    /// Writes a descriptor as it is, whatever that means.
    pub(in super::super) fn write(&self, index: usize, address: u64, len: u32, id: u16, flags: u16) {
        let [first, second] = &self.ring[index];
        first.store(address.to_le(), Ordering::Relaxed);
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        second.store(word.to_le(), Ordering::Release);
    }

    /// Makes a buffer available; its identifier, or nothing when it does not fit.
    pub(in super::super) fn post(&mut self, parts: &[Part], table: bool) -> Option<u16> {
        let count = if table { 1 } else { parts.len() as u32 };
        if count == 0 || count > self.free {
            return None;
        }
        let id = if self.in_order { (self.next.0) as u16 } else { self.identifiers.pop()? };
        let mut descriptors: Vec<(u64, u32, u16)> = Vec::new();
        if table {
            let start = u64::from(id) % 0xf0;
            for ([address, rest], (at, len, writable)) in self.tables[(start * TABLE / 16) as usize..].iter().zip(parts)
            {
                address.store(at.to_le(), Ordering::Relaxed);
                rest.store((u64::from(*len) | u64::from(*writable) << 49).to_le(), Ordering::Relaxed);
            }
            descriptors.push((TABLES + start * TABLE, 16 * parts.len() as u32, 4));
        } else {
            for (index, (at, len, writable)) in parts.iter().enumerate() {
                let more = u16::from(index + 1 < parts.len());
                descriptors.push((*at, *len, more | u16::from(*writable) << 1));
            }
        }
        let mut places = Vec::new();
        for _ in 0..count {
            places.push(self.next);
            self.next = self.after(self.next, 1);
        }
        // The head last.
        for (place, (address, len, flags)) in places.iter().zip(&descriptors).rev() {
            let turn = if place.1 { 0x80 } else { 0x8000 };
            self.write(place.0 as usize, *address, *len, id, flags | turn);
        }
        self.free -= count;
        self.posted.insert(id, count);
        self.order.push_back(id);
        Some(id)
    }

    fn after(&self, (place, wrap): (u32, bool), count: u32) -> (u32, bool) {
        let next = place + count;
        if next >= self.size { (next - self.size, !wrap) } else { (next, wrap) }
    }

    /// The next used descriptor: identifier and length. Panics when the device broke the rules.
    pub(in super::super) fn pop(&mut self) -> Option<(u16, u32)> {
        let [_, rest] = &self.ring[self.used.0 as usize];
        let rest = u64::from_le(rest.load(Ordering::Acquire));
        let (len, id, flags) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
        let (available, used) = (flags & 0x80 != 0, flags & 0x8000 != 0);
        if available != used || used != self.used.1 {
            return None;
        }
        // The length counts with the write flag only.
        let len = if flags & 2 == 0 { 0 } else { len };
        loop {
            let first = *self.order.front().expect("something is out");
            let done = if self.in_order { first } else { id };
            self.order.retain(|posted| *posted != done);
            let count = self.posted.remove(&done).expect("it is out");
            self.used = self.after(self.used, count);
            self.free += count;
            if !self.in_order {
                self.identifiers.push(id);
            }
            if done == id {
                return Some((id, len));
            }
        }
    }

    /// All that has come back.
    pub(in super::super) fn drain(&mut self) -> Vec<(u16, u32)> {
        std::iter::from_fn(|| self.pop()).collect()
    }

    /// Buffers that are out, in the order of posting.
    pub(in super::super) fn outstanding(&self) -> Vec<u16> {
        self.order.iter().copied().collect()
    }

    /// Says which signals are wanted.
    pub(in super::super) fn wish(&self, place: u16, flags: u16) {
        self.events[0].store((u32::from(place) | u32::from(flags) << 16).to_le(), Ordering::SeqCst);
    }

    /// Which kicks the device wants: place and flags.
    pub(in super::super) fn device_wish(&self) -> (u16, u16) {
        let wish = u32::from_le(self.device_events[0].load(Ordering::SeqCst));
        (wish as u16, (wish >> 16) as u16)
    }

    /// The place where the next used descriptor is expected, as event suppression writes it.
    pub(in super::super) fn used_place(&self) -> u16 {
        self.used.0 as u16 | u16::from(self.used.1) << 15
    }
}
