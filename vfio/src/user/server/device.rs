//! What is served: a PCI device as its bus sees it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::MessageDma;
use crate::user::UserError;

/// Region of the first base address register; the others follow.
pub const BAR0: u32 = 0;
/// Region of the expansion ROM.
pub const ROM: u32 = 6;
/// Region of configuration space.
pub const CONFIG: u32 = 7;

/// The kinds of interrupt that VFIO tells apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InterruptKind {
    /// Pin INTA.
    Intx,
    /// Message signalled.
    Msi,
    /// Message signalled, with a table in a BAR.
    Msix,
    /// The device tells of an error.
    Error,
    /// The device asks to be given back.
    Request,
}

impl InterruptKind {
    /// All of them, by VFIO's index.
    pub const ALL: [Self; 5] = [Self::Intx, Self::Msi, Self::Msix, Self::Error, Self::Request];
}

/// A window of the device: a base address register, the ROM, configuration space.
#[derive(Clone, Debug)]
pub struct Region {
    /// VFIO's index: [`BAR0`] to 5, [`ROM`], [`CONFIG`].
    pub index: u32,
    /// Size in bytes; 0 when there is none.
    pub size: u64,
    /// May be read.
    pub readable: bool,
    /// May be written.
    pub writable: bool,
    /// Memory that client and device share, so that access to it needs no message.
    pub shared: Option<Shared>,
}

impl Region {
    /// A region of `size` bytes, read and written by message.
    #[must_use]
    pub fn new(index: u32, size: u64) -> Self {
        Self { index, size, readable: true, writable: true, shared: None }
    }
}

/// The part of a region that is shared memory.
#[derive(Clone, Debug)]
pub struct Shared {
    /// The memory: a memfd.
    pub file: Arc<OwnedFd>,
    /// Where the region's first byte lies in the file, a multiple of 4096.
    pub offset: u64,
    /// What may be mapped: whole pages, ascending, as offset in the region and length in bytes. All of it when it is one area as long as the region.
    pub areas: Vec<(u64, u64)>,
}

/// Memory that the client makes reachable for the device.
#[derive(Debug)]
pub struct DmaMap {
    /// First I/O virtual address.
    pub iova: u64,
    /// Length in bytes, at least 1. `iova + len` can be 2^64, so reckon with the last address: `iova + (len - 1)` does not overflow.
    pub len: u64,
    /// The device may read it.
    pub readable: bool,
    /// The device may write it.
    pub writable: bool,
    /// The file to map, and where in it the memory begins. Without one the device reaches it only through [`MessageDma`].
    pub file: Option<(OwnedFd, u64)>,
}

/// A PCI device as its bus sees it.
///
/// Every call comes from the session's one thread, the one that called [`Server::serve`](super::Server::serve). That thread also
/// takes in the answers to [`MessageDma`], so an implementation never waits for message-mode DMA inside a call, nor for
/// a lock that somebody holds who does: it would wait until the deadline. An error is told to the client and ends nothing.
pub trait Device: Send {
    /// Its regions, in any order; those that are missing have no bytes. Asked once for each client.
    fn regions(&self) -> Vec<Region>;
    /// How many vectors of a kind it has.
    fn interrupt_count(&self, kind: InterruptKind) -> u32;
    /// Reads `bytes` at `offset` of a region; lies inside the region's size, and is not empty.
    ///
    /// # Errors
    /// What the client is told.
    fn read(&mut self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), Errno>;
    /// Writes `bytes` at `offset` of a region; lies inside the region's size, and is not empty.
    ///
    /// # Errors
    /// What the client is told. It may be told to nobody: clients may post writes.
    fn write(&mut self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), Errno>;
    /// Makes memory reachable.
    ///
    /// # Errors
    /// What the client is told, `EEXIST` when it overlaps another map. Then nothing changed.
    fn map(&mut self, map: DmaMap) -> Result<(), Errno>;
    /// Takes away every map that lies inside the range, which may be none. Returns only when the device uses none of it any more. `len` is at
    /// least 1, and `iova + len` can be 2^64.
    ///
    /// # Errors
    /// What the client is told, `EINVAL` when the range would cut a map. Then nothing changed.
    fn unmap(&mut self, iova: u64, len: u64) -> Result<(), Errno>;
    /// Takes all maps away. Returns only when the device uses none of them any more.
    fn unmap_all(&mut self);
    /// Connects vectors `first..` to eventfds, or disconnects those that are `None`. Vectors beyond stay as they are. The range lies
    /// inside [`Device::interrupt_count`]. All vectors of a kind being disconnected means that the client disables that kind.
    ///
    /// # Errors
    /// What the client is told.
    fn interrupts(&mut self, kind: InterruptKind, first: u32, vectors: Vec<Option<OwnedFd>>) -> Result<(), Errno>;
    /// Signals a vector as if the device had, for a client that tests its own interrupts.
    ///
    /// # Errors
    /// What the client is told.
    fn trigger(&mut self, kind: InterruptKind, vector: u32) -> Result<(), Errno>;
    /// Holds back the signals of a vector, or lets them through again, with one that came meanwhile.
    ///
    /// # Errors
    /// What the client is told.
    fn mask(&mut self, kind: InterruptKind, vector: u32, masked: bool) -> Result<(), Errno>;
    /// Resets the device. Maps and eventfds stay.
    ///
    /// # Errors
    /// What the client is told.
    fn reset(&mut self) -> Result<(), Errno>;
    /// A client has connected; `dma` reaches its memory by message, for as long as it stays.
    fn connected(&mut self, dma: MessageDma);
    /// The client is gone, with what ended its session unless it simply closed it. All its maps and eventfds are to be let go, and the
    /// device to be as after power on.
    fn disconnected(&mut self, reason: Option<&UserError>);
}
