//! The host interface to the firmware (8.2.3.24). The X550 reads and writes its NVM through it; the others have it switched off.
//!
//! A command block lies in shared words, its first byte the command and its fourth a checksum that is not looked at; the answer
//! takes its place.

use super::config::Kind;
use super::eeprom::Nvm;
use super::registers::{FLEX_MNG, RXCTRL, Registers};

/// HICR: the interface is there; a command waits, or its answer is valid.
const ENABLED: u32 = 1 << 0;
const COMMAND: u32 = 1 << 1;
const VALID: u32 = 1 << 2;
/// Commands: read and write words of the NVM, stop receive.
const READ: u8 = 0x31;
const WRITE: u8 = 0x33;
const STOP_RECEIVE: u8 = 0xde;
/// The answer's status in its header.
const SUCCESS: u32 = 1 << 16;
/// Words of the command block before data.
const DATA: u32 = 3;

/// The interface.
#[derive(Debug)]
pub(super) struct Management {
    enabled: bool,
    state: u32,
}

impl Management {
    pub(super) fn new(kind: Kind) -> Self {
        Self { enabled: kind == Kind::X550, state: 0 }
    }

    pub(super) fn load(&self) -> u32 {
        if self.enabled { ENABLED | self.state } else { 0 }
    }

    pub(super) fn store(&mut self, registers: &mut Registers, nvm: &mut Nvm, value: u32) {
        if !self.enabled || value & COMMAND == 0 {
            return;
        }
        let word = |registers: &Registers, index: u32| registers.get(FLEX_MNG.at(index));
        let header = word(registers, 0);
        let [command, ..] = header.to_le_bytes();
        // Addresses and lengths are in bytes, and the other way round.
        let at = (word(registers, 1).swap_bytes() / 2) as usize;
        match command {
            READ => {
                let [high, low, ..] = word(registers, 2).to_le_bytes();
                let count = usize::from(u16::from_be_bytes([high, low])).div_ceil(2).min(512);
                let words: Vec<u16> = nvm.words(at, count).collect();
                for (index, pair) in (DATA..FLEX_MNG.count).zip(words.chunks(2)) {
                    let high = pair.get(1).copied().unwrap_or(0);
                    let low = pair.first().copied().unwrap_or(0);
                    registers.set(FLEX_MNG.at(index), u32::from(high) << 16 | u32::from(low));
                }
            }
            WRITE => {
                let [low, high, ..] = word(registers, DATA).to_le_bytes();
                nvm.write(at, u16::from_le_bytes([low, high]));
            }
            STOP_RECEIVE => registers.assign(RXCTRL.offset, 1, false),
            _ => {}
        }
        registers.set(FLEX_MNG.offset, u32::from(command) | SUCCESS);
        self.state = VALID;
    }
}
