//! Flow director (7.1.2.7): commands are taken and counted, and no frame ever matches.

use super::registers::{FDIRCMD, FDIRCTRL, FDIRFREE};

/// FDIRCTRL: memory for filters, and that initialisation is done (8.2.3.7.24).
const MEMORY: u32 = 0x3;
const INITIALISED: u32 = 1 << 3;
/// FDIRCMD: the command, which clears itself; that a queried filter is valid.
const COMMAND: u32 = 0x3;
const ADD: u32 = 1;
const REMOVE: u32 = 2;
const FOUND: u32 = 1 << 2;

/// Its registers.
#[derive(Default, Debug)]
pub(super) struct Director {
    control: u32,
    command: u32,
    filters: u32,
}

impl Director {
    /// How many filters the memory holds: signature filters of 8 bytes (table 7-7).
    fn room(&self) -> u32 {
        match self.control & MEMORY {
            0 => 0,
            memory => (0x1000 << memory) - 1,
        }
    }

    pub(super) fn load(&self, offset: u32) -> u32 {
        match offset {
            _ if offset == FDIRCTRL.offset => self.control,
            _ if offset == FDIRCMD.offset => self.command,
            _ if offset == FDIRFREE.offset => self.room().saturating_sub(self.filters),
            _ => 0,
        }
    }

    pub(super) fn store(&mut self, offset: u32, value: u32) {
        if offset == FDIRCTRL.offset {
            self.control = value & !INITIALISED | if value & MEMORY == 0 { 0 } else { INITIALISED };
            self.filters = 0;
        } else if offset == FDIRCMD.offset {
            match value & COMMAND {
                ADD => self.filters = (self.filters + 1).min(self.room()),
                REMOVE => self.filters = self.filters.saturating_sub(1),
                _ => {}
            }
            self.command = value & !(COMMAND | FOUND);
        }
    }
}
