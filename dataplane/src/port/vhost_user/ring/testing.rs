//! A driver's side of a split ring for tests, which can also break every rule.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "tests")]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::Addresses;
use crate::guest::{Access, GuestAddress, Memory, Words, testing};

/// Distance from guest addresses to the frontend's.
const USER: u64 = 4 << 30;
/// Bytes set aside for each ring, and for each buffer.
const RING: u64 = 1 << 16;
pub(in super::super) const BUFFER: u64 = 1 << 12;

/// Descriptor flags.
pub(in super::super) const NEXT: u16 = 1;
pub(in super::super) const WRITE: u16 = 2;
pub(in super::super) const INDIRECT: u16 = 4;

/// Memory of a guest that has one ring at its start and buffers behind it.
pub(in super::super) struct Driver {
    pub(in super::super) memory: Arc<Memory>,
    pub(in super::super) size: u16,
    pub(in super::super) descriptors: Words<[AtomicU64; 2]>,
    pub(in super::super) available: Words<AtomicU16>,
    pub(in super::super) used: Words<AtomicU32>,
    event: Words<AtomicU16>,
    used_next: u16,
}

impl Driver {
    /// A ring of `size`, at most 1024, and `buffers` buffers.
    pub(in super::super) fn new(size: u16, buffers: u64) -> Self {
        Self::with_file(size, buffers).0
    }

    /// As [`Driver::new`], with the file that its memory is.
    pub(in super::super) fn with_file(size: u16, buffers: u64) -> (Self, File) {
        let (memory, file) = testing::memory(RING + buffers * BUFFER);
        (Self::at(memory, size), file)
    }

    /// A ring at the start of memory that is there.
    pub(in super::super) fn at(memory: Arc<Memory>, size: u16) -> Self {
        let count = usize::from(size);
        let available = 16 * u64::from(size);
        let used = (available + 6 + 2 * u64::from(size)).next_multiple_of(4);
        let event = used + 4 + 8 * u64::from(size);
        let words = |at| GuestAddress(at);
        Self {
            descriptors: memory.words(words(0), count, Access::Write).unwrap(),
            available: memory.words(words(available), count + 3, Access::Write).unwrap(),
            used: memory.words(words(used), 2 * count + 1, Access::Write).unwrap(),
            event: memory.words(words(event), 1, Access::Write).unwrap(),
            size,
            used_next: 0,
            memory,
        }
    }

    pub(in super::super) fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: self.descriptors.guest().0 + USER,
            driver: self.available.guest().0 + USER,
            device: self.used.guest().0 + USER,
        }
    }

    /// Address of buffer `index`.
    pub(in super::super) fn buffer(&self, index: u64) -> u64 {
        RING + index * BUFFER
    }

    pub(in super::super) fn write(&self, at: u64, bytes: &[u8]) {
        let mut rest = bytes;
        self.memory
            .pieces(GuestAddress(at), bytes.len() as u32, Access::Write, |piece| {
                let done = piece.copy_out(rest);
                rest = &rest[done..];
            })
            .unwrap();
    }

    pub(in super::super) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        self.memory
            .pieces(GuestAddress(at), len as u32, Access::Read, |piece| done += piece.copy_in(&mut bytes[done..]))
            .unwrap();
        bytes
    }

    /// Writes descriptor `index`.
    pub(in super::super) fn describe(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        let [first, second] = &self.descriptors[usize::from(index)];
        first.store(address, Ordering::Relaxed);
        second.store(word(len, flags, next), Ordering::Relaxed);
    }

    /// Writes an indirect table of (address, len, flags, next) at `at`.
    pub(in super::super) fn table(&self, at: u64, entries: &[(u64, u32, u16, u16)]) {
        for (index, (address, len, flags, next)) in (0..).zip(entries) {
            self.write(at + 16 * index, &address.to_le_bytes());
            self.write(at + 16 * index + 8, &word(*len, *flags, *next).to_le_bytes());
        }
    }

    /// Makes the chain of `head` available.
    pub(in super::super) fn offer(&self, head: u16) {
        let index = self.index();
        self.available[2 + usize::from(index % self.size)].store(head, Ordering::Relaxed);
        self.available[1].store(index.wrapping_add(1), Ordering::Release);
    }

    /// Describes and offers a chain of direct descriptors that starts at `head`, in (address, len, flags).
    pub(in super::super) fn offer_chain(&self, head: u16, parts: &[(u64, u32, u16)]) {
        for (step, (address, len, flags)) in (0_u16..).zip(parts) {
            let more = if usize::from(step) + 1 < parts.len() { NEXT } else { 0 };
            self.describe((head + step) % self.size, *address, *len, flags | more, (head + step + 1) % self.size);
        }
        self.offer(head);
    }

    /// The available index.
    pub(in super::super) fn index(&self) -> u16 {
        self.available[1].load(Ordering::Relaxed)
    }

    /// The used index.
    pub(in super::super) fn used_index(&self) -> u16 {
        (self.used[0].load(Ordering::Acquire) >> 16) as u16
    }

    /// The device wants no kicks (without event index).
    pub(in super::super) fn is_kick_off(&self) -> bool {
        self.used[0].load(Ordering::Acquire) & 1 != 0
    }

    /// The index for whose chain the device wants a kick (with event index).
    pub(in super::super) fn kick_event(&self) -> u16 {
        self.event[0].load(Ordering::Acquire)
    }

    /// Asks for no signals.
    pub(in super::super) fn silence(&self) {
        self.available[0].store(1, Ordering::Relaxed);
    }

    /// Asks for a signal: with event index, when the chain of index `at` is used.
    pub(in super::super) fn listen(&self, at: Option<u16>) {
        match at {
            Some(index) => self.available[2 + usize::from(self.size)].store(index, Ordering::Relaxed),
            None => self.available[0].store(0, Ordering::Relaxed),
        }
        fence(Ordering::SeqCst);
    }

    /// Takes the next used chain: head and bytes written.
    pub(in super::super) fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.used_next {
            return None;
        }
        let place = 1 + 2 * usize::from(self.used_next % self.size);
        self.used_next = self.used_next.wrapping_add(1);
        Some((self.used[place].load(Ordering::Relaxed), self.used[place + 1].load(Ordering::Relaxed)))
    }
}

/// The second word of a descriptor.
fn word(len: u32, flags: u16, next: u16) -> u64 {
    u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48
}
