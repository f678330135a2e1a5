//! Pause frames: what two ends agree on, and how the card is told (3.7.7; IEEE 802.3, annex 28B).

use super::card::Card;
use super::registers::{FCCFG, FCRTH, FCRTL, FCRTV, FCTTV, MFLCN, SRRCTL, fccfg, fcrt, mflcn, srrctl};
use crate::bus::Bar;
use crate::nic::FlowControl;

/// How long a pause lasts, in units of 512 bits: as long as can be, for its end is announced.
const PAUSE: u32 = 0xffff;
/// What may arrive after a pause frame was asked for beside two frames of ours and theirs: delays of cables, PHYs and
/// the partner's MAC add up to less than this (3.7.7.3.1).
const IN_FLIGHT: u32 = 40 * 1024;
/// Room to keep below the end of the packet memory when no pause frames are sent.
const UNPAUSED: u32 = 24 * 1024;
/// Thresholds are multiples of 32 bytes.
const THRESHOLD: u32 = 0x7_ffe0;

/// What comes of the wishes of one end, when the other says `symmetric` and `asymmetric`.
pub(super) fn agree(wanted: FlowControl, (symmetric, asymmetric): (bool, bool)) -> FlowControl {
    let (our_symmetric, our_asymmetric) = super::phy::advertised(wanted);
    let none = FlowControl::default();
    if our_symmetric && symmetric {
        // Both can do everything; who only wants to obey does not send.
        FlowControl { rx: true, tx: wanted.tx }
    } else if !asymmetric || !our_asymmetric {
        none
    } else if symmetric {
        FlowControl { tx: true, ..none }
    } else if our_symmetric {
        FlowControl { rx: true, ..none }
    } else {
        none
    }
}

/// Tells the card. `longest` is the longest frame; `pairs` the queues in use.
pub(super) fn apply<B: Bar>(card: &Card<B>, agreed: FlowControl, longest: usize, pairs: u32) {
    let memory = card.kind.family.receive_memory() * 1024;
    let frame = u32::try_from(longest).unwrap_or(u32::MAX).min(16 * 1024);
    // Obeying (8.2.3.22.22). Pause frames are never handed on.
    card.change(&MFLCN, mflcn::RFCE, mflcn::DPF | if agreed.rx { mflcn::RFCE } else { 0 });
    // Sending (3.7.7.3).
    card.fill(&FCTTV, PAUSE << 16 | PAUSE);
    card.store(&FCRTV, PAUSE / 2);
    if agreed.tx {
        let high = (memory - IN_FLIGHT - 2 * frame) & THRESHOLD;
        let low = (high / 2) & THRESHOLD;
        card.store_at(&FCRTL, 0, low | fcrt::ENABLE);
        card.store_at(&FCRTH, 0, high | fcrt::ENABLE);
    } else {
        card.store_at(&FCRTL, 0, 0);
        card.store_at(&FCRTH, 0, (memory - UNPAUSED) & THRESHOLD);
    }
    card.change(&FCCFG, fccfg::TFCE_LINK, if agreed.tx { fccfg::TFCE_LINK } else { 0 });
    // With several queues one that is not served must not hold up the others, unless the partner is asked to wait.
    let drop = pairs > 1 && !agreed.tx;
    for index in 0..pairs {
        card.change_at(&SRRCTL, index, srrctl::DROP_EN, if drop { srrctl::DROP_EN } else { 0 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_the_same_agreement() {
        let all = [(false, false), (false, true), (true, false), (true, true)].map(|(rx, tx)| FlowControl { rx, tx });
        for ours in all {
            for theirs in all {
                let here = agree(ours, super::super::phy::advertised(theirs));
                let there = agree(theirs, super::super::phy::advertised(ours));
                // Nobody obeys more than it wants, or sends without wanting to.
                assert!(!here.tx || ours.tx, "{ours:?} {theirs:?}");
                assert!(!here.tx || there.rx, "a pause that nobody obeys: {ours:?} {theirs:?}");
            }
        }
        let full = FlowControl { rx: true, tx: true };
        assert_eq!(agree(full, (true, false)), full);
        assert_eq!(agree(full, (true, true)), full);
        assert_eq!(agree(full, (false, true)), FlowControl { rx: true, tx: false });
        assert_eq!(agree(full, (false, false)), FlowControl::default());
        assert_eq!(agree(FlowControl { rx: false, tx: true }, (true, true)), FlowControl { rx: false, tx: true });
        assert_eq!(agree(FlowControl { rx: false, tx: true }, (true, false)), FlowControl::default());
    }
}
