//! Which frames the chip takes: address filters (section 7.1.1.1) and VLAN filters (section 7.1.1.2).

use bitflags::bitflags;

use super::parse::Parsed;
use super::registers::{self, Registers};

bitflags! {
    /// FCTRL (section 8.2.3.7.1).
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub(super) struct FilterControl: u32 {
        /// Store bad packets.
        const SBP = 1 << 1;
        /// All multicasts.
        const MPE = 1 << 8;
        /// All unicasts.
        const UPE = 1 << 9;
        /// Broadcasts.
        const BAM = 1 << 10;
    }

    /// VLNCTRL (section 8.2.3.7.2), but for the EtherType.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    struct VlanControl: u32 {
        const CFI = 1 << 28;
        const CFIEN = 1 << 29;
        const VFE = 1 << 30;
    }
}

/// How a frame passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Passed {
    /// By its whole address, or because everything does.
    Exactly,
    /// By a hash of its address: others share it.
    Inexactly,
}

/// A bit for each of 4096 hashes or VLANs.
type Bits = Box<[u32; 128]>;

fn has(bits: &[u32; 128], index: u16) -> bool {
    bits.get(usize::from(index >> 5)).is_some_and(|word| word & 1 << (index & 31) != 0)
}

fn read(registers: &Registers, array: registers::Register) -> Bits {
    let mut bits = Box::new([0; 128]);
    for (index, word) in (0..).zip(bits.iter_mut()) {
        *word = registers.get(array.at(index));
    }
    bits
}

/// The filter registers, ready for use.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) control: FilterControl,
    /// RAL and RAH of the valid entries, in the byte order of a frame.
    addresses: Vec<[u8; 6]>,
    /// Which 12 bits of an address are its hash (MCSTCTRL.MO), while hashes are used (MCSTCTRL.MFE).
    hash: Option<u32>,
    multicast: Bits,
    unicast: Bits,
    vlan: VlanControl,
    vlans: Bits,
}

impl Filter {
    /// Reads the registers.
    pub(super) fn new(registers: &Registers) -> Self {
        const VALID: u32 = 1 << 31;
        let entry = |index| {
            let low = registers.get(registers::RAL.at(index)).to_le_bytes();
            let high = registers.get(registers::RAH.at(index));
            let [e, f, ..] = high.to_le_bytes();
            (high & VALID != 0).then_some([low[0], low[1], low[2], low[3], e, f])
        };
        let hashing = registers.get(registers::MCSTCTRL.offset);
        Self {
            control: FilterControl::from_bits_truncate(registers.get(registers::FCTRL.offset)),
            addresses: (0..registers::RAL.count).filter_map(entry).collect(),
            hash: (hashing & 4 != 0).then_some(hashing & 3),
            multicast: read(registers, registers::MTA),
            unicast: read(registers, registers::PFUTA),
            vlan: VlanControl::from_bits_truncate(registers.get(registers::VLNCTRL.offset)),
            vlans: read(registers, registers::VFTA),
        }
    }

    /// Lets a frame to `target` through, or not (section 7.1.1.1).
    #[inline]
    pub(super) fn passes(&self, target: [u8; 6]) -> Option<Passed> {
        let group = target[0] & 1 != 0;
        if target == [0xff; 6] {
            return self.control.contains(FilterControl::BAM).then_some(Passed::Exactly);
        }
        let all = if group { FilterControl::MPE } else { FilterControl::UPE };
        if self.control.contains(all) || self.addresses.contains(&target) {
            return Some(Passed::Exactly);
        }
        // The hash is bits 47-36, 46-35, 45-34 or 43-32 of the address, whose first byte is the lowest (section 8.2.3.7.5).
        let top = u16::from_le_bytes([target[4], target[5]]);
        let hash = match self.hash? {
            0 => top >> 4,
            1 => top >> 3,
            2 => top >> 2,
            _ => top,
        } & 0xfff;
        has(if group { &self.multicast } else { &self.unicast }, hash).then_some(Passed::Inexactly)
    }

    /// Lets a frame through by its tag (section 7.1.1.2); one without always passes.
    #[inline]
    pub(super) fn passes_vlan(&self, parsed: &Parsed) -> bool {
        let Some((tag, _)) = parsed.tag else { return true };
        if !self.vlan.contains(VlanControl::VFE) {
            return true;
        }
        let canonical = tag & 1 << 12 != 0;
        if self.vlan.contains(VlanControl::CFIEN) && canonical != self.vlan.contains(VlanControl::CFI) {
            return false;
        }
        has(&self.vlans, tag & 0xfff)
    }
}

#[cfg(test)]
#[path = "tests/filter.rs"]
mod tests;
