//! Stopping a card for good, and what has to be waited for afterwards (4.2.1.6, 4.6.3.2, 5.2.5.3.2).

use core::time::Duration;

use super::card::Card;
use super::device::Family;
use super::registers::{
    CTRL, CTRL_EXT, EICR, EIMC, EIMC_EX, GCR_EXT, HLREG0, MMNGC, QUEUES, RDRXCTL, RXCTRL, RXDCTL, STATUS, TXDCTL, ctrl,
    ctrl_ext, eec, eicr, gcr_ext, hlreg0, mmngc, queue, rdrxctl, rxctrl, status,
};
use super::semaphore::{self, Resource};
use crate::bus::{Bar, PciFunction};
use crate::nic::NicError;
use crate::stopped::Stopped;

/// How long a card may take for requests underway. The bus gives up on a request after 50 ms.
const MASTER_LIMIT: Duration = Duration::from_millis(80);
/// The same for loading its NVM and preparing its receive memory.
const READY_LIMIT: Duration = Duration::from_secs(1);
/// How long a queue may take to stop. The reset that follows stops it anyway.
const QUEUE_LIMIT: Duration = Duration::from_millis(10);

/// No interrupts, and no cause of one (4.6.3.1).
fn silence<B: Bar>(card: &Card<B>) {
    card.store(&EIMC, eicr::ALL);
    card.fill(&EIMC_EX, u32::MAX);
    // Clears on read where no vector is in use, and on write where one is.
    let _ = card.load(&EICR);
    card.store(&EICR, eicr::ALL);
}

/// Resets the card and takes it off the bus. From here on it holds no buffer.
///
/// # Errors
/// When it is gone, or confirms neither its own reset within `limit` nor one by the bus.
pub(super) fn halt<F: PciFunction>(
    function: &mut F,
    card: &Card<F::Bar>,
    limit: Duration,
) -> Result<Stopped, NicError> {
    let reset = card.present().and_then(|()| reset(card, limit));
    // Also when the reset failed: a card that does not listen is at least kept from memory.
    let off_bus = function.set_bus_master(false);
    match reset {
        Ok(()) => {}
        // The bus may have a stronger reset than the card.
        Err(error) if card.is_gone() || function.reset().is_err() => return Err(error),
        Err(_) => {}
    }
    off_bus?;
    Ok(Stopped::confirmed())
}

/// Stops everything, then resets.
fn reset<B: Bar>(card: &Card<B>, limit: Duration) -> Result<(), NicError> {
    quiesce(card);
    card.change(&CTRL_EXT, ctrl_ext::DRV_LOAD, 0);
    if !disable_master(card)? {
        // Requests that never ended: what waits for the bus is thrown away before a reset, and two are needed (5.2.5.3.2).
        clear_pending(card);
        once(card, limit)?;
    }
    once(card, limit)?;
    // The reset enables none, but the NVM may (4.6.3.1).
    silence(card);
    Ok(())
}

/// No interrupts, receiver off, then all queues (4.6.7.1.2, 4.6.8.1.2).
pub(super) fn quiesce<B: Bar>(card: &Card<B>) {
    silence(card);
    card.change(&RXCTRL, rxctrl::RXEN, 0);
    let mut running = false;
    for index in 0..QUEUES {
        for registers in [RXDCTL, TXDCTL] {
            let value = card.load_at(&registers, index);
            if value & queue::ENABLE != 0 {
                card.store_at(&registers, index, value & !queue::ENABLE);
                running = true;
            }
        }
    }
    if running {
        let stopped = |registers| (0..QUEUES).all(|index| card.load_at(registers, index) & queue::ENABLE == 0);
        // One that hangs is what the reset is for.
        let _ = card.wait(QUEUE_LIMIT, Duration::from_micros(100), "its queues to stop", || {
            stopped(&RXDCTL) && stopped(&TXDCTL)
        });
    }
}

/// No new requests on the bus (5.2.5.3.2). Whether all that were underway have ended.
fn disable_master<B: Bar>(card: &Card<B>) -> Result<bool, NicError> {
    card.change(&CTRL, 0, ctrl::GIO_MASTER_DISABLE);
    let idle = card.wait(MASTER_LIMIT, Duration::from_micros(100), "its requests on the bus to end", || {
        card.load(&STATUS) & status::GIO_MASTER_ENABLE == 0
    });
    match idle {
        Ok(()) => Ok(true),
        Err(NicError::Timeout { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Throws away what waits for the bus (5.2.5.3.2).
fn clear_pending<B: Bar>(card: &Card<B>) {
    // Nothing may leave or arrive meanwhile.
    card.change(&HLREG0, 0, hlreg0::LPBK);
    card.flush();
    card.rest(Duration::from_millis(3));
    card.change(&GCR_EXT, 0, gcr_ext::BUFFERS_CLEAR);
    card.flush();
    card.rest(Duration::from_micros(20));
    card.change(&GCR_EXT, gcr_ext::BUFFERS_CLEAR, 0);
    card.change(&HLREG0, hlreg0::LPBK, 0);
}

/// One reset (4.2.1.6). The link of the 82599 is reset too, unless its management firmware is using it; the PHYs of
/// copper cards and what the X550 has keep their link.
fn once<B: Bar>(card: &Card<B>, limit: Duration) -> Result<(), NicError> {
    let family = card.kind.family;
    let link_too = family == Family::Intel82599 && card.load(&MMNGC) & mmngc::MNG_VETO == 0;
    let bits = if link_too { ctrl::RST | ctrl::LRST } else { ctrl::RST };
    // From the X540 on the firmware works the PHY, and must not meanwhile. One that does not let go of it is not
    // listened to: the reset is what mends it.
    let hold = if family == Family::Intel82599 { None } else { semaphore::take(card, Resource::Phy).ok() };
    card.change(&CTRL, 0, bits);
    // Nothing may be read for a millisecond (4.6.3.2).
    card.rest(Duration::from_millis(1));
    drop(hold);
    let done = card.wait(limit, Duration::from_micros(100), "the card to finish its reset (CTRL.RST)", || {
        card.load(&CTRL) & (ctrl::RST | ctrl::LRST) == 0
    });
    done?;
    // 4.6.3.2 of the 82599; 4.6.3.2 of the X540, whose firmware starts anew, too.
    card.rest(Duration::from_millis(if family == Family::Intel82599 { 10 } else { 100 }));
    card.present()
}

/// Waits until the card has loaded its NVM and prepared its receive memory (4.6.3).
///
/// # Errors
/// When it does not in time, or is gone.
pub(super) fn ready<B: Bar>(card: &Card<B>) -> Result<(), NicError> {
    let step = Duration::from_micros(500);
    let eec = card.kind.family.eec();
    card.wait(READY_LIMIT, step, "the card to load its NVM (EEC.Auto_RD)", || card.load(&eec) & eec::AUTO_RD != 0)?;
    card.wait(READY_LIMIT, step, "the card to prepare its receive memory (RDRXCTL.DMAIDONE)", || {
        card.load(&RDRXCTL) & rdrxctl::DMAIDONE != 0
    })
}
