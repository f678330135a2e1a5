//! Which frames the card receives (7.1.1).

use super::card::Card;
use super::registers::{FCTRL, MCSTCTRL, MTA, RAH, RAL, UTA, VFTA, VLNCTRL, fctrl, mcstctrl, rah, vlnctrl};
use crate::bus::Bar;
use crate::nic::{MacAddress, ReceiveFilter};

/// VLANs that a tag can name.
pub(super) const VLANS: u16 = 4096;

/// Makes the card receive what `filter` says, beside frames for `mac` and broadcasts. More addresses than it has places
/// for make it receive all of single stations.
pub(super) fn set<B: Bar>(card: &Card<B>, mac: MacAddress, filter: &ReceiveFilter) {
    let places = RAL.count() as usize;
    let overflow = filter.unicast.len() >= places;
    let mut modes = fctrl::BAM;
    if filter.promiscuous || overflow {
        modes |= fctrl::UPE;
    }
    if filter.promiscuous || filter.all_multicast {
        modes |= fctrl::MPE;
    }
    // Wider before the tables change, narrower after: what passes the old and the new filter is never missed.
    card.change(&FCTRL, 0, modes);
    if filter.vlans.is_none() {
        card.change(&VLNCTRL, vlnctrl::VFE, 0);
    }
    // Exact matches: the first is the card's own (7.1.1.1.1).
    let own = core::iter::once(&mac);
    let more = filter.unicast.iter().take(if overflow { 0 } else { places });
    let mut addresses = own.chain(more).map(Some).chain(core::iter::repeat(None));
    for (low, high) in RAL.iter().zip(RAH.iter()) {
        let (first, second) = addresses.next().flatten().map_or((0, 0), words);
        card.store(&low, first);
        card.store(&high, second);
    }
    // Hashed matches of group addresses (7.1.1.1.3); those of single stations are not used.
    let mut table = [0_u32; 128];
    for address in &filter.multicast {
        let hash = hash(*address);
        if let Some(word) = table.get_mut(usize::from(hash >> 5)) {
            *word |= 1 << (hash & 31);
        }
    }
    for (register, word) in MTA.iter().zip(table) {
        card.store(&register, word);
    }
    card.fill(&UTA, 0);
    card.store(&MCSTCTRL, mcstctrl::MFE);
    // VLANs (7.1.1.2).
    let mut table = [0_u32; 128];
    for vlan in filter.vlans.iter().flatten() {
        if let Some(word) = table.get_mut(usize::from(vlan >> 5)) {
            *word |= 1 << (vlan & 31);
        }
    }
    for (register, word) in VFTA.iter().zip(table) {
        card.store(&register, word);
    }
    if filter.vlans.is_some() {
        card.change(&VLNCTRL, 0, vlnctrl::VFE);
    }
    card.change(&FCTRL, fctrl::UPE | fctrl::MPE, modes);
}

/// The card's own address as its NVM has it: what the first place holds after a reset (8.2.3.7.8). `None` when that is no
/// address of a station.
pub(super) fn permanent<B: Bar>(card: &Card<B>) -> Option<MacAddress> {
    let [a, b, c, d] = card.load_at(&RAL, 0).to_le_bytes();
    let [e, f, ..] = card.load_at(&RAH, 0).to_le_bytes();
    let address = [a, b, c, d, e, f];
    (address != [0; 6] && a & 1 == 0).then_some(MacAddress(address))
}

/// RAL and RAH of an address.
fn words(address: &MacAddress) -> (u32, u32) {
    let [a, b, c, d, e, f] = address.0;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]) | rah::AV)
}

/// Bits 47:36 of an address, in the order of the wire: its place in MTA (MCSTCTRL.MO = 0).
fn hash(address: MacAddress) -> u16 {
    let [.., e, f] = address.0;
    u16::from(f) << 4 | u16::from(e >> 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_their_registers_as_the_wire_has_them() {
        let address = MacAddress([0x00, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(words(&address), (0x3322_1100, 0x8000_5544));
        // The datasheet's example: the last byte gives the upper eight bits.
        assert_eq!(hash(MacAddress([0x01, 0xaa, 0, 0x12, 0x34, 0x56])), 0x563);
    }
}
