//! What a chip's model implements, and what the frame around it provides.

use std::ops::Range;
use std::time::Duration;

use drivers::bus::PciId;

use crate::wire::Wire;

/// What the bus has to know of a chip before it can be plugged in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Identity in configuration space.
    pub id: PciId,
    /// Memory windows.
    pub windows: Vec<WindowLayout>,
    /// Index of the window (of its own, or one above) that has the MSI-X table and pending bits; the bus takes care of its content.
    pub msix_window: u8,
    /// Interrupt vectors.
    pub vectors: u16,
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

/// An access to the driver's memory that did not happen (yet).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dma {
    /// Not mapped, or refused: recorded as a fault. It will not succeed.
    Refused,
    /// The bytes have to travel. Give this piece of work up with nothing changed, and try again at the next poll.
    Pending,
}

/// What a chip reaches: the driver's memory, interrupts, shared registers and time.
pub trait Bus {
    /// Reads the driver's memory. `hint` belongs to whoever reads a stretch again and again (a ring, a queue's buffers) and makes the next look-up quick.
    ///
    /// # Errors
    /// See [`Dma`]; then nothing was read.
    fn read(&mut self, hint: &mut Hint, address: u64, bytes: &mut [u8]) -> Result<(), Dma>;
    /// Writes the driver's memory. The last 8 bytes, when aligned, become visible last (a descriptor's status word).
    ///
    /// # Errors
    /// [`Dma::Refused`]; then nothing was written.
    fn write(&mut self, hint: &mut Hint, address: u64, bytes: &[u8]) -> Result<(), Dma>;
    /// Signals an interrupt vector, if the driver has enabled it.
    fn signal(&mut self, vector: u16);
    /// Reads a register on a shared page.
    fn register(&self, bar: u8, offset: u32) -> u32;
    /// Writes a register on a shared page.
    fn set_register(&mut self, bar: u8, offset: u32, value: u32);
    /// Time since the card was made.
    fn now(&self) -> Duration;
    /// The driver allows the card to access memory (Bus Master Enable).
    fn is_master(&self) -> bool;
    /// Notes a rule of the datasheet that the driver broke, in a sentence.
    fn violation(&mut self, sentence: String);
}

/// Where the last look-up of an address ended. Starts as its default and is only a hint.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hint(pub(crate) usize);

/// The device side of a card.
pub trait Chip: Send + 'static {
    /// What the bus has to know. Never changes.
    fn layout(&self) -> Layout;
    /// Reads a register of `bytes` bytes (1, 2, 4 or 8) at an aligned offset that is not on a shared page.
    fn load(&mut self, bus: &mut dyn Bus, bar: u8, offset: u32, bytes: u32) -> u64;
    /// Writes a register.
    fn store(&mut self, bus: &mut dyn Bus, bar: u8, offset: u32, bytes: u32, value: u64);
    /// A function level reset, or power on. Shared pages are to be set to their first values too.
    fn reset(&mut self, bus: &mut dyn Bus);
    /// Moves the chip on: up to about `budget` frames in each direction and queue, timers, links.
    fn poll(&mut self, bus: &mut dyn Bus, wire: &mut dyn Wire, budget: usize) -> Work;
}
