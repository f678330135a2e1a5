//! A virtio-net card: modern PCI, virtio 1.3, split and packed rings.
//!
//! [`new`] gives the two halves of a card. [`Function`] is what a driver drives: it implements
//! [`drivers::bus::PciFunction`]. [`Device`] is the card itself, which a thread or a test moves on with [`Device::poll`];
//! frames come from and go to its [`Wire`]. [`Control`] looks inside and meddles from outside: link, faults, IOMMU faults,
//! broken rules, counters.
//!
//! Register accesses take the card's lock, and so does each poll, once; doorbells are atomics. After the driver has read 0 from the
//! status register, or unmapped memory, the card does not touch it any more.
//!
//! Not modelled: legacy and transitional devices, administration queues, tunnels, receive coalescing, cutting large segments
//! (they stay large on the wire).

mod config;
mod control;
mod core;
mod device;
mod fault;
mod function;
mod header;
mod pci;
mod receive;
mod registers;
mod ring;
mod specification;
mod steering;
mod transmit;
mod trick;
mod wire;

#[cfg(test)]
mod tests;

pub use self::config::{Config, Doorbells, WhenFull};
pub use self::core::{Counters, Work};
pub use self::device::{Control, Device, new};
pub use self::fault::{Chaos, Fault, UnknownFault};
pub use self::function::{Function, Window};
pub use self::header::{NetHeader, complete_checksum};
pub use self::specification::{Features, header as header_bits};
pub use self::wire::{CableEnd, Frame, Incoming, Loopback, Outgoing, QueueWire, Wire, cable};
pub use crate::wire::{Latency, Traffic, TrafficCounters, TrafficPlan};
