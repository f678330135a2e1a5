//! The packed ring, device side (virtio 1.3, section 2.8).
//!
//! One ring of descriptors, in which we overwrite what the driver wrote. Two flag bits of each descriptor say whose it is, by
//! comparison with a wrap counter that flips with every round (2.8.1); a [`Place`] is an index and its round in one number.
//!
//! A descriptor's second word (length, identifier, flags) is one 64-bit access: one load takes all that the driver says of
//! it, with the address the only other word, and one store makes a buffer used. A batch of used buffers is written back to front:
//! the driver goes through the ring in order, so it sees none of them before the first, and then all.
//!
//! Chains are given back in the order in which they were taken. So the used descriptor of a chain goes where the chain
//! began, everything from the used place on is as the driver left it, and a device that died is followed by one that begins
//! at the used place (`recovery`; `inflight` for the batch that was being written).

#[cfg(test)]
pub(super) mod driver;
mod place;
mod recovery;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use place::{Place, Rounds};

use super::chains::{AHEAD, LONGEST_CHAIN};
use super::inflight::Inflight;
use super::table::Table;
use super::{Addresses, Base, Chains, Element, Layout, MOST_CHAINS, Ring, RingFault, words};
use crate::guest::{Access, Memory, Words};

/// Descriptor flag: the chain goes on.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes; in a used descriptor: its length is valid.
const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
const INDIRECT: u16 = 4;
/// Descriptor flag: equals the driver's wrap counter when available.
const AVAILABLE: u16 = 1 << 7;
/// Descriptor flag: equals the device's wrap counter when used, and not the driver's when available.
const USED: u16 = 1 << 15;

/// Event suppression (2.8.10), flags in the upper half of the word: always.
const EVENTS_ON: u32 = 0;
/// Event suppression: never.
const EVENTS_OFF: u32 = 1;
/// Event suppression: when the place in the lower half is passed.
const EVENTS_AT_PLACE: u32 = 2;

/// Largest ring (2.8.10.1).
const LARGEST: u16 = 1 << 15;
/// How often a ring is read to find out where it stands, when the driver writes to it meanwhile.
const READINGS: usize = 4;
/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;
/// Descriptors in a cache line.
const LINE: usize = 4;

/// Two words that hold a descriptor.
type Descriptor = [AtomicU64; 2];

/// A chain that is to be used, as the driver will see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    /// Where.
    place: Place,
    /// How many descriptors it stands for.
    pub(super) descriptors: u16,
    /// The second word of the descriptor there.
    pub(super) word: u64,
}

/// The device's side of a packed ring.
#[derive(Debug)]
pub(in super::super) struct Packed {
    areas: Areas,
    rounds: Rounds,
    addresses: Addresses,
    /// Next place to take.
    available: Place,
    /// Chains that were taken since the last look.
    taken: usize,
    /// Next place to make used: what is staged begins there.
    used: Place,
    /// Behind what is staged.
    staged_end: Place,
    staged: Vec<Staged>,
    /// Descriptors made used since the last certain look at the driver's wish for signals.
    unsettled: u32,
    /// Descriptors made used since the log was told.
    unlogged: u32,
    /// Cache lines of the ring that the last look went through.
    lines: usize,
    event_index: bool,
    indirect: bool,
    skip_used: bool,
    /// The device writes nothing into buffers.
    reads_only: bool,
    inflight: Option<Inflight>,
}

/// The parts of the ring in the driver's memory.
#[derive(Debug)]
struct Areas {
    descriptors: Words<Descriptor>,
    /// The driver's wish for signals.
    driver_events: Words<AtomicU32>,
    /// Our wish for kicks.
    device_events: Words<AtomicU32>,
}

impl Areas {
    fn new(memory: &Memory, addresses: Addresses, size: u32) -> Result<Self, RingFault> {
        Ok(Self {
            descriptors: words(memory, addresses.descriptors, size as usize, Access::Write)?,
            driver_events: words(memory, addresses.driver, 1, Access::Read)?,
            device_events: words(memory, addresses.device, 1, Access::Write)?,
        })
    }

    /// The second word of the descriptor at `place` when that is available. Acquire: what the driver wrote before is seen
    /// after.
    #[inline(always)]
    fn available(&self, rounds: Rounds, place: Place) -> Option<(u64, &AtomicU64)> {
        let [address, rest] = self.descriptors.get(rounds.index(place))?;
        let rest = u64::from_le(rest.load(Ordering::Acquire));
        is_available(rest, rounds.wrap(place)).then_some((rest, address))
    }

    /// Makes the descriptor at `place` used, or the whole chain that it heads. Release: the driver sees the buffer's bytes, and what
    /// was made used before, first.
    #[inline(always)]
    fn store(&self, rounds: Rounds, place: Place, word: u64) {
        if let Some([_, rest]) = self.descriptors.get(rounds.index(place)) {
            super::inflight::step();
            rest.store(word.to_le(), Ordering::Release);
        }
    }

    fn store_events(&self, wish: u32) {
        if let Some(events) = self.device_events.first() {
            events.store(wish.to_le(), Ordering::Relaxed);
        }
    }
}

/// Whether a second word makes its descriptor available in a round with this wrap counter (2.8.1).
#[inline(always)]
fn is_available(rest: u64, wrap: bool) -> bool {
    flags(rest) & (AVAILABLE | USED) == if wrap { AVAILABLE } else { USED }
}

/// Flags of a second word.
#[inline(always)]
fn flags(rest: u64) -> u16 {
    (rest >> 48) as u16
}

/// Identifier in a second word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the word is taken apart")]
fn identifier(rest: u64) -> u16 {
    (rest >> 32) as u16
}

/// Length in a second word.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the word is taken apart")]
fn length(rest: u64) -> u32 {
    rest as u32
}

/// The second word of a used descriptor in a round with this wrap counter.
#[inline(always)]
fn used_word(id: u16, written: u32, wrap: bool) -> u64 {
    let turn = if wrap { AVAILABLE | USED } else { 0 };
    // The length says something only with this flag (2.8.5).
    let write = if written > 0 { WRITE } else { 0 };
    u64::from(written) | u64::from(id) << 32 | u64::from(turn | write) << 48
}

impl Packed {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the size was given as 16 bits")]
    fn length(&self) -> u16 {
        self.rounds.size() as u16
    }

    /// Refuses identifiers beyond the ring.
    #[inline(always)]
    fn check(&self, id: u16) -> Result<(), RingFault> {
        if u32::from(id) < self.rounds.size() {
            return Ok(());
        }
        Err(RingFault::NoSuchDescriptor { index: id.into(), size: self.rounds.size() })
    }

    /// Reads the chain at `place`, whose head consists of `address` and `rest`, in a ring that has `room` descriptors that are not
    /// in use. How many it takes.
    #[inline(never)]
    fn walk(
        &self,
        memory: &Memory,
        place: Place,
        (mut address, mut rest): (u64, u64),
        room: u32,
        chains: &mut Chains,
    ) -> Result<u16, RingFault> {
        let head = identifier(rest);
        let mut building = chains.begin(head);
        if flags(rest) & INDIRECT != 0 {
            // A table ends a chain that it also begins (2.8.7); its WRITE flag says nothing.
            if !self.indirect || flags(rest) & NEXT != 0 {
                return Err(RingFault::BadFlags { head, flags: flags(rest) });
            }
            self.check(head)?;
            let table = Table::read(memory, address, length(rest), head, self.length())?;
            // In a table only the order counts, and of the flags only WRITE. One more than is kept cuts the chain; the rest says nothing.
            for index in (0..table.count()).take(LONGEST_CHAIN + 1) {
                let (address, rest) = table.descriptor(index)?;
                if flags(rest) & INDIRECT != 0 {
                    return Err(RingFault::NestedTable { head });
                }
                // DPDK leaves WRITE in the tables of frames that it sends, and no device that reads cares.
                let writable = flags(rest) & WRITE != 0 && !self.reads_only;
                if !building.push(Element { address, len: length(rest) }, writable) {
                    return Err(RingFault::Direction { head });
                }
            }
            building.finish(1);
            return Ok(1);
        }
        let mut count = 1_u16;
        loop {
            if flags(rest) & INDIRECT != 0 {
                return Err(RingFault::BadFlags { head, flags: flags(rest) });
            }
            if !building.push(Element { address, len: length(rest) }, flags(rest) & WRITE != 0) {
                return Err(RingFault::Direction { head });
            }
            if flags(rest) & NEXT == 0 {
                break;
            }
            if u32::from(count) >= room {
                return Err(RingFault::ChainTooLong { head, size: self.length() });
            }
            let next = self.rounds.after(place, count.into());
            // The head is made available last (2.8.6), so all of its chain has to be.
            let Some((next_rest, next_address)) = self.areas.available(self.rounds, next) else {
                return Err(RingFault::ChainCutOff { place: self.rounds.bits_of(place) & 0x7fff });
            };
            (address, rest) = (u64::from_le(next_address.load(Ordering::Relaxed)), next_rest);
            count = count.saturating_add(1);
        }
        // The identifier is in the last descriptor, and need not be in the others (2.8.6).
        let id = identifier(rest);
        self.check(id)?;
        building.identify(id);
        building.finish(count);
        Ok(count)
    }

    /// Reads chains until `limit` are there, of which `have` are there already, and then those of a single descriptor that are ahead of them.
    #[inline(always)]
    fn fill(&mut self, memory: &Memory, limit: usize, have: usize, chains: &mut Chains) -> Result<(), RingFault> {
        // What is kept from the last look are chains of one descriptor.
        #[expect(clippy::cast_possible_truncation, reason = "a look gives some hundred chains")]
        let mut place = self.rounds.after(self.available, have as u32);
        let mut room = self.rounds.size().saturating_sub(self.rounds.distance(self.used, place));
        if have == 0 {
            // As many lines as last time: further on the driver may still be writing, and would lose the line to us.
            self.approach(place, self.lines.min(limit / LINE));
        }
        while chains.count() < limit + AHEAD && chains.has_room() {
            let Some((rest, address)) = self.areas.available(self.rounds, place) else {
                self.lines = chains.count().saturating_sub(have) / LINE;
                return Ok(());
            };
            let id = identifier(rest);
            if room == 0 {
                return if chains.count() < limit { Err(RingFault::InUse { head: id }) } else { Ok(()) };
            }
            let mut count = 1;
            if flags(rest) & (NEXT | INDIRECT) == 0 {
                if let Err(fault) = self.check(id) {
                    return if chains.count() < limit { Err(fault) } else { Ok(()) };
                }
                let address = u64::from_le(address.load(Ordering::Relaxed));
                chains.push_single(id, Element { address, len: length(rest) }, flags(rest) & WRITE != 0);
            } else if chains.count() < limit {
                let address = u64::from_le(address.load(Ordering::Relaxed));
                count = self.walk(memory, place, (address, rest), room, chains)?.into();
            } else {
                // Chains of several would not be kept.
                return Ok(());
            }
            place = self.rounds.after(place, count);
            room = room.saturating_sub(count);
        }
        self.lines = chains.count() / LINE;
        // The driver is far ahead.
        self.approach(place, AHEAD / LINE);
        Ok(())
    }

    /// Fetches `count` cache lines of the ring from behind `place` on: to be written where every descriptor is, so that they travel once.
    #[inline(always)]
    fn approach(&self, place: Place, count: usize) {
        let first = self.rounds.index(place);
        for line in 1..=count {
            if self.skip_used {
                self.areas.descriptors.prefetch(first + line * LINE);
            } else {
                self.areas.descriptors.prefetch_to_write(first + line * LINE);
            }
        }
    }

    /// Whether the driver, as it says now, waits for one of the chains used since the last certain look.
    #[inline(always)]
    fn is_wished(&self) -> bool {
        let Some(events) = self.areas.driver_events.first() else { return true };
        let wish = u32::from_le(events.load(Ordering::Relaxed));
        match (wish >> 16) & 3 {
            EVENTS_OFF => false,
            EVENTS_AT_PLACE if self.event_index => {
                #[expect(clippy::cast_possible_truncation, reason = "the word is taken apart")]
                let Some(event) = self.rounds.place_of(wish as u16) else { return true };
                // Two rounds back the same place comes again; a driver that waits so far behind is signalled once too often.
                let behind = self.rounds.distance(event, self.used);
                (1..=self.unsettled).contains(&behind) || self.unsettled >= self.rounds.size()
            }
            _ => true,
        }
    }

    /// Where the last device stopped, from what the in-flight region and the ring say; `base` is the frontend's word.
    fn resume(&mut self, base: Base) -> Result<(), RingFault> {
        let mut words = vec![0; self.areas.descriptors.len()];
        for _ in 0..READINGS {
            for (word, [_, rest]) in words.iter_mut().zip(self.areas.descriptors.iter()) {
                *word = u64::from_le(rest.load(Ordering::Acquire));
            }
            // The driver may be writing meanwhile, a chain's head last.
            if recovery::Image::new(&words, self.rounds, self.skip_used).is_whole() {
                break;
            }
        }
        let ring = recovery::Image::new(&words, self.rounds, self.skip_used);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let base = self.rounds.place_of(base.0 as u16).unwrap_or_default();
        let mut known = None;
        if let Some(inflight) = &self.inflight {
            known = inflight.resume_packed(self.length())?.and_then(|state| ring.redo(&state));
        }
        let resumed = known.unwrap_or_else(|| ring.resume(base));
        for (place, word) in resumed.unfinished.iter().rev() {
            self.areas.store(self.rounds, *place, *word);
        }
        self.available = resumed.place;
        self.used = resumed.place;
        self.staged_end = resumed.place;
        if let Some(inflight) = &self.inflight {
            inflight.resumed_packed(self.rounds.bits_of(resumed.place));
        }
        Ok(())
    }
}

impl Ring for Packed {
    fn new(memory: &Arc<Memory>, layout: Layout) -> Result<Self, RingFault> {
        let Layout { size, addresses, base, event_index, indirect, skip_used, reads_only, inflight } = layout;
        if size == 0 || size > LARGEST {
            return Err(RingFault::BadSize { size });
        }
        let mut ring = Self {
            areas: Areas::new(memory, addresses, size.into())?,
            rounds: Rounds::new(size),
            addresses,
            available: Place::default(),
            taken: 0,
            used: Place::default(),
            staged_end: Place::default(),
            staged: Vec::with_capacity(usize::from(size)),
            unsettled: 0,
            unlogged: 0,
            lines: 0,
            event_index,
            indirect,
            skip_used,
            reads_only,
            inflight,
        };
        ring.resume(base)?;
        ring.disarm();
        Ok(ring)
    }

    fn set_memory(&mut self, memory: &Arc<Memory>) -> Result<(), RingFault> {
        self.areas = Areas::new(memory, self.addresses, self.rounds.size())?;
        Ok(())
    }

    fn size(&self) -> u16 {
        self.length()
    }

    #[inline(always)]
    fn look(&mut self, memory: &Memory, limit: usize, chains: &mut Chains) -> Result<(), RingFault> {
        let limit = limit.min(MOST_CHAINS);
        let have = chains.advance(std::mem::take(&mut self.taken));
        let outcome = self.fill(memory, limit, have, chains);
        chains.show(limit);
        outcome
    }

    #[inline(always)]
    fn take(&mut self, chains: &Chains, count: usize) {
        let descriptors = chains.as_slice().iter().take(count).map(|chain| u32::from(chain.descriptors)).sum();
        self.available = self.rounds.after(self.available, descriptors);
        self.taken += count;
    }

    #[inline(always)]
    fn give_back(&mut self, id: u16, descriptors: u16, written: u32) {
        let place = self.staged_end;
        self.staged_end = self.rounds.after(place, descriptors.into());
        if self.skip_used
            && let Some(run) = self.staged.last_mut()
        {
            // One used descriptor for the run, where its first would be, with the identifier of its last (2.8.9).
            run.descriptors = run.descriptors.saturating_add(descriptors);
            run.word = used_word(id, 0, self.rounds.wrap(run.place));
        } else if self.staged.len() < self.staged.capacity() {
            // The driver sees nothing of a batch before its first descriptor. All of it is written at once all the same: where this device dies
            // in between, the next one cannot always tell that the first is missing.
            self.staged.push(Staged { place, descriptors, word: used_word(id, written, self.rounds.wrap(place)) });
        }
    }

    #[inline(always)]
    fn publish(&mut self) -> bool {
        let Some(first) = self.staged.first() else {
            return false;
        };
        let (from, to) = (self.used, self.staged_end);
        if let Some(inflight) = &self.inflight {
            inflight.intend_packed(&self.staged, self.rounds.bits_of(from), self.rounds.bits_of(to));
        }
        for staged in self.staged.get(1..).unwrap_or_default() {
            self.areas.store(self.rounds, staged.place, staged.word);
        }
        self.areas.store(self.rounds, first.place, first.word);
        if let Some(inflight) = &self.inflight {
            inflight.committed_packed(self.rounds.bits_of(to));
        }
        let count = self.rounds.distance(from, to);
        self.used = to;
        self.staged.clear();
        self.unsettled = self.unsettled.saturating_add(count);
        self.unlogged = self.unlogged.saturating_add(count);
        let wished = self.is_wished();
        if wished {
            self.unsettled = 0;
        }
        wished
    }

    #[inline(always)]
    fn is_unsettled(&self) -> bool {
        self.unsettled > 0
    }

    #[cold]
    fn settle(&mut self) -> bool {
        if self.unsettled == 0 {
            return false;
        }
        // The descriptors must be out before the driver's wish is read, or both sides may wait for each other (2.8.10).
        fence(Ordering::SeqCst);
        let wished = self.is_wished();
        self.unsettled = 0;
        wished
    }

    fn arm(&mut self) -> bool {
        let at_place = EVENTS_AT_PLACE << 16 | u32::from(self.rounds.bits_of(self.available));
        self.areas.store_events(if self.event_index { at_place } else { EVENTS_ON << 16 });
        // The wish must be out before the descriptor is read again (2.8.10).
        fence(Ordering::SeqCst);
        self.areas.available(self.rounds, self.available).is_none()
    }

    fn disarm(&mut self) {
        self.areas.store_events(EVENTS_OFF << 16);
    }

    fn base(&self) -> Base {
        let place = u32::from(self.rounds.bits_of(self.used));
        Base(place | place << 16)
    }

    fn take_written(&mut self, mut each: impl FnMut(u64, u32)) {
        let size = self.rounds.size();
        let count = self.unlogged.min(size);
        if count == 0 {
            return;
        }
        let first = u32::from(self.rounds.bits_of(self.rounds.before(self.used, count)) & 0x7fff);
        let until_end = count.min(size - first);
        each(u64::from(first * DESCRIPTOR), until_end * DESCRIPTOR);
        each(0, (count - until_end) * DESCRIPTOR);
        self.unlogged = 0;
    }
}

#[cfg(test)]
#[path = "packed_tests.rs"]
pub(super) mod tests;
