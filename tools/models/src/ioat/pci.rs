//! Error registers in configuration space, one set for all channels of the function.

use super::errors::Errors;
use super::registers::merge;

const DMAUNCERRSTS: u16 = 0x148;
const DMAUNCERRMSK: u16 = 0x14c;
const DMAUNCERRSEV: u16 = 0x150;
const CHANERR_INT: u16 = 0x180;
const CHANERRMSK_INT: u16 = 0x184;
const CHANERRSEV_INT: u16 = 0x188;
const CHANERRPTR: u16 = 0x18c;

/// DMAUNCERRSTS has these bits.
const UNCORRECTABLE: u32 = 0x1ff8;
/// One of them: an internal error of a channel.
const INTERNAL: u32 = 1 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct PciErrors {
    uncorrectable: u32,
    uncorrectable_mask: u32,
    uncorrectable_severity: u32,
    errors: u32,
    mask: u32,
    severity: u32,
    /// The first error since the register was clear, by number.
    first: u32,
}

impl PciErrors {
    /// A channel has met errors.
    pub(super) fn report(&mut self, errors: Errors) {
        let shown = errors.bits() & !self.mask;
        if shown == 0 {
            return;
        }
        if self.errors == 0 {
            self.first = shown.trailing_zeros();
        }
        self.errors |= shown;
        if self.uncorrectable_mask & INTERNAL == 0 && !errors.difference(Errors::SOFT).is_empty() {
            self.uncorrectable |= INTERNAL;
        }
    }

    pub(super) fn load(&self, offset: u16) -> Option<u32> {
        Some(match offset {
            DMAUNCERRSTS => self.uncorrectable,
            DMAUNCERRMSK => self.uncorrectable_mask,
            DMAUNCERRSEV => self.uncorrectable_severity,
            CHANERR_INT => self.errors,
            CHANERRMSK_INT => self.mask,
            CHANERRSEV_INT => self.severity,
            CHANERRPTR => self.first,
            _ => return None,
        })
    }

    pub(super) fn store(&mut self, offset: u16, value: u32, mask: u32) {
        match offset {
            // Ones clear.
            DMAUNCERRSTS => self.uncorrectable &= !(value & mask),
            CHANERR_INT => self.errors &= !(value & mask),
            DMAUNCERRMSK => self.uncorrectable_mask = merge(self.uncorrectable_mask, value, mask & UNCORRECTABLE),
            DMAUNCERRSEV => {
                self.uncorrectable_severity = merge(self.uncorrectable_severity, value, mask & UNCORRECTABLE);
            }
            CHANERRMSK_INT => self.mask = merge(self.mask, value, mask & Errors::ALL),
            CHANERRSEV_INT => self.severity = merge(self.severity, value, mask & Errors::ALL),
            _ => {}
        }
    }
}
