//! The memory that is mapped for the server's device, reached on its behalf when it asks by message.
//!
//! This is the one place of the client that touches memory by pointer. It does what the device could do by itself where it shares the memory,
//! with the same right: the region is mapped for it. Memory is touched by atomic words in ascending order, as a device would: a word of
//! 8 aligned bytes is never seen in halves, and the last one is seen last.

#![expect(unsafe_code, reason = "a device reaches memory that its driver owns; addresses are checked here")]

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hugemem::Region;

/// The regions that are mapped. Holding them keeps their memory in place; an access holds the lock, so that none goes on after a
/// region was taken away.
#[derive(Default, Debug)]
pub(super) struct Memory {
    regions: Mutex<Vec<Region>>,
}

impl Memory {
    fn regions(&self) -> MutexGuard<'_, Vec<Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a region; `false` when it is there already.
    pub(super) fn add(&self, region: &Region) -> bool {
        let mut regions = self.regions();
        let is_new = regions.iter().all(|held| held.id() != region.id());
        if is_new {
            regions.push(region.clone());
        }
        is_new
    }

    pub(super) fn has(&self, region: &Region) -> bool {
        self.regions().iter().any(|held| held.id() == region.id())
    }

    pub(super) fn remove(&self, region: &Region) {
        self.regions().retain(|held| held.id() != region.id());
    }

    pub(super) fn all(&self) -> Vec<Region> {
        self.regions().clone()
    }

    /// Copies out of mapped memory; `false`, and nothing said about `bytes`, when a part of it is not mapped.
    pub(super) fn read(&self, address: u64, bytes: &mut [u8]) -> bool {
        let regions = self.regions();
        let mut done = 0;
        while let Some(left) = bytes.get_mut(done..).filter(|left| !left.is_empty()) {
            let Some((pointer, room)) = find(&regions, address, done) else { return false };
            let length = left.len().min(room);
            let part = left.get_mut(..length).unwrap_or_default();
            // SAFETY: `find` gives a pointer into a region that is held, with `room` bytes behind it.
            unsafe { copy_out(pointer, part) };
            done += length;
        }
        true
    }

    /// Copies into mapped memory; `false`, and nothing written, when a part of it is not mapped.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> bool {
        let regions = self.regions();
        let mut pieces = Vec::new();
        let mut done = 0;
        while let Some(left) = bytes.get(done..).filter(|left| !left.is_empty()) {
            let Some((pointer, room)) = find(&regions, address, done) else { return false };
            let length = left.len().min(room);
            pieces.push((pointer, left.get(..length).unwrap_or_default()));
            done += length;
        }
        for (pointer, part) in pieces {
            // SAFETY: `find` gives a pointer into a region that is held, with at least as many bytes behind it.
            unsafe { copy_in(pointer, part) };
        }
        true
    }
}

/// Where the byte at `address + done` lies, and how many follow it in the same region, itself included.
fn find(regions: &[Region], address: u64, done: usize) -> Option<(*mut u8, usize)> {
    let address = address.checked_add(done as u64)?;
    regions.iter().find_map(|region| {
        let offset = usize::try_from(address.checked_sub(region.iova().raw())?).ok()?;
        let room = region.len().checked_sub(offset).filter(|room| *room > 0)?;
        Some((region.as_ptr().wrapping_add(offset), room))
    })
}

/// How many of `length` bytes come before the first aligned word.
fn split(pointer: *mut u8, length: usize) -> usize {
    (pointer.addr().wrapping_neg() % 8).min(length)
}

/// # Safety
/// As many bytes as `bytes` has are valid behind `pointer`.
unsafe fn copy_out(mut pointer: *mut u8, bytes: &mut [u8]) {
    let (head, rest) = bytes.split_at_mut(split(pointer, bytes.len()));
    let (words, tail) = rest.as_chunks_mut::<8>();
    for byte in head {
        // SAFETY: inside the range that the caller vouches for; others touch shared memory atomically or not now.
        *byte = unsafe { AtomicU8::from_ptr(pointer) }.load(Ordering::Acquire);
        pointer = pointer.wrapping_add(1);
    }
    for word in words {
        // SAFETY: as above, and aligned: the head ended at a multiple of 8.
        *word = unsafe { AtomicU64::from_ptr(pointer.cast()) }.load(Ordering::Acquire).to_ne_bytes();
        pointer = pointer.wrapping_add(8);
    }
    for byte in tail {
        // SAFETY: as for the head.
        *byte = unsafe { AtomicU8::from_ptr(pointer) }.load(Ordering::Acquire);
        pointer = pointer.wrapping_add(1);
    }
}

/// # Safety
/// As many bytes as `bytes` has are valid behind `pointer`.
unsafe fn copy_in(mut pointer: *mut u8, bytes: &[u8]) {
    let (head, rest) = bytes.split_at(split(pointer, bytes.len()));
    let (words, tail) = rest.as_chunks::<8>();
    for byte in head {
        // SAFETY: inside the range that the caller vouches for; others touch shared memory atomically or not now.
        unsafe { AtomicU8::from_ptr(pointer) }.store(*byte, Ordering::Release);
        pointer = pointer.wrapping_add(1);
    }
    for word in words {
        // SAFETY: as above, and aligned: the head ended at a multiple of 8.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }.store(u64::from_ne_bytes(*word), Ordering::Release);
        pointer = pointer.wrapping_add(8);
    }
    for byte in tail {
        // SAFETY: as for the head.
        unsafe { AtomicU8::from_ptr(pointer) }.store(*byte, Ordering::Release);
        pointer = pointer.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::Iova;

    #[test]
    fn pieces_of_any_alignment_come_back_as_they_went_and_cross_regions() {
        let memory = Memory::default();
        let first = Region::on_heap(4096, Iova::new(0x10_0000)).unwrap();
        let second = Region::on_heap(4096, Iova::new(0x10_1000)).unwrap();
        assert!(memory.add(&first) && memory.add(&second) && !memory.add(&first));
        for start in 0..9 {
            for length in 0..40 {
                let address = 0x10_1000 - 20 + start;
                let bytes: Vec<u8> = (1..=length).collect();
                assert!(memory.write(address, &bytes));
                let mut back = vec![0; bytes.len()];
                assert!(memory.read(address, &mut back));
                assert_eq!(back, bytes);
            }
        }
    }

    #[test]
    fn nothing_outside_is_touched_and_nothing_is_written_by_half() {
        let memory = Memory::default();
        let region = Region::on_heap(4096, Iova::new(0x10_0000)).unwrap();
        memory.add(&region);
        assert!(!memory.write(0x10_0ff8, &[7; 16]));
        assert!(!memory.read(0xf_ffff, &mut [0; 2]));
        assert!(!memory.read(u64::MAX, &mut [0; 2]));
        let mut back = [1; 8];
        assert!(memory.read(0x10_0ff8, &mut back));
        assert_eq!(back, [0; 8]);
        memory.remove(&region);
        assert!(!memory.has(&region));
        assert!(!memory.read(0x10_0000, &mut [0]));
    }
}
