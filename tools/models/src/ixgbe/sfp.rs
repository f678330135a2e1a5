//! The identification of an SFP+ module (SFF-8472, and SFF-8079 for its base).

use super::config::{Module, Speed};

/// Where the two checksums are, and what they cover.
const BASE_CHECKSUM: usize = 63;
const EXTENDED: usize = 64;
const EXTENDED_CHECKSUM: usize = 95;

/// What differs between modules: connector, 10 Gb/s codes, cable technology, 1 Gb/s codes, metres in units of SMF, OM3 and copper, part number.
struct Traits {
    connector: u8,
    ten_gigabit: u8,
    gigabit: u8,
    cable: u8,
    metres: u8,
    part: &'static [u8; 16],
}

/// The 256 bytes at address A0h; `None` for an empty cage.
pub(super) fn image(module: Module, speed: Speed) -> Option<[u8; 256]> {
    let traits = match module {
        Module::Empty => return None,
        Module::DirectAttach => {
            Traits { connector: 0x21, ten_gigabit: 0, gigabit: 0, cable: 0x04, metres: 3, part: b"MODEL-DAC-3M    " }
        }
        Module::ShortRange => {
            Traits { connector: 0x07, ten_gigabit: 0x10, gigabit: 0x01, cable: 0, metres: 0, part: b"MODEL-SR        " }
        }
        Module::LongRange => {
            Traits { connector: 0x07, ten_gigabit: 0x20, gigabit: 0x02, cable: 0, metres: 0, part: b"MODEL-LR        " }
        }
    };
    let mut bytes = [0; 256];
    let mut put = |at: usize, source: &[u8]| bytes[at..at + source.len()].copy_from_slice(source);
    // SFP, with serial identification only.
    put(0, &[0x03, 0x04, traits.connector]);
    put(3, &[if speed == Speed::TenGigabit { traits.ten_gigabit } else { 0 }]);
    put(6, &[if speed == Speed::TenGigabit { 0 } else { traits.gigabit }]);
    put(8, &[traits.cable]);
    // 64b/66b, 10.3 Gb/s.
    put(11, &[0x06, 0x67]);
    put(18, &[traits.metres]);
    put(20, b"MIRACH          ");
    // The vendor that stock drivers take optics from.
    put(37, &[0x00, 0x1b, 0x21]);
    put(40, traits.part);
    put(56, b"A   ");
    put(68, b"000000000001    ");
    put(84, b"260101  ");
    bytes[BASE_CHECKSUM] = add(&bytes[..BASE_CHECKSUM]);
    bytes[EXTENDED_CHECKSUM] = add(&bytes[EXTENDED..EXTENDED_CHECKSUM]);
    Some(bytes)
}

fn add(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn checksums_and_codes_are_those_of_the_module() {
        let cable = image(Module::DirectAttach, Speed::TenGigabit).unwrap();
        let optics = image(Module::ShortRange, Speed::TenGigabit).unwrap();
        for bytes in [cable, optics] {
            let base: u32 = bytes[..63].iter().map(|byte| u32::from(*byte)).sum();
            assert_eq!(base & 0xff, u32::from(bytes[63]));
            let extended: u32 = bytes[64..95].iter().map(|byte| u32::from(*byte)).sum();
            assert_eq!(extended & 0xff, u32::from(bytes[95]));
            assert_eq!(bytes[0], 3);
        }
        assert_eq!((cable[3], cable[8]), (0, 4));
        assert_eq!((optics[3], optics[8]), (0x10, 0));
        assert_eq!(image(Module::Empty, Speed::TenGigabit), None);
    }
}
