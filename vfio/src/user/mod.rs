//! The bus over a vfio-user socket: a PCI device that another process plays.
//!
//! vfio-user is VFIO's device interface as messages on a Unix stream socket. What the kernel would do by `ioctl`, `mmap` and
//! eventfd, a server does by answering requests and by passing file descriptors.
//!
//! - [`server`]: serves a device ([`server::Device`]) to QEMU's `vfio-user-pci` and to other clients.

mod channel;
mod client;
mod error;
pub mod server;
mod shared;
mod socket;
mod version;
mod wire;

pub use client::{Function, Options};
pub use error::UserError;

pub use crate::bar::Bar;
