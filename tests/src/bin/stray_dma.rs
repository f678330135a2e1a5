//! Makes a virtio-net device read memory that nobody mapped for it: `stray-dma 0000:00:03.0 [type1|iommufd]`.
//!
//! The lab's checks say "no IOMMU fault". This program provokes one, which shows that such a check can fail. It brings
//! the device up as a driver would (virtio 1.3, section 3.1.1), with its transmit queue at an address at which the
//! device's I/O address space is empty, and rings the doorbell.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use drivers::bus::{Bar, PciAddress, PciFunction};
use vfio::{Function, Interface};

/// Nothing is ever mapped here: this program maps nothing at all.
const STRAY: u32 = 0x0dea_d000;

/// The transmit queue of the first pair (section 5.1.2).
const TRANSMIT: u16 = 1;

/// Device status bits (section 2.1).
const ACKNOWLEDGE: u8 = 1;
const DRIVER: u8 = 2;
const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;

/// VIRTIO_F_VERSION_1 (bit 32) and VIRTIO_F_ACCESS_PLATFORM (bit 33), as the second word of the feature bits.
const FEATURES_32_TO_63: u32 = 0b11;

/// Offsets in the common configuration (section 4.1.4.3).
const DRIVER_FEATURE_SELECT: u32 = 8;
const DRIVER_FEATURE: u32 = 12;
const DEVICE_STATUS: u32 = 20;
const QUEUE_SELECT: u32 = 22;
const QUEUE_SIZE: u32 = 24;
const QUEUE_ENABLE: u32 = 28;
const QUEUE_NOTIFY_OFF: u32 = 30;
const QUEUE_ADDRESSES: [u32; 3] = [32, 40, 48];

/// Where one of the device's structures is (section 4.1.4).
struct Structure {
    bar: u8,
    offset: u32,
    /// The word after the capability; for doorbells the distance of one queue's from the next one's.
    extra: u32,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stray-dma: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().context("usage: stray-dma PCI-ADDRESS [type1|iommufd]")?;
    let interface = arguments.next().map_or(Ok(Interface::Auto), |name| name.parse())?;
    let mut function = Function::open(address.parse::<PciAddress>()?, interface)?;
    let common = structure(&function, 1)?.context("no common configuration: not a virtio device")?;
    let doorbells = structure(&function, 2)?.context("no doorbells: not a virtio device")?;
    let registers = function.bar(common.bar)?;
    let base = common.offset;

    registers.store(base + DEVICE_STATUS, 0_u8);
    let mut status = ACKNOWLEDGE | DRIVER;
    registers.store(base + DEVICE_STATUS, status);
    for (select, features) in [(0, 0), (1, FEATURES_32_TO_63)] {
        registers.store::<u32>(base + DRIVER_FEATURE_SELECT, select);
        registers.store::<u32>(base + DRIVER_FEATURE, features);
    }
    status |= FEATURES_OK;
    registers.store(base + DEVICE_STATUS, status);
    if registers.load::<u8>(base + DEVICE_STATUS) & FEATURES_OK == 0 {
        bail!("{address}: the device does not take VERSION_1 and ACCESS_PLATFORM; is it behind the IOMMU?");
    }

    registers.store(base + QUEUE_SELECT, TRANSMIT);
    registers.store::<u16>(base + QUEUE_SIZE, 64);
    for (part, register) in (0_u32..).zip(QUEUE_ADDRESSES) {
        registers.store(base + register, STRAY + part * 0x1000);
        registers.store(base + register + 4, 0_u32);
    }
    let notify_off: u16 = registers.load(base + QUEUE_NOTIFY_OFF);
    registers.store::<u16>(base + QUEUE_ENABLE, 1);
    function.set_bus_master(true)?;
    status |= DRIVER_OK;
    registers.store(base + DEVICE_STATUS, status);

    let bells = function.bar(doorbells.bar)?;
    let bell = doorbells.offset + u32::from(notify_off) * doorbells.extra;
    // The device looks at its queue in its own time: it stays up for a moment. Not rung more often than this, as the
    // kernel stops reporting faults for a while when there are many.
    for _ in 0..2 {
        bells.publish(bell, TRANSMIT);
        std::thread::sleep(Duration::from_millis(100));
    }
    registers.store(base + DEVICE_STATUS, 0_u8);
    println!("{address}: rang the doorbell of a queue at {STRAY:#x}, which is not mapped");
    Ok(())
}

/// Finds the structure of this type in the list of PCI capabilities.
fn structure(function: &Function, wanted: u8) -> Result<Option<Structure>> {
    let [mut at, ..] = function.read_config(0x34)?.to_le_bytes();
    // There are at most 48 capabilities in the 192 bytes that hold them.
    for _ in 0..48 {
        at &= 0xfc;
        if at == 0 {
            return Ok(None);
        }
        let word = |index: u16| function.read_config(u16::from(at) + 4 * index);
        let [id, next, _, kind] = word(0)?.to_le_bytes();
        // 9: vendor-specific, which all capabilities of virtio are.
        if id == 9 && kind == wanted {
            let [bar, ..] = word(1)?.to_le_bytes();
            return Ok(Some(Structure { bar, offset: word(2)?, extra: word(4)? }));
        }
        at = next;
    }
    Ok(None)
}
