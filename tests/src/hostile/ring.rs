//! The driver's side of a ring, from the virtio specification (2.7 and 2.8), for machines that keep its rules and for those that do not.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::machine::layout;
use super::memory::Memory;

/// The chain goes on (split and packed).
pub const NEXT: u16 = 1;
/// The device may write.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;
/// Flags of a packed descriptor: available, used.
const AVAILABLE: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Layout of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Three areas.
    Split,
    /// One.
    Packed,
}

impl Format {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Split, Self::Packed];

    /// In names of checks.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Split => "split",
            Self::Packed => "packed",
        }
    }
}

/// A descriptor as it is to be written, but for [`NEXT`] where a ring links chains by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// Guest address.
    pub address: u64,
    /// Bytes.
    pub len: u32,
    /// Flags.
    pub flags: u16,
}

/// A ring of a machine.
#[derive(Debug)]
pub struct Ring {
    format: Format,
    number: u32,
    size: u16,
    /// Next place for a descriptor, and (packed) the wrap counter there.
    place: u16,
    wrap: bool,
    /// Index that was last shown as available (split), or the place of the next used descriptor and its wrap counter (packed).
    available: u16,
    used: u16,
    used_wrap: bool,
    free: u16,
    /// Descriptors of each chain that is out, in order.
    out: VecDeque<u16>,
}

impl Ring {
    /// Ring number `number` of a machine, with `size` descriptors.
    #[must_use]
    pub fn new(format: Format, number: u32, size: u16) -> Self {
        Self {
            format,
            number,
            size,
            place: 0,
            wrap: true,
            available: 0,
            used: 0,
            used_wrap: true,
            free: size,
            out: VecDeque::new(),
        }
    }

    /// Layout of the ring.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Descriptors that are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.free
    }

    /// Chains that are out.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out.len()
    }

    /// The next place for a descriptor.
    #[must_use]
    pub fn place(&self) -> u16 {
        self.place
    }

    /// Writes a descriptor at `offset`; `number` is the next one's (split), or the identifier (packed).
    pub fn describe(&self, memory: &Memory, offset: u64, descriptor: Descriptor, number: u16) {
        let Descriptor { address, len, flags } = descriptor;
        let (at_12, at_14) = match self.format {
            Format::Split => (flags, number),
            Format::Packed => (number, flags),
        };
        memory.word64(offset).store(address.to_le(), Ordering::Relaxed);
        let rest = u64::from(len) | u64::from(at_12) << 32 | u64::from(at_14) << 48;
        memory.word64(offset + 8).store(rest.to_le(), Ordering::Release);
    }

    /// Where descriptor `index` lies.
    #[must_use]
    pub fn descriptor(&self, index: u16) -> u64 {
        layout(self.number).descriptors + 16 * u64::from(index)
    }

    /// Makes a chain available as the rules say. `false` when there is no room.
    pub fn post(&mut self, memory: &Memory, chain: &[Descriptor]) -> bool {
        let last = chain.len().saturating_sub(1);
        let linked: Vec<Descriptor> = chain
            .iter()
            .enumerate()
            .map(|(index, descriptor)| {
                let more = if index < last { NEXT } else { 0 };
                Descriptor { flags: descriptor.flags | more, ..*descriptor }
            })
            .collect();
        self.post_as_is(memory, &linked)
    }

    /// Makes descriptors available with exactly these flags. In a split ring each names the one behind it as the next.
    pub fn post_as_is(&mut self, memory: &Memory, chain: &[Descriptor]) -> bool {
        let Ok(count) = u16::try_from(chain.len()) else { return false };
        if count == 0 || count > self.free {
            return false;
        }
        let head = self.place;
        let mut places = Vec::with_capacity(chain.len());
        for _ in chain {
            places.push((self.place, self.wrap));
            self.place += 1;
            if self.place == self.size {
                (self.place, self.wrap) = (0, !self.wrap);
            }
        }
        // The head last, which makes a packed chain available.
        for ((index, wrap), descriptor) in places.into_iter().zip(chain).rev() {
            let (number, turn) = match self.format {
                Format::Split => ((index + 1) % self.size, 0),
                Format::Packed => (head, if wrap { AVAILABLE } else { USED }),
            };
            let descriptor = Descriptor { flags: descriptor.flags | turn, ..*descriptor };
            self.describe(memory, self.descriptor(index), descriptor, number);
        }
        self.free -= count;
        self.out.push_back(count);
        if self.format == Format::Split {
            self.offer(memory, head);
            self.show(memory, self.available);
        }
        true
    }

    /// Puts a descriptor's index into the available ring (split), without showing it.
    pub fn offer(&mut self, memory: &Memory, head: u16) {
        let slot = u64::from(self.available % self.size);
        memory.word16(layout(self.number).driver + 4 + 2 * slot).store(head.to_le(), Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
    }

    /// Stores the available index (split).
    pub fn show(&self, memory: &Memory, index: u16) {
        memory.word16(layout(self.number).driver + 2).store(index.to_le(), Ordering::Release);
    }

    /// The available index (split).
    #[must_use]
    pub fn available(&self) -> u16 {
        self.available
    }

    /// Takes what the device has used; how many chains.
    pub fn collect(&mut self, memory: &Memory) -> usize {
        let mut count = 0;
        while self.is_next_used(memory) {
            let Some(descriptors) = self.out.pop_front() else { break };
            self.free += descriptors;
            match self.format {
                Format::Split => self.used = self.used.wrapping_add(1),
                Format::Packed => {
                    self.used += descriptors;
                    if self.used >= self.size {
                        (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
                    }
                }
            }
            count += 1;
        }
        count
    }

    fn is_next_used(&self, memory: &Memory) -> bool {
        match self.format {
            Format::Split => {
                let index = memory.word16(layout(self.number).device + 2).load(Ordering::Acquire);
                u16::from_le(index) != self.used
            }
            Format::Packed => {
                let flags = u16::from_le(memory.word16(self.descriptor(self.used) + 14).load(Ordering::Acquire));
                (flags & AVAILABLE != 0, flags & USED != 0) == (self.used_wrap, self.used_wrap)
            }
        }
    }
}
