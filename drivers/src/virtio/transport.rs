//! What connects the driver with its device (virtio 1.3, section 4): a bus, or a socket.
//!
//! [`Pci`](super::Pci) is the transport of section 4.1. A vhost-user socket is another, which lies above this crate: what the
//! specification has as registers, it answers from messages.
//!
//! Order of calls: [`Transport::reset`] first of all and again before each start; then status, features and
//! configuration as section 3.1.1 has them; [`Transport::open_memory`], [`Transport::enable`] for each queue,
//! `DRIVER_OK`. Nothing that a transport answers is believed beyond what is checked here and by its user.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use hugemem::Region;

use super::features::Features;
pub use super::ring::Addresses;
use crate::bus::{BusError, Clock, Width};
use crate::nic::NicError;
use crate::register::{ReadOnly, Reg};

/// Most descriptors of a queue (2.6).
pub(super) const MOST_DESCRIPTORS: u16 = 1 << 15;

bitflags::bitflags! {
    /// Device status (2.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Status: u8 {
        /// The driver has noticed the device.
        const ACKNOWLEDGE = 1;
        /// The driver knows how to drive it.
        const DRIVER = 2;
        /// The driver is ready.
        const DRIVER_OK = 4;
        /// Features are settled.
        const FEATURES_OK = 8;
        /// The device cannot go on.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
    }
}

/// A queue to set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueSetup {
    /// Its index on the device.
    pub index: u16,
    /// Descriptors.
    pub size: u16,
    /// Where its areas lie, in a region that was mapped.
    pub addresses: Addresses,
    /// Its interrupt among those that [`Transport::interrupts`] gave.
    pub interrupt: Option<u16>,
}

/// Notifies the device about one queue.
pub trait Doorbell: Send + 'static {
    /// Tells the device that there are new buffers, after everything that was written before is visible to it. Never
    /// blocks.
    fn ring(&self);
}

/// The way to one virtio network device, owned.
///
/// Dropping it stops the device before the memory that was mapped for it is given back.
pub trait Transport: Send + 'static {
    /// Its doorbells.
    type Doorbell: Doorbell;
    /// Its interrupts.
    type Interrupt: Send + 'static;

    /// Features that a device must offer to be driven over this transport.
    const REQUIRED: Features;
    /// The transport itself switches queue pairs on, so that several need no control queue (5.1.3.1).
    const SWITCHES_PAIRS: bool;
    /// Every frame that is sent to the device arrives: there is nothing to choose.
    const PASSES_EVERYTHING: bool;
    /// A device that was started once and is gone may come back: [`Transport::attend`] sits that out.
    const COMES_BACK: bool;

    /// The device's name, for messages.
    fn name(&self) -> &str;

    /// Resets the device and waits until it says that it has (2.4). Afterwards it uses no memory.
    ///
    /// # Errors
    /// When it does not within `limit`, or is gone. What can be done from here to keep it from memory was done.
    fn reset(&mut self, clock: &dyn Clock, limit: Duration) -> Result<(), NicError>;

    /// Device status as it is now (2.1).
    fn status(&self) -> Status;

    /// Adds to the device status; a driver never takes a bit back but by a reset (2.1.1).
    ///
    /// # Errors
    /// When the device cannot be told.
    fn add_status(&mut self, status: Status) -> Result<(), NicError>;

    /// Whether the device does not answer any more.
    fn is_gone(&self) -> bool;

    /// The error for a device that is gone.
    fn gone(&self) -> NicError;

    /// Called about once a second while the device is started. `false` when the device is away for a while, which its user sits
    /// out: there is nothing to check then.
    ///
    /// # Errors
    /// When the device is gone, or back: either way it has to be started anew.
    fn attend(&mut self) -> Result<bool, NicError> {
        if self.is_gone() { Err(self.gone()) } else { Ok(true) }
    }

    /// Features that the device offers (2.2).
    ///
    /// # Errors
    /// When it cannot be asked.
    fn offered(&mut self) -> Result<Features, NicError>;

    /// Accepts features and makes the device confirm them (3.1.1, steps 4 to 6).
    ///
    /// # Errors
    /// When it does not.
    fn accept(&mut self, features: Features) -> Result<(), NicError>;

    /// Reads a field of the device configuration (5.1.4); all ones where there is none.
    fn load<W: Width>(&self, field: &Reg<W, ReadOnly>) -> W;

    /// Counts changes of the device configuration (2.5.1).
    fn generation(&self) -> u8;

    /// Queues that the device has.
    fn queue_count(&self) -> u16;

    /// Largest size of a queue; 0 when there is no such queue.
    fn largest_size(&mut self, queue: u16) -> u16;

    /// How many interrupts there are for queues.
    fn interrupt_count(&self) -> u16;

    /// Takes `count` interrupts and gives all others up; replaces what was taken before.
    ///
    /// # Errors
    /// When there are fewer.
    fn interrupts(&mut self, count: u16) -> Result<Vec<Self::Interrupt>, BusError>;

    /// Lets the device reach what is mapped for it, from here to the next reset.
    ///
    /// # Errors
    /// When it cannot.
    fn open_memory(&mut self) -> Result<(), NicError>;

    /// Sets a queue up. The second value says whether its interrupt was accepted; a device may be out of them.
    ///
    /// # Errors
    /// When the device refuses, or contradicts itself.
    fn enable(&mut self, queue: QueueSetup) -> Result<(Self::Doorbell, bool), NicError>;

    /// Makes a region reachable for the device at the region's IOVA, and keeps the region alive until it is unmapped.
    /// Mapping it a second time does nothing.
    ///
    /// # Errors
    /// When it cannot.
    fn map(&mut self, region: &Region) -> Result<(), BusError>;

    /// Takes a region away from the device, which must not be using it any more.
    ///
    /// # Errors
    /// When it cannot.
    fn unmap(&mut self, region: &Region) -> Result<(), BusError>;

    /// The device broke its rules.
    fn misbehaves(&self, reason: impl Into<String>) -> NicError {
        NicError::Device { device: self.name().to_string(), reason: reason.into() }
    }

    /// The device is what it is, or the caller wants what it cannot.
    fn refuses(&self, reason: impl Into<String>) -> NicError {
        NicError::Request { device: self.name().to_string(), reason: reason.into() }
    }

    /// A wait came to its end.
    fn timed_out(&self, what: &'static str, limit: Duration) -> NicError {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        NicError::Timeout { device: self.name().to_string(), what, milliseconds }
    }
}
