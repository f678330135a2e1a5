//! PCI configuration space of a card: header, power management, MSI-X and PCI Express capabilities, serial number.
//!
//! PCI Local Bus Specification 3.0 chapter 6 and PCI Express Base Specification chapter 7. Capabilities lie where Intel's network
//! controllers have them, because drivers know some of their registers by fixed offsets.

use drivers::bus::Width;

use super::chip::Layout;

/// Bytes of configuration space.
pub(super) const BYTES: usize = 4096;

const COMMAND: usize = 0x04;
const BUS_MASTER: u8 = 1 << 2;
const BARS: usize = 0x10;
const POWER: usize = 0x40;
const MSIX: usize = 0x70;
const EXPRESS: usize = 0xa0;
const DEVICE_CONTROL: usize = EXPRESS + 0x08;
const DEVICE_STATUS: usize = EXPRESS + 0x0a;
/// Bit 15 of Device Control, as seen in its upper byte.
const INITIATE_RESET: u8 = 1 << 7;
const SERIAL: usize = 0x100;

/// See the module.
pub(super) struct ConfigSpace {
    bytes: Box<[u8; BYTES]>,
    /// Bits that a driver can write.
    writable: Box<[u8; BYTES]>,
    /// What a reset restores.
    first: Box<[u8; BYTES]>,
}

impl ConfigSpace {
    pub(super) fn new(layout: &Layout) -> Self {
        let zero = || Box::new([0; BYTES]);
        let mut space = Self { bytes: zero(), writable: zero(), first: zero() };
        space.header(layout);
        space.power();
        space.msix(layout);
        space.express();
        if let Some(serial) = layout.serial {
            // Device Serial Number: capability 3, version 1, the last.
            space.put(SERIAL, 4, 0x0001_0003);
            space.put(SERIAL + 4, 8, serial);
        }
        space.first = space.bytes.clone();
        space
    }

    fn header(&mut self, layout: &Layout) {
        let id = &layout.id;
        self.put(0x00, 2, id.vendor.into());
        self.put(0x02, 2, id.device.into());
        // I/O and memory space, bus master, parity, SERR, no INTx.
        self.allow(COMMAND, 2, 0x0547);
        // There is a list of capabilities.
        self.put(0x06, 2, 0x0010);
        self.put(0x08, 4, u64::from(id.class) << 8 | u64::from(id.revision));
        self.allow(0x0c, 1, 0xff);
        for window in layout.windows.iter().filter(|window| window.bar < 6) {
            let at = BARS + 4 * usize::from(window.bar);
            // Wide ones may be prefetched and lie anywhere (section 6.2.5.1).
            self.put(at, 4, if window.wide { 0xc } else { 0 });
            let mask = !(u64::from(window.bytes.next_power_of_two().max(4096)) - 1);
            self.allow(at, if window.wide && window.bar < 5 { 8 } else { 4 }, mask);
        }
        self.put(0x2c, 2, id.subsystem_vendor.into());
        self.put(0x2e, 2, id.subsystem_device.into());
        self.put(0x34, 1, POWER as u64);
        self.allow(0x3c, 1, 0xff);
    }

    /// Power Management Interface Specification 1.2, section 3.2: states D0 and D3hot, which keeps all registers.
    fn power(&mut self) {
        self.put(POWER, 2, 0x01 | (MSIX as u64) << 8);
        self.put(POWER + 2, 2, 0x0003);
        // No soft reset.
        self.put(POWER + 4, 2, 0x0008);
        self.allow(POWER + 4, 2, 0x0103);
    }

    /// PCI section 6.8.2: the table in the first half of its window, the pending bits in the second.
    fn msix(&mut self, layout: &Layout) {
        let size =
            layout.windows.iter().find(|window| window.bar == layout.msix_window).map_or(0, |window| window.bytes);
        if layout.vectors == 0 || size == 0 {
            self.put(POWER + 1, 1, EXPRESS as u64);
            return;
        }
        self.put(MSIX, 2, 0x11 | (EXPRESS as u64) << 8);
        self.put(MSIX + 2, 2, u64::from(layout.vectors - 1) & 0x7ff);
        self.allow(MSIX + 2, 2, 0xc000);
        self.put(MSIX + 4, 4, layout.msix_window.into());
        self.put(MSIX + 8, 4, u64::from(size / 2) | u64::from(layout.msix_window));
    }

    /// PCI Express section 7.8: an endpoint at 5 GT/s on 8 lanes, with function level reset.
    fn express(&mut self) {
        self.put(EXPRESS, 2, 0x10);
        self.put(EXPRESS + 2, 2, 0x0002);
        // Payloads up to 512 bytes, extended tags, errors by role, function level reset.
        self.put(EXPRESS + 0x04, 4, 0x1000_8022);
        self.put(DEVICE_CONTROL, 2, 0x2810);
        self.allow(DEVICE_CONTROL, 2, 0x7fff);
        self.put(EXPRESS + 0x0c, 4, 0x0000_0082);
        self.allow(EXPRESS + 0x10, 2, 0x01c3);
        self.put(EXPRESS + 0x12, 2, 0x1082);
        // Completion timeouts can be set.
        self.put(EXPRESS + 0x24, 4, 0x0000_001f);
        self.allow(EXPRESS + 0x28, 2, 0x001f);
        self.put(EXPRESS + 0x2c, 4, 0x0000_0006);
        self.put(EXPRESS + 0x30, 2, 0x0002);
    }

    fn put(&mut self, at: usize, bytes: usize, value: u64) {
        set(&mut self.bytes[..], at, bytes, value);
    }

    fn allow(&mut self, at: usize, bytes: usize, mask: u64) {
        set(&mut self.writable[..], at, bytes, mask);
    }

    /// Reads; zeroes behind the end.
    pub(super) fn read(&self, offset: usize, target: &mut [u8]) {
        for (at, byte) in (offset..).zip(target) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what can be written. `true` when this asks for a function level reset.
    pub(super) fn write(&mut self, offset: usize, source: &[u8]) -> bool {
        let mut reset = false;
        for (at, value) in (offset..).zip(source) {
            let (Some(byte), Some(writable)) = (self.bytes.get_mut(at), self.writable.get(at)) else { break };
            *byte = *byte & !writable | value & writable;
            if at == DEVICE_STATUS {
                // Write one to clear (section 7.8.5).
                *byte &= !(value & 0x0f);
            }
            reset |= at == DEVICE_CONTROL + 1 && value & INITIATE_RESET != 0;
        }
        reset
    }

    pub(super) fn bus_master(&self) -> bool {
        self.bytes[COMMAND] & BUS_MASTER != 0
    }

    pub(super) fn set_bus_master(&mut self, enabled: bool) {
        self.bytes[COMMAND] = self.bytes[COMMAND] & !BUS_MASTER | if enabled { BUS_MASTER } else { 0 };
    }

    pub(super) fn set_msix(&mut self, enabled: bool) {
        self.bytes[MSIX + 3] = self.bytes[MSIX + 3] & 0x7f | if enabled { 0x80 } else { 0 };
    }

    /// As after power on. The addresses of windows go too: whoever resets a function restores them.
    pub(super) fn reset(&mut self) {
        self.bytes = self.first.clone();
    }
}

fn set(target: &mut [u8], at: usize, bytes: usize, value: u64) {
    for (index, byte) in target.iter_mut().skip(at).take(bytes).enumerate() {
        *byte = u8::narrow(value >> (8 * index));
    }
}
