//! The PCI transport (virtio 1.3, section 4.1): status, features, queues and doorbells of a device.
//!
//! Where the structures lie was checked against the BARs when they were found, see [`capabilities`]; registers are read
//! anew at each use and never trusted to be what they were. Interrupts are MSI-X only, so the ISR status (4.1.4.5) is
//! not used.

use alloc::string::ToString;
use alloc::vec::Vec;
use core::time::Duration;

use hugemem::Region;

use super::capabilities::{self, Place};
use super::features::Features;
use super::transport::{Doorbell, MOST_DESCRIPTORS, QueueSetup, Status, Transport};
use crate::bus::{Bar, BusError, Clock, PciFunction, PciId, Width, wait_until};
use crate::nic::NicError;
use crate::register::{ReadOnly, Readable, Reg, Writable};

const VENDOR: u16 = 0x1af4;
/// Network device, modern (4.1.2.1), and transitional, which is driven by its modern interface.
const DEVICES: [u16; 2] = [0x1041, 0x1000];

/// Whether this driver is for the function.
#[must_use]
pub fn matches(id: PciId) -> bool {
    id.vendor == VENDOR && DEVICES.contains(&id.device)
}

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
/// No interrupt vector, or: the device had none to give (4.1.5.1.2).
const NO_VECTOR: u16 = 0xffff;

/// A structure in a BAR. Access beyond its end behaves as beyond the BAR's: all ones, lost.
#[derive(Clone, Debug)]
struct Window<B> {
    bar: B,
    base: u32,
    length: u32,
}

impl<B: Bar> Window<B> {
    /// The structure at `place`, if it lies inside the BAR, is aligned to `alignment` and has `least` bytes.
    fn new(bar: B, place: Place, alignment: u32, least: u32) -> Option<Self> {
        let end = place.offset.checked_add(place.length)?;
        let fits = u64::from(end) <= bar.size() && place.length >= least && place.offset.is_multiple_of(alignment);
        fits.then_some(Self { bar, base: place.offset, length: place.length })
    }

    fn holds<W: Width>(&self, offset: u32) -> bool {
        offset.checked_add(W::BYTES).is_some_and(|end| end <= self.length)
    }

    /// Reads a register.
    fn load<W: Width, A: Readable>(&self, register: &Reg<W, A>) -> W {
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
pub struct PciDoorbell<B> {
    bar: B,
    offset: u32,
    queue: u16,
}

impl<B: Bar> Doorbell for PciDoorbell<B> {
    #[inline]
    fn ring(&self) {
        self.bar.publish(self.offset, self.queue);
    }
}

/// A virtio device on a PCI bus.
pub struct Pci<F: PciFunction> {
    common: Window<F::Bar>,
    notify: Window<F::Bar>,
    notify_multiplier: u32,
    /// Device configuration (4.1.4.6), for a network device section 5.1.4.
    device: Window<F::Bar>,
    // Last, so that doorbells and registers are let go of before the function is.
    function: F,
}

impl<F: PciFunction> Pci<F> {
    /// Finds the structures of `function` (4.1.4).
    ///
    /// # Errors
    /// When it is no network device of virtio 1.0 or later, does not answer, or the bus fails.
    pub fn open(mut function: F) -> Result<Self, NicError> {
        if !matches(function.id()) {
            let PciId { vendor, device, .. } = function.id();
            return Err(NicError::Unsupported {
                device: function.name().to_string(),
                reason: alloc::format!(
                    "{vendor:04x}:{device:04x} is no virtio network device (1af4:1041 or 1af4:1000)"
                ),
            });
        }
        // Whatever the last owner left behind. Not every device can: QEMU's on the root bus cannot.
        match function.reset() {
            Ok(()) | Err(BusError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
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
        let mut window = |place: Option<Place>, what, alignment, least| -> Result<Window<F::Bar>, NicError> {
            let place = place.ok_or_else(|| missing(what))?;
            Window::new(function.bar(place.bar)?, place, alignment, least).ok_or_else(|| missing(what))
        };
        let common = window(found.common, "common configuration", 4, COMMON_LENGTH)?;
        let notify = window(found.notify, "notification", 2, 2)?;
        let device = window(found.device, "device configuration", 4, 0)?;
        Ok(Self { common, notify, notify_multiplier: found.notify_multiplier, device, function })
    }

    /// The function that the device sits on.
    #[must_use]
    pub fn function(&self) -> &F {
        &self.function
    }

    fn reset_registers(&self, clock: &dyn Clock, limit: Duration) -> Result<(), NicError> {
        // 4.1.4.3.2: the driver waits until it reads zero.
        self.common.store(&DEVICE_STATUS, 0);
        if wait_until(clock, limit, Duration::from_millis(1), || self.status().is_empty()) {
            return Ok(());
        }
        Err(if self.is_gone() { self.gone() } else { self.timed_out("the device to finish its reset", limit) })
    }

    fn select(&self, queue: u16) -> u16 {
        self.common.store(&QUEUE_SELECT, queue);
        self.common.load(&QUEUE_SIZE)
    }

    /// The doorbell of the selected queue (4.1.4.4).
    fn doorbell(&self, queue: u16) -> Result<PciDoorbell<F::Bar>, NicError> {
        let steps = u32::from(self.common.load(&QUEUE_NOTIFY_OFF));
        let inside = steps
            .checked_mul(self.notify_multiplier)
            .filter(|offset| offset.is_multiple_of(2) && self.notify.holds::<u16>(*offset));
        let Some(inside) = inside else {
            return Err(self.misbehaves(alloc::format!(
                "the doorbell of queue {queue} lies outside of its notification structure"
            )));
        };
        Ok(PciDoorbell { bar: self.notify.bar.clone(), offset: self.notify.base.wrapping_add(inside), queue })
    }
}

impl<F: PciFunction> Transport for Pci<F> {
    type Doorbell = PciDoorbell<F::Bar>;
    type Interrupt = F::Interrupt;

    /// Without the second it would bypass the IOMMU.
    const REQUIRED: Features = Features::VERSION_1.union(Features::ACCESS_PLATFORM);
    const SWITCHES_PAIRS: bool = false;
    const PASSES_EVERYTHING: bool = false;
    const COMES_BACK: bool = false;

    fn name(&self) -> &str {
        self.function.name()
    }

    fn reset(&mut self, clock: &dyn Clock, limit: Duration) -> Result<(), NicError> {
        let reset = self.reset_registers(clock, limit);
        // Also when the reset failed: a device that does not listen is at least kept from memory.
        let off_bus = self.function.set_bus_master(false);
        reset?;
        Ok(off_bus?)
    }

    fn status(&self) -> Status {
        Status::from_bits_retain(self.common.load(&DEVICE_STATUS))
    }

    fn add_status(&mut self, status: Status) -> Result<(), NicError> {
        self.common.store(&DEVICE_STATUS, (self.status() | status).bits());
        Ok(())
    }

    /// Everything reads as ones.
    fn is_gone(&self) -> bool {
        self.common.load(&DEVICE_STATUS) == u8::MAX && self.common.load(&NUM_QUEUES) == u16::MAX
    }

    fn gone(&self) -> NicError {
        NicError::Bus(BusError::Gone {
            device: self.name().to_string(),
            reason: "its registers read as all ones".to_string(),
        })
    }

    fn offered(&mut self) -> Result<Features, NicError> {
        self.common.store(&DEVICE_FEATURE_SELECT, 0);
        let low = self.common.load(&DEVICE_FEATURE);
        self.common.store(&DEVICE_FEATURE_SELECT, 1);
        let high = self.common.load(&DEVICE_FEATURE);
        Ok(Features::from_bits_retain(u64::from(high) << 32 | u64::from(low)))
    }

    fn accept(&mut self, features: Features) -> Result<(), NicError> {
        self.common.store(&DRIVER_FEATURE_SELECT, 0);
        self.common.store(&DRIVER_FEATURE, u32::narrow(features.bits()));
        self.common.store(&DRIVER_FEATURE_SELECT, 1);
        self.common.store(&DRIVER_FEATURE, u32::narrow(features.bits() >> 32));
        self.add_status(Status::FEATURES_OK)?;
        if self.status().contains(Status::FEATURES_OK) {
            return Ok(());
        }
        Err(self.misbehaves("it takes back features that it offered (FEATURES_OK stays clear)"))
    }

    fn load<W: Width>(&self, field: &Reg<W, ReadOnly>) -> W {
        self.device.load(field)
    }

    fn generation(&self) -> u8 {
        self.common.load(&CONFIG_GENERATION)
    }

    fn queue_count(&self) -> u16 {
        self.common.load(&NUM_QUEUES)
    }

    fn largest_size(&mut self, queue: u16) -> u16 {
        self.select(queue)
    }

    fn interrupt_count(&self) -> u16 {
        self.function.interrupt_count()
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<F::Interrupt>, BusError> {
        self.function.interrupts(count)
    }

    fn open_memory(&mut self) -> Result<(), NicError> {
        self.function.set_bus_master(true)?;
        // No interrupts when the configuration changes: the driver asks.
        self.common.store(&CONFIG_MSIX_VECTOR, NO_VECTOR);
        Ok(())
    }

    /// 4.1.5.1.3
    fn enable(&mut self, queue: QueueSetup) -> Result<(Self::Doorbell, bool), NicError> {
        let QueueSetup { index, size, addresses, interrupt } = queue;
        let largest = self.select(index);
        if largest < size || largest > MOST_DESCRIPTORS {
            return Err(self.misbehaves(alloc::format!(
                "queue {index} was to have {size} descriptors and now claims room for {largest}"
            )));
        }
        if self.common.load(&QUEUE_ENABLE) != 0 {
            return Err(self.misbehaves(alloc::format!("queue {index} runs although the device was just reset")));
        }
        self.common.store(&QUEUE_SIZE, size);
        self.common.store_halves(&QUEUE_DESC, addresses.descriptors.raw());
        self.common.store_halves(&QUEUE_DRIVER, addresses.driver.raw());
        self.common.store_halves(&QUEUE_DEVICE, addresses.device.raw());
        self.common.store(&QUEUE_MSIX_VECTOR, interrupt.unwrap_or(NO_VECTOR));
        let accepted = interrupt.is_some_and(|vector| self.common.load(&QUEUE_MSIX_VECTOR) == vector);
        let doorbell = self.doorbell(index)?;
        self.common.store(&QUEUE_ENABLE, 1);
        if self.common.load(&QUEUE_ENABLE) != 1 {
            return Err(self.misbehaves(alloc::format!("queue {index} does not come up")));
        }
        Ok((doorbell, accepted))
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        self.function.map(region)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        self.function.unmap(region)
    }
}
