use super::*;
use crate::ixgbe::parse::TagTypes;

const MINE: [u8; 6] = [0x00, 0x1b, 0x21, 0xaa, 0xbb, 0xcc];
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x12, 0x34, 0x56];
const OTHER: [u8; 6] = [0x00, 0x1b, 0x21, 0x12, 0x34, 0x56];

fn registers() -> Registers {
    let mut registers = Registers::new();
    registers.set(registers::RAL.at(3), 0xaa21_1b00);
    registers.set(registers::RAH.at(3), 0x8000_ccbb);
    registers
}

fn set(registers: &mut Registers, array: registers::Register, bit: u32) {
    let offset = array.at(bit >> 5);
    registers.set(offset, registers.get(offset) | 1 << (bit & 31));
}

#[test]
fn only_own_addresses_pass_until_more_is_asked_for() {
    let mut registers = registers();
    let filter = Filter::new(&registers);
    assert_eq!(filter.passes(MINE), Some(Passed::Exactly));
    for target in [OTHER, GROUP, [0xff; 6]] {
        assert_eq!(filter.passes(target), None);
    }
    for (control, passes) in [(1 << 8, GROUP), (1 << 9, OTHER), (1 << 10, [0xff; 6])] {
        registers.set(registers::FCTRL.offset, control);
        let filter = Filter::new(&registers);
        for target in [OTHER, GROUP, [0xff; 6]] {
            assert_eq!(filter.passes(target).is_some(), target == passes, "{control:#x}");
        }
    }
    registers.set(registers::RAH.at(3), 0x0000_ccbb);
    assert_eq!(Filter::new(&registers).passes(MINE), None, "the entry is not valid");
}

#[test]
fn hashes_take_the_bits_that_mo_says() {
    // The last two bytes of the address are 34:56, so its top 16 bits are 0x5634.
    for (mo, hash) in [(0, 0x563), (1, 0xac6), (2, 0x58d), (3, 0x634)] {
        let mut registers = registers();
        set(&mut registers, registers::MTA, hash);
        registers.set(registers::MCSTCTRL.offset, mo);
        assert_eq!(Filter::new(&registers).passes(GROUP), None, "hashes are off");
        registers.set(registers::MCSTCTRL.offset, mo | 4);
        assert_eq!(Filter::new(&registers).passes(GROUP), Some(Passed::Inexactly), "MO {mo}");
        assert_eq!(Filter::new(&registers).passes(OTHER), None, "unicasts have a table of their own");
        set(&mut registers, registers::PFUTA, hash);
        assert_eq!(Filter::new(&registers).passes(OTHER), Some(Passed::Inexactly));
        assert_eq!(Filter::new(&registers).passes([0x01, 0, 0x5e, 0, 0, 0]), None);
    }
}

#[test]
fn tagged_frames_pass_by_vlan_and_canonical_bit() {
    let frame = |tag: [u8; 2]| [&MINE[..], &OTHER, &[0x81, 0], &tag, &[8, 6, 0, 0]].concat();
    let passes = |registers: &Registers, tag| {
        let frame = frame(tag);
        let parsed = Parsed::new(&frame, TagTypes { tag: 0x8100, outer: None });
        Filter::new(registers).passes_vlan(&parsed)
    };
    let mut registers = registers();
    assert!(passes(&registers, [0, 100]));
    registers.set(registers::VLNCTRL.offset, 1 << 30 | 0x8100);
    assert!(!passes(&registers, [0, 100]));
    set(&mut registers, registers::VFTA, 100);
    assert!(passes(&registers, [0xe0, 100]) && passes(&registers, [0xf0, 100]) && !passes(&registers, [0, 101]));
    registers.set(registers::VLNCTRL.offset, 3 << 29 | 0x8100);
    assert!(passes(&registers, [0xe0, 100]) && !passes(&registers, [0xf0, 100]));
}
