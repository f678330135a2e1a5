//! The packed format (section 2.8): one ring of descriptors that both sides write.

use std::sync::atomic::{Ordering, fence};

use super::{Broken, Chain, RingPlan, halves, table_len};
use crate::memory::{Access, Memory, Words};
use crate::random::Random;
use crate::virtio_net::specification::{Features, descriptor};

/// A place in the ring with its wrap counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Position {
    slot: u16,
    wrap: bool,
}

impl Position {
    const START: Self = Self { slot: 0, wrap: true };

    #[inline]
    fn moved(self, slots: u16, size: u16) -> Self {
        let slot = u32::from(self.slot) + u32::from(slots);
        let size = u32::from(size);
        let (slot, wrapped) = if slot >= size { (slot - size, true) } else { (slot, false) };
        Self { slot: u16::try_from(slot).unwrap_or(0), wrap: self.wrap ^ wrapped }
    }

    /// Slots from `start` to here, within two rounds.
    fn distance_from(self, start: Self, size: u16) -> u32 {
        let size = u32::from(size);
        let linear = |position: Self| u32::from(position.slot) + if position.wrap { 0 } else { size };
        (linear(self) + 2 * size - linear(start)) % (2 * size)
    }
}

#[derive(Debug)]
pub(crate) struct Packed {
    size: u16,
    descriptors: Words,
    driver_event: Words,
    device_event: Words,
    event_index: bool,
    indirect: bool,
    available: Position,
    used: Position,
    /// The first used descriptor that is staged: written last, so that the driver sees all or nothing.
    first_staged: Option<(u16, u64)>,
    considered: Position,
    suppressed: bool,
}

const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_DESCRIPTOR: u16 = 2;

impl Packed {
    pub(super) fn new(plan: &RingPlan, memory: &Memory) -> Result<Self, Broken> {
        if plan.size == 0 || plan.size > 1 << 15 {
            return Err("a packed ring whose size is not 1 to 32768");
        }
        if !plan.descriptors.is_multiple_of(16) || !plan.driver.is_multiple_of(4) || !plan.device.is_multiple_of(4) {
            return Err("a part of a packed ring is not aligned");
        }
        let bytes = descriptor::BYTES * usize::from(plan.size);
        let unmapped = "a part of the ring is not mapped for the device";
        Ok(Self {
            size: plan.size,
            descriptors: memory.words(plan.descriptors, bytes, Access::Write).ok_or(unmapped)?,
            driver_event: memory.words(plan.driver, 4, Access::Read).ok_or(unmapped)?,
            device_event: memory.words(plan.device, 4, Access::Write).ok_or(unmapped)?,
            event_index: plan.features.contains(Features::EVENT_IDX),
            indirect: plan.features.contains(Features::INDIRECT_DESC),
            available: Position::START,
            used: Position::START,
            first_staged: None,
            considered: Position::START,
            suppressed: false,
        })
    }

    pub(super) fn size(&self) -> u16 {
        self.size
    }

    fn available_at(&self, position: Position) -> Option<(u32, u16, u16)> {
        let (len, id, flags) = halves(self.descriptors.load64(descriptor::BYTES * usize::from(position.slot) + 8));
        let available = flags & descriptor::AVAIL != 0;
        let used = flags & descriptor::USED != 0;
        (available == position.wrap && used != position.wrap).then_some((len, id, flags))
    }

    #[inline]
    pub(super) fn peek(&mut self, memory: &Memory, chain: &mut Chain) -> Result<bool, Broken> {
        let mut position = self.available;
        let Some((mut len, mut id, mut flags)) = self.available_at(position) else {
            return Ok(false);
        };
        chain.clear();
        for _ in 0..self.size {
            let address = self.descriptors.load64(descriptor::BYTES * usize::from(position.slot));
            chain.slots += 1;
            chain.id = id;
            if flags & descriptor::INDIRECT != 0 {
                if flags & descriptor::NEXT != 0 || chain.slots > 1 {
                    return Err("an indirect descriptor in a chain");
                }
                self.indirect(memory, chain, address, len)?;
                return Ok(true);
            }
            chain.push(address, len, flags & descriptor::WRITE != 0)?;
            if flags & descriptor::NEXT == 0 {
                return Ok(true);
            }
            position = position.moved(1, self.size);
            let Some(next) = self.available_at(position) else {
                return Err("a chain whose rest is not available");
            };
            (len, id, flags) = next;
        }
        Err("a descriptor chain longer than the ring")
    }

    /// Only `WRITE` means something inside a table; its descriptors follow each other (section 2.8.7).
    fn indirect(&self, memory: &Memory, chain: &mut Chain, address: u64, len: u32) -> Result<(), Broken> {
        let count = table_len(len, self.indirect)?;
        if count > u32::from(self.size) {
            return Err("an indirect table longer than the ring");
        }
        let Some(table) = memory.words(address, len as usize, Access::Read) else {
            return Err("an indirect table is not mapped for the device");
        };
        for index in 0..count as usize {
            let offset = descriptor::BYTES * index;
            let (len, _, flags) = halves(table.load64(offset + 8));
            chain.push(table.load64(offset), len, flags & descriptor::WRITE != 0)?;
        }
        Ok(())
    }

    #[inline]
    pub(super) fn advance(&mut self, chain: &Chain) {
        self.available = self.available.moved(chain.slots, self.size);
    }

    pub(super) fn mark(&self) -> u32 {
        u32::from(self.available.slot) | u32::from(self.available.wrap) << 16
    }

    pub(super) fn rewind(&mut self, mark: u32) {
        self.available = Position { slot: u16::try_from(mark & 0xffff).unwrap_or(0), wrap: mark >> 16 != 0 };
    }

    #[inline]
    pub(super) fn complete(&mut self, id: u16, len: u32, slots: u16) {
        let mut flags = if self.used.wrap { descriptor::AVAIL | descriptor::USED } else { 0 };
        if len != 0 {
            flags |= descriptor::WRITE;
        }
        let word = u64::from(len) | u64::from(id) << 32 | u64::from(flags) << 48;
        if self.first_staged.is_none() {
            self.first_staged = Some((self.used.slot, word));
        } else {
            self.descriptors.store64(descriptor::BYTES * usize::from(self.used.slot) + 8, word);
        }
        self.used = self.used.moved(slots, self.size);
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        if let Some((slot, word)) = self.first_staged.take() {
            self.descriptors.store64(descriptor::BYTES * usize::from(slot) + 8, word);
        }
    }

    /// Section 2.8.10.
    pub(super) fn wants_interrupt(&mut self) -> bool {
        let (new, old) = (self.used, self.considered);
        self.considered = new;
        if new == old {
            return false;
        }
        fence(Ordering::SeqCst);
        // Both halves with one access, so that they belong together.
        let [a, b, c, d] = self.driver_event.load32(0).to_le_bytes();
        let at = u16::from_le_bytes([a, b]);
        match u16::from_le_bytes([c, d]) & 3 {
            EVENT_ENABLE => true,
            EVENT_DESCRIPTOR if self.event_index => {
                let event = Position { slot: at & 0x7fff, wrap: at & 0x8000 != 0 };
                event.slot < self.size && event.distance_from(old, self.size) < new.distance_from(old, self.size)
            }
            _ => false,
        }
    }

    pub(super) fn ask_for_doorbell(&mut self) {
        self.suppressed = false;
        let at = u32::from(self.available.slot) | u32::from(self.available.wrap) << 15;
        let flags = if self.event_index { EVENT_DESCRIPTOR } else { EVENT_ENABLE };
        self.device_event.store32(0, at | u32::from(flags) << 16);
        fence(Ordering::SeqCst);
    }

    pub(super) fn suppress_doorbells(&mut self) {
        if !self.suppressed {
            self.suppressed = true;
            self.device_event.store32(0, u32::from(EVENT_DISABLE) << 16);
        }
    }

    /// Marks descriptors used that the driver may not even have made available, or un-uses the one that it looks at.
    pub(super) fn jump(&mut self, entries: i16) {
        self.publish();
        if entries < 0 {
            let flags = if self.used.wrap { 0 } else { descriptor::AVAIL | descriptor::USED };
            self.descriptors.store16(descriptor::BYTES * usize::from(self.used.slot) + 14, flags);
            return;
        }
        for _ in 0..entries {
            let flags = if self.used.wrap { descriptor::AVAIL | descriptor::USED } else { 0 };
            self.descriptors.store16(descriptor::BYTES * usize::from(self.used.slot) + 14, flags);
            self.used = self.used.moved(1, self.size);
        }
    }

    pub(super) fn overwrite(&mut self, random: &mut Random) {
        for words in [&self.descriptors, &self.driver_event] {
            for offset in (0..words.len()).step_by(2) {
                let [low, high, ..] = random.bits().to_le_bytes();
                words.store16(offset, u16::from_le_bytes([low, high]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap_and_measure() {
        let start = Position { slot: 6, wrap: true };
        let end = start.moved(3, 8);
        assert_eq!(end, Position { slot: 1, wrap: false });
        assert_eq!(end.distance_from(start, 8), 3);
        assert_eq!(start.distance_from(end, 8), 13);
        assert_eq!(start.moved(8, 8), Position { slot: 6, wrap: false });
    }
}
