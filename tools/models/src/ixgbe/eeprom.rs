//! The EEPROM (6.0) and how drivers reach it: EEC, EERD, EEWR (8.2.3.2).
//!
//! Its content is what the chip would load by itself and what drivers look for: addresses, the checksum over words and
//! sections, initialisation of the optics by module type, product number, version and abilities.

use super::config::{Config, Kind};
use super::control::Control;
use super::fault::{Fault, Trick};
use super::registers::{EEC, EERD, EEWR, RAH, RAL, Registers};
use crate::card::Bus;

/// 128 Kibit.
const WORDS: usize = 8192;
/// EEC: size, present, automatic read done, access requested and granted, flash update and its end (8.2.3.2.1).
const SIZE: u32 = 7 << 11;
const PRESENT: u32 = 1 << 8;
const READ_DONE: u32 = 1 << 9;
const REQUEST: u32 = 1 << 6;
const GRANT: u32 = 1 << 7;
const PINS: u32 = 0xf;
const UPDATE: u32 = 1 << 23;
const UPDATE_DONE: u32 = 1 << 26;
/// EERD and EEWR: start, done, and the address from bit 2 (8.2.3.2.2).
const START: u32 = 1;
const DONE: u32 = 2;
/// Where the checksum is, and what all words add up to (6.2).
const CHECKSUM: usize = 0x3f;
const SUM: u16 = 0xbaba;
/// RAH: the address is valid (8.2.3.7.9).
const VALID: u32 = 1 << 31;

/// The EEPROM and its registers.
#[derive(Debug)]
pub(super) struct Nvm {
    kind: Kind,
    words: Box<[u16]>,
    address: [u8; 6],
    requested: u32,
    read: u32,
    written: u32,
}

impl Nvm {
    /// The EEPROM of the card.
    pub(super) fn new(config: &Config, trick: &Trick) -> Self {
        let mut address = config.mac.0;
        if trick.is(Fault::MacInvalid) {
            address = [0xff; 6];
        }
        let mut words = image(config.kind, address);
        if trick.is(Fault::EepromChecksumBad)
            && let Some(word) = words.get_mut(CHECKSUM)
        {
            *word ^= 0x0100;
        }
        Self { kind: config.kind, words, address, requested: 0, read: 0, written: 0 }
    }

    /// What the chip loads after a reset: its first station address (6.3.6).
    pub(super) fn reload(&mut self, registers: &mut Registers) {
        let [a, b, c, d, e, f] = self.address;
        registers.set(RAL.offset, u32::from_le_bytes([a, b, c, d]));
        registers.set(RAH.offset, u32::from_le_bytes([e, f, 0, 0]) | VALID);
        (self.requested, self.read, self.written) = (0, 0, 0);
    }

    pub(super) fn load(&self, control: &Control, trick: &Trick, bus: &Bus, offset: u32) -> u32 {
        let ready = control.is_ready(bus.now()) && !trick.is(Fault::EepromNeverReady);
        match offset {
            _ if offset == EEC.offset => {
                let grant = if self.requested & REQUEST == 0 { 0 } else { GRANT };
                let pins = self.requested & (REQUEST | PINS | UPDATE_DONE);
                pins | grant | SIZE | PRESENT | if ready { READ_DONE } else { 0 }
            }
            _ if offset == EERD.offset => {
                if trick.is(Fault::EepromNeverReady) {
                    self.read & !DONE
                } else {
                    self.read
                }
            }
            _ if offset == EEWR.offset => self.written,
            _ => 0,
        }
    }

    pub(super) fn store(&mut self, offset: u32, value: u32) {
        match offset {
            _ if offset == EEC.offset => {
                self.requested = value & (REQUEST | PINS) | if value & UPDATE == 0 { 0 } else { UPDATE_DONE };
            }
            _ if offset == EERD.offset && value & START != 0 => {
                let word = self.words.get(address(value)).copied().unwrap_or(0xffff);
                self.read = u32::from(word) << 16 | value & 0xfffc | DONE;
            }
            // The X540 and later write words without the pins.
            _ if offset == EEWR.offset && value & START != 0 && self.kind.is_copper() => {
                self.write(address(value), u16::try_from(value >> 16).unwrap_or(0));
                self.written = value & !START | DONE;
            }
            _ => {}
        }
    }

    /// Writes a word.
    pub(super) fn write(&mut self, at: usize, value: u16) {
        if let Some(word) = self.words.get_mut(at) {
            *word = value;
        }
    }

    /// Words from `at` on, for the host interface of later chips.
    pub(super) fn words(&self, at: usize, count: usize) -> impl Iterator<Item = u16> {
        (at..at.saturating_add(count)).map(|place| self.words.get(place).copied().unwrap_or(0xffff))
    }
}

fn address(value: u32) -> usize {
    (value >> 2 & 0x3fff) as usize
}

/// An image under construction: sections are put one behind the other.
struct Image {
    words: Box<[u16]>,
    end: usize,
}

impl Image {
    fn set(&mut self, at: usize, value: u16) {
        if let Some(word) = self.words.get_mut(at) {
            *word = value;
        }
    }

    /// Puts `words` behind what is there, and its address at `pointer`.
    fn section(&mut self, pointer: usize, words: &[u16]) {
        self.set(pointer, u16::try_from(self.end).unwrap_or(0));
        for word in words {
            self.set(self.end, *word);
            self.end += 1;
        }
    }
}

fn image(kind: Kind, mac: [u8; 6]) -> Box<[u16]> {
    let mut image = Image { words: vec![0xffff; WORDS].into_boxed_slice(), end: 0x80 };
    for at in 0..0x40 {
        image.set(at, 0);
    }
    let [a, b, c, d, e, f] = mac;
    let address = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), u16::from_le_bytes([e, f])];
    // Control words, and what the port's MAC and core load: sections begin with their length (6.3).
    image.set(0x00, 0x0040);
    image.section(0x06, &[1, 0x0000]);
    image.section(0x07, &[2, 0x0000, kind.device()]);
    image.section(0x09, &[6, address[0], address[1], address[2], 0x0000, 0x0000, 0x0000]);
    image.section(0x0b, &[2, 0x0000, 0x0000]);
    // Firmware: its own pointers; the version of its pass-through patch is at word 7 of what word 4 points to.
    image.section(0x0f, &[0xffff; 8]);
    let firmware = image.end - 8;
    image.section(firmware + 4, &[8, 0, 0, 0, 0, 0, 0, 0x0009]);
    // Product number: a string behind a marker (6.5).
    image.set(0x15, 0xfafa);
    image.section(0x16, &[5, 0x4d49, 0x5241, 0x4348, 0x2d31]);
    // No storage addresses.
    image.set(0x27, 0xffff);
    image.set(0x28, 0xffff);
    image.set(0x29, 0x2083);
    image.set(0x2d, 0x0001);
    image.set(0x2e, 0x8000);
    image.set(0x2f, 0xffff);
    image.set(0x37, 0xffff);
    if kind == Kind::X520 {
        optics(&mut image);
    }
    let sum = sum(kind, &image.words);
    image.set(CHECKSUM, SUM.wrapping_sub(sum));
    image.words
}

/// What to write to CORECTL for each type of module: cables (3, 4), optics (5, 6), active cables (7, 8), 1 Gb/s (9 to 12) (6.3.15).
fn optics(image: &mut Image) {
    let types = 3..=12_u16;
    let list = image.end;
    let mut words = vec![0];
    words.extend(types.flat_map(|kind| [kind, 0]));
    words.push(0xffff);
    image.section(0x2b, &words);
    for pair in 0..10 {
        image.section(list + 2 + 2 * pair, &[2, 0x0001, 0x0003, 0xffff]);
    }
}

/// Adds up what the checksum covers: the first words, and the sections that words 3 to 14 point to (6.2). The X540 and later leave out the
/// PHY's and the option ROM's; on the X550 the first words are two more, and three sections have a fixed length.
fn sum(kind: Kind, words: &[u16]) -> u16 {
    let get = |at: usize| words.get(at).copied().unwrap_or(0);
    let last = if kind == Kind::X550 { 0x42 } else { CHECKSUM };
    let mut sum = (0..last).filter(|at| *at != CHECKSUM).fold(0_u16, |sum, at| sum.wrapping_add(get(at)));
    for pointer in 3..0x0f {
        if kind.is_copper() && (pointer == 4 || pointer == 5) {
            continue;
        }
        let start = usize::from(get(pointer));
        if start == 0 || start >= words.len() {
            continue;
        }
        let covered = match (kind, pointer) {
            (Kind::X550, 6) => start..start + 0x24,
            (Kind::X550, 7 | 8) => start..start + 8,
            _ => start + 1..start + 1 + usize::from(get(start)),
        };
        if covered.end <= words.len() {
            sum = covered.fold(sum, |sum, at| sum.wrapping_add(get(at)));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_sections_add_up_to_the_checksum() {
        for kind in [Kind::X520, Kind::X540, Kind::X550] {
            let words = image(kind, [2, 3, 4, 5, 6, 7]);
            let all = sum(kind, &words).wrapping_add(words[CHECKSUM]);
            assert_eq!(all, SUM);
        }
    }

    #[test]
    fn the_list_of_optics_leads_to_values_for_every_type_of_module() {
        let words = image(Kind::X520, [0; 6]);
        let at = |place: u16| words[usize::from(place)];
        let mut entry = at(0x2b) + 1;
        let mut types = Vec::new();
        while at(entry) != 0xffff {
            types.push(at(entry));
            let values = at(entry + 1);
            assert!(values != 0 && values != 0xffff);
            assert_eq!(at(values + 3), 0xffff);
            entry += 2;
        }
        assert_eq!(types, (3..=12).collect::<Vec<_>>());
    }
}
