//! The registers of a queue, on pages that driver and card share (sections 8.2.3.8 and 8.2.3.9), and the ring that they describe.

use super::descriptor::{BYTES, Descriptor, at};
use crate::card::{Bus, Dma, Hint};

/// The window that the pages are in.
const WINDOW: u8 = 0;

/// Queues in each direction.
pub(super) const QUEUES: u8 = 128;

/// RXDCTL.ENABLE and TXDCTL.ENABLE.
pub(super) const ENABLE: u32 = 1 << 25;

/// Descriptors of the longest ring (section 7.1.9).
const LONGEST: u32 = 8192;

/// Descriptors fetched at once.
pub(super) const FETCH: usize = 64;

/// Where the registers of one queue are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Page(u32);

/// Offsets of registers from the first of their queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(super) enum Word {
    /// Base address, low and high.
    BaseLow = 0x00,
    BaseHigh = 0x04,
    /// Length in bytes.
    Length = 0x08,
    /// The next descriptor that the card uses, and the first that it may not use.
    Head = 0x10,
    Tail = 0x18,
    /// SRRCTL, of receive queues.
    Split = 0x14,
    /// RXDCTL, TXDCTL.
    Control = 0x28,
    /// TDWBAL and TDWBAH, of transmit queues.
    ReportLow = 0x38,
    ReportHigh = 0x3c,
}

impl Page {
    /// The page of a receive queue: 0 to 63 at 0x1000, the others at 0xD000.
    pub(super) const fn receive(queue: u8) -> Self {
        let queue = queue as u32 % QUEUES as u32;
        Self(if queue < 64 { 0x1000 + 0x40 * queue } else { 0xd000 + 0x40 * (queue - 64) })
    }

    /// The page of a transmit queue.
    pub(super) const fn transmit(queue: u8) -> Self {
        Self(0x6000 + 0x40 * (queue as u32 % QUEUES as u32))
    }

    /// The queue whose control register (RXDCTL, TXDCTL) is at `offset`: transmit or not, and its number.
    pub(super) fn of_control(offset: u32) -> Option<(bool, u8)> {
        let queues = 0..QUEUES;
        let is = |page: Self| page.0 + Word::Control as u32 == offset;
        let receive = queues.clone().find(|queue| is(Self::receive(*queue))).map(|queue| (false, queue));
        receive.or_else(|| queues.clone().find(|queue| is(Self::transmit(*queue))).map(|queue| (true, queue)))
    }

    #[inline]
    pub(super) fn get(self, bus: &Bus, word: Word) -> u32 {
        bus.register(WINDOW, self.0 + word as u32)
    }

    #[inline]
    pub(super) fn set(self, bus: &mut Bus, word: Word, value: u32) {
        bus.set_register(WINDOW, self.0 + word as u32, value);
    }

    #[inline]
    pub(super) fn is_enabled(self, bus: &Bus) -> bool {
        self.get(bus, Word::Control) & ENABLE != 0
    }

    /// Values after a reset.
    pub(super) fn reset(self, bus: &mut Bus, words: &[(Word, u32)]) {
        for offset in (0..0x40).step_by(4) {
            bus.set_register(WINDOW, self.0 + offset, 0);
        }
        for (word, value) in words {
            self.set(bus, *word, *value);
        }
    }
}

/// A ring of descriptors that the driver has handed over.
#[derive(Debug)]
pub(super) struct Ring {
    base: u64,
    size: u32,
    /// The next descriptor that the card uses.
    pub(super) head: u32,
    /// The first that it may not use, as last read.
    pub(super) tail: u32,
    hint: Hint,
}

impl Ring {
    /// Reads where the ring is.
    ///
    /// # Errors
    /// A sentence, when it cannot be.
    pub(super) fn new(bus: &Bus, page: Page) -> Result<Self, &'static str> {
        let low = page.get(bus, Word::BaseLow);
        let high = page.get(bus, Word::BaseHigh);
        let bytes = page.get(bus, Word::Length);
        if bytes == 0 || !bytes.is_multiple_of(128) || bytes / 16 > LONGEST {
            return Err("a ring whose length is no multiple of 128 bytes up to 8192 descriptors");
        }
        if low & 0x7f != 0 {
            return Err("a ring whose base is no multiple of 128");
        }
        let head = page.get(bus, Word::Head);
        let size = bytes / 16;
        if head >= size {
            return Err("a head beyond the ring");
        }
        Ok(Self { base: u64::from(high) << 32 | u64::from(low), size, head, tail: head, hint: Hint::default() })
    }

    /// The registers still say that the ring is here.
    pub(super) fn is_at(&self, bus: &Bus, page: Page) -> bool {
        let base = u64::from(page.get(bus, Word::BaseHigh)) << 32 | u64::from(page.get(bus, Word::BaseLow));
        base == self.base && page.get(bus, Word::Length) == self.size * 16
    }

    /// Descriptors of the ring.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Looks at the tail again; `false` when it is beyond the ring.
    #[inline]
    pub(super) fn look(&mut self, bus: &Bus, page: Page) -> bool {
        self.tail = page.get(bus, Word::Tail);
        self.tail < self.size
    }

    /// Descriptors between head and tail.
    #[inline]
    pub(super) fn filled(&self) -> u32 {
        if self.tail >= self.head { self.tail - self.head } else { self.size - self.head + self.tail }
    }

    /// The index `by` behind the head.
    #[inline]
    pub(super) fn index(&self, by: u32) -> u32 {
        let index = self.head + by;
        if index >= self.size { index - self.size } else { index }
    }

    /// Takes `count` descriptors, at most all of them.
    #[inline]
    pub(super) fn advance(&mut self, count: u32) {
        self.head = self.index(count);
    }

    /// Reads the descriptors from the one `skip` behind the head up to the tail, at most as many as fit; returns how many.
    ///
    /// # Errors
    /// As [`Bus::read`].
    #[inline]
    pub(super) fn fetch(&mut self, bus: &mut Bus, skip: u32, target: &mut [Descriptor]) -> Result<usize, Dma> {
        let wanted = (self.filled().saturating_sub(skip) as usize).min(target.len()).min(FETCH);
        let mut bytes = [0; FETCH * 16];
        let mut done = 0;
        while done < wanted {
            let first = self.index(skip + u32::try_from(done).unwrap_or(0));
            let here = (wanted - done).min((self.size - first) as usize);
            let Some(part) = bytes.get_mut(16 * done..16 * (done + here)) else { break };
            let address = self.address(first);
            bus.read(&mut self.hint, address, part)?;
            done += here;
        }
        for (index, descriptor) in target.iter_mut().take(wanted).enumerate() {
            *descriptor = at(&bytes, index);
        }
        Ok(wanted)
    }

    /// Writes a descriptor back.
    #[inline]
    pub(super) fn write(&mut self, bus: &mut Bus, index: u32, descriptor: Descriptor) {
        // What was refused is on record; the card cannot know.
        let address = self.address(index);
        let _refused = bus.write(&mut self.hint, address, &super::descriptor::image(descriptor));
    }

    /// Writes the second word of a descriptor only, so that the address in the first one stays the driver's.
    pub(super) fn write_status(&mut self, bus: &mut Bus, index: u32, word: u64) {
        let address = self.address(index).wrapping_add(8);
        let _refused = bus.write(&mut self.hint, address, &word.to_le_bytes());
    }

    fn address(&self, index: u32) -> u64 {
        self.base.wrapping_add(BYTES * u64::from(index))
    }
}
