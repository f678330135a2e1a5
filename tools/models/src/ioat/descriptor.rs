//! Descriptors: 64 bytes each, aligned to 64 bytes, chained by address.
//!
//! | bytes | copy | fill |
//! |---|---|---|
//! | 0..4 | length | length |
//! | 4..8 | control | control |
//! | 8..16 | source | 8 bytes of pattern |
//! | 16..24 | destination | destination |
//! | 24..32 | next descriptor | next descriptor |
//! | 32..40 | second page of the source | reserved |
//! | 40..48 | second page of the destination | second page of the destination |

use super::errors::Errors;

/// Bytes of a descriptor, and its alignment.
pub(super) const BYTES: u64 = 64;
/// Addresses end here.
const ADDRESS_END: u64 = 1 << 52;
/// Where a page breaks.
const PAGE: u64 = 4096;

bitflags::bitflags! {
    /// The lower bits of the control field.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Control: u32 {
        /// Interrupt when done.
        const INTERRUPT = 1 << 0;
        /// The source need not be snooped.
        const SOURCE_NO_SNOOP = 1 << 1;
        /// The destination need not be snooped.
        const TARGET_NO_SNOOP = 1 << 2;
        /// Write the completion status when done.
        const COMPLETION = 1 << 3;
        /// Nothing later begins before this is done.
        const FENCE = 1 << 4;
        /// Moves nothing.
        const NULL = 1 << 5;
        /// The source goes on at its second page.
        const SOURCE_BREAK = 1 << 6;
        /// The destination goes on at its second page.
        const TARGET_BREAK = 1 << 7;
        /// Belongs together with the next one.
        const BUNDLE = 1 << 8;
        /// A hint where the destination is cached.
        const TARGET_CACHE = 1 << 9;
        /// A hint without effect.
        const HINT = 1 << 10;
    }
}

const COPY: u32 = 0x00;
const FILL: u32 = 0x01;

/// What is moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Copy,
    Fill([u8; 8]),
    Null,
}

/// A descriptor as it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptor {
    pub(super) bytes: u32,
    pub(super) control: Control,
    pub(super) operation: Operation,
    source: u64,
    target: u64,
    pub(super) next: u64,
    second_source: u64,
    second_target: u64,
}

/// Part of a descriptor's work that is contiguous on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub(super) source: u64,
    pub(super) target: u64,
    pub(super) bytes: u32,
}

impl Descriptor {
    /// What the bytes say. The pointer to the next one is there even when the rest is wrong.
    pub(super) fn decode(words: &[u64; 8], longest: u32) -> Result<Self, Errors> {
        let [head, source, target, next, second_source, second_target, ..] = *words;
        let (bytes, control) = (low(head), low(head >> 32));
        let (operation, bits) = (control >> 24, Control::from_bits(control & 0x00ff_ffff));
        let control = bits.ok_or(Errors::CONTROL)?;
        let operation = match operation {
            COPY if control.contains(Control::NULL) => Operation::Null,
            COPY => Operation::Copy,
            FILL if !control.intersects(Control::NULL | Control::SOURCE_BREAK) => Operation::Fill(source.to_le_bytes()),
            _ => return Err(Errors::CONTROL),
        };
        if bytes == 0 || bytes > longest {
            return Err(Errors::LENGTH);
        }
        let descriptor = Self { bytes, control, operation, source, target, next, second_source, second_target };
        descriptor.check_addresses()?;
        Ok(descriptor)
    }

    fn check_addresses(&self) -> Result<(), Errors> {
        let fits = |address: u64| address.checked_add(u64::from(self.bytes)).is_some_and(|end| end <= ADDRESS_END);
        if self.operation == Operation::Null {
            return Ok(());
        }
        let source = fits(self.source) && (!self.control.contains(Control::SOURCE_BREAK) || fits(self.second_source));
        if self.operation == Operation::Copy && !source {
            return Err(Errors::SOURCE_ADDRESS);
        }
        let target = fits(self.target) && (!self.control.contains(Control::TARGET_BREAK) || fits(self.second_target));
        if target { Ok(()) } else { Err(Errors::TARGET_ADDRESS) }
    }

    /// The part that begins after `moved` bytes.
    pub(super) fn stretch(&self, moved: u32) -> Stretch {
        let rest = self.bytes.saturating_sub(moved);
        let (source, most) = side(self.source, self.second_source, self.control, Control::SOURCE_BREAK, moved);
        let (target, least) = side(self.target, self.second_target, self.control, Control::TARGET_BREAK, moved);
        Stretch { source, target, bytes: rest.min(most).min(least) }
    }
}

/// Where one side goes on after `moved` bytes, and for how many at most.
fn side(first: u64, second: u64, control: Control, breaks: Control, moved: u32) -> (u64, u32) {
    let on_first = low(PAGE - first % PAGE);
    // A pattern is no address, and only those cannot wrap.
    let on = |page: u64, moved: u32| page.wrapping_add(moved.into());
    if !control.contains(breaks) {
        (on(first, moved), u32::MAX)
    } else if moved < on_first {
        (on(first, moved), on_first - moved)
    } else {
        (on(second, moved - on_first), u32::MAX)
    }
}

/// An address that no descriptor can have.
pub(super) fn is_illegal(address: u64) -> bool {
    !address.is_multiple_of(BYTES) || address >= ADDRESS_END
}

fn low(value: u64) -> u32 {
    drivers::bus::Width::narrow(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: u32 = 1 << 20;

    fn error(words: [u64; 8]) -> Option<Errors> {
        Descriptor::decode(&words, LONGEST).err()
    }

    #[test]
    fn what_is_wrong_has_its_bit() {
        let copy = |bytes: u64, control: u64| [control << 32 | bytes, 0x1000, 0x2000, 0, 0, 0, 7, 7];
        assert_eq!(error(copy(1, 0x7df)), None);
        for (words, bits) in [
            (copy(0, 0), Errors::LENGTH),
            (copy(u64::from(LONGEST) + 1, 0), Errors::LENGTH),
            (copy(1, 1 << 11), Errors::CONTROL),
            (copy(1, 0x8700_0000), Errors::CONTROL),
            (copy(1, 0x0100_0020), Errors::CONTROL),
            ([1, 1 << 52, 0, 0, 0, 0, 0, 0], Errors::SOURCE_ADDRESS),
            ([2, 0, (1 << 52) - 1, 0, 0, 0, 0, 0], Errors::TARGET_ADDRESS),
            ([1 | 0x80 << 32, 0, 0, 0, 0, u64::MAX, 0, 0], Errors::TARGET_ADDRESS),
        ] {
            assert_eq!(error(words), Some(bits), "{words:x?}");
        }
        assert_eq!(error([1 | 0x20 << 32, u64::MAX, u64::MAX, 0, 0, 0, 0, 0]), None, "null has no addresses");
        assert_eq!(error([1 | 1 << 56, u64::MAX, 0, 0, 0, 0, 0, 0]), None, "a pattern is no address");
    }

    #[test]
    fn broken_pages_go_on_elsewhere() {
        let words = [100 | 0xc0 << 32, 0x1000 - 10, 0x3000 - 30, 0, 0x8000, 0x9000, 0, 0];
        let Ok(descriptor) = Descriptor::decode(&words, LONGEST) else { unreachable!("it is right") };
        let at = |moved| descriptor.stretch(moved);
        assert_eq!(at(0), Stretch { source: 0x0ff6, target: 0x2fe2, bytes: 10 });
        assert_eq!(at(10), Stretch { source: 0x8000, target: 0x2fec, bytes: 20 });
        assert_eq!(at(30), Stretch { source: 0x8014, target: 0x9000, bytes: 70 });
    }
}
