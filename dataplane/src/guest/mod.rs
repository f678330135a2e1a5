//! Memory of virtual machines: checked, mapped, and used while its owner may do anything to it.
//!
//! A virtual machine monitor hands over files. [`Memory::with`] checks that a file is memory (a regular file on memfd, tmpfs or hugetlbfs, long
//! enough for what is said of it), maps it and adds it to a table of regions. A table never changes: adding and removing give a new
//! one, and a mapping goes with the last table, [`Words`] or borrowed payload that knows it.
//!
//! Life cycle: file → [`Memory`] → [`Memory::pieces`] (payload, for the length of a borrow) or [`Memory::words`] (rings, for as long as they
//! are held) → the last handle is dropped → unmapped.
//!
//! Trusted: nothing in the memory and nothing about it.
//! - The guest writes while we read: payload moves by copies that the compiler sees nothing of ([`Piece`]), rings are atomics
//!   ([`Words`]). No Rust reference to guest bytes exists.
//! - Whoever owns the file may cut it off under us. The access then faults, and the fault is contained: the whole mapping becomes
//!   zeroes, [`Memory::is_lost`] says so, the session is woken, and [`faults`] counts. See `fault.rs`.
//! - Addresses from the guest are looked up once; a [`Piece`] keeps what was found.
//!
//! A device may reach the memory, too ([`Reach`]), and copies can be left to it ([`Transfer`]).
//!
//! It does not know rings or messages, and it sends nothing: a missing translation is a [`BadAddress::Miss`] for the session to ask for.

mod address;
mod copy;
mod dirty;
mod error;
mod fault;
mod file;
mod iotlb;
mod mapping;
mod memory;
mod piece;
mod reach;
mod words;

pub use address::{Access, GuestAddress};
pub use dirty::DirtyLog;
pub use error::{BadAddress, GuestError};
pub use fault::{faults, is_lost, lost};
pub use iotlb::{Iotlb, Permission, Translation};
pub use mapping::MapOptions;
pub use memory::{MAXIMUM_REGIONS, Memory, RegionSpec};
pub use piece::{Piece, copy_foreign, read_foreign};
pub use reach::{Finder, Reach, Transfer, copy_windows};
pub use words::Words;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
