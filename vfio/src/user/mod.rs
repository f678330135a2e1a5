//! The bus over a vfio-user socket: a PCI device that another process plays.
//!
//! vfio-user is VFIO's device interface as messages on a Unix stream socket. What the kernel would do by `ioctl`, `mmap` and
//! eventfd, a server does by answering requests and by passing file descriptors.
//!
//! - [`Function`] is a device behind such a socket, as a [`PciFunction`](drivers::bus::PciFunction) like any other.
//! - [`server`] serves a device ([`server::Device`]) to QEMU's `vfio-user-pci`, to [`Function`] and to other clients.
//!
//! # How things travel
//!
//! | what | by descriptor | by message |
//! |---|---|---|
//! | registers | pages that the server shares are mapped: a store is a store | all others, and those of servers that share none |
//! | memory for DMA | its memfd is passed, the server maps it | memory without a file, or [`Options::message_dma`]: the server asks for each piece |
//! | interrupts | one eventfd a vector | never |
//!
//! A register load by message waits for the server, some microseconds. A store does not wait where all registers are reached so: it
//! is posted, and done before any later load, because the server takes messages in order. Where pages are shared it waits too, because an access to such
//! a page would overtake it.
//!
//! # Trust and deadlines
//!
//! Neither end trusts the other: lengths are checked before use, files are mapped only when they are sealed against shrinking, and descriptors that
//! nobody asked for are closed. What a peer does wrong ends the connection, and only that.
//!
//! Every request has a deadline. A server that dies, breaks the protocol or stays silent is a device that was removed: requests fail with
//! [`BusError::Gone`](drivers::bus::BusError::Gone) at once, and register windows read all ones, mapped pages included.
//!
//! What a peer has mapped cannot be taken from it by force: a server that does not honour an unmap still reaches the memory that was shared with it.
//! One that hangs up, or dies, has given all of it back; one that falls silent has not, and buffers that it was lent in files stay lent.
//! Servers that are not trusted that far get [`Options::message_dma`].

mod channel;
mod client;
mod error;
pub mod server;
mod shared;
pub mod socket;
mod version;
mod wire;

pub use client::{Function, Options};
pub use error::UserError;

pub use crate::bar::Bar;
