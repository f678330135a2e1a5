//! The PCI transport (virtio 1.3, section 4.1): status, features, queues and doorbells of a device.
//!
//! Where the structures lie was checked against the BARs when they were found, see [`capabilities`]; registers are read
//! anew at each use and never trusted to be what they were. Interrupts are MSI-X only, so the ISR status (4.1.4.5) is
//! not used.

use alloc::string::{String, ToString};
use core::time::Duration;

use super::capabilities::{self, Place};
use super::features::Features;
use super::ring::Addresses;
use crate::bus::{Bar, BusError, Clock, PciFunction, Width, wait_until};
use crate::nic::NicError;
use crate::register::{ReadOnly, Readable, Reg, Writable};

/// Registers of the common configuration structure (4.1.4.3).
mod registers {
    use super::{ReadOnly, Reg};

    pub(super) const DEVICE_FEATURE_SELECT: Reg<u32> = Reg::at(0);
    pub(super) const DEVICE_FEATURE: Reg<u32, ReadOnly> = Reg::at(4);
    pub(super) const DRIVER_FEATURE_SELECT: Reg<u32> = Reg::at(8);
    pub(super) const DRIVER_FEATURE: Reg<u32> = Reg::at(12);
    pub(super) const CONFIG_MSIX_VECTOR: Reg<u16> = Reg::at(16);
    pub(super) const NUM_QUEUES: Reg<u16, ReadOnly> = Reg::at(18);
    pub(super) const DEVICE_STATUS: Reg<u8> = Reg::at(20);
    pub(super) const CONFIG_GENERATION: Reg<u8, ReadOnly> = Reg::at(21);
    pub(super) const QUEUE_SELECT: Reg<u16> = Reg::at(22);
    pub(super) const QUEUE_SIZE: Reg<u16> = Reg::at(24);
    pub(super) const QUEUE_MSIX_VECTOR: Reg<u16> = Reg::at(26);
    pub(super) const QUEUE_ENABLE: Reg<u16> = Reg::at(28);
    pub(super) const QUEUE_NOTIFY_OFF: Reg<u16, ReadOnly> = Reg::at(30);
    // Fields of 64 bits are accessed as two of 32 (4.1.3.1).
    pub(super) const QUEUE_DESC: [Reg<u32>; 2] = [Reg::at(32), Reg::at(36)];
    pub(super) const QUEUE_DRIVER: [Reg<u32>; 2] = [Reg::at(40), Reg::at(44)];
    pub(super) const QUEUE_DEVICE: [Reg<u32>; 2] = [Reg::at(48), Reg::at(52)];
}
use registers::*;

/// Bytes of the common configuration structure that this driver uses, all of which every modern device has.
const COMMON_LENGTH: u32 = 56;
/// Most descriptors of a queue (2.6).
pub(super) const MOST_DESCRIPTORS: u16 = 1 << 15;
/// No interrupt vector, or: the device had none to give (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

bitflags::bitflags! {
    /// Device status (2.1).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Status: u8 {
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

/// A structure in a BAR. Access beyond its end behaves as beyond the BAR's: all ones, lost.
#[derive(Clone, Debug)]
pub(super) struct Window<B> {
    bar: B,
    base: u32,
    length: u32,
}

impl<B: Bar> Window<B> {
    /// The structure at `place`, if it lies inside the BAR, is aligned to `alignment` and has `least` bytes.
    pub(super) fn new(bar: B, place: Place, alignment: u32, least: u32) -> Option<Self> {
        let end = place.offset.checked_add(place.length)?;
        let fits = u64::from(end) <= bar.size() && place.length >= least && place.offset.is_multiple_of(alignment);
        fits.then_some(Self { bar, base: place.offset, length: place.length })
    }

    fn holds<W: Width>(&self, offset: u32) -> bool {
        offset.checked_add(W::BYTES).is_some_and(|end| end <= self.length)
    }

    /// Reads a register.
    pub(super) fn load<W: Width, A: Readable>(&self, register: &Reg<W, A>) -> W {
        if self.holds::<W>(register.offset()) { register.load(&self.bar, self.base) } else { W::narrow(u64::MAX) }
    }

    fn store<W: Width, A: Writable>(&self, register: &Reg<W, A>, value: W) {
        if self.holds::<W>(register.offset()) {
            register.store(&self.bar, self.base, value);
        }
    }

    fn store_halves(&self, [low, high]: &[Reg<u32>; 2], value: u64) {
        self.store(low, u32::narrow(value));
        self.store(high, u32::narrow(value >> 32));
    }
}

/// Notifies the device about one queue (4.1.5.2).
#[derive(Clone, Debug)]
pub(super) struct Doorbell<B> {
    bar: B,
    offset: u32,
    queue: u16,
}

impl<B: Bar> Doorbell<B> {
    /// Tells the device that there are new buffers.
    #[inline]
    pub(super) fn ring(&self) {
        self.bar.publish(self.offset, self.queue);
    }
}

/// The device's structures.
#[derive(Debug)]
pub(super) struct Transport<B> {
    name: String,
    common: Window<B>,
    notify: Window<B>,
    notify_multiplier: u32,
    /// Device configuration (4.1.4.6), for a network device section 5.1.4.
    pub(super) device: Window<B>,
}

impl<B: Bar> Transport<B> {
    /// Finds the structures of `function` (4.1.4).
    pub(super) fn find<F: PciFunction<Bar = B>>(function: &mut F) -> Result<Self, NicError> {
        let name = function.name().to_string();
        // The identifiers, which no device leaves at all ones.
        if function.read_config(0)? == u32::MAX {
            let reason = "its configuration space reads as all ones".to_string();
            return Err(BusError::Gone { device: name, reason }.into());
        }
        let found = capabilities::walk(|offset| function.read_config(offset))?;
        let missing = |what: &str| NicError::Unsupported {
            device: name.clone(),
            reason: alloc::format!(
                "no usable {what} structure among its PCI capabilities; it is no modern virtio device \
                 (QEMU: disable-modern=off), or its configuration space is damaged"
            ),
        };
        let mut window = |place: Option<Place>, what, alignment, least| -> Result<Window<B>, NicError> {
            let place = place.ok_or_else(|| missing(what))?;
            Window::new(function.bar(place.bar)?, place, alignment, least).ok_or_else(|| missing(what))
        };
        let common = window(found.common, "common configuration", 4, COMMON_LENGTH)?;
        let notify = window(found.notify, "notification", 2, 2)?;
        let device = window(found.device, "device configuration", 4, 0)?;
        Ok(Self { name, common, notify, notify_multiplier: found.notify_multiplier, device })
    }

    /// The device's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The device broke its rules.
    pub(super) fn misbehaves(&self, reason: impl Into<String>) -> NicError {
        NicError::Device { device: self.name.clone(), reason: reason.into() }
    }

    /// The device is what it is, or the caller wants what it cannot.
    pub(super) fn refuses(&self, reason: impl Into<String>) -> NicError {
        NicError::Request { device: self.name.clone(), reason: reason.into() }
    }

    /// A wait came to its end.
    pub(super) fn timed_out(&self, what: &'static str, limit: Duration) -> NicError {
        let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        NicError::Timeout { device: self.name.clone(), what, milliseconds }
    }

    /// Device status as it is now.
    pub(super) fn status(&self) -> Status {
        Status::from_bits_retain(self.common.load(&DEVICE_STATUS))
    }

    /// Adds to the device status; a driver never takes a bit back but by a reset (2.1.1).
    pub(super) fn add_status(&self, status: Status) {
        self.common.store(&DEVICE_STATUS, (self.status() | status).bits());
    }

    /// The device does not answer: everything reads as ones.
    pub(super) fn is_gone(&self) -> bool {
        self.common.load(&DEVICE_STATUS) == u8::MAX && self.common.load(&NUM_QUEUES) == u16::MAX
    }

    /// The error for a device that is gone.
    pub(super) fn gone(&self) -> NicError {
        NicError::Bus(BusError::Gone {
            device: self.name.clone(),
            reason: "its registers read as all ones".to_string(),
        })
    }

    /// Resets the device and waits until it says that it has (2.4, 4.1.4.3.2).
    pub(super) fn reset(&self, clock: &dyn Clock, limit: Duration) -> Result<(), NicError> {
        self.common.store(&DEVICE_STATUS, 0);
        if wait_until(clock, limit, Duration::from_millis(1), || self.status().is_empty()) {
            return Ok(());
        }
        Err(if self.is_gone() { self.gone() } else { self.timed_out("the device to finish its reset", limit) })
    }

    /// Features that the device offers (2.2).
    pub(super) fn offered(&self) -> Features {
        self.common.store(&DEVICE_FEATURE_SELECT, 0);
        let low = self.common.load(&DEVICE_FEATURE);
        self.common.store(&DEVICE_FEATURE_SELECT, 1);
        let high = self.common.load(&DEVICE_FEATURE);
        Features::from_bits_retain(u64::from(high) << 32 | u64::from(low))
    }

    /// Accepts features and makes the device confirm them (3.1.1, steps 4 to 6).
    pub(super) fn accept(&self, features: Features) -> Result<(), NicError> {
        self.common.store(&DRIVER_FEATURE_SELECT, 0);
        self.common.store(&DRIVER_FEATURE, u32::narrow(features.bits()));
        self.common.store(&DRIVER_FEATURE_SELECT, 1);
        self.common.store(&DRIVER_FEATURE, u32::narrow(features.bits() >> 32));
        self.add_status(Status::FEATURES_OK);
        if self.status().contains(Status::FEATURES_OK) {
            return Ok(());
        }
        Err(self.misbehaves("it takes back features that it offered (FEATURES_OK stays clear)"))
    }

    /// Counts changes of the device configuration (4.1.4.3).
    pub(super) fn generation(&self) -> u8 {
        self.common.load(&CONFIG_GENERATION)
    }

    /// No interrupts when the configuration changes: the driver asks.
    pub(super) fn silence_configuration(&self) {
        self.common.store(&CONFIG_MSIX_VECTOR, NO_VECTOR);
    }

    /// Queues that the device has.
    pub(super) fn queue_count(&self) -> u16 {
        self.common.load(&NUM_QUEUES)
    }

    /// Largest size of a queue; 0 when there is no such queue (4.1.5.1.3).
    pub(super) fn largest_size(&self, queue: u16) -> u16 {
        self.common.store(&QUEUE_SELECT, queue);
        self.common.load(&QUEUE_SIZE)
    }

    /// Sets a queue up (4.1.5.1.3). The second value says whether the interrupt vector was accepted; a device may be
    /// out of them.
    pub(super) fn enable(
        &self,
        queue: u16,
        size: u16,
        addresses: Addresses,
        vector: Option<u16>,
    ) -> Result<(Doorbell<B>, bool), NicError> {
        let largest = self.largest_size(queue);
        if largest < size || largest > MOST_DESCRIPTORS {
            return Err(self.misbehaves(alloc::format!(
                "queue {queue} was to have {size} descriptors and now claims room for {largest}"
            )));
        }
        if self.common.load(&QUEUE_ENABLE) != 0 {
            return Err(self.misbehaves(alloc::format!("queue {queue} runs although the device was just reset")));
        }
        self.common.store(&QUEUE_SIZE, size);
        self.common.store_halves(&QUEUE_DESC, addresses.descriptors.raw());
        self.common.store_halves(&QUEUE_DRIVER, addresses.driver.raw());
        self.common.store_halves(&QUEUE_DEVICE, addresses.device.raw());
        self.common.store(&QUEUE_MSIX_VECTOR, vector.unwrap_or(NO_VECTOR));
        let accepted = vector.is_some_and(|vector| self.common.load(&QUEUE_MSIX_VECTOR) == vector);
        let doorbell = self.doorbell(queue)?;
        self.common.store(&QUEUE_ENABLE, 1);
        if self.common.load(&QUEUE_ENABLE) != 1 {
            return Err(self.misbehaves(alloc::format!("queue {queue} does not come up")));
        }
        Ok((doorbell, accepted))
    }

    /// The doorbell of the selected queue (4.1.4.4).
    fn doorbell(&self, queue: u16) -> Result<Doorbell<B>, NicError> {
        let steps = u32::from(self.common.load(&QUEUE_NOTIFY_OFF));
        let inside = steps
            .checked_mul(self.notify_multiplier)
            .filter(|offset| offset.is_multiple_of(2) && self.notify.holds::<u16>(*offset));
        let Some(inside) = inside else {
            return Err(self.misbehaves(alloc::format!(
                "the doorbell of queue {queue} lies outside of its notification structure"
            )));
        };
        Ok(Doorbell { bar: self.notify.bar.clone(), offset: self.notify.base.wrapping_add(inside), queue })
    }
}
