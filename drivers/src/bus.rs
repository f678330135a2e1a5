//! What a driver needs of the bus that its device sits on.
//!
//! Three things implement [`PciFunction`] today: kernel VFIO, vfio-user and software models; later a bare-metal PCI walk.
//! Nothing here allocates memory for DMA or chooses addresses; that is `hugemem`'s work. A bus only makes a
//! [`Region`] reachable for one device, at the address that the region already has.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::{IovaRange, Region};

mod sealed {
    pub trait Sealed {}
}

/// An unsigned integer that one bus transaction can carry: `u8`, `u16`, `u32` or `u64`.
pub trait Width: sealed::Sealed + Copy + fmt::Debug + 'static {
    /// Bytes in one transaction.
    const BYTES: u32;
    /// Widens to 64 bits.
    fn widen(self) -> u64;
    /// Keeps the low bits of `value`.
    fn narrow(value: u64) -> Self;
}

macro_rules! width {
    ($($integer:ty),*) => {$(
        impl sealed::Sealed for $integer {}
        impl Width for $integer {
            const BYTES: u32 = <$integer>::BITS / 8;
            fn widen(self) -> u64 {
                u64::from(self)
            }
            #[allow(clippy::cast_possible_truncation, reason = "narrowing is what the function is for; u64 does not")]
            fn narrow(value: u64) -> Self {
                value as $integer
            }
        }
    )*};
}
width!(u8, u16, u32, u64);

/// A window of device registers. Cloning gives another handle to the same window.
///
/// Offsets are in bytes from the start of the window and aligned to the width. An access outside the window behaves as it does on the
/// wire when nobody answers: a load gives all ones and a store is lost. It never panics, because offsets may
/// come from a device.
pub trait Bar: Clone + Send + 'static {
    /// Size of the window in bytes.
    fn size(&self) -> u64;
    /// Reads a register in one transaction.
    fn load<W: Width>(&self, offset: u32) -> W;
    /// Writes a register in one transaction. Not ordered against DMA memory: see [`Bar::publish`].
    fn store<W: Width>(&self, offset: u32, value: W);
    /// Writes 64 bytes after every earlier write to DMA memory is visible to the device, as one transaction where the processor can (MOVDIR64B), else as
    /// eight: the portal of a dedicated DSA work queue. A device behind the latter sees a descriptor in pieces; those of models take it so, real ones do not.
    fn store_block(&self, offset: u32, block: &[u64; 8]);
    /// Whether [`Bar::enqueue_block`] can reach a shared DSA work queue. The instruction for it (ENQCMD) sends a PASID that the system gave this process, and
    /// kills a process that has none; so it takes a window that a kernel lent along with a PASID (`/dev/dsa`), or a model. VFIO gives none.
    fn can_enqueue(&self) -> bool {
        false
    }
    /// Offers 64 bytes, as [`Bar::store_block`] writes them, to a work queue that says whether it took them. `false` when it is full, nobody
    /// answered, or [`Bar::can_enqueue`] is `false`: nothing happened then, and the same block can be offered again.
    fn enqueue_block(&self, _offset: u32, _block: &[u64; 8]) -> bool {
        false
    }
    /// Writes a register after every earlier write to DMA memory is visible to the device: a doorbell.
    fn publish<W: Width>(&self, offset: u32, value: W);
}

/// One interrupt vector of a device. What it is beyond this belongs to the bus; on Linux it is an eventfd, which an
/// event loop can wait for.
pub trait Interrupt: Send + 'static {
    /// Waits for a signal, at most `timeout`, and consumes what is pending. `false` means that time ran out.
    fn wait(&mut self, timeout: Duration) -> Result<bool, BusError>;
}

/// A monotonic clock, given to drivers so that every wait can have a deadline.
pub trait Clock: Send + Sync {
    /// Time since an arbitrary start.
    fn now(&self) -> Duration;
    /// Lets about `duration` pass. May return early.
    fn pause(&self, duration: Duration);
}

/// Waits until `done` says so, asking about every `step`; `false` when `limit` passed first.
pub fn wait_until(clock: &dyn Clock, limit: Duration, step: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = clock.now();
    loop {
        if done() {
            return true;
        }
        if clock.now().saturating_sub(start) >= limit {
            // The device may have answered while this thread was not running.
            return done();
        }
        clock.pause(step);
    }
}

/// Where a PCI function sits: domain, bus, device, function. Prints as `0000:03:00.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciAddress {
    /// Domain (segment group).
    pub domain: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{}", self.domain, self.bus, self.device, self.function)
    }
}

/// The text was no PCI address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not a PCI address (expected 0000:03:00.0 or 03:00.0)")]
pub struct NotPciAddress;

impl core::str::FromStr for PciAddress {
    type Err = NotPciAddress;

    fn from_str(text: &str) -> Result<Self, NotPciAddress> {
        let hex = |digits: &str, longest: usize| -> Result<u32, NotPciAddress> {
            if digits.is_empty() || digits.len() > longest || digits.starts_with('+') {
                return Err(NotPciAddress);
            }
            u32::from_str_radix(digits, 16).map_err(|_| NotPciAddress)
        };
        let (rest, function) = text.rsplit_once('.').ok_or(NotPciAddress)?;
        let (rest, device) = rest.rsplit_once(':').ok_or(NotPciAddress)?;
        let (domain, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        let device = hex(device, 2)?;
        let function = hex(function, 1)?;
        if device > 31 || function > 7 {
            return Err(NotPciAddress);
        }
        Ok(Self {
            domain: hex(domain, 8)?,
            bus: u8::narrow(hex(bus, 2)?.into()),
            device: u8::narrow(device.into()),
            function: u8::narrow(function.into()),
        })
    }
}

/// What a PCI function says it is (PCI Local Bus Specification 3.0, section 6.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PciId {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem device.
    pub subsystem_device: u16,
    /// Class, subclass and programming interface in the low 24 bits: `0x020000` is an Ethernet controller.
    pub class: u32,
    /// Revision.
    pub revision: u8,
}

/// A request to the bus failed. The text names the device, the cause and what mends it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// The device is gone or answers nothing but all ones.
    #[error("{device}: the device does not answer (removed, or powered down): {reason}")]
    Gone {
        /// The device.
        device: String,
        /// What showed it.
        reason: String,
    },
    /// The device lacks something that was asked for: a BAR, a capability, interrupt vectors.
    #[error("{device}: {missing}")]
    Missing {
        /// The device.
        device: String,
        /// A sentence saying what it lacks.
        missing: String,
    },
    /// Memory could not be made reachable for the device, or not be taken away again.
    #[error("{device}: cannot {action} {bytes} bytes at IOVA {iova:#x}: {reason}")]
    Mapping {
        /// The device.
        device: String,
        /// `map` or `unmap`.
        action: &'static str,
        /// Start of the range.
        iova: u64,
        /// Length of the range.
        bytes: u64,
        /// The cause and what mends it.
        reason: String,
    },
    /// The operating system refused.
    #[error("{device}: {action}: {reason}")]
    System {
        /// The device.
        device: String,
        /// What was tried.
        action: String,
        /// The cause and what mends it.
        reason: String,
    },
}

/// One function of a PCI device, owned by the holder for as long as it lives.
///
/// Dropping it stops the device (bus master off, reset) before the memory that was mapped for it is given back.
pub trait PciFunction: Send + 'static {
    /// Its register windows.
    type Bar: Bar;
    /// Its interrupt vectors.
    type Interrupt: Interrupt;

    /// Name for messages: a PCI address, or what the model is called.
    fn name(&self) -> &str;
    /// What it says it is.
    fn id(&self) -> PciId;
    /// Reads the aligned 32-bit word at `offset` of configuration space.
    fn read_config(&self, offset: u16) -> Result<u32, BusError>;
    /// Writes the aligned 32-bit word at `offset` of configuration space.
    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError>;
    /// The register window of base address register `index` (0 to 5).
    fn bar(&mut self, index: u8) -> Result<Self::Bar, BusError>;
    /// The IOVA ranges that the IOMMU lets this device use, ascending.
    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError>;
    /// Makes `region` reachable for the device at the region's IOVA. The bus keeps the region alive until it is
    /// unmapped or the function is dropped. Mapping it a second time does nothing.
    fn map(&mut self, region: &Region) -> Result<(), BusError>;
    /// Takes `region` away from the device. The device must not be using it any more.
    fn unmap(&mut self, region: &Region) -> Result<(), BusError>;
    /// How many interrupt vectors (MSI-X) the device has.
    fn interrupt_count(&self) -> u16;
    /// Enables vectors `0..count` and disables all others; replaces what was enabled before.
    fn interrupts(&mut self, count: u16) -> Result<Vec<Self::Interrupt>, BusError>;
    /// Allows or forbids the device to access memory (Bus Master Enable).
    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError>;
    /// Resets the function (FLR or what the platform has). Afterwards nothing is in flight and bus mastering is off.
    /// A device with no function reset gives [`BusError::Missing`]; its driver then uses the device's own reset.
    fn reset(&mut self) -> Result<(), BusError>;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_pci_address_reads_back_what_it_prints() {
        for text in ["0000:03:00.0", "10000:e1:1f.7"] {
            assert_eq!(text.parse::<PciAddress>().unwrap().to_string(), text);
        }
        assert_eq!("03:00.1".parse::<PciAddress>().unwrap().to_string(), "0000:03:00.1");
    }

    #[test]
    fn what_is_no_pci_address_is_refused() {
        for text in ["", "eth0", "0000:03:00", "0000:03:20.0", "0000:03:00.8", "0000:003:00.0", "0:+3:00.0"] {
            assert_eq!(text.parse::<PciAddress>(), Err(NotPciAddress), "{text}");
        }
    }
}
