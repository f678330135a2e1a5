//! Semaphores between the drivers of a card's ports and its firmware (10.5.4; X540: 11.7.5).
//!
//! Two steps: a short lock guards the register that says who holds which part of the card, and its bits are held as
//! long as needed. Who holds a lock and died is found out by its deadline: an owner never needs a second.

use core::time::Duration;

use super::card::Card;
use super::device::Family;
use super::registers::{sw_fw_sync, swsm};
use crate::bus::Bar;
use crate::nic::NicError;

/// How long the lock of the register may take. Its owners need microseconds.
const LOCK_LIMIT: Duration = Duration::from_millis(100);
/// How long a part of the card may be held by others. The firmware needs up to a second (10.5.4).
const HOLD_LIMIT: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_micros(50);

/// Parts of a card that have several users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Resource {
    /// Non-volatile memory.
    Nvm,
    /// The port's PHY or module.
    Phy,
    /// Registers of the MAC.
    Mac,
}

impl Resource {
    fn bit(self, port: u32) -> u32 {
        match self {
            Self::Nvm => sw_fw_sync::NVM,
            Self::Phy => sw_fw_sync::PHY << port,
            Self::Mac => sw_fw_sync::MAC,
        }
    }
}

/// A part of the card that is ours; dropping it gives it back.
pub(super) struct Hold<'a, B: Bar> {
    card: &'a Card<B>,
    bit: u32,
}

/// Takes a part of the card.
///
/// # Errors
/// When the lock stays with somebody else, or the card is gone. A holder that is over its time is taken for
/// dead and its part taken over, as the datasheet has it (10.5.4).
pub(super) fn take<B: Bar>(card: &Card<B>, resource: Resource) -> Result<Hold<'_, B>, NicError> {
    let bit = resource.bit(card.port());
    let theirs = bit | bit << sw_fw_sync::FIRMWARE_SHIFT;
    let sync = card.kind.family.sw_fw_sync();
    let start = card.now();
    loop {
        lock(card)?;
        let held = card.load(&sync) & theirs != 0;
        let expired = card.now().saturating_sub(start) >= HOLD_LIMIT;
        if !held || expired {
            card.change(&sync, 0, bit);
            unlock(card);
            return Ok(Hold { card, bit });
        }
        unlock(card);
        card.present()?;
        card.rest(Duration::from_millis(5));
    }
}

impl<B: Bar> Drop for Hold<'_, B> {
    fn drop(&mut self) {
        let Self { card, bit } = self;
        let sync = card.kind.family.sw_fw_sync();
        match lock(card) {
            Ok(()) => {
                card.change(&sync, *bit, 0);
                unlock(card);
            }
            // Better without the lock than held for ever.
            Err(_) => card.change(&sync, *bit, 0),
        }
        card.flush();
    }
}

/// Locks the register of holders.
fn lock<B: Bar>(card: &Card<B>) -> Result<(), NicError> {
    let register = card.kind.family.swsm();
    // Reading zero has set it: it is ours.
    let drivers = card.wait(LOCK_LIMIT, STEP, "the other port's driver to let go of SWSM.SMBI", || {
        card.load(&register) & swsm::SMBI == 0
    });
    match drivers {
        // Its owner is long dead; clearing it is what the datasheet tells to do (10.5.4).
        Err(NicError::Timeout { .. }) => {
            card.change(&register, swsm::SMBI | swsm::SWESMBI, 0);
            let _ = card.load(&register);
        }
        other => other?,
    }
    let firmware = if card.kind.family == Family::Intel82599 {
        card.wait(LOCK_LIMIT, STEP, "the firmware to let go of SWSM.SWESMBI", || {
            card.change(&register, 0, swsm::SWESMBI);
            card.load(&register) & swsm::SWESMBI != 0
        })
    } else {
        let sync = card.kind.family.sw_fw_sync();
        card.wait(LOCK_LIMIT, STEP, "the firmware to let go of SW_FW_SYNC.REGSMP", || {
            card.load(&sync) & sw_fw_sync::REGSMP == 0
        })
    };
    if firmware.is_err() {
        unlock(card);
    }
    firmware
}

fn unlock<B: Bar>(card: &Card<B>) {
    if card.kind.family != Family::Intel82599 {
        card.change(&card.kind.family.sw_fw_sync(), sw_fw_sync::REGSMP, 0);
    }
    card.change(&card.kind.family.swsm(), swsm::SMBI | swsm::SWESMBI, 0);
    card.flush();
}
