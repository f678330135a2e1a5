//! Memory that devices can reach, and the packets that live in it.
//!
//! A [`Region`] is one pinned range of memory with one [`Iova`], the same on every bus. Pieces of it are handed out once and for all:
//! a [`DmaArray`] is shared with a device at any time and therefore made of atomics; a [`PacketPool`] gives out [`Packet`]s, whose bytes
//! have one owner at a time. [`Packet::lend`] passes a packet to a device as a [`Lent`], which has an address for the
//! device and no bytes for us, until the device is done with it. A packet's last bytes may be [`Foreign`]: memory of somebody
//! else, which is copied from there when the packet leaves.
//!
//! Life cycle: `Region` → pieces → `Packet` ⇄ `Lent`. A region's memory is given back when its last piece, its last
//! packet and its last mapping on a bus are gone. Nothing here maps memory for a device; that is the bus's work.
//!
//! The crate is `no_std` with `alloc`. Feature `std` adds [`MemoryRequest`], which gets huge pages from Linux.

#![cfg_attr(not(any(feature = "std", test, loom)), no_std)]

extern crate alloc;

mod batch;
mod foreign;
mod home;
#[cfg(feature = "std")]
mod hugepages;
mod iova;
mod lent;
mod metadata;
mod packet;
mod pool;
mod prefetch;
mod region;
mod shared;
mod sync;

pub use batch::{Batch, recycle};
pub use foreign::Foreign;
#[cfg(feature = "std")]
pub use hugepages::{Allocated, MemoryError, MemoryRequest, PageChoice};
pub use iova::{Iova, IovaRange, IovaSpace, OutOfIova};
pub use lent::{Lent, Piece};
pub use metadata::{Checksum, Metadata, Segmentation, SegmentationKind};
pub use packet::{Packet, Segments, TooLong};
pub use pool::{HEADROOM, PacketPool};
pub use prefetch::{prefetch, prefetch_to_write};
pub use region::{Backing, OutOfMemory, Region};
pub use shared::{DmaArray, SharedWord};

#[cfg(all(test, not(loom)))]
mod tests;
