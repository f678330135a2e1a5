//! The split ring, device side (virtio 1.3, section 2.7).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

use super::chains::AHEAD;
use super::table::Table;
use super::{Addresses, Base, Chains, Element, Layout, MOST_CHAINS, Ring, RingFault, event_passed, words};
use crate::guest::{Access, Memory, Words};

/// Descriptor flag: the chain goes on.
const NEXT: u16 = 1;
/// Descriptor flag: the device writes.
const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
const INDIRECT: u16 = 4;
/// Flag of the available ring: the driver wants no signals.
const NO_INTERRUPT: u16 = 1;
/// Flag of the used ring: the device wants no kicks.
const NO_NOTIFY: u16 = 1;
/// Largest ring (2.7).
const LARGEST: u16 = 1 << 15;
/// Chains whose descriptors are fetched together.
const GROUP: usize = 32;
/// Used chains in a cache line.
const USED_LINE: u16 = 8;
/// Used chains after which the driver's wish is looked at behind a fence, rest or no rest: before the difference of two
/// indexes becomes ambiguous.
const UNSETTLED_LIMIT: u16 = 1 << 14;

/// The device's side of a split ring.
#[derive(Debug)]
pub(in super::super) struct Split {
    areas: Areas,
    addresses: Addresses,
    size: u16,
    /// Next index to take from the available ring.
    next: u16,
    /// Chains that were taken since the last look.
    taken: u16,
    /// The driver's index when last read.
    available: u16,
    /// Next index to fill in the used ring.
    used_next: u16,
    /// The used index that the driver sees.
    published: u16,
    /// The used index up to which the driver's wish for signals was looked at for certain.
    settled: u16,
    /// The used index up to which writes were told to the log.
    logged: u16,
    /// Head of the chain that was staged last, when one entry stands for a run.
    last_head: u16,
    flags: u16,
    event_index: bool,
    indirect: bool,
    skip_used: bool,
    inflight: Option<super::inflight::Inflight>,
}

/// The parts of the ring in the driver's memory.
#[derive(Debug)]
struct Areas {
    descriptors: Words<[AtomicU64; 2]>,
    /// Flags, index, heads, and the driver's wish for signals.
    available: Words<AtomicU16>,
    /// Flags and index in one word, then two words for each chain.
    used: Words<AtomicU32>,
    /// Our wish for kicks.
    available_event: Words<AtomicU16>,
}

impl Areas {
    fn new(memory: &Memory, addresses: Addresses, size: u16) -> Result<Self, RingFault> {
        let size = usize::from(size);
        let entries = 4 + 8 * size as u64;
        let event = addresses.device.checked_add(entries);
        let event = event.ok_or(RingFault::BadAddress { address: addresses.device, len: u32::MAX })?;
        Ok(Self {
            descriptors: words(memory, addresses.descriptors, size, Access::Read)?,
            available: words(memory, addresses.driver, 3 + size, Access::Read)?,
            used: words(memory, addresses.device, 1 + 2 * size, Access::Write)?,
            available_event: words(memory, event, 1, Access::Write)?,
        })
    }

    /// The driver's index. Acquire: what it wrote before is seen after.
    #[inline(always)]
    fn available_index(&self) -> u16 {
        self.available.get(1).map_or(0, |index| u16::from_le(index.load(Ordering::Acquire)))
    }

    /// Up to which used index the driver waits, or its flags.
    #[inline(always)]
    fn wish(&self, event_index: bool) -> u16 {
        let word = if event_index { self.available.last() } else { self.available.first() };
        word.map_or(0, |word| u16::from_le(word.load(Ordering::Relaxed)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "words are taken apart; a ring has at most 32768 descriptors")]
impl Split {
    /// Reads chains until `limit` are there and those ahead of them, of `ready` that are available; `have` are there already. Descriptors of
    /// the next look are on their way then.
    #[inline(always)]
    fn fill(
        &self,
        memory: &Memory,
        limit: usize,
        ready: usize,
        have: usize,
        chains: &mut Chains,
    ) -> Result<(), RingFault> {
        let mut left = ready.min(limit + AHEAD).saturating_sub(have);
        let mut index = self.next.wrapping_add(have as u16);
        while left > 0 {
            let mut heads = [0; GROUP];
            let count = self.approach(index, left, &mut heads);
            let Some(heads) = heads.get(..count).filter(|heads| !heads.is_empty()) else { return Ok(()) };
            let mut rest = heads;
            loop {
                let mut other = None;
                let added = chains.push_singles(rest, |head| match self.descriptor(head) {
                    Ok((address, rest)) if (rest >> 32) as u16 & (NEXT | INDIRECT) == 0 => {
                        Some((Element { address, len: rest as u32 }, (rest >> 32) as u16 & WRITE != 0))
                    }
                    outcome => {
                        other = Some((head, outcome));
                        None
                    }
                });
                let (Some((head, outcome)), Some(behind)) = (other, rest.get(added + 1..)) else { break };
                // Chains of several would not be kept.
                if chains.count() >= limit || !self.walk(memory, head, outcome?, chains)? {
                    return Ok(());
                }
                rest = behind;
            }
            left -= count;
            index = index.wrapping_add(count as u16);
        }
        let beyond = ready.saturating_sub(limit + AHEAD).min(AHEAD);
        if beyond > 0 {
            // The heads are hints here. What counts is read at the next look.
            self.approach(index, beyond, &mut [0; GROUP]);
        }
        Ok(())
    }

    /// Reads up to `limit` heads from `index` on, and fetches their descriptors. Gives how many: a group ends where the ring does.
    #[inline(always)]
    fn approach(&self, index: u16, limit: usize, heads: &mut [u16; GROUP]) -> usize {
        let ring = self.areas.available.get(2..2 + usize::from(self.size)).unwrap_or_default();
        let group = ring.get(usize::from(index & (self.size - 1))..).unwrap_or_default();
        let group = group.get(..limit.min(GROUP)).unwrap_or(group);
        for (head, place) in group.iter().zip(heads) {
            *place = u16::from_le(head.load(Ordering::Relaxed));
            self.areas.descriptors.prefetch(usize::from(*place));
        }
        group.len()
    }

    /// The two words of a descriptor, each read once.
    #[inline(always)]
    fn descriptor(&self, index: u16) -> Result<(u64, u64), RingFault> {
        let [address, rest] = self
            .areas
            .descriptors
            .get(usize::from(index))
            .ok_or(RingFault::NoSuchDescriptor { index: index.into(), size: self.size.into() })?;
        Ok((u64::from_le(address.load(Ordering::Relaxed)), u64::from_le(rest.load(Ordering::Relaxed))))
    }

    /// Reads a chain of several descriptors. `false` when there is no room for it.
    #[inline(never)]
    fn walk(&self, memory: &Memory, head: u16, first: (u64, u64), chains: &mut Chains) -> Result<bool, RingFault> {
        if !chains.has_room() {
            return Ok(false);
        }
        // Chains that share descriptors do not make more work than there are descriptors.
        let left = usize::from(self.size).saturating_sub(chains.descriptors());
        let mut building = chains.begin(head);
        let too_long = RingFault::ChainTooLong { head, size: self.size };
        let wrong = RingFault::Direction { head };
        let (mut address, mut rest) = first;
        let mut table = None;
        let mut in_ring = 1_u16;
        let mut length = 0_u16;
        loop {
            let (len, flags, next) = (rest as u32, (rest >> 32) as u16, (rest >> 48) as u16);
            if flags & INDIRECT != 0 {
                // Zero or more ordinary descriptors and then one with a table are allowed (2.7.5.3.2), whose WRITE flag says nothing.
                if table.is_some() {
                    return Err(RingFault::NestedTable { head });
                }
                if !self.indirect || flags & NEXT != 0 {
                    return Err(RingFault::BadFlags { head, flags });
                }
                let entries = Table::read(memory, address, len, head, self.size)?;
                (address, rest) = entries.descriptor(0)?;
                table = Some(entries);
                continue;
            }
            length += 1;
            let most = table.as_ref().map_or(self.size.into(), |table| u32::from(in_ring) + table.count());
            if u32::from(length) > most.min(self.size.into()) {
                return Err(too_long);
            }
            if !building.push(Element { address, len }, flags & WRITE != 0) {
                return Err(wrong);
            }
            if flags & NEXT == 0 || building.is_cut() && table.is_some() {
                // Or it is too long already, and nobody asks what else is in the table.
                break;
            }
            (address, rest) = match &table {
                Some(entries) => entries.descriptor(next.into())?,
                None => {
                    in_ring = in_ring.saturating_add(1);
                    if usize::from(in_ring) > left {
                        return Err(too_long);
                    }
                    self.descriptor(next)?
                }
            };
        }
        building.finish(in_ring);
        Ok(true)
    }

    /// Writes a used entry at the index `place`. Nothing is ordered here.
    #[inline(always)]
    fn write_used(&self, place: u16, head: u16, written: u32) {
        let index = usize::from(place & (self.size - 1));
        if let Some([id, len]) = self.areas.used.get(1 + 2 * index..3 + 2 * index) {
            id.store(u32::from(head).to_le(), Ordering::Relaxed);
            len.store(written.to_le(), Ordering::Relaxed);
        }
    }

    /// Stores flags and index of the used ring, which both are ours alone.
    #[inline(always)]
    fn store_index(&self, order: Ordering) {
        if let Some(word) = self.areas.used.first() {
            word.store((u32::from(self.published) << 16 | u32::from(self.flags)).to_le(), order);
        }
    }

    fn store_event(&self, index: u16) {
        if let Some(word) = self.areas.available_event.first() {
            word.store(index.to_le(), Ordering::Relaxed);
        }
    }

    /// Whether the driver, as it says now, waits for one of the chains published since the last certain look.
    #[inline(always)]
    fn is_wished(&self) -> bool {
        let wish = self.areas.wish(self.event_index);
        if self.event_index { event_passed(wish, self.published, self.settled) } else { wish & NO_INTERRUPT == 0 }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "words are taken apart; a ring has at most 32768 descriptors")]
impl Ring for Split {
    fn new(memory: &Arc<Memory>, layout: Layout) -> Result<Self, RingFault> {
        let Layout { size, addresses, event_index, indirect, skip_used, mut inflight, .. } = layout;
        if !size.is_power_of_two() || size > LARGEST {
            return Err(RingFault::BadSize { size });
        }
        let areas = Areas::new(memory, addresses, size)?;
        // The used index, which only a device writes, says where the last one stopped; chains are given back in the order
        // in which they were taken, so what was taken and not given back is what comes next. The frontend's base says the same, unless
        // frames were underway when the last device died. A lie only changes where we begin.
        let next = areas.used.first().map_or(0, |word| (u32::from_le(word.load(Ordering::Acquire)) >> 16) as u16);
        if let Some(inflight) = &mut inflight {
            inflight.resume_split(size, next)?;
        }
        let mut ring = Self {
            areas,
            addresses,
            size,
            next,
            taken: 0,
            available: next,
            used_next: next,
            published: next,
            settled: next,
            logged: next,
            last_head: 0,
            flags: 0,
            event_index,
            indirect,
            skip_used,
            inflight,
        };
        ring.disarm();
        Ok(ring)
    }

    fn set_memory(&mut self, memory: &Arc<Memory>) -> Result<(), RingFault> {
        self.areas = Areas::new(memory, self.addresses, self.size)?;
        Ok(())
    }

    fn size(&self) -> u16 {
        self.size
    }

    #[inline(always)]
    fn look(&mut self, memory: &Memory, limit: usize, chains: &mut Chains) -> Result<(), RingFault> {
        let limit = limit.min(MOST_CHAINS);
        let have = chains.advance(std::mem::take(&mut self.taken).into());
        let seen = self.available.wrapping_sub(self.next);
        if usize::from(seen) < limit {
            let index = self.areas.available_index();
            // Taken chains and available ones together fill the ring at most (2.7.13).
            if index.wrapping_sub(self.used_next) > self.size || index.wrapping_sub(self.next) < seen {
                return Err(RingFault::IndexJump { from: self.next, to: index, size: self.size });
            }
            self.available = index;
        }
        // What was read ahead was available then.
        let ready = usize::from(self.available.wrapping_sub(self.next));
        let outcome = self.fill(memory, limit, ready, have, chains);
        chains.show(limit);
        outcome
    }

    #[inline(always)]
    fn take(&mut self, _: &Chains, count: usize) {
        // At most as many as were looked at, which is no more than the size.
        self.next = self.next.wrapping_add(count as u16);
        self.taken = self.taken.wrapping_add(count as u16);
    }

    #[inline(always)]
    fn give_back(&mut self, id: u16, _: u16, written: u32) {
        if self.skip_used {
            self.last_head = id;
        } else {
            if self.used_next.is_multiple_of(USED_LINE) {
                // The driver has read that line, and does not look at it again before it is written.
                let ahead = self.used_next.wrapping_add(GROUP as u16) & (self.size - 1);
                self.areas.used.prefetch_to_write(1 + 2 * usize::from(ahead));
            }
            self.write_used(self.used_next, id, written);
        }
        self.used_next = self.used_next.wrapping_add(1);
    }

    #[inline(always)]
    fn publish(&mut self) -> bool {
        if self.used_next == self.published {
            return false;
        }
        if self.skip_used {
            // One entry for the run, where its first would be, with the head of its last (2.7.9).
            self.write_used(self.published, self.last_head, 0);
        }
        self.published = self.used_next;
        // Release: the driver sees the index only after the entries and what was written into the buffers.
        self.store_index(Ordering::Release);
        if let Some(inflight) = &self.inflight {
            inflight.published_split(self.published);
        }
        if self.published.wrapping_sub(self.settled) >= UNSETTLED_LIMIT {
            return self.settle();
        }
        let wished = self.is_wished();
        if wished {
            self.settled = self.published;
        }
        wished
    }

    #[inline(always)]
    fn is_unsettled(&self) -> bool {
        self.settled != self.published
    }

    #[cold]
    fn settle(&mut self) -> bool {
        // The index must be out before the driver's wish is read, or both sides may wait for each other (2.7.7.2).
        fence(Ordering::SeqCst);
        let wished = self.is_wished();
        self.settled = self.published;
        wished
    }

    fn arm(&mut self) -> bool {
        if self.event_index {
            self.store_event(self.next);
        } else {
            self.flags = 0;
            self.store_index(Ordering::Relaxed);
        }
        // The wish must be out before the index is read again (2.7.10.1).
        fence(Ordering::SeqCst);
        self.areas.available_index() == self.next
    }

    fn disarm(&mut self) {
        if self.event_index {
            // The flag must stay 0 then. An event further behind than the ring is long is not passed for the next 65,000 chains;
            // one kick too many after that does no harm.
            self.store_event(self.next.wrapping_sub(self.size).wrapping_sub(1));
        } else {
            self.flags = NO_NOTIFY;
            self.store_index(Ordering::Relaxed);
        }
    }

    fn base(&self) -> Base {
        Base(self.used_next.into())
    }

    fn take_written(&mut self, mut each: impl FnMut(u64, u32)) {
        let count = self.published.wrapping_sub(self.logged).min(self.size);
        if count == 0 {
            return;
        }
        let first = self.published.wrapping_sub(count) & (self.size - 1);
        let until_end = count.min(self.size - first);
        let entry = |index: u16| 4 + 8 * u64::from(index);
        each(entry(first), 8 * u32::from(until_end));
        each(entry(0), 8 * u32::from(count - until_end));
        each(0, 4);
        self.logged = self.published;
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
