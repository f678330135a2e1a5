//! Copies into virtual machines that a device does: large ones by the device, small ones by the CPU, in order whichever is done first.
//!
//! [`Copying`] owns the device ([`DmaName`]: I/OAT behind VFIO or a vfio-user socket, or threads of the CPU) and has it reach the memory of virtual machines,
//! in the device's own address space, for as long as they are attached. Each engine has a [`Copier`], the end of a channel of the device. A queue that sends
//! to a virtual machine leaves copies on its [`CopyDesk`] and finds there what became of them; the copier of its engine takes them, from
//! all queues in turn, and begins with them once a round.
//!
//! Which frames: those of a [`Threshold`] or more, which may be found out at the start (`measure`). How the queue keeps them in order:
//! `port/vhost_user/queue/late.rs`.
//!
//! Nothing is lost with a device. A copy that comes back undone is done by the CPU; a device that fails is stopped, by a thread of control (`mender`), before
//! anybody does its copies again, and started anew; meanwhile desks are closed and the CPU copies everything.
//!
//! Life cycle: [`Copying::open`] → [`Copying::copier`] for each engine, [`Copying::desk`] for each queue, [`Copying::reach`] for each virtual machine's memory →
//! [`Copying::take_back`] → dropped.

mod copier;
mod cpu;
mod desk;
mod device;
pub mod idxd;
mod measure;
mod mender;
mod name;
mod open;
mod owner;
#[cfg(test)]
pub(crate) mod scripted;

use drivers::DeviceError;

pub use copier::Copier;
pub(crate) use desk::Answer;
pub use desk::{CopyCounts, CopyDesk, JOBS};
pub use name::{DmaName, NotDmaName, NotThreshold, SMALLEST_THRESHOLD, Threshold};
pub use owner::{CopyState, Copying};

/// A copy engine cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The device failed.
    #[error("copy engine: {0}")]
    Device(#[from] DeviceError),
    /// Nothing here drives it.
    #[error("copy engine {name}: {reason}")]
    NoDriver {
        /// What it is called.
        name: String,
        /// Why not.
        reason: String,
    },
    /// There is no memory for its rings.
    #[error("copy engine: memory for its rings: {0}")]
    Memory(#[from] hugemem::MemoryError),
    /// There is no thread to look after it.
    #[error("copy engine: cannot start the thread that looks after it: {0}")]
    Thread(std::io::Error),
}
