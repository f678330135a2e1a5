//! What can go wrong with a device.

use crate::bus::BusError;

/// What a driver can report when something fails on its device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The bus failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// No driver here knows this device, or it is of a kind that the driver cannot serve.
    #[error("{device}: {reason}")]
    Unsupported {
        /// The device.
        device: alloc::string::String,
        /// A sentence saying why, and what to do.
        reason: alloc::string::String,
    },
    /// The device broke its own rules.
    #[error("{device}: the device misbehaves: {reason}")]
    Device {
        /// The device.
        device: alloc::string::String,
        /// What it did.
        reason: alloc::string::String,
    },
    /// A wait came to its deadline.
    #[error("{device}: gave up waiting {milliseconds} ms for {what}")]
    Timeout {
        /// The device.
        device: alloc::string::String,
        /// What was awaited.
        what: &'static str,
        /// How long was waited.
        milliseconds: u64,
    },
    /// The caller asked for something that cannot be.
    #[error("{device}: {reason}")]
    Request {
        /// The device.
        device: alloc::string::String,
        /// A sentence saying what is wrong and what is possible.
        reason: alloc::string::String,
    },
    /// The memory given to the driver does not suffice.
    #[error("{device}: out of DMA memory: {source}")]
    Memory {
        /// The device.
        device: alloc::string::String,
        /// What was asked for.
        source: hugemem::OutOfMemory,
    },
}
