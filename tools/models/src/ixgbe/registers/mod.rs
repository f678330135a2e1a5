//! The register file of the 82599: what there is, what it holds after a reset, and what an access does.
//!
//! Each register is one line of a table, with its name and section of the 82599 10 GbE Controller Datasheet (Intel 331520). Registers that only
//! store bits live here; those that do something are named as somebody's [`Part`] in the table, and counters are kept in
//! [`super::statistics`]. Queue registers lie on pages that driver and card share: see [`is_queue`].

mod general;
mod link;
mod receive;
mod statistics;
mod transmit;

pub(super) use general::*;
pub(super) use link::*;
pub(super) use receive::*;
pub(super) use statistics::*;
pub(super) use transmit::*;

/// Bytes of the register window.
pub(super) const WINDOW_BYTES: u32 = 0x2_0000;
const WORDS: usize = WINDOW_BYTES as usize / 4;

/// Who answers for a register that does more than to store bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Control,
    Nvm,
    Semaphore,
    Mdio,
    I2c,
    Link,
    Interrupts,
    Clock,
    Security,
    Director,
    Management,
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    /// Bits that the driver can write; the others keep their value.
    Plain(u32),
    /// Can only be read.
    Fixed,
    /// Reads as zero; a write has no effect that is modelled.
    Silent,
    /// A counter: reading clears it.
    Counter,
    /// The low 32 bits of a counter of 36 bits.
    Octets,
    /// The high 4 bits of the counter whose low bits are the word before.
    OctetsHigh,
    /// Handled elsewhere.
    Part(Part),
}

/// One register, or an array of alike ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Register {
    pub(super) name: &'static str,
    pub(super) offset: u32,
    pub(super) count: u32,
    pub(super) stride: u32,
    pub(super) access: Access,
    /// Value after a reset.
    pub(super) reset: u32,
    /// Value of the first of an array, where it differs.
    first: Option<u32>,
    /// Survives a software reset: memories that the datasheet leaves to the driver to initialise, and counters.
    pub(super) kept: bool,
}

const fn at(offset: u32) -> Register {
    let access = Access::Plain(u32::MAX);
    Register { name: "", offset, count: 1, stride: 4, access, reset: 0, first: None, kept: false }
}

impl Register {
    const fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    const fn times(self, count: u32, stride: u32) -> Self {
        Self { count, stride, ..self }
    }

    const fn reset(self, value: u32) -> Self {
        Self { reset: value, ..self }
    }

    const fn first(self, value: u32) -> Self {
        Self { first: Some(value), ..self }
    }

    const fn bits(self, writable: u32) -> Self {
        Self { access: Access::Plain(writable), ..self }
    }

    const fn fixed(self) -> Self {
        Self { access: Access::Fixed, ..self }
    }

    const fn silent(self) -> Self {
        Self { access: Access::Silent, ..self }
    }

    const fn counter(self) -> Self {
        Self { access: Access::Counter, kept: true, ..self }
    }

    const fn octets(self) -> Self {
        Self { access: Access::Octets, kept: true, ..self }
    }

    const fn octets_high(self) -> Self {
        Self { access: Access::OctetsHigh, kept: true, ..self }
    }

    const fn of(self, part: Part) -> Self {
        Self { access: Access::Part(part), ..self }
    }

    const fn kept(self) -> Self {
        Self { kept: true, ..self }
    }

    /// Address of element `index`.
    pub(super) const fn at(&self, index: u32) -> u32 {
        self.offset + index * self.stride
    }

    /// Which element of this array is at `offset`, if any.
    pub(super) const fn index(&self, offset: u32) -> Option<u32> {
        let distance = offset.wrapping_sub(self.offset);
        if distance.is_multiple_of(self.stride) && distance / self.stride < self.count {
            Some(distance / self.stride)
        } else {
            None
        }
    }

    /// What element `index` holds after a reset.
    pub(super) fn reset_of(&self, index: u32) -> u32 {
        self.first.filter(|_| index == 0).unwrap_or(self.reset)
    }
}

/// A table of registers: a constant for each, and the list of all.
macro_rules! table {
    ($($(#[doc = $doc:literal])+ $name:ident = $register:expr;)*) => {
        $($(#[doc = $doc])+ pub(in crate::ixgbe) const $name: super::Register = $register.named(stringify!($name));)*
        /// All registers of this table.
        pub(super) const TABLE: &[super::Register] = &[$($name),*];
    };
}
use table;

/// Every register of the table.
pub(super) fn all() -> impl Iterator<Item = &'static Register> {
    [general::TABLE, link::TABLE, receive::TABLE, statistics::TABLE, transmit::TABLE].into_iter().flatten()
}

/// A second address of the same registers, kept from the 82598 (8.2.2): `from` names what is also at `to`.
struct Alias {
    from: u32,
    from_stride: u32,
    count: u32,
    to: u32,
    to_stride: u32,
}

const fn alias(from: u32, from_stride: u32, count: u32, to: u32, to_stride: u32) -> Alias {
    Alias { from, from_stride, count, to, to_stride }
}

const ALIASES: &[Alias] = &[
    // SRRCTL and DCA_RXCTRL of the first 16 queues.
    alias(0x2100, 4, 16, 0x1014, 0x40),
    alias(0x2200, 4, 16, 0x100c, 0x40),
    // RAL and RAH, PSRTYPE, MRQC, RETA, RSSRK.
    alias(0x5400, 8, 16, 0xa200, 8),
    alias(0x5404, 8, 16, 0xa204, 8),
    alias(0x5480, 4, 16, 0xea00, 4),
    alias(0x5818, 4, 1, 0xec80, 4),
    alias(0x5c00, 4, 32, 0xeb00, 4),
    alias(0x5c80, 4, 10, 0xeb80, 4),
    // QPTC.
    alias(0x6030, 0x40, 16, 0x8680, 4),
];

/// The address under which the table has what is at `offset`.
pub(super) fn canonical(offset: u32) -> u32 {
    ALIASES
        .iter()
        .find_map(|alias| {
            let distance = offset.wrapping_sub(alias.from);
            let index = distance / alias.from_stride;
            (distance.is_multiple_of(alias.from_stride) && index < alias.count)
                .then(|| alias.to + index * alias.to_stride)
        })
        .unwrap_or(offset)
}

/// The pages of queue registers: receive queues 0-63 and 64-127 (8.2.3.8), transmit queues (8.2.3.9). They can be shared memory.
pub(super) const QUEUE_PAGES: [std::ops::Range<u32>; 3] = [0x1000..0x2000, 0x6000..0x8000, 0xd000..0xe000];

/// `offset` is on a page of queue registers.
pub(super) fn is_queue(offset: u32) -> bool {
    QUEUE_PAGES.iter().any(|page| page.contains(&offset))
}

/// What the driver can write of the queue register at `offset`: base and length of a ring are multiples of 128, head and tail have 16 bits
/// (8.2.3.8, 8.2.3.9). Only the card can hold drivers to this, so on shared pages nobody does.
pub(super) const fn queue_bits(offset: u32) -> u32 {
    match offset % 0x40 {
        0x00 => 0xffff_ff80,
        0x08 => 0x000f_ff80,
        0x10 | 0x18 => 0xffff,
        _ => u32::MAX,
    }
}

/// The registers that store what was written.
#[derive(Debug)]
pub(super) struct Registers {
    words: Box<[u32]>,
    /// For each word, its place in `table` plus one; 0 for reserved addresses.
    places: Box<[u16]>,
    table: Box<[&'static Register]>,
}

impl Registers {
    /// The file after power on.
    pub(super) fn new() -> Self {
        let table: Box<[_]> = all().collect();
        let mut places = vec![0; WORDS].into_boxed_slice();
        for (place, register) in (1..).zip(&table) {
            for index in 0..register.count {
                if let Some(slot) = places.get_mut(word(register.at(index))) {
                    *slot = place;
                }
            }
        }
        let mut registers = Self { words: vec![0; WORDS].into_boxed_slice(), places, table };
        registers.reset(true);
        registers
    }

    /// Back to the values after a reset; `power` also resets what survives a software reset.
    pub(super) fn reset(&mut self, power: bool) {
        for register in self.table.iter().filter(|register| power || !register.kept) {
            for index in 0..register.count {
                if let Some(slot) = self.words.get_mut(word(register.at(index))) {
                    *slot = register.reset_of(index);
                }
            }
        }
    }

    /// What is at `offset`; `None` for reserved addresses.
    pub(super) fn find(&self, offset: u32) -> Option<&'static Register> {
        let place = *self.places.get(word(offset))?;
        self.table.get(usize::from(place).checked_sub(1)?).copied()
    }

    /// The word at `offset`, without side effects.
    #[inline]
    pub(super) fn get(&self, offset: u32) -> u32 {
        self.words.get(word(offset)).copied().unwrap_or(0)
    }

    /// Sets the word at `offset`, whatever the driver may write there.
    pub(super) fn set(&mut self, offset: u32, value: u32) {
        if let Some(slot) = self.words.get_mut(word(offset)) {
            *slot = value;
        }
    }

    /// Sets or clears `bits` of the word at `offset`.
    pub(super) fn assign(&mut self, offset: u32, bits: u32, on: bool) {
        let value = self.get(offset) & !bits | if on { bits } else { 0 };
        self.set(offset, value);
    }
}

const fn word(offset: u32) -> usize {
    offset as usize / 4
}
