//! Indirect tables (virtio 1.3, sections 2.7.5.3 and 2.8.7), read once into host memory.

use super::chains::LONGEST_CHAIN;
use super::fault::RingFault;
use crate::guest::{Access, GuestAddress, Memory};

/// Bytes of a descriptor, in either format.
const DESCRIPTOR: u32 = 16;

/// An indirect table. The descriptors of a small one stand still; those of a large one are read one by one, each once.
pub(super) struct Table<'m> {
    memory: &'m Memory,
    address: u64,
    count: u32,
    copy: [u8; LONGEST_CHAIN * DESCRIPTOR as usize],
}

impl<'m> Table<'m> {
    /// The table of `len` bytes at `address`, for a ring of `size` descriptors.
    pub(super) fn read(memory: &'m Memory, address: u64, len: u32, head: u16, size: u16) -> Result<Self, RingFault> {
        if len == 0 || !len.is_multiple_of(DESCRIPTOR) {
            return Err(RingFault::TableLength { len });
        }
        let count = len / DESCRIPTOR;
        if count > size.into() {
            return Err(RingFault::ChainTooLong { head, size });
        }
        let mut table = Self { memory, address, count, copy: [0; _] };
        if let Some(place) = table.copy.get_mut(..len as usize) {
            read(memory, address, place)?;
        }
        Ok(table)
    }

    /// Number of descriptors.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// The two words of descriptor `index`, not to be asked for twice.
    pub(super) fn descriptor(&self, index: u32) -> Result<(u64, u64), RingFault> {
        if index >= self.count {
            return Err(RingFault::NoSuchDescriptor { index, size: self.count });
        }
        let start = index * DESCRIPTOR;
        let mut words = [0; DESCRIPTOR as usize];
        match self.copy.get(start as usize..(start + DESCRIPTOR) as usize) {
            Some(copied) if self.count as usize <= LONGEST_CHAIN => words.copy_from_slice(copied),
            _ => read(self.memory, self.address.wrapping_add(start.into()), &mut words)?,
        }
        let ([address, rest], _) = words.as_chunks::<8>() else { return Ok((0, 0)) };
        Ok((u64::from_le_bytes(*address), u64::from_le_bytes(*rest)))
    }
}

/// Copies the bytes at `address` into `place`.
fn read(memory: &Memory, address: u64, place: &mut [u8]) -> Result<(), RingFault> {
    let len = u32::try_from(place.len()).unwrap_or(u32::MAX);
    let mut rest = place;
    let outcome = memory.pieces(GuestAddress(address), len, Access::Read, |piece| {
        let done = piece.copy_in(rest);
        rest = std::mem::take(&mut rest).get_mut(done..).unwrap_or_default();
    });
    outcome.map_err(|reason| RingFault::address(reason, address, len))
}
