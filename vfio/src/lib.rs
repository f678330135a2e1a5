//! The bus under the drivers on Linux: kernel VFIO with all that belongs to getting a device there, and vfio-user.
//!
//! - [`kernel`]: [`Function`], the [`PciFunction`](drivers::bus::PciFunction) behind a device that is bound to
//!   vfio-pci, by group and container or by iommufd.
//! - [`user`]: [`user::Function`], a device that another process plays, reached over a socket; and [`user::server`] to play one.
//! - [`bar`]: register windows; the only code that touches them.
//! - [`discover`]: network cards and DMA engines with what the kernel does with them.
//! - [`bind`]: takes a device from its kernel driver, and gives it back.
//! - [`work_queue`]: what the kernel's idxd driver offers of DSA devices.
//! - [`doctor`]: what this machine has and lacks for all that, with the command that mends it.
//!
//! It maps memory for a kernel's device only behind an IOMMU, allocates no DMA memory (that is `hugemem`'s) and drives no device itself.

pub mod bar;
pub mod bind;
pub mod catalogue;
pub mod clock;
mod configuration;
pub mod discover;
pub mod doctor;
mod interrupt;
pub mod kernel;
pub mod network;
pub mod sysfs;
pub mod user;
pub mod work_queue;

#[cfg(test)]
mod fake;

pub use bar::Bar;
pub use clock::SystemClock;
pub use interrupt::Interrupt;
pub use kernel::{Function, Interface};
pub use sysfs::Sysfs;
pub use work_queue::WorkQueue;
