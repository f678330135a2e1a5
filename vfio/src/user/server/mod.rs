//! Serves a device on a vfio-user socket.
//!
//! [`Server::bind`] takes the socket, [`Server::serve`] answers one client at a time, on the thread that calls it, until it is told to
//! [`Stop`]. The device is whatever implements [`Device`].
//!
//! A client is trusted with nothing: each length is checked, maps never overlap, its files are mapped only when they cannot shrink, and descriptors that
//! nobody asked for are closed. What it does wrong ends its own session at most.

mod access;
mod device;
mod dma;
mod information;
mod interrupts;
mod listener;
mod maps;
mod message_dma;
mod session;
mod stop;

pub use device::{BAR0, CONFIG, Device, DmaMap, InterruptKind, ROM, Region, Shared};
pub use listener::Server;
pub use message_dma::{DmaError, MessageDma};
pub use rustix::io::Errno;
pub use stop::Stop;
