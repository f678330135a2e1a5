//! Software models of network cards and copy engines: the device side, at memory speed, in the same process or on a vfio-user socket.
//!
//! A model is written from the device's public specification alone and shares no constant and no code with the drivers, so a
//! wrong offset on either side shows. It implements [`drivers::bus::PciFunction`], so a driver cannot tell it
//! from hardware. It reaches only memory that was mapped for it; any other access is refused and
//! recorded as an IOMMU fault. And it can lie on purpose: see [`virtio_net::Fault`],
//! [`ixgbe::Fault`], [`ioat::Fault`] and [`dsa::Fault`].

pub mod card;
mod clock;
pub mod dsa;
mod fault;
mod interrupt;
pub mod ioat;
pub mod ixgbe;
mod memory;
pub mod plan;
mod random;
pub mod virtio_net;
pub mod wire;

pub use clock::{StepClock, WallClock};
pub use fault::{Chaos, UnknownFault};
pub use interrupt::EventInterrupt;
pub use memory::{Access, DmaFault, watched_region};
pub use random::Random;

/// The examples of the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
