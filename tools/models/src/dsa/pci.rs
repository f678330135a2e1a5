//! Extended configuration space: address translation services, process address space IDs, page requests.
//!
//! PCI Express Base Specification, sections 10.5 (ATS), 7.8.8 (PASID) and 10.5.2 (page requests). The device says what a system with shared virtual
//! memory looks for. Addresses are translated by the bus whatever is enabled here.

use super::registers::merge;

const ATS: u16 = 0x100;
const PASID: u16 = 0x110;
const REQUESTS: u16 = 0x120;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Capabilities {
    ats: u32,
    pasid: u32,
    requests: u32,
    requests_allowed: u32,
}

impl Capabilities {
    /// Process address spaces are enabled.
    pub(super) fn pasid(&self) -> bool {
        self.pasid & 1 << 16 != 0
    }

    /// Privileged accesses are.
    pub(super) fn privileged(&self) -> bool {
        self.pasid & 1 << 18 != 0
    }

    pub(super) fn load(&self, offset: u16) -> Option<u32> {
        Some(match offset {
            ATS => header(0x0f, PASID),
            // Requests are page aligned; queue depth 32.
            0x104 => 1 << 5 | self.ats,
            PASID => header(0x1b, REQUESTS),
            // Privileged mode, and 20 bits.
            0x114 => 1 << 2 | 20 << 8 | self.pasid,
            REQUESTS => header(0x13, 0),
            // Stopped; answers have the address space.
            0x124 => 1 << 31 | 1 << 24 | self.requests,
            0x128 => 512,
            0x12c => self.requests_allowed,
            _ => return None,
        })
    }

    pub(super) fn store(&mut self, offset: u16, value: u32, mask: u32) {
        match offset {
            0x104 => self.ats = merge(self.ats, value, mask & 0x801f_0000),
            0x114 => self.pasid = merge(self.pasid, value, mask & 0x0005_0000),
            0x124 => self.requests = merge(self.requests, value, mask & 0x0000_0001),
            0x12c => self.requests_allowed = merge(self.requests_allowed, value, mask),
            _ => {}
        }
    }
}

/// An extended capability's first word: version 1.
fn header(id: u32, next: u16) -> u32 {
    id | 1 << 16 | u32::from(next) << 20
}
