//! The packed ring, driver side (virtio 1.3, section 2.8).
//!
//! One ring of descriptors, in which the device overwrites what the driver wrote. Two flag bits of each descriptor say
//! whose it is, by comparison with a wrap counter that flips with every pass (2.8.1). Here both sides' places are
//! counters that run freely; since the size is a power of two, the wrap counter is the bit above the place.
//!
//! A descriptor's second word (length, identifier, flags) is one 64-bit access: one store makes a buffer available,
//! one load takes everything that the device said about it.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering, fence};

use hugemem::{DmaArray, OutOfMemory, Region};

use super::masked::{at, at_mut, event_passed, ring_of};
use super::ring::{Addresses, Descriptor, Part, Parts, Returned, Ring, Tables, descriptors_for, write};
use crate::health::Fault;
use crate::stopped::Stopped;

/// Descriptor flag: the chain goes on.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
const INDIRECT: u16 = 4;
/// Descriptor flag: equals the driver's wrap counter when available.
const AVAILABLE: u16 = 1 << 7;
/// Descriptor flag: equals the device's wrap counter when used, and not the driver's when available.
const USED: u16 = 1 << 15;

/// Event suppression (2.8.14), flags in the upper half of the word: never.
const EVENTS_OFF: u32 = 1;
/// Event suppression: when the place in the lower half is passed.
const EVENTS_AT_PLACE: u32 = 2;

/// The second word of a descriptor.
#[inline(always)]
fn word(len: u32, identifier: u16, flags: u16) -> u64 {
    u64::from(len) | u64::from(identifier) << 32 | u64::from(flags) << 48
}

#[inline(always)]
fn access(part: Part) -> u16 {
    if part.writable { WRITE } else { 0 }
}

/// The driver's record of one identifier.
#[derive(Debug)]
struct Slot<T> {
    /// What the device holds under it.
    token: Option<T>,
    /// Descriptors that it takes in the ring.
    count: u16,
}

/// The driver's side of a packed ring.
#[derive(Debug)]
pub(super) struct Packed<T> {
    descriptors: DmaArray<Descriptor>,
    driver_events: DmaArray<AtomicU32>,
    device_events: DmaArray<AtomicU32>,
    tables: Option<Tables>,
    slots: Box<[Slot<T>]>,
    /// Queue of free identifiers: one for each buffer that is not out.
    identifiers: Box<[u16]>,
    identifier_next: u16,
    free: u16,
    outstanding: u16,
    /// Next place to fill, and the same when the device was last notified.
    available_next: u16,
    published: u16,
    /// Next place that the device will hand back.
    used_next: u16,
    event_index: bool,
    indirect: bool,
}

#[expect(clippy::cast_possible_truncation, reason = "a ring has at most 32768 descriptors")]
impl<T: Parts> Packed<T> {
    #[inline(always)]
    fn length(&self) -> u16 {
        self.slots.len() as u16
    }

    /// The wrap counter at a place.
    #[inline(always)]
    fn wrap(&self, place: u16) -> bool {
        place & self.length() == 0
    }

    /// Flags that make the descriptor at `place` available (2.8.1).
    #[inline(always)]
    fn available_flags(&self, place: u16) -> u16 {
        if self.wrap(place) { AVAILABLE } else { USED }
    }

    /// The second word of the next descriptor to come back, when it has. Acquire: what the device wrote before is seen
    /// after.
    #[inline(always)]
    fn returned(&self) -> Option<u64> {
        let [_, rest] = at(&self.descriptors, self.used_next);
        let rest = u64::from_le(rest.load(Ordering::Acquire));
        let flags = (rest >> 48) as u16;
        let expected = if self.wrap(self.used_next) { AVAILABLE | USED } else { 0 };
        (flags & (AVAILABLE | USED) == expected).then_some(rest)
    }

    /// Makes the descriptor at `available_next` available, which heads a buffer of `count`.
    #[inline(always)]
    fn offer(&mut self, part: Part, flags: u16, count: u16, token: T) {
        let identifier = *at(&self.identifiers, self.identifier_next);
        self.identifier_next = self.identifier_next.wrapping_add(1);
        let slot = at_mut(&mut self.slots, identifier);
        slot.token = Some(token);
        slot.count = count;
        let place = self.available_next;
        let [address, rest] = at(&self.descriptors, place);
        address.store(part.iova.raw().to_le(), Ordering::Relaxed);
        // Release: the device sees this descriptor only after its address and the rest of the chain (2.8.21.1).
        let flags = flags | self.available_flags(place);
        rest.store(word(part.len, identifier, flags).to_le(), Ordering::Release);
        self.available_next = place.wrapping_add(count);
        self.free = self.free.wrapping_sub(count);
        self.outstanding = self.outstanding.wrapping_add(1);
    }

    fn store_driver_events(&self, flags: u32) {
        if let Some(events) = self.driver_events.first() {
            events.store((flags << 16).to_le(), Ordering::Relaxed);
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a ring has at most 32768 descriptors; words are taken apart")]
impl<T: Parts + Send> Ring<T> for Packed<T> {
    fn new(memory: &Region, size: u16, tables: bool) -> Result<Self, OutOfMemory> {
        Ok(Self {
            descriptors: memory.array(usize::from(size), 64)?,
            driver_events: memory.array(1, 64)?,
            device_events: memory.array(1, 64)?,
            tables: if tables { Some(Tables::new(memory, size)?) } else { None },
            slots: ring_of(size, |_| Slot { token: None, count: 0 }),
            identifiers: ring_of(size, |identifier| identifier),
            identifier_next: 0,
            free: size,
            outstanding: 0,
            available_next: 0,
            published: 0,
            used_next: 0,
            event_index: false,
            indirect: false,
        })
    }

    fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: self.descriptors.iova(),
            driver: self.driver_events.iova(),
            device: self.device_events.iova(),
        }
    }

    #[inline(always)]
    fn size(&self) -> u16 {
        self.length()
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
        self.device_events.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        for (index, identifier) in (0..).zip(self.identifiers.iter_mut()) {
            *identifier = index;
        }
        self.slots.iter_mut().for_each(|slot| slot.token = None);
        self.identifier_next = 0;
        self.free = self.size();
        self.outstanding = 0;
        self.available_next = 0;
        self.published = 0;
        self.used_next = 0;
        self.event_index = event_index;
        self.indirect = indirect;
        self.disable_interrupt();
    }

    #[inline(always)]
    fn post(&mut self, part: Part, token: T) -> Result<(), Returned<T>> {
        if self.free == 0 {
            return Err(Returned::new(token, 0));
        }
        self.offer(part, access(part), 1, token);
        Ok(())
    }

    fn post_parts(&mut self, token: T) -> Result<(), Returned<T>> {
        let count = match self.descriptors_for(token.count()) {
            Some(count) if (1..=self.free).contains(&count) => count,
            _ => return Err(Returned::new(token, 0)),
        };
        let identifier = *at(&self.identifiers, self.identifier_next);
        let table = self.tables.as_ref().and_then(|tables| tables.get(identifier)).filter(|_| count == 1);
        if let Some((table, iova)) = table {
            // In a table only the order counts; of the flags only WRITE (2.8.7).
            let mut entries = table.iter();
            token.each(|part| {
                if let Some(entry) = entries.next() {
                    write(entry, part.iova, word(part.len, 0, access(part)));
                }
            });
            let len = token.count() as u32 * size_of::<Descriptor>() as u32;
            self.offer(Part { iova, len, writable: false }, INDIRECT, 1, token);
            return Ok(());
        }
        // The head comes last, because it is what makes the chain available (2.8.6).
        let mut head = None;
        let mut done = 0_u16;
        token.each(|part| {
            done = done.saturating_add(1);
            if head.is_none() {
                head = Some(part);
            } else if done <= count {
                let place = self.available_next.wrapping_add(done).wrapping_sub(1);
                let more = if done < count { NEXT } else { 0 };
                let flags = access(part) | more | self.available_flags(place);
                write(at(&self.descriptors, place), part.iova, word(part.len, identifier, flags));
            }
        });
        let Some(head) = head else {
            return Err(Returned::new(token, 0));
        };
        let more = if count > 1 { NEXT } else { 0 };
        self.offer(head, access(head) | more, count, token);
        Ok(())
    }

    /// Every buffer is visible to the device from its post on, for a packed ring has no index; what is left is to
    /// notify.
    #[inline]
    fn publish(&mut self) -> bool {
        let added = self.available_next.wrapping_sub(self.published);
        if added == 0 {
            return false;
        }
        self.published = self.available_next;
        // The descriptors must be out before the device's wish is read (2.8.21.3.1).
        fence(Ordering::SeqCst);
        let wish = self.device_events.first().map_or(0, |events| u32::from_le(events.load(Ordering::Relaxed)));
        match (wish >> 16) & 3 {
            EVENTS_OFF => false,
            EVENTS_AT_PLACE if self.event_index => {
                let new = self.available_next & self.length().wrapping_sub(1);
                let same_pass = (wish & 0x8000 != 0) == self.wrap(self.available_next);
                let place = (wish & 0x7fff) as u16;
                let event = if same_pass { place } else { place.wrapping_sub(self.length()) };
                event_passed(event, new, new.wrapping_sub(added))
            }
            _ => true,
        }
    }

    /// Nothing to ask: each descriptor says itself whether it is back.
    #[inline(always)]
    fn poll(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<Option<Returned<T>>, Fault> {
        let Some(rest) = self.returned() else {
            return Ok(None);
        };
        let identifier = (rest >> 32) as u16;
        if identifier >= self.length() {
            return Err(Fault::NoSuchIdentifier);
        }
        let slot = at_mut(&mut self.slots, identifier);
        let Some(token) = slot.token.take() else {
            return Err(Fault::NotOutstanding);
        };
        let count = slot.count;
        let end = self.identifier_next.wrapping_add(self.length().wrapping_sub(self.outstanding));
        *at_mut(&mut self.identifiers, end) = identifier;
        self.used_next = self.used_next.wrapping_add(count);
        self.free = self.free.wrapping_add(count);
        self.outstanding = self.outstanding.wrapping_sub(1);
        Ok(Some(Returned::new(token, rest as u32)))
    }

    fn enable_interrupt(&mut self) -> bool {
        self.store_driver_events(0);
        // The wish must be out before the descriptor is read again (2.8.14).
        fence(Ordering::SeqCst);
        self.returned().is_none()
    }

    fn disable_interrupt(&mut self) {
        self.store_driver_events(EVENTS_OFF);
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
#[path = "packed_tests.rs"]
pub(super) mod tests;
