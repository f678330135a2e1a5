//! A card for tests of the queues: registers that remember, and memory as the card sees it. What the card does is the
//! test's script.

#![allow(clippy::unwrap_used, unsafe_code, reason = "tests; a card reaches memory by address")]

use core::sync::atomic::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use hugemem::{Iova, PacketPool, Region};

use super::descriptor::Descriptor;
use super::doorbell::Doorbell;
use crate::bus::{Bar, Width};
use crate::health::Health;
use crate::register::Reg;

/// Registers that keep what was written last.
#[derive(Clone, Default, Debug)]
pub(super) struct Registers(Arc<Mutex<BTreeMap<u32, u64>>>);

impl Registers {
    /// What was written last, if anything was.
    pub(super) fn get(&self, offset: u32) -> Option<u64> {
        self.0.lock().unwrap().get(&offset).copied()
    }

    /// What was written last, which is forgotten.
    pub(super) fn take(&self, offset: u32) -> Option<u64> {
        self.0.lock().unwrap().remove(&offset)
    }
}

impl Bar for Registers {
    fn size(&self) -> u64 {
        1 << 20
    }

    fn load<W: Width>(&self, offset: u32) -> W {
        W::narrow(self.get(offset).unwrap_or(0))
    }

    fn store<W: Width>(&self, offset: u32, value: W) {
        self.0.lock().unwrap().insert(offset, value.widen());
    }

    fn store_block(&self, _: u32, _: &[u64; 8]) {}

    fn publish<W: Width>(&self, offset: u32, value: W) {
        self.store(offset, value);
    }
}

/// Where the tail of the queue under test is.
pub(super) const TAIL: Reg<u32> = Reg::at(0x6018);

/// Memory, registers and what else a queue is made with.
pub(super) struct Bench {
    pub(super) region: Region,
    pub(super) registers: Registers,
    pub(super) health: Arc<Health>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let region = Region::on_heap(16 << 20, Iova::new(0x7000_0000)).unwrap();
        Self { region, registers: Registers::default(), health: Arc::new(Health::new(2)) }
    }

    pub(super) fn pool(&self, count: usize, room: usize) -> PacketPool {
        self.region.packets(count, room).unwrap()
    }

    pub(super) fn doorbell(&self) -> Doorbell<Registers> {
        Doorbell::new(self.registers.clone(), &TAIL)
    }

    fn place(&self, iova: u64, len: usize) -> *mut u8 {
        let offset = usize::try_from(iova.checked_sub(self.region.iova().raw()).unwrap()).unwrap();
        assert!(offset + len <= self.region.len(), "the card reaches beyond its memory");
        // SAFETY: inside the region, as just checked.
        unsafe { self.region.as_ptr().add(offset) }
    }

    /// Writes as the card does.
    pub(super) fn write(&self, iova: u64, bytes: &[u8]) {
        // SAFETY: inside the region, in a buffer that the script holds.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.place(iova, bytes.len()), bytes.len()) }
    }

    /// Reads as the card does.
    pub(super) fn read(&self, iova: u64, len: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; len];
        // SAFETY: inside the region, in a buffer that the script holds.
        unsafe { core::ptr::copy_nonoverlapping(self.place(iova, len), bytes.as_mut_ptr(), len) }
        bytes
    }
}

/// The two words of a descriptor.
pub(super) fn words([low, high]: &Descriptor) -> [u64; 2] {
    [low, high].map(|word| word.load(Ordering::Relaxed))
}

/// Writes a descriptor back.
pub(super) fn write_back([low, high]: &Descriptor, words: [u64; 2]) {
    low.store(words[0], Ordering::Relaxed);
    high.store(words[1], Ordering::Release);
}
