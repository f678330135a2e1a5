//! The link: bringing it up, and its state (3.7.4, 8.2.3.22; X540: 3.7.3).
//!
//! The 82599 is told by this driver how to make its link. Copper cards have a PHY that does it alone and is only started. The
//! X550 of processors (X552, X553) has its link made by firmware where it is not copper; only its state is read.

use core::time::Duration;

use super::card::Card;
use super::device::{Family, Medium};
use super::flow;
use super::phy::{Phy, advertised};
use super::registers::{ANLP1, AUTOC, AUTOC2, ESDP, LINKS, MMNGC, anlp1, autoc, autoc2, esdp, links, mmngc};
use super::semaphore::{self, Resource};
use super::sfp::{self, Module};
use crate::bus::Bar;
use crate::nic::{FlowControl, LinkStatus, NicError};

/// How long autonegotiation may take to leave its first state.
const RESTART_LIMIT: Duration = Duration::from_millis(40);

/// What is known about a port's link.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Link {
    /// The module in the cage, where there is a cage.
    pub(super) module: Option<Module>,
    phy: Option<Phy>,
    /// What was asked for.
    wanted: FlowControl,
    /// What the card was told; `None` while the link is down.
    agreed: Option<FlowControl>,
}

impl Link {
    /// Starts the link. Whether it comes up depends on the other end too, so nobody waits.
    ///
    /// # Errors
    /// When the card's parts for that do not answer. An empty cage is no error: a module may come.
    pub(super) fn start<B: Bar>(card: &Card<B>, wanted: FlowControl) -> Result<Self, NicError> {
        let mut link = Self { wanted, ..Self::default() };
        match (card.kind.family, card.kind.medium) {
            (Family::Intel82599, Medium::Sfp) => link.plug(card)?,
            (Family::Intel82599, Medium::Backplane) => {
                let (symmetric, asymmetric) = advertised(wanted);
                let pause =
                    if symmetric { autoc::SYM_PAUSE } else { 0 } | if asymmetric { autoc::ASM_PAUSE } else { 0 };
                restart(card, autoc::SYM_PAUSE | autoc::ASM_PAUSE, pause)?;
            }
            (family, Medium::Copper) => {
                link.phy = Phy::find(card)?;
                match link.phy {
                    Some(phy) => phy.negotiate(card, advertised(wanted))?,
                    // Firmware has it.
                    None if family >= Family::X550EmX => {}
                    None => return Err(card.misbehaves("no PHY answers over MDIO; power the machine off and on")),
                }
            }
            _ => {}
        }
        Ok(link)
    }

    /// Sets the link up for the module in the cage.
    fn plug<B: Bar>(&mut self, card: &Card<B>) -> Result<(), NicError> {
        self.module = sfp::identify(card)?;
        if let Some(module) = self.module {
            sfp::load_settings(card, module)?;
        }
        // Light on.
        card.change(&ESDP, esdp::SDP3, 0);
        card.change(&AUTOC2, autoc2::SERIAL | autoc2::LINK_DISABLE, autoc2::SERIAL_SFI);
        let mode = if self.module == Some(Module::Gigabit) { autoc::LMS_1G_AN } else { autoc::LMS_10G_SERIAL };
        restart(card, autoc::LMS, mode)
    }

    /// State of the link. Flow control is settled when it came up since the last question; `longest` and `pairs` are
    /// for [`flow::apply`].
    ///
    /// # Errors
    /// When the card is gone or its PHY does not answer.
    pub(super) fn ask<B: Bar>(&mut self, card: &Card<B>, longest: usize, pairs: u32) -> Result<LinkStatus, NicError> {
        let value = card.load(&LINKS);
        if value == u32::MAX {
            card.present()?;
        }
        let mut status = status(value, card.kind.family);
        if !status.up {
            self.agreed = None;
        } else if self.agreed.is_none() {
            let agreed = self.settle(card, value)?;
            flow::apply(card, agreed, longest, pairs);
            self.agreed = Some(agreed);
        }
        status.flow_control = self.agreed;
        Ok(status)
    }

    /// Looks into the cage of a link that is down, for a module that was plugged in or taken out since.
    ///
    /// # Errors
    /// As for [`Link::start`].
    pub(super) fn look<B: Bar>(&mut self, card: &Card<B>) -> Result<(), NicError> {
        let has_cage = (card.kind.family, card.kind.medium) == (Family::Intel82599, Medium::Sfp);
        if !has_cage {
            return Ok(());
        }
        match sfp::identify(card)? {
            found if found == self.module => Ok(()),
            None => {
                self.module = None;
                Ok(())
            }
            Some(_) => self.plug(card),
        }
    }

    /// What was agreed on pause frames on a link that is up.
    fn settle<B: Bar>(&self, card: &Card<B>, links: u32) -> Result<FlowControl, NicError> {
        if let Some(phy) = self.phy {
            return Ok(flow::agree(self.wanted, phy.partner_pause(card)?));
        }
        match (card.kind.family, card.kind.medium) {
            (Family::Intel82599, Medium::Backplane) => {
                if links & links::AN_COMPLETE == 0 {
                    return Ok(FlowControl::default());
                }
                let partner = card.load(&ANLP1);
                let pause = (partner & anlp1::SYM_PAUSE != 0, partner & anlp1::ASM_PAUSE != 0);
                Ok(flow::agree(self.wanted, pause))
            }
            // Nothing is negotiated.
            _ => Ok(self.wanted),
        }
    }
}

/// What LINKS says.
fn status(value: u32, family: Family) -> LinkStatus {
    if value & links::LINK_UP == 0 {
        return LinkStatus::default();
    }
    let odd = family >= Family::X550 && value & links::SPEED_NON_STANDARD != 0;
    let speed = match (value >> links::SPEED_SHIFT & 3, odd) {
        (3, false) => Some(10_000),
        (3, true) => Some(2_500),
        (2, _) => Some(1_000),
        (1, false) => Some(100),
        (1, true) => Some(5_000),
        _ if family == Family::X550EmA => Some(10),
        _ => None,
    };
    LinkStatus { up: true, speed_mbps: speed, full_duplex: Some(true), flow_control: None }
}

/// Changes AUTOC and starts the link anew (3.7.4.2): the highest bit of the link mode is flipped and flipped back, so that
/// the data path is reset too.
fn restart<B: Bar>(card: &Card<B>, clear: u32, set: u32) -> Result<(), NicError> {
    if card.load(&MMNGC) & mmngc::MNG_VETO != 0 {
        // The management firmware keeps its link.
        return Ok(());
    }
    let _hold = semaphore::take(card, Resource::Mac)?;
    card.change(&AUTOC2, autoc2::LINK_DISABLE, 0);
    let mode = card.load(&AUTOC) & !clear | set | autoc::RESTART_AN;
    card.store(&AUTOC, mode ^ autoc::LMS_2);
    let started = card.wait(RESTART_LIMIT, Duration::from_millis(4), "autonegotiation to start", || {
        card.load(&ANLP1) & anlp1::STATE != 0
    });
    card.store(&AUTOC, mode);
    card.flush();
    match started {
        // Then the link's state tells.
        Err(NicError::Timeout { .. }) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_those_of_the_family() {
        let speed = |value, family| status(value, family).speed_mbps;
        assert_eq!(speed(0x7000_0000, Family::Intel82599), Some(10_000));
        assert_eq!(speed(0x6000_0000, Family::X540), Some(1_000));
        assert_eq!(speed(0x5000_0000, Family::X540), Some(100));
        assert_eq!(speed(0x7800_0000, Family::X550), Some(2_500));
        assert_eq!(speed(0x5800_0000, Family::X550), Some(5_000));
        assert_eq!(speed(0x4000_0000, Family::Intel82599), None);
        assert_eq!(status(0x3000_0000, Family::X550), LinkStatus::default());
    }
}
