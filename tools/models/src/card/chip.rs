//! What a chip's model implements.

use std::ops::Range;

use drivers::bus::PciId;

use super::bus::Bus;
use crate::wire::Wire;

/// What the bus has to know of a chip before it can be plugged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Identity in configuration space.
    pub id: PciId,
    /// Memory windows.
    pub windows: Vec<WindowLayout>,
    /// Base address register of the window that has the MSI-X table and pending bits and nothing else; it is one of `windows`, and the bus takes
    /// care of its content.
    pub msix_window: u8,
    /// Interrupt vectors.
    pub vectors: u16,
    /// Serial number in configuration space (Device Serial Number capability).
    pub serial: Option<u64>,
}

/// One base address register with memory behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WindowLayout {
    /// Base address register, 0 to 5.
    pub bar: u8,
    /// Size in bytes, a power of two of at least 4096.
    pub bytes: u32,
    /// The address has 64 bits and takes the next register too.
    pub wide: bool,
    /// Whole pages (multiples of 4096) of registers without side effects: words of 32 bits that driver and chip share as memory. The chip sees
    /// what the driver wrote when it looks ([`Bus::register`]); [`Chip::load`] and [`Chip::store`] are not called for them.
    pub shared: Vec<Range<u32>>,
    /// Single registers (offset and bytes) outside of the shared pages that a driver's access reaches without a call, and no client can map: doorbells
    /// that share a page with registers that have side effects. The chip sees what was written when it looks ([`Bus::register`]).
    pub doorbells: Vec<(u32, u32)>,
    /// The driver's accesses to shared pages and doorbells call [`Chip::load`] and [`Chip::store`] all the same, and no client may map them.
    pub trapped: bool,
}

/// What a poll did: frames moved in each direction, and whether there was anything to do at all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Work {
    /// Frames that the driver transmitted.
    pub transmitted: u32,
    /// Frames that the driver received or that were dropped on the way to it.
    pub received: u32,
    /// Something else was done.
    pub other: bool,
}

impl Work {
    /// Nothing was done.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self == Self::default()
    }
}

/// How 64 bytes are written at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockWrite {
    /// A posted write (MOVDIR64B): nobody waits for an answer.
    Posted,
    /// A deferrable memory write (ENQCMD): the answer says whether they were taken.
    Deferrable,
    /// The bus does not tell which of the two it is, and carries the answer.
    Either,
}

/// The device side of a card.
pub trait Chip: Send + 'static {
    /// What the bus has to know. Never changes.
    fn layout(&self) -> Layout;
    /// Reads a register of `bytes` bytes (1, 2, 4 or 8) at an aligned offset that is not on a shared page.
    fn load(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32) -> u64;
    /// Writes a register.
    fn store(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32, value: u64);
    /// Writes 64 bytes at an offset that is a multiple of 64, in one transaction. `false` when they were not taken and are to be written again later.
    fn store_block(&mut self, bus: &mut Bus, bar: u8, offset: u32, block: &[u64; 8], _write: BlockWrite) -> bool {
        for (index, word) in (0_u32..).zip(block) {
            self.store(bus, bar, offset.wrapping_add(8 * index), 8, *word);
        }
        true
    }
    /// Reads an aligned word of extended configuration space (from 0x100 on), when the chip has one there.
    fn load_config(&mut self, _bus: &mut Bus, _offset: u16) -> Option<u32> {
        None
    }
    /// Writes the bits in `mask` of an aligned word of extended configuration space.
    fn store_config(&mut self, _bus: &mut Bus, _offset: u16, _value: u32, _mask: u32) {}
    /// A function level reset, or power on. Shared pages are to be set to their first values too.
    fn reset(&mut self, bus: &mut Bus);
    /// Moves the chip on: up to about `budget` frames in each direction and queue, timers, links.
    fn poll(&mut self, bus: &mut Bus, wire: &mut dyn Wire, budget: usize) -> Work;
}
