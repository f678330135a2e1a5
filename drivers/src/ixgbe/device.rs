//! Which cards this driver is for, and in what they differ.

use core::fmt;

use super::registers;
use crate::bus::PciId;
use crate::register::Reg;

const VENDOR: u16 = 0x8086;

/// A generation of controllers with one programming interface.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// 82599 (Niantic).
    Intel82599,
    /// X540 (Twinville).
    X540,
    /// X550 (Sageville).
    X550,
    /// X552, X557: X550 in the Xeon D-1500.
    X550EmX,
    /// X553: X550 in the Atom C3000.
    X550EmA,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Intel82599 => "82599",
            Self::X540 => "X540",
            Self::X550 => "X550",
            Self::X550EmX => "X552",
            Self::X550EmA => "X553",
        })
    }
}

impl Family {
    /// Kilobytes of packet memory for receiving (8.2.3.8.9).
    pub(super) fn receive_memory(self) -> u32 {
        if self == Self::Intel82599 { 512 } else { 384 }
    }

    /// EEC of this family.
    pub(super) fn eec(self) -> Reg<u32> {
        if self == Self::X550EmA { registers::EEC_MOVED } else { registers::EEC }
    }

    /// SWSM of this family.
    pub(super) fn swsm(self) -> Reg<u32> {
        if self == Self::X550EmA { registers::SWSM_MOVED } else { registers::SWSM }
    }

    /// SW_FW_SYNC of this family.
    pub(super) fn sw_fw_sync(self) -> Reg<u32> {
        if self == Self::X550EmA { registers::SW_FW_SYNC_MOVED } else { registers::SW_FW_SYNC }
    }

    /// The redirection table has 512 entries instead of 128.
    pub(super) fn has_large_table(self) -> bool {
        self >= Self::X550
    }

    /// The NVM can be read through EERD; later families read theirs through the firmware, which checks it itself.
    pub(super) fn reads_nvm(self) -> bool {
        self <= Self::X540
    }
}

/// What the link runs over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Medium {
    /// A cage for SFP+ modules and direct-attach cables.
    Sfp,
    /// Twisted pair.
    Copper,
    /// A backplane, CX4 or a chip next to it.
    Backplane,
}

impl fmt::Display for Medium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sfp => "SFP+",
            Self::Copper => "copper",
            Self::Backplane => "backplane",
        })
    }
}

/// A kind of card.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Kind {
    pub(super) family: Family,
    pub(super) medium: Medium,
}

/// Device numbers by family and medium.
const KINDS: [(Family, Medium, &[u16]); 11] = [
    (Family::Intel82599, Medium::Sfp, &[0x10fb, 0x1507, 0x1529, 0x154a, 0x154d, 0x1557, 0x1558, 0x154f]),
    (Family::Intel82599, Medium::Backplane, &[0x10f7, 0x10f8, 0x10f9, 0x10fc, 0x1514, 0x1517, 0x152a]),
    (Family::Intel82599, Medium::Copper, &[0x151c]),
    (Family::X540, Medium::Copper, &[0x1528, 0x1560]),
    (Family::X550, Medium::Copper, &[0x1563, 0x15d1]),
    (Family::X550EmX, Medium::Copper, &[0x15ad, 0x15ae]),
    (Family::X550EmX, Medium::Sfp, &[0x15ac]),
    (Family::X550EmX, Medium::Backplane, &[0x15aa, 0x15ab, 0x15b0]),
    (Family::X550EmA, Medium::Copper, &[0x15c8, 0x15e4, 0x15e5]),
    (Family::X550EmA, Medium::Sfp, &[0x15c4, 0x15ca, 0x15cc, 0x15ce]),
    (Family::X550EmA, Medium::Backplane, &[0x15c2, 0x15c3, 0x15c6, 0x15c7]),
];

/// What kind of card a function is, when it is one of ours. Virtual functions are not.
pub(super) fn kind(id: PciId) -> Option<Kind> {
    let ours = |(_, _, devices): &&(Family, Medium, &[u16])| id.vendor == VENDOR && devices.contains(&id.device);
    KINDS.iter().find(ours).map(|(family, medium, _)| Kind { family: *family, medium: *medium })
}

/// Whether this driver is for the function.
#[must_use]
pub fn matches(id: PciId) -> bool {
    kind(id).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_known_by_their_numbers_and_virtual_functions_are_not() {
        let of = |vendor, device| kind(PciId { vendor, device, ..PciId::default() });
        assert_eq!(of(0x8086, 0x10fb), Some(Kind { family: Family::Intel82599, medium: Medium::Sfp }));
        assert_eq!(of(0x8086, 0x1528), Some(Kind { family: Family::X540, medium: Medium::Copper }));
        assert_eq!(of(0x8086, 0x15ad), Some(Kind { family: Family::X550EmX, medium: Medium::Copper }));
        for device in [0x10ed, 0x1515, 0x1565, 0x15a8, 0x15c5, 0x100e, 0xffff] {
            assert_eq!(of(0x8086, device), None, "{device:#x}");
        }
        assert_eq!(of(0x1af4, 0x10fb), None);
    }

    #[test]
    fn no_number_is_listed_twice() {
        let all = || KINDS.iter().flat_map(|(_, _, devices)| devices.iter());
        assert!(all().all(|device| all().filter(|other| *other == device).count() == 1));
    }
}
