//! The module in an SFP+ cage: what it is (SFF-8472, read over the I2C pins of I2CCTL, 8.2.3.1.7), and the settings
//! that the NVM has for it (6.3.17).

use core::fmt;
use core::time::Duration;

use super::card::Card;
use super::nvm;
use super::registers::{CORECTL, I2CCTL, i2cctl};
use super::semaphore::{self, Resource};
use crate::bus::Bar;
use crate::nic::NicError;

/// Half a clock of the I2C bus at 100 kHz.
const HALF_CLOCK: Duration = Duration::from_micros(5);
/// Address of a module's memory, for writing; reading is one more.
const MODULE: u8 = 0xa0;
/// A module that was just plugged in may not answer at once.
const ATTEMPTS: u32 = 3;

// Bytes of the module's memory (SFF-8472, table 4-1).
const IDENTIFIER: u8 = 0;
const TEN_GIGABIT_CODES: u8 = 3;
const GIGABIT_CODES: u8 = 6;
const CABLE_TECHNOLOGY: u8 = 8;
const IS_SFP: u8 = 3;
const PASSIVE_CABLE: u8 = 1 << 2;
const ACTIVE_CABLE: u8 = 1 << 3;
const SHORT_RANGE: u8 = 1 << 4;
const LONG_RANGE: u8 = 1 << 5;

/// Where the NVM lists its settings for modules; the lists end with all ones (6.3.17).
const LIST: u16 = 0x2b;
const END: u16 = 0xffff;
/// Longest list of either kind that is followed.
const MOST_ENTRIES: u16 = 512;

/// A module in an SFP+ cage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Module {
    /// 10GBASE-SR.
    ShortRange,
    /// 10GBASE-LR.
    LongRange,
    /// A direct-attach cable without electronics.
    PassiveCable,
    /// A direct-attach cable with electronics.
    ActiveCable,
    /// 1000BASE-SX, -LX or -T: one gigabit only.
    Gigabit,
    /// Something else.
    Unknown,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShortRange => "10GBASE-SR",
            Self::LongRange => "10GBASE-LR",
            Self::PassiveCable => "passive cable",
            Self::ActiveCable => "active cable",
            Self::Gigabit => "1000BASE",
            Self::Unknown => "unknown module",
        })
    }
}

impl Module {
    /// What the codes of a module say.
    fn of(identifier: u8, ten_gigabit: u8, gigabit: u8, cable: u8) -> Self {
        if identifier != IS_SFP {
            Self::Unknown
        } else if cable & PASSIVE_CABLE != 0 {
            Self::PassiveCable
        } else if cable & ACTIVE_CABLE != 0 {
            Self::ActiveCable
        } else if ten_gigabit & SHORT_RANGE != 0 {
            Self::ShortRange
        } else if ten_gigabit & LONG_RANGE != 0 {
            Self::LongRange
        } else if gigabit & 0xf != 0 {
            Self::Gigabit
        } else {
            Self::Unknown
        }
    }

    /// Its number in the NVM's list, for the port: what is no cable is set up as optics are.
    fn number(self, port: u16) -> u16 {
        port + match self {
            Self::PassiveCable => 3,
            Self::ShortRange | Self::LongRange | Self::Gigabit | Self::ActiveCable | Self::Unknown => 5,
        }
    }
}

/// Finds out what is in the cage; `None` when nothing answers.
///
/// # Errors
/// When the card is gone, or its firmware does not let go of the bus.
pub(super) fn identify<B: Bar>(card: &Card<B>) -> Result<Option<Module>, NicError> {
    let _hold = semaphore::take(card, Resource::Phy)?;
    let wire = Wire { card };
    for _ in 0..ATTEMPTS {
        if let Some(identifier) = wire.read(IDENTIFIER) {
            let rest = (wire.read(TEN_GIGABIT_CODES), wire.read(GIGABIT_CODES), wire.read(CABLE_TECHNOLOGY));
            if let (Some(ten_gigabit), Some(gigabit), Some(cable)) = rest {
                card.present()?;
                return Ok(Some(Module::of(identifier, ten_gigabit, gigabit, cable)));
            }
        }
        wire.clear();
    }
    card.present()?;
    Ok(None)
}

/// Loads the NVM's settings for a module into the card's analog part. A card whose NVM has none needs none.
///
/// # Errors
/// When the NVM or the semaphore cannot be had, or the card is gone.
pub(super) fn load_settings<B: Bar>(card: &Card<B>, module: Module) -> Result<(), NicError> {
    let port = u16::try_from(card.port()).unwrap_or(0);
    let Some(mut place) = find_settings(card, module.number(port))? else {
        return Ok(());
    };
    let _hold = semaphore::take(card, Resource::Mac)?;
    for _ in 0..MOST_ENTRIES {
        place = place.wrapping_add(1);
        let value = nvm::read(card, place)?;
        if value == END {
            return Ok(());
        }
        card.store(&CORECTL, value.into());
        card.flush();
    }
    Err(card.misbehaves("the settings for SFP+ modules in its NVM have no end; the NVM is damaged"))
}

/// The place of the settings with `number` in the NVM.
fn find_settings<B: Bar>(card: &Card<B>, number: u16) -> Result<Option<u16>, NicError> {
    let there = |place: u16| (place != 0 && place != END).then_some(place);
    let Some(list) = there(nvm::read(card, LIST)?) else {
        return Ok(None);
    };
    for entry in 0..MOST_ENTRIES {
        let place = list.wrapping_add(1).wrapping_add(2 * entry);
        match nvm::read(card, place)? {
            END => break,
            found if found == number => return Ok(there(nvm::read(card, place.wrapping_add(1))?)),
            _ => {}
        }
    }
    Ok(None)
}

/// The two wires of an I2C bus. Both are open drain: writing one lets go.
struct Wire<'a, B: Bar> {
    card: &'a Card<B>,
}

impl<B: Bar> Wire<'_, B> {
    /// Reads a byte of the module's memory; `None` when the module does not acknowledge.
    fn read(&self, address: u8) -> Option<u8> {
        self.start();
        let answer = self.send(MODULE) && self.send(address) && {
            self.start();
            self.send(MODULE | 1)
        };
        let byte = answer.then(|| self.receive());
        self.stop();
        byte
    }

    fn set(&self, clear: u32, set: u32) {
        self.card.change(&I2CCTL, clear, set);
        self.card.flush();
        self.card.pause(HALF_CLOCK);
    }

    /// Data falls while the clock is high.
    fn start(&self) {
        self.set(0, i2cctl::DATA_OUT);
        self.set(0, i2cctl::CLK_OUT);
        self.set(i2cctl::DATA_OUT, 0);
        self.set(i2cctl::CLK_OUT, 0);
    }

    /// Data rises while the clock is high.
    fn stop(&self) {
        self.set(i2cctl::DATA_OUT, 0);
        self.set(0, i2cctl::CLK_OUT);
        self.set(0, i2cctl::DATA_OUT);
    }

    /// Sends a byte; whether it was acknowledged.
    fn send(&self, byte: u8) -> bool {
        for bit in (0..8).rev() {
            self.clock_out(byte >> bit & 1 != 0);
        }
        !self.clock_in()
    }

    /// Receives a byte, the last one: it is not acknowledged.
    fn receive(&self) -> u8 {
        let byte = (0..8).fold(0, |byte, _| byte << 1 | u8::from(self.clock_in()));
        self.clock_out(true);
        byte
    }

    fn clock_out(&self, bit: bool) {
        if bit {
            self.set(0, i2cctl::DATA_OUT);
        } else {
            self.set(i2cctl::DATA_OUT, 0);
        }
        self.set(0, i2cctl::CLK_OUT);
        self.set(i2cctl::CLK_OUT, 0);
    }

    fn clock_in(&self) -> bool {
        self.set(0, i2cctl::DATA_OUT);
        self.set(0, i2cctl::CLK_OUT);
        // A module may hold the clock for a moment.
        for _ in 0..100 {
            if self.card.load(&I2CCTL) & i2cctl::CLK_IN != 0 {
                break;
            }
            self.card.pause(HALF_CLOCK);
        }
        let bit = self.card.load(&I2CCTL) & i2cctl::DATA_IN != 0;
        self.set(i2cctl::CLK_OUT, 0);
        bit
    }

    /// Clocks whatever a module still wants to say out of it.
    fn clear(&self) {
        self.set(0, i2cctl::DATA_OUT);
        for _ in 0..9 {
            self.set(0, i2cctl::CLK_OUT);
            self.set(i2cctl::CLK_OUT, 0);
        }
        self.start();
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_by_their_codes() {
        let table = [
            ((3, 0x10, 0, 0), Module::ShortRange),
            ((3, 0x20, 0, 0), Module::LongRange),
            ((3, 0x10, 1, 0), Module::ShortRange),
            ((3, 0, 0, 4), Module::PassiveCable),
            ((3, 0, 0, 8), Module::ActiveCable),
            ((3, 0, 8, 0), Module::Gigabit),
            ((3, 0, 0, 0), Module::Unknown),
            ((0xd, 0x10, 0, 0), Module::Unknown),
        ];
        for ((identifier, ten, one, cable), expected) in table {
            assert_eq!(Module::of(identifier, ten, one, cable), expected);
        }
    }
}
