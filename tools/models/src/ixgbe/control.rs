//! Resets and what comes with them (4.2.1): CTRL, STATUS, the end of the EEPROM's automatic read, DMA initialisation; security's empty paths.

use std::time::Duration;

use super::fault::{Fault, Trick};
use super::registers::{CTRL, CTRL_AGAIN, RDRXCTL, Registers, SECRXCTRL, SECRXSTAT, SECTXCTRL, SECTXSTAT, STATUS};
use crate::card::Bus;

/// CTRL: master disable, link reset, device reset (8.2.3.1.1).
const MASTER_DISABLE: u32 = 1 << 2;
const LINK_RESET: u32 = 1 << 3;
const DEVICE_RESET: u32 = 1 << 26;
/// STATUS: the function may be master (8.2.3.1.2).
const MASTER_ENABLED: u32 = 1 << 19;
/// RDRXCTL: DMA initialisation is done (8.2.3.8.8).
const DMA_DONE: u32 = 1 << 3;
/// SECTXCTRL, SECRXCTRL: stop; SECTXSTAT, SECRXSTAT: has stopped (8.2.3.12).
const SECURITY_STOP: u32 = 1 << 1;
const SECURITY_READY: u32 = 1;

/// A reset bit stays set for this long.
const RESET_TIME: Duration = Duration::from_micros(1);
/// The EEPROM is read, and DMA initialised, this long after a reset.
const READY_TIME: Duration = Duration::from_millis(1);

/// Which reset the driver asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reset {
    /// CTRL.RST: all but the link.
    Device,
    /// CTRL.LRST: the link too.
    Link,
}

/// Where the chip is in a reset.
#[derive(Default, Debug)]
pub(super) struct Control {
    /// Bits of the last reset request, and until when they show.
    resetting: u32,
    reset_until: Duration,
    ready_from: Duration,
}

impl Control {
    /// Power is on, or a function level reset is over.
    pub(super) fn power_on(&mut self, now: Duration, trick: &Trick) {
        self.resetting = 0;
        self.begin(now, trick);
    }

    /// A reset begins.
    pub(super) fn begin(&mut self, now: Duration, trick: &Trick) {
        self.reset_until = if trick.is(Fault::ResetNeverDone) { Duration::MAX } else { now + RESET_TIME };
        self.ready_from = now + READY_TIME;
    }

    /// EEPROM and DMA are ready.
    pub(super) fn is_ready(&self, now: Duration) -> bool {
        now >= self.ready_from
    }

    pub(super) fn load(&self, registers: &Registers, trick: &Trick, bus: &Bus, offset: u32) -> u32 {
        let now = bus.now();
        let control = registers.get(CTRL.offset);
        if offset == STATUS.offset {
            let master = control & MASTER_DISABLE == 0 || trick.is(Fault::MasterDisableStuck);
            return if master { MASTER_ENABLED } else { 0 };
        }
        if offset == RDRXCTL.offset {
            let done = self.is_ready(now) && !trick.is(Fault::DmaNeverReady);
            return registers.get(offset) & !DMA_DONE | if done { DMA_DONE } else { 0 };
        }
        control | if now < self.reset_until { self.resetting } else { 0 }
    }

    /// Writes one of its registers; says which reset follows.
    pub(super) fn store(&mut self, registers: &mut Registers, offset: u32, value: u32) -> Option<Reset> {
        match offset {
            _ if offset == CTRL.offset || offset == CTRL_AGAIN.offset => {
                registers.set(CTRL.offset, value & MASTER_DISABLE);
                self.resetting = value & (LINK_RESET | DEVICE_RESET);
                if value & LINK_RESET != 0 {
                    Some(Reset::Link)
                } else {
                    (value & DEVICE_RESET != 0).then_some(Reset::Device)
                }
            }
            _ if offset == RDRXCTL.offset => {
                registers.set(offset, value & !DMA_DONE);
                None
            }
            _ => None,
        }
    }
}

/// Reads a register of the security block: its paths are empty as soon as they are stopped.
pub(super) fn load_security(registers: &Registers, offset: u32) -> u32 {
    let stopped = |control: u32| if registers.get(control) & SECURITY_STOP == 0 { 0 } else { SECURITY_READY };
    match offset {
        _ if offset == SECTXSTAT.offset => stopped(SECTXCTRL.offset),
        _ if offset == SECRXSTAT.offset => stopped(SECRXCTRL.offset),
        _ => registers.get(offset),
    }
}

/// Writes a register of the security block.
pub(super) fn store_security(registers: &mut Registers, offset: u32, value: u32) {
    if offset == SECTXCTRL.offset || offset == SECRXCTRL.offset {
        registers.set(offset, value & 0x7);
    }
}
