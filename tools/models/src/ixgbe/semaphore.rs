//! Semaphores between drivers of both ports and the firmware (8.2.3.4.11 to 8.2.3.4.13). The firmware never takes one, so all are free for the driver.

use super::config::Kind;
use super::fault::{Fault, Trick};
use super::registers::{SW_FW_SYNC, SWSM};

/// SWSM: between drivers: reading takes it. Between driver and firmware: writing takes it.
const BETWEEN_DRIVERS: u32 = 1;
const WITH_FIRMWARE: u32 = 2;
/// SW_FW_SYNC of the X540 and later: a semaphore for the register itself, taken by reading.
const REGISTER: u32 = 1 << 31;

/// FWSM: the firmware works.
const FIRMWARE_VALID: u32 = 1 << 15;

/// Who holds what.
#[derive(Debug)]
pub(super) struct Semaphore {
    kind: Kind,
    software: u32,
    resources: u32,
}

impl Semaphore {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, software: 0, resources: 0 }
    }

    pub(super) fn load(&mut self, trick: &Trick, offset: u32) -> u32 {
        let stuck = trick.is(Fault::SemaphoreStuck);
        match offset {
            _ if offset == SWSM.offset => {
                let seen = if stuck { BETWEEN_DRIVERS } else { self.software };
                self.software |= BETWEEN_DRIVERS;
                seen
            }
            _ if offset == SW_FW_SYNC.offset => {
                let seen = self.resources;
                if self.kind.is_copper() {
                    self.resources |= REGISTER;
                }
                if stuck { u32::MAX } else { seen }
            }
            // FWSM: the firmware works, and manages nothing.
            _ => FIRMWARE_VALID,
        }
    }

    pub(super) fn store(&mut self, offset: u32, value: u32) {
        if offset == SWSM.offset {
            self.software = value & (BETWEEN_DRIVERS | WITH_FIRMWARE);
        } else if offset == SW_FW_SYNC.offset {
            self.resources = value;
        }
    }
}
