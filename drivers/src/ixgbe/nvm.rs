//! The card's non-volatile memory (6.1, 8.2.3.2.2). Read only; writing it is the business of its maker's tools.

use core::time::Duration;

use super::card::Card;
use super::device::Family;
use super::registers::{EERD, eec, eerd};
use super::semaphore::{self, Resource};
use crate::bus::Bar;
use crate::nic::NicError;

const READ_LIMIT: Duration = Duration::from_millis(100);
/// Words from 0 to this, and those of the sections that words 3 to 14 point at, add up to [`SUM`] (6.4.6).
const CHECKSUM: u16 = 0x3f;
const SUM: u16 = 0xbaba;
const FIRST_POINTER: u16 = 0x03;
const LAST_POINTER: u16 = 0x0e;
/// PHY and option ROM, which the X540 leaves out.
const NOT_ON_X540: [u16; 2] = [0x04, 0x05];
/// Words that all sections together may have. It bounds the work where pointers are nonsense.
const MOST_WORDS: u32 = 0x4000;

/// Reads word `address`.
///
/// # Errors
/// When it does not come in time or there is no such word.
pub(super) fn read<B: Bar>(card: &Card<B>, address: u16) -> Result<u16, NicError> {
    if address > eerd::ADDRESS_MOST {
        return Err(card.misbehaves(alloc::format!("its NVM points at its word {address:#x}, which does not exist")));
    }
    card.store(&EERD, u32::from(address) << eerd::ADDRESS_SHIFT | eerd::START);
    let mut value = 0;
    card.wait(READ_LIMIT, Duration::from_micros(5), "a word of its NVM (EERD.DONE)", || {
        value = card.load(&EERD);
        value & eerd::DONE != 0
    })?;
    Ok(u16::try_from(value >> eerd::DATA_SHIFT).unwrap_or(u16::MAX))
}

/// Checks the sum over the parts of the NVM that configure the card. A card that has no NVM, or one whose firmware
/// checks it, passes.
///
/// # Errors
/// When the sum is wrong: whatever the card then does is undefined.
pub(super) fn verify<B: Bar>(card: &Card<B>) -> Result<(), NicError> {
    let family = card.kind.family;
    if !family.reads_nvm() || card.load(&family.eec()) & eec::EE_PRES == 0 {
        return Ok(());
    }
    let _hold = semaphore::take(card, Resource::Nvm)?;
    let mut sum = 0_u16;
    let mut words = 0;
    for address in 0..=CHECKSUM {
        sum = sum.wrapping_add(read(card, address)?);
    }
    for pointer in FIRST_POINTER..=LAST_POINTER {
        if family == Family::X540 && NOT_ON_X540.contains(&pointer) {
            continue;
        }
        let section = read(card, pointer)?;
        if section == 0 || section == u16::MAX || section > eerd::ADDRESS_MOST {
            continue;
        }
        let length = read(card, section)?;
        if length == 0 || length == u16::MAX || section.saturating_add(length) > eerd::ADDRESS_MOST {
            continue;
        }
        words += u32::from(length);
        if words > MOST_WORDS {
            break;
        }
        for address in section + 1..=section + length {
            sum = sum.wrapping_add(read(card, address)?);
        }
    }
    if sum == SUM {
        return Ok(());
    }
    Err(card.misbehaves(alloc::format!(
        "the words of its NVM add up to {sum:#06x} and not to {SUM:#06x}; the NVM is damaged, write its maker's image anew"
    )))
}
