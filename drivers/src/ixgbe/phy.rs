//! PHYs of copper cards, over MDIO (8.2.3.22.11; IEEE 802.3, clause 45).

use core::time::Duration;

use super::card::Card;
use super::registers::{MSCA, MSRWD, msca};
use super::semaphore::{self, Resource};
use crate::bus::Bar;
use crate::nic::{FlowControl, NicError};

const LIMIT: Duration = Duration::from_millis(10);
const STEP: Duration = Duration::from_micros(10);
const ADDRESSES: u32 = 32;

// Devices in a PHY, and their registers.
const PMA: u32 = 1;
const AUTONEGOTIATION: u32 = 7;
const CONTROL: u16 = 0;
const IDENTIFIER: u16 = 2;
const ADVERTISEMENT: u16 = 0x10;
const PARTNER: u16 = 0x13;
/// Control of the PMA: sleeping.
const LOW_POWER: u16 = 1 << 11;
/// Control of autonegotiation: on, and anew.
const ENABLE_AND_RESTART: u16 = 1 << 12 | 1 << 9;
const SYMMETRIC_PAUSE: u16 = 1 << 10;
const ASYMMETRIC_PAUSE: u16 = 1 << 11;

/// A PHY that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Phy {
    address: u32,
}

impl Phy {
    /// Looks for a PHY; `None` when none answers.
    ///
    /// # Errors
    /// When the card is gone, its firmware does not let go of the PHY, or the interface hangs.
    pub(super) fn find<B: Bar>(card: &Card<B>) -> Result<Option<Self>, NicError> {
        let _hold = semaphore::take(card, Resource::Phy)?;
        for address in 0..ADDRESSES {
            let phy = Self { address };
            let identifier = phy.read(card, PMA, IDENTIFIER)?;
            if identifier != 0 && identifier != u16::MAX {
                card.present()?;
                return Ok(Some(phy));
            }
        }
        card.present()?;
        Ok(None)
    }

    /// Wakes it, and lets it agree with its partner anew, on pause frames too.
    ///
    /// # Errors
    /// As for [`Phy::find`].
    pub(super) fn negotiate<B: Bar>(
        self,
        card: &Card<B>,
        (symmetric, asymmetric): (bool, bool),
    ) -> Result<(), NicError> {
        let _hold = semaphore::take(card, Resource::Phy)?;
        let power = self.read(card, PMA, CONTROL)?;
        if power & LOW_POWER != 0 {
            self.write(card, PMA, CONTROL, power & !LOW_POWER)?;
        }
        let mut advertised = self.read(card, AUTONEGOTIATION, ADVERTISEMENT)? & !(SYMMETRIC_PAUSE | ASYMMETRIC_PAUSE);
        advertised |= if symmetric { SYMMETRIC_PAUSE } else { 0 };
        advertised |= if asymmetric { ASYMMETRIC_PAUSE } else { 0 };
        self.write(card, AUTONEGOTIATION, ADVERTISEMENT, advertised)?;
        let control = self.read(card, AUTONEGOTIATION, CONTROL)?;
        self.write(card, AUTONEGOTIATION, CONTROL, control | ENABLE_AND_RESTART)
    }

    /// What its partner says of pause frames: symmetric, asymmetric.
    ///
    /// # Errors
    /// As for [`Phy::find`].
    pub(super) fn partner_pause<B: Bar>(self, card: &Card<B>) -> Result<(bool, bool), NicError> {
        let _hold = semaphore::take(card, Resource::Phy)?;
        let partner = self.read(card, AUTONEGOTIATION, PARTNER)?;
        Ok((partner & SYMMETRIC_PAUSE != 0, partner & ASYMMETRIC_PAUSE != 0))
    }

    fn read<B: Bar>(self, card: &Card<B>, device: u32, register: u16) -> Result<u16, NicError> {
        self.command(card, device, register, 0)?;
        self.command(card, device, register, msca::READ)?;
        Ok(u16::try_from(card.load(&MSRWD) >> 16).unwrap_or(u16::MAX))
    }

    fn write<B: Bar>(self, card: &Card<B>, device: u32, register: u16, value: u16) -> Result<(), NicError> {
        self.command(card, device, register, 0)?;
        card.store(&MSRWD, value.into());
        self.command(card, device, register, msca::WRITE)
    }

    /// One cycle: the address, or what is done there.
    fn command<B: Bar>(self, card: &Card<B>, device: u32, register: u16, what: u32) -> Result<(), NicError> {
        let place = self.address << msca::PHY_SHIFT | device << msca::DEVICE_SHIFT | u32::from(register);
        card.store(&MSCA, place | what | msca::MDI_CMD);
        card.wait(LIMIT, STEP, "its PHY to answer over MDIO (MSCA.MDICMD)", || card.load(&MSCA) & msca::MDI_CMD == 0)
    }
}

/// What is advertised for wanted pause frames: symmetric, asymmetric (IEEE 802.3, table 28B-2).
pub(super) fn advertised(wanted: FlowControl) -> (bool, bool) {
    (wanted.rx, wanted.rx || wanted.tx)
}
