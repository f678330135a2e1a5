//! The split format (section 2.7): descriptor table, available ring, used ring.

use std::sync::atomic::{Ordering, fence};

use super::{Broken, Chain, RingPlan, halves, table_len};
use crate::memory::{Access, Memory, Words};
use crate::random::Random;
use crate::virtio_net::specification::{Features, descriptor};

#[derive(Debug)]
pub(crate) struct Split {
    size: u16,
    descriptors: Words,
    driver: Words,
    device: Words,
    event_index: bool,
    indirect: bool,
    in_order: bool,
    next_available: u16,
    seen_available: u16,
    /// Staged up to here, and published up to there.
    next_used: u16,
    published: u16,
    /// `published` when an interrupt was last considered.
    considered: u16,
    suppressed_at: Option<u16>,
}

impl Split {
    pub(super) fn new(plan: &RingPlan, memory: &Memory) -> Result<Self, Broken> {
        let entries = usize::from(plan.size);
        if !plan.size.is_power_of_two() || plan.size > 1 << 15 {
            return Err("a split ring whose size is no power of two up to 32768");
        }
        if !plan.descriptors.is_multiple_of(16) || !plan.driver.is_multiple_of(2) || !plan.device.is_multiple_of(4) {
            return Err("a part of a split ring is not aligned");
        }
        let event_index = plan.features.contains(Features::EVENT_IDX);
        let event = if event_index { 2 } else { 0 };
        let unmapped = "a part of the ring is not mapped for the device";
        Ok(Self {
            size: plan.size,
            descriptors: memory.words(plan.descriptors, descriptor::BYTES * entries, Access::Read).ok_or(unmapped)?,
            driver: memory.words(plan.driver, 4 + 2 * entries + event, Access::Read).ok_or(unmapped)?,
            device: memory.words(plan.device, 4 + 8 * entries + event, Access::Write).ok_or(unmapped)?,
            event_index,
            indirect: plan.features.contains(Features::INDIRECT_DESC),
            in_order: plan.features.contains(Features::IN_ORDER),
            next_available: 0,
            seen_available: 0,
            next_used: 0,
            published: 0,
            considered: 0,
            suppressed_at: None,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    pub(super) fn peek(&mut self, memory: &Memory, chain: &mut Chain) -> Result<bool, Broken> {
        if self.next_available == self.seen_available {
            let now = self.driver.load16(2);
            if now == self.next_available {
                return Ok(false);
            }
            if now.wrapping_sub(self.next_available) > self.size {
                return Err("the available index runs ahead of the ring");
            }
            self.seen_available = now;
        }
        let entry = usize::from(self.next_available & (self.size - 1));
        let head = self.driver.load16(4 + 2 * entry);
        if head >= self.size {
            return Err("an available entry beyond the descriptor table");
        }
        if chain.elements.capacity() == 0 {
            chain.elements.reserve(64);
        }
        chain.clear();
        chain.id = head;
        let mut index = head;
        for _ in 0..self.size {
            chain.slots += 1;
            let offset = descriptor::BYTES * usize::from(index);
            let address = self.descriptors.load64(offset);
            let (len, flags, next) = halves(self.descriptors.load64(offset + 8));
            if flags & descriptor::INDIRECT != 0 {
                if flags & descriptor::NEXT != 0 {
                    return Err("a descriptor with both NEXT and INDIRECT");
                }
                self.indirect(memory, chain, address, len)?;
                return Ok(true);
            }
            chain.push(address, len, flags & descriptor::WRITE != 0)?;
            if flags & descriptor::NEXT == 0 {
                return Ok(true);
            }
            if next >= self.size {
                return Err("a descriptor's next lies beyond the table");
            }
            if self.in_order && next != (index + 1) & (self.size - 1) {
                return Err("descriptors out of order with VIRTIO_F_IN_ORDER");
            }
            index = next;
        }
        Err("a descriptor chain longer than the ring")
    }

    fn indirect(&self, memory: &Memory, chain: &mut Chain, address: u64, len: u32) -> Result<(), Broken> {
        let count = table_len(len, self.indirect)?;
        let Some(table) = memory.words(address, len as usize, Access::Read) else {
            return Err("an indirect table is not mapped for the device");
        };
        let mut index = 0;
        for _ in 0..count.min(u32::from(self.size)) {
            let offset = descriptor::BYTES * index as usize;
            let address = table.load64(offset);
            let (len, flags, next) = halves(table.load64(offset + 8));
            if flags & descriptor::INDIRECT != 0 {
                return Err("an indirect table inside an indirect table");
            }
            chain.push(address, len, flags & descriptor::WRITE != 0)?;
            if flags & descriptor::NEXT == 0 {
                return Ok(());
            }
            index = u32::from(next);
            if index >= count {
                return Err("a descriptor's next lies beyond its indirect table");
            }
        }
        Err("an indirect chain longer than its table or the ring")
    }

    #[inline]
    pub(super) fn advance(&mut self, _: &Chain) {
        self.next_available = self.next_available.wrapping_add(1);
    }

    pub(super) fn mark(&self) -> u32 {
        u32::from(self.next_available)
    }

    pub(super) fn rewind(&mut self, mark: u32) {
        self.next_available = u16::try_from(mark).unwrap_or(self.next_available);
    }

    /// One entry stands for a whole batch when buffers are used in order (section 2.7.9).
    #[inline]
    pub(super) fn complete(&mut self, id: u32, len: u32, chains: u16) {
        let offset = 4 + 8 * usize::from(self.next_used & (self.size - 1));
        self.device.store32(offset, id);
        self.device.store32(offset + 4, len);
        self.next_used = self.next_used.wrapping_add(chains);
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if self.published != self.next_used {
            self.published = self.next_used;
            self.device.store16(2, self.next_used);
        }
    }

    /// Section 2.7.7.2.
    pub(super) fn wants_interrupt(&mut self) -> bool {
        let (new, old) = (self.published, self.considered);
        self.considered = new;
        if new == old {
            return false;
        }
        fence(Ordering::SeqCst);
        if !self.event_index {
            return self.driver.load16(0) & 1 == 0;
        }
        let event = self.driver.load16(4 + 2 * usize::from(self.size));
        new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
    }

    pub(super) fn ask_for_doorbell(&mut self) {
        self.suppressed_at = None;
        if self.event_index {
            self.device.store16(4 + 8 * usize::from(self.size), self.next_available);
        } else {
            self.device.store16(0, 0);
        }
        fence(Ordering::SeqCst);
    }

    /// With event indices, an index that has just gone by is as far away as can be; it is renewed before it comes round.
    pub(super) fn suppress_doorbells(&mut self) {
        let now = self.next_available;
        if self.suppressed_at.is_some_and(|then| !self.event_index || now.wrapping_sub(then) < 0x4000) {
            return;
        }
        self.suppressed_at = Some(now);
        if self.event_index {
            self.device.store16(4 + 8 * usize::from(self.size), now.wrapping_sub(1));
        } else {
            self.device.store16(0, 1);
        }
    }

    pub(super) fn jump(&mut self, entries: i16) {
        self.next_used = self.next_used.wrapping_add_signed(entries);
        self.publish();
    }

    pub(super) fn overwrite(&mut self, random: &mut Random) {
        for words in [&self.descriptors, &self.driver] {
            for offset in (0..words.len()).step_by(2) {
                let [low, high, ..] = random.bits().to_le_bytes();
                words.store16(offset, u16::from_le_bytes([low, high]));
            }
        }
        // The device itself goes on from what it had seen.
        self.next_available = self.seen_available;
    }
}
