//! PCI configuration space of the card: header, MSI-X, and where the virtio structures are (section 4.1).

use drivers::bus::Width;

use super::config::Config;
use super::fault::Fault;

/// The BAR of the virtio structures, and that of the MSI-X table.
pub(super) const STRUCTURES: u8 = 4;
pub(super) const MSIX_TABLE: u8 = 1;
/// Offsets of the structures in their BAR. Not in the order of their capabilities, so that nobody can guess them.
pub(super) const DEVICE: u32 = 0x0080;
pub(super) const DEVICE_BYTES: u32 = 32;
pub(super) const COMMON: u32 = 0x0100;
pub(super) const COMMON_BYTES: u32 = 64;
pub(super) const ISR: u32 = 0x0204;
pub(super) const NOTIFY: u32 = 0x1000;

const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 4;
const CAPABILITIES: u8 = 0x40;
const MSIX_CONTROL: usize = 0x42;

const COMMON_TYPE: u8 = 1;
const NOTIFY_TYPE: u8 = 2;
const ISR_TYPE: u8 = 3;
const DEVICE_TYPE: u8 = 4;
const PCI_TYPE: u8 = 5;

/// The first 256 bytes of configuration space.
#[derive(Debug)]
pub(super) struct PciSpace {
    bytes: [u8; 256],
    function_reset: bool,
}

impl PciSpace {
    pub(super) fn new(config: &Config, queues: u16, fault: Option<Fault>) -> Self {
        let mut space = Self { bytes: [0; 256], function_reset: config.function_reset };
        space.put16(0x00, 0x1af4);
        space.put16(0x02, 0x1041);
        space.put16(0x06, 0x0010);
        space.put32(0x08, 0x0200_0001);
        space.put32(0x10 + 4 * usize::from(MSIX_TABLE), 0xfe00_0000);
        // 64 bits wide, prefetchable.
        space.put32(0x10 + 4 * usize::from(STRUCTURES), 0xfd00_000c);
        space.put16(0x2c, 0x1af4);
        space.put16(0x2e, 0x1100);
        space.bytes[0x34] = CAPABILITIES;
        space.put16(0x40, 0x5011);
        space.put16(MSIX_CONTROL, config.vectors.saturating_sub(1) & 0x7ff);
        space.put32(0x44, u32::from(MSIX_TABLE));
        space.put32(0x48, 0x800 | u32::from(MSIX_TABLE));
        let notify_bytes = notify_bytes(config, queues);
        space.structure(0x50, 0x60, 16, DEVICE_TYPE, DEVICE, DEVICE_BYTES);
        space.structure(0x60, 0x74, 20, NOTIFY_TYPE, NOTIFY, notify_bytes);
        space.put32(0x70, config.notify_multiplier);
        // A vendor's own capability, which drivers must pass over (section 4.1.4.8).
        space.put32(0x74, 0x0908_7c09);
        space.put32(0x78, 0x0000_1b36);
        space.structure(0x7c, 0x8c, 16, ISR_TYPE, ISR, 1);
        space.structure(0x8c, 0xac, 16, COMMON_TYPE, COMMON, COMMON_BYTES);
        // The window onto the BARs (section 4.1.4.9).
        space.structure(0xac, 0, 20, PCI_TYPE, 0, 0);
        space.lie(fault);
        space
    }

    fn structure(&mut self, at: usize, next: u8, len: u8, kind: u8, offset: u32, bytes: u32) {
        self.bytes[at] = 0x09;
        self.bytes[at + 1] = next;
        self.bytes[at + 2] = len;
        self.bytes[at + 3] = kind;
        self.bytes[at + 4] = if kind == PCI_TYPE { 0 } else { STRUCTURES };
        self.put32(at + 8, offset);
        self.put32(at + 12, bytes);
    }

    fn lie(&mut self, fault: Option<Fault>) {
        match fault {
            Some(Fault::CapabilityLoop) => self.bytes[0x8d] = 0x50,
            Some(Fault::CapabilityPointerWild) => self.bytes[0x51] = 0xfd,
            Some(Fault::CapabilityOutside) => self.put32(0x94, 0xffff_fff0),
            Some(Fault::CapabilityBarWrong) => self.bytes[0x90] = 3,
            Some(Fault::CapabilityLengthZero) => self.put32(0x98, 0),
            Some(Fault::CapabilitiesMissing) => self.bytes[0x41] = 0,
            Some(Fault::NotifyOffsetHuge) => self.put32(0x70, 0x4000_0000),
            _ => {}
        }
    }

    fn put16(&mut self, at: usize, value: u16) {
        self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The aligned word at `offset`; zero behind the first 256 bytes.
    pub(super) fn load(&self, offset: u16) -> u32 {
        let at = usize::from(offset & !3);
        self.bytes
            .get(at..at + 4)
            .map_or(0, |bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)))
    }

    /// Writes what can be written: the command register, MSI-X control, and the window's address.
    pub(super) fn store(&mut self, offset: u16, value: u32) {
        let at = usize::from(offset & !3);
        match at {
            COMMAND => self.put16(COMMAND, u16::narrow(u64::from(value & 0x0407))),
            0x40 => {
                let fixed = self.load(0x40) & 0x3fff_ffff;
                self.put32(0x40, fixed | value & 0xc000_0000);
            }
            // Where the window looks: BAR, offset, width.
            0xb0 => self.bytes[0xb0] = u8::narrow(value.into()),
            0xb4 | 0xb8 => self.put32(at, value),
            _ => {}
        }
    }

    /// What the window onto the BARs shows when `offset` is its data word: BAR, offset and width.
    pub(super) fn window(&self, offset: u16) -> Option<(u8, u32, u32)> {
        (offset & !3 == 0xbc).then(|| (self.bytes[0xb0], self.load(0xb4), self.load(0xb8)))
    }

    pub(super) fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & BUS_MASTER != 0
    }

    pub(super) fn set_bus_master(&mut self, enabled: bool) {
        self.bytes[COMMAND] = self.bytes[COMMAND] & !BUS_MASTER | if enabled { BUS_MASTER } else { 0 };
    }

    pub(super) fn set_msix(&mut self, enabled: bool) {
        let control = self.bytes[MSIX_CONTROL + 1] & 0x7f;
        self.bytes[MSIX_CONTROL + 1] = control | if enabled { 0x80 } else { 0 };
    }

    /// Takes over the capabilities of `other`; commands and settings stay.
    pub(super) fn restate(&mut self, other: &Self) {
        let (command, control) = (self.bytes[COMMAND], self.bytes[MSIX_CONTROL + 1]);
        self.bytes = other.bytes;
        self.bytes[COMMAND] = command;
        self.bytes[MSIX_CONTROL + 1] = control;
    }

    pub(super) fn has_reset(&self) -> bool {
        self.function_reset
    }
}

/// Bytes that the doorbells take (section 4.1.4.4).
pub(super) fn notify_bytes(config: &Config, queues: u16) -> u32 {
    u32::from(queues).saturating_mul(config.notify_multiplier).max(4)
}

/// Size of the BAR with the structures.
pub(super) fn structures_bytes(config: &Config, queues: u16) -> u32 {
    NOTIFY.saturating_add(notify_bytes(config, queues)).next_power_of_two().max(0x2000)
}
