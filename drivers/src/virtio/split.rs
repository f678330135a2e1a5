//! The split ring, driver side (virtio 1.3, section 2.7).
//!
//! Three areas: descriptors (2.7.5) and the available ring (2.7.6), which the driver writes, and the used ring (2.7.8),
//! which the device writes. The driver never reads its own areas back.
//!
//! Identifiers are taken from, and returned to, a queue of free ones. So while the device returns buffers in order,
//! position `p` of the available ring always gets the same identifier, and a copy of the ring shows that the store can
//! be left out: the device then keeps those cache lines.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use hugemem::{DmaArray, OutOfMemory, Region, prefetch, prefetch_to_write};

use super::masked::{at, at_mut, event_passed, ring_of};
use super::ring::{Addresses, Descriptor, Part, Parts, Returned, Ring, Tables, descriptors_for, write};
use crate::health::Fault;
use crate::stopped::Stopped;

/// Descriptor flag: the chain goes on.
const NEXT: u64 = 1;
/// Descriptor flag: the device writes.
const WRITE: u64 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
const INDIRECT: u64 = 4;
/// Descriptors in a cache line.
const LINE: u16 = 4;
/// Entries of the used ring in a cache line.
const USED_LINE: u16 = 8;
/// How many descriptors ahead of the one that is written lines are fetched.
const AHEAD: u16 = 32;
/// `flags` of the available ring: no interrupts, please.
const NO_INTERRUPT: u16 = 1;
/// `flags` of the used ring: no notifications, please.
const NO_NOTIFY: u32 = 1;

/// The second word of a descriptor: length, flags, next.
#[inline(always)]
fn word(len: u32, flags: u64, next: u16) -> u64 {
    u64::from(len) | flags << 32 | u64::from(next) << 48
}

#[inline(always)]
fn access(part: Part) -> u64 {
    if part.writable { WRITE } else { 0 }
}

/// The driver's record of one identifier.
#[derive(Debug)]
struct Slot<T> {
    /// What the device holds under it, when it heads a chain that is out.
    token: Option<T>,
    /// Descriptors of that chain.
    count: u16,
    /// The descriptor after this one in its chain.
    next: u16,
}

/// The driver's side of a split ring.
#[derive(Debug)]
pub(super) struct Split<T> {
    descriptors: DmaArray<Descriptor>,
    /// `flags`, `idx`, `ring`, `used_event`.
    available: DmaArray<AtomicU16>,
    /// `flags` and `idx` in one word, two words for each entry of `ring`, `avail_event` in the low half of the last.
    used: DmaArray<AtomicU32>,
    tables: Option<Tables>,
    slots: Box<[Slot<T>]>,
    /// Queue of free identifiers.
    identifiers: Box<[u16]>,
    /// What the available ring holds.
    shown: Box<[u16]>,
    /// Where in `identifiers` the next free one is.
    identifier_next: u16,
    free: u16,
    outstanding: u16,
    /// Our available index, and the one that the device was shown.
    available_next: u16,
    published: u16,
    /// What was taken from the used ring, and how far the device is known to have come.
    used_next: u16,
    used_seen: u16,
    event_index: bool,
    indirect: bool,
}

impl<T: Parts + Send> Split<T> {
    #[inline(always)]
    fn take_identifier(&mut self) -> u16 {
        let identifier = *at(&self.identifiers, self.identifier_next);
        self.identifier_next = self.identifier_next.wrapping_add(1);
        self.free = self.free.wrapping_sub(1);
        identifier
    }

    #[inline(always)]
    fn give_identifier(&mut self, identifier: u16) {
        *at_mut(&mut self.identifiers, self.identifier_next.wrapping_add(self.free)) = identifier;
        self.free = self.free.wrapping_add(1);
    }

    /// Puts a chain of `count` descriptors into the available ring (2.7.13.2).
    #[inline(always)]
    fn offer(&mut self, head: u16, count: u16, token: T) {
        let slot = at_mut(&mut self.slots, head);
        slot.token = Some(token);
        slot.count = count;
        let shown = at_mut(&mut self.shown, self.available_next);
        if *shown != head {
            *shown = head;
            let mask = self.size().wrapping_sub(1);
            if let Some(entry) = self.available.get(2 + usize::from(self.available_next & mask)) {
                entry.store(head.to_le(), Ordering::Relaxed);
            }
        }
        self.available_next = self.available_next.wrapping_add(1);
        self.outstanding = self.outstanding.wrapping_add(1);
    }

    /// The device's used index. Acquire: what it wrote before is seen after (2.7.8.2).
    #[inline(always)]
    fn used_index(&self) -> u16 {
        self.used.first().map_or(self.used_next, |word| (u32::from_le(word.load(Ordering::Acquire)) >> 16) as u16)
    }

    fn store_available(&self, index: usize, value: u16, order: Ordering) {
        if let Some(word) = self.available.get(index) {
            word.store(value.to_le(), order);
        }
    }

    fn used_event_index(&self) -> usize {
        2 + usize::from(self.size())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a ring has at most 32768 descriptors")]
impl<T: Parts + Send> Ring<T> for Split<T> {
    fn new(memory: &Region, size: u16, tables: bool) -> Result<Self, OutOfMemory> {
        let entries = usize::from(size);
        // Cache lines of their own for what driver and device write.
        Ok(Self {
            descriptors: memory.array(entries, 64)?,
            available: memory.array(3 + entries, 64)?,
            used: memory.array(2 + 2 * entries, 64)?,
            tables: if tables { Some(Tables::new(memory, size)?) } else { None },
            slots: ring_of(size, |_| Slot { token: None, count: 0, next: 0 }),
            identifiers: ring_of(size, |identifier| identifier),
            shown: ring_of(size, |_| 0),
            identifier_next: 0,
            free: size,
            outstanding: 0,
            available_next: 0,
            published: 0,
            used_next: 0,
            used_seen: 0,
            event_index: false,
            indirect: false,
        })
    }

    fn addresses(&self) -> Addresses {
        Addresses { descriptors: self.descriptors.iova(), driver: self.available.iova(), device: self.used.iova() }
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.slots.len() as u16
    }

    #[inline(always)]
    fn free(&self) -> u16 {
        self.free
    }

    #[inline(always)]
    fn outstanding(&self) -> u16 {
        self.outstanding
    }

    #[inline]
    fn descriptors_for(&self, parts: usize) -> Option<u16> {
        descriptors_for(parts, self.slots.len(), self.indirect && self.tables.is_some())
    }

    fn start(&mut self, _: &Stopped, event_index: bool, indirect: bool) {
        for word in self.descriptors.iter().flatten() {
            word.store(0, Ordering::Relaxed);
        }
        self.used.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.available.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        for (index, (identifier, shown)) in (0..).zip(self.identifiers.iter_mut().zip(&mut self.shown)) {
            *identifier = index;
            *shown = index;
        }
        for index in 0..self.size() {
            self.store_available(2 + usize::from(index), index, Ordering::Relaxed);
        }
        self.slots.iter_mut().for_each(|slot| slot.token = None);
        self.identifier_next = 0;
        self.free = self.size();
        self.outstanding = 0;
        self.available_next = 0;
        self.published = 0;
        self.used_next = 0;
        self.used_seen = 0;
        self.event_index = event_index;
        self.indirect = indirect;
        self.disable_interrupt();
    }

    #[inline(always)]
    fn post(&mut self, part: Part, token: T) -> Result<(), Returned<T>> {
        if self.free == 0 {
            return Err(Returned::new(token, 0));
        }
        let head = self.take_identifier();
        if head.is_multiple_of(LINE) && self.free > AHEAD {
            // The device has read what was there; now it is ours again, unless nearly everything is with the device.
            prefetch_to_write(at(&self.descriptors, head.wrapping_add(AHEAD)));
        }
        write(at(&self.descriptors, head), part.iova, word(part.len, access(part), 0));
        self.offer(head, 1, token);
        Ok(())
    }

    fn post_parts(&mut self, token: T) -> Result<(), Returned<T>> {
        let count = match self.descriptors_for(token.count()) {
            Some(count) if (1..=self.free).contains(&count) => count,
            _ => return Err(Returned::new(token, 0)),
        };
        let head = self.take_identifier();
        let table = self.tables.as_ref().and_then(|tables| tables.get(head)).filter(|_| count == 1);
        if let Some((table, iova)) = table {
            let last = token.count().wrapping_sub(1);
            let mut entries = (0_u16..).zip(table);
            token.each(|part| {
                if let Some((index, entry)) = entries.next() {
                    let flags = if usize::from(index) < last { access(part) | NEXT } else { access(part) };
                    write(entry, part.iova, word(part.len, flags, index.wrapping_add(1)));
                }
            });
            let bytes = token.count() as u32 * size_of::<Descriptor>() as u32;
            write(at(&self.descriptors, head), iova, word(bytes, INDIRECT, 0));
        } else {
            let mut identifier = head;
            let mut left = count;
            token.each(|part| {
                left = left.saturating_sub(1);
                let next = if left > 0 { self.take_identifier() } else { 0 };
                let flags = if left > 0 { access(part) | NEXT } else { access(part) };
                write(at(&self.descriptors, identifier), part.iova, word(part.len, flags, next));
                at_mut(&mut self.slots, identifier).next = next;
                identifier = next;
            });
        }
        self.offer(head, count, token);
        Ok(())
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let (old, new) = (self.published, self.available_next);
        if old == new {
            return false;
        }
        self.published = new;
        // Release: the device sees the index only after descriptors and ring (2.7.13.3.1).
        self.store_available(1, new, Ordering::Release);
        // The index must be out before the device's wish is read, or both sides may wait for each other (2.7.13.4.1).
        fence(Ordering::SeqCst);
        let wish = if self.event_index { self.used.last() } else { self.used.first() };
        let wish = wish.map_or(0, |word| u32::from_le(word.load(Ordering::Relaxed)));
        if self.event_index { event_passed(wish as u16, new, old) } else { wish & NO_NOTIFY == 0 }
    }

    #[inline(always)]
    fn poll(&mut self) -> Result<(), Fault> {
        let index = self.used_index();
        if index.wrapping_sub(self.used_next) > self.outstanding {
            return Err(Fault::IndexJump);
        }
        self.used_seen = index;
        // The next entries travel together.
        let (entries, _) = self.used.get(1..).unwrap_or_default().as_chunks::<2>();
        for line in 0..index.wrapping_sub(self.used_next).min(AHEAD).div_ceil(USED_LINE) {
            prefetch(at(entries, self.used_next.wrapping_add(line * USED_LINE)));
        }
        Ok(())
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<Option<Returned<T>>, Fault> {
        if self.used_next == self.used_seen {
            return Ok(None);
        }
        let (entries, _) = self.used.get(1..).unwrap_or_default().as_chunks::<2>();
        let [identifier, len] = at(entries, self.used_next);
        let identifier = u32::from_le(identifier.load(Ordering::Relaxed));
        let len = u32::from_le(len.load(Ordering::Relaxed));
        if identifier >= u32::from(self.size()) {
            return Err(Fault::NoSuchIdentifier);
        }
        let head = identifier as u16;
        let slot = at_mut(&mut self.slots, head);
        let Some(token) = slot.token.take() else {
            return Err(Fault::NotOutstanding);
        };
        let count = slot.count;
        self.give_identifier(head);
        if count > 1 {
            let mut identifier = head;
            for _ in 1..count {
                identifier = at(&self.slots, identifier).next;
                self.give_identifier(identifier);
            }
        }
        self.used_next = self.used_next.wrapping_add(1);
        self.outstanding = self.outstanding.wrapping_sub(1);
        Ok(Some(Returned::new(token, len)))
    }

    fn enable_interrupt(&mut self) -> bool {
        if self.event_index {
            self.store_available(self.used_event_index(), self.used_next, Ordering::Relaxed);
        } else {
            self.store_available(0, 0, Ordering::Relaxed);
        }
        // The wish must be out before the index is read again (2.7.7.1).
        fence(Ordering::SeqCst);
        self.used_index() == self.used_next
    }

    fn disable_interrupt(&mut self) {
        if self.event_index {
            // With event indexes the flag must stay 0 (2.7.7.1). An event further behind than the ring is long is not
            // passed for the next 65,000 buffers; one interrupt too many after that does no harm.
            let behind = self.used_next.wrapping_sub(self.size()).wrapping_sub(1);
            self.store_available(self.used_event_index(), behind, Ordering::Relaxed);
        } else {
            self.store_available(0, NO_INTERRUPT, Ordering::Relaxed);
        }
    }

    fn drain<'a>(&'a mut self, _: &Stopped) -> impl Iterator<Item = Returned<T>> + use<'a, T>
    where
        T: 'a,
    {
        self.outstanding = 0;
        self.free = 0;
        self.slots.iter_mut().filter_map(|slot| slot.token.take()).map(|token| Returned::new(token, 0))
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
pub(super) mod tests;
