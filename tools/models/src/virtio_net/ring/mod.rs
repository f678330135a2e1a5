//! The device side of a virtqueue, in both formats: take what the driver made available, give it back used.

mod packed;
mod split;

pub(super) use packed::Packed;
pub(super) use split::Split;

use super::specification::{Features, descriptor};
use super::wire::Element;
use crate::memory::{Access, Memory};
use crate::random::Random;

/// A buffer that the driver made available.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Its number, to be given back with it.
    pub(super) id: u16,
    /// Descriptors that it takes in the ring.
    pub(super) slots: u16,
    /// Its parts, readable ones first.
    pub(super) elements: Vec<Element>,
}

impl Chain {
    fn clear(&mut self) {
        self.elements.clear();
        self.slots = 0;
    }

    fn push(&mut self, address: u64, len: u32, writable: bool) -> Result<(), Broken> {
        if !writable && self.elements.last().is_some_and(|last| last.writable) {
            return Err("a readable descriptor behind a writable one");
        }
        self.elements.push(Element { address, len, writable });
        Ok(())
    }

    /// Bytes that the device may write.
    pub(super) fn writable_len(&self) -> usize {
        self.elements.iter().filter(|element| element.writable).map(|element| element.len as usize).sum()
    }

    /// Bytes that the device may read.
    pub(super) fn readable_len(&self) -> usize {
        self.elements.iter().filter(|element| !element.writable).map(|element| element.len as usize).sum()
    }

    /// Reads all that is readable, at most `limit` bytes. `None` when part of it is not mapped.
    pub(super) fn read_all(&self, memory: &Memory, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        for element in self.elements.iter().filter(|element| !element.writable) {
            let len = (element.len as usize).min(limit - bytes.len());
            let start = bytes.len();
            bytes.resize(start + len, 0);
            memory.span(element.address, len, Access::Read)?.read(0, &mut bytes[start..]);
        }
        Some(bytes)
    }

    /// Writes `source` at `offset` of what is writable; `false` when that does not fit or is not mapped.
    pub(super) fn write_at(&self, memory: &Memory, offset: usize, mut source: &[u8]) -> bool {
        let mut skip = offset;
        for element in self.elements.iter().filter(|element| element.writable) {
            let len = element.len as usize;
            if source.is_empty() {
                break;
            }
            if skip >= len {
                skip -= len;
                continue;
            }
            let (now, later) = source.split_at(source.len().min(len - skip));
            let Some(span) = memory.span(element.address, len, Access::Write) else { return false };
            span.write(skip, now);
            source = later;
            skip = 0;
        }
        source.is_empty()
    }
}

/// The driver broke a rule of the ring, or part of it is not mapped: the queue cannot go on.
pub(super) type Broken = &'static str;

/// Addresses and features from which a ring is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingPlan {
    pub(super) size: u16,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    pub(super) features: Features,
}

/// A virtqueue of either format.
#[derive(Debug)]
pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

/// A position to come back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark(u32);

macro_rules! either {
    ($self:expr, $ring:ident => $body:expr) => {
        match $self {
            Ring::Split($ring) => $body,
            Ring::Packed($ring) => $body,
        }
    };
}

impl Ring {
    pub(super) fn new(plan: &RingPlan, memory: &Memory) -> Result<Self, Broken> {
        if plan.features.contains(Features::RING_PACKED) {
            Packed::new(plan, memory).map(Self::Packed)
        } else {
            Split::new(plan, memory).map(Self::Split)
        }
    }

    /// Shows the next available buffer; `false` when there is none.
    #[inline]
    pub(super) fn peek(&mut self, memory: &Memory, chain: &mut Chain) -> Result<bool, Broken> {
        either!(self, ring => ring.peek(memory, chain))
    }

    /// Takes the buffer shown by [`Ring::peek`].
    #[inline]
    pub(super) fn advance(&mut self, chain: &Chain) {
        either!(self, ring => ring.advance(chain));
    }

    /// Where the next buffer is taken from.
    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark(either!(self, ring => ring.mark()))
    }

    /// Puts back what was taken since `mark`, none of which may have been completed.
    pub(super) fn rewind(&mut self, mark: Mark) {
        either!(self, ring => ring.rewind(mark.0));
    }

    /// Stages `chains` buffers of `slots` descriptors as used, the last of which is `id`, into which `len` bytes were written.
    #[inline]
    pub(super) fn complete(&mut self, id: u16, len: u32, slots: u16, chains: u16) {
        match self {
            Self::Split(ring) => ring.complete(u32::from(id), len, chains),
            Self::Packed(ring) => ring.complete(id, len, slots),
        }
    }

    /// Stages a used entry with a number that need not be one, for devices that lie.
    pub(super) fn complete_raw(&mut self, id: u32, len: u32, slots: u16) {
        match self {
            Self::Split(ring) => ring.complete(id, len, 1),
            Self::Packed(ring) => ring.complete(u16::try_from(id & 0xffff).unwrap_or(0), len, slots),
        }
    }

    /// Makes staged entries visible to the driver.
    #[inline]
    pub(super) fn publish(&mut self) {
        either!(self, ring => ring.publish());
    }

    /// Whether the driver wants an interrupt for what was published since this was last asked.
    #[inline]
    pub(super) fn wants_interrupt(&mut self) -> bool {
        either!(self, ring => ring.wants_interrupt())
    }

    /// Asks for a doorbell at the next available buffer.
    pub(super) fn ask_for_doorbell(&mut self) {
        either!(self, ring => ring.ask_for_doorbell());
    }

    /// Asks for no doorbells.
    #[inline]
    pub(super) fn suppress_doorbells(&mut self) {
        either!(self, ring => ring.suppress_doorbells());
    }

    /// Moves the used position by `entries` beyond (or before) what is true.
    pub(super) fn jump(&mut self, entries: i16) {
        either!(self, ring => ring.jump(entries));
    }

    /// Writes noise over words that belong to the driver.
    pub(super) fn overwrite(&mut self, random: &mut Random) {
        either!(self, ring => ring.overwrite(random));
    }

    /// Descriptors.
    pub(super) fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }
}

/// Splits the second half of a descriptor: length, third field, fourth field.
#[inline]
fn halves(word: u64) -> (u32, u16, u16) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]))
}

/// Number of descriptors in an indirect table of `len` bytes (sections 2.7.5.3 and 2.8.7).
fn table_len(len: u32, allowed: bool) -> Result<u32, Broken> {
    if !allowed {
        return Err("an indirect descriptor without VIRTIO_F_INDIRECT_DESC");
    }
    let bytes = u32::try_from(descriptor::BYTES).unwrap_or(16);
    if len == 0 || !len.is_multiple_of(bytes) {
        return Err("an indirect table whose length is no multiple of 16");
    }
    Ok(len / bytes)
}
