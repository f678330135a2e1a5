//! Bringing the receive and transmit sides up (4.6.7, 4.6.8).

use core::time::Duration;

use hugemem::Iova;

use super::card::Card;
use super::doorbell::Doorbell;
use super::registers::{
    CTRL_EXT, DCA_CTRL, DCA_RXCTRL, DCA_TXCTRL, DMATXCTL, DTXMXSZRQ, DTXTCPFLGH, DTXTCPFLGL, HLREG0, MAXFRS, MTQC,
    QUEUES, RDBAH, RDBAL, RDH, RDLEN, RDRXCTL, RDT, RFCTL, RTTBCNRC, RTTDCS, RTTDQSEL, RXCSUM, RXCTRL, RXDCTL,
    RXPBSIZE, SECRXCTRL, SECRXSTAT, SRRCTL, TDBAH, TDBAL, TDH, TDLEN, TDT, TDWBAH, TDWBAL, TXDCTL, TXPBSIZE,
    TXPBTHRESH, ctrl_ext, dca_ctrl, dca_rxctrl, dca_txctrl, dmatxctl, hlreg0, queue, rdrxctl, rfctl, rttdcs, rxcsum,
    rxctrl, secrx, srrctl,
};
use crate::bus::{Bar, Width};
use crate::nic::NicError;
use crate::register::RegArray;

/// How long a queue may take to come up, and the receive path to empty.
const LIMIT: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_micros(100);
/// Bytes of a descriptor.
const DESCRIPTOR: u32 = 16;
/// Largest frame of the MAC, with its frame check sequence.
const LARGEST_FRAME: u32 = 9728;
/// Kilobytes of packet memory for sending, and the mark from which on no more is fetched: room for the largest frame
/// is left (8.2.3.9.15, 8.2.3.9.16).
const TRANSMIT_MEMORY: u32 = 160;
const TRANSMIT_THRESHOLD: u32 = 150;
/// Prefetch when so few descriptors are on the card, as soon as so many are in memory (8.2.3.9.10). Descriptors are
/// written back as soon as they are done: their write-back threshold is 0, as RS needs it (7.2.3.3).
const PREFETCH: u32 = 36 | 8 << 8;
/// TCP flags of a segmented packet (8.2.3.9.3, 8.2.3.9.4): FIN and PSH only in the last, CWR only in the first.
const FIRST_FLAGS: u32 = 0xff6;
const MIDDLE_FLAGS: u32 = 0xf76;
const LAST_FLAGS: u32 = 0xf7f;

/// Settings of the whole receive side, but filters and spreading. The receiver stays off.
pub(super) fn receive_side<B: Bar>(card: &Card<B>, mtu: u16) {
    card.change(&CTRL_EXT, 0, ctrl_ext::NS_DIS | ctrl_ext::DRV_LOAD);
    card.change(&RXCTRL, rxctrl::RXEN, 0);
    // One packet buffer (8.2.3.8.9).
    card.fill(&RXPBSIZE, 0);
    card.store_at(&RXPBSIZE, 0, card.kind.family.receive_memory() << 10);
    // The frame check sequence is checked and cut off. Short frames are padded when they are sent.
    // MAXFRS counts only with jumbo frames on.
    let modes = hlreg0::TXCRCEN | hlreg0::RXCRCSTRP | hlreg0::TXPADEN | hlreg0::JUMBOEN;
    card.change(&HLREG0, hlreg0::LPBK, modes);
    card.change(&RDRXCTL, rdrxctl::RSCFRSTSIZE, rdrxctl::CRCSTRIP | rdrxctl::ALWAYS);
    // The card allows one VLAN tag beyond this by itself; a second is allowed here.
    let frame = (u32::from(mtu) + 14 + 4 + 4).min(LARGEST_FRAME);
    card.store(&MAXFRS, frame << 16);
    card.change(&RFCTL, 0, rfctl::RSC_DIS);
    card.store(&RXCSUM, rxcsum::PCSD);
    card.change(&DCA_CTRL, 0, dca_ctrl::DCA_DIS);
}

/// Sets a receive queue up and enables it (4.6.7.1). Its tail is 0: it holds no buffer yet.
///
/// # Errors
/// When the queue does not come up, or the card is gone.
pub(super) fn receive_queue<B: Bar>(
    card: &Card<B>,
    index: u32,
    (address, size): (Iova, u16),
    buffer_kib: u8,
    strip: bool,
) -> Result<Doorbell<B>, NicError> {
    place(card, [&RDBAL, &RDBAH, &RDLEN], index, address, size);
    // DROP_EN is decided with flow control.
    card.store_at(&SRRCTL, index, u32::from(buffer_kib) | srrctl::HEADER | srrctl::ADVANCED_ONE_BUFFER);
    card.change_at(&DCA_RXCTRL, index, dca_rxctrl::RESERVED_12, 0);
    card.store_at(&RDH, index, 0);
    card.store_at(&RDT, index, 0);
    let tags = if strip { queue::VME } else { 0 };
    card.change_at(&RXDCTL, index, queue::VME, tags | queue::ENABLE);
    card.wait(LIMIT, STEP, "a receive queue to come up (RXDCTL.ENABLE)", || {
        card.load_at(&RXDCTL, index) & queue::ENABLE != 0
    })?;
    doorbell(card, &RDT, index)
}

/// Turns the receiver on; its path is held still and empty meanwhile (4.6.7).
///
/// # Errors
/// When the path does not empty, or the card is gone.
pub(super) fn receiver_on<B: Bar>(card: &Card<B>) -> Result<(), NicError> {
    card.change(&SECRXCTRL, 0, secrx::RX_DIS);
    let empty = card.wait(LIMIT, Duration::from_micros(10), "the receive path to empty (SECRXSTAT)", || {
        card.load(&SECRXSTAT) & secrx::SECRX_RDY != 0
    });
    card.change(&RXCTRL, 0, rxctrl::RXEN);
    card.change(&SECRXCTRL, secrx::RX_DIS, 0);
    empty
}

/// Settings of the whole transmit side, and turns it on (4.6.8).
pub(super) fn transmit_side<B: Bar>(card: &Card<B>) {
    // One packet buffer, no traffic classes, no pools; to be set while the arbiter rests (7.2.1.2.1).
    card.change(&RTTDCS, 0, rttdcs::ARBDIS);
    card.store(&MTQC, 0);
    card.fill(&TXPBSIZE, 0);
    card.fill(&TXPBTHRESH, 0);
    card.store_at(&TXPBSIZE, 0, TRANSMIT_MEMORY << 10);
    card.store_at(&TXPBTHRESH, 0, TRANSMIT_THRESHOLD);
    card.store(&DTXMXSZRQ, 0xfff);
    // No rates; these are memory that no reset clears.
    for index in 0..QUEUES {
        card.store(&RTTDQSEL, index);
        card.store(&RTTBCNRC, 0);
    }
    card.change(&RTTDCS, rttdcs::ARBDIS, 0);
    card.store(&DTXTCPFLGL, MIDDLE_FLAGS << 16 | FIRST_FLAGS);
    card.store(&DTXTCPFLGH, LAST_FLAGS);
    card.change(&DMATXCTL, 0, dmatxctl::TE);
}

/// Sets a transmit queue up and enables it (4.6.8.1).
///
/// # Errors
/// When the queue does not come up, or the card is gone.
pub(super) fn transmit_queue<B: Bar>(
    card: &Card<B>,
    index: u32,
    (address, size): (Iova, u16),
) -> Result<Doorbell<B>, NicError> {
    place(card, [&TDBAL, &TDBAH, &TDLEN], index, address, size);
    // Descriptors are written back, not the head, and in order.
    card.store_at(&TDWBAL, index, 0);
    card.store_at(&TDWBAH, index, 0);
    card.change_at(&DCA_TXCTRL, index, dca_txctrl::DESC_WRO_EN, 0);
    card.store_at(&TDH, index, 0);
    card.store_at(&TDT, index, 0);
    card.store_at(&TXDCTL, index, PREFETCH | queue::ENABLE);
    card.wait(LIMIT, STEP, "a transmit queue to come up (TXDCTL.ENABLE)", || {
        card.load_at(&TXDCTL, index) & queue::ENABLE != 0
    })?;
    doorbell(card, &TDT, index)
}

/// Tells where a ring lies.
fn place<B: Bar>(card: &Card<B>, [low, high, length]: [&RegArray<u32>; 3], index: u32, address: Iova, size: u16) {
    card.store_at(low, index, u32::narrow(address.raw()));
    card.store_at(high, index, u32::narrow(address.raw() >> 32));
    card.store_at(length, index, u32::from(size) * DESCRIPTOR);
}

fn doorbell<B: Bar>(card: &Card<B>, tails: &RegArray<u32>, index: u32) -> Result<Doorbell<B>, NicError> {
    let tail = tails.get(index).ok_or_else(|| card.refuses(alloc::format!("the card has no queue {index}")))?;
    Ok(Doorbell::new(card.bar.clone(), &tail))
}

/// What contradicts that the card was brought up and nothing has happened to it since.
pub(super) fn upset<B: Bar>(card: &Card<B>, pairs: u32) -> Option<&'static str> {
    if card.load(&CTRL_EXT) & ctrl_ext::DRV_LOAD == 0 || card.load(&RXCTRL) & rxctrl::RXEN == 0 {
        return Some("it was reset by someone else");
    }
    if card.load(&DMATXCTL) & dmatxctl::TE == 0 {
        return Some("its transmitter was turned off by someone else");
    }
    let on = |registers, index| card.load_at(registers, index) & queue::ENABLE != 0;
    (!(0..pairs).all(|index| on(&RXDCTL, index) && on(&TXDCTL, index))).then_some("one of its queues turned itself off")
}
