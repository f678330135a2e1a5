//! What halts a channel (CHANERR).

use core::fmt;

use crate::copy_engine::CopyFailure;

bitflags::bitflags! {
    /// Errors of a channel, as CHANERR has them. Prints as their names.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct Errors: u32 {
        /// The source address of a copy cannot be.
        const SOURCE_ADDRESS = 1 << 0;
        /// The target address of a copy cannot be.
        const TARGET_ADDRESS = 1 << 1;
        /// The address of the next descriptor cannot be.
        const NEXT_ADDRESS = 1 << 2;
        /// A descriptor could not be read or is not aligned.
        const DESCRIPTOR = 1 << 3;
        /// The address of the chain cannot be.
        const CHAIN_ADDRESS = 1 << 4;
        /// A command that is none.
        const COMMAND = 1 << 5;
        /// The chipset found damaged data.
        const CHIPSET_INTEGRITY = 1 << 6;
        /// The engine found damaged data.
        const ENGINE_INTEGRITY = 1 << 7;
        /// Reading the source failed.
        const READ = 1 << 8;
        /// Writing the target failed.
        const WRITE = 1 << 9;
        /// A descriptor's control field cannot be.
        const CONTROL = 1 << 10;
        /// A descriptor's length cannot be.
        const LENGTH = 1 << 11;
        /// The address for completions cannot be.
        const COMPLETION_ADDRESS = 1 << 12;
        /// Interrupts are asked for and not configured.
        const INTERRUPT = 1 << 13;
        /// Something that does no harm.
        const SOFT = 1 << 14;
        /// An error that belongs to no channel.
        const UNAFFILIATED = 1 << 15;
        /// P parity or CRC.
        const PARITY_P = 1 << 16;
        /// Q parity.
        const PARITY_Q = 1 << 17;
        /// Fewer descriptors than were announced.
        const COUNT = 1 << 18;
        /// What no version defines for copies.
        const _ = !0;
    }
}

impl Errors {
    /// Those that are about one descriptor: the one that was not done.
    const OF_ONE: Self = Self::SOURCE_ADDRESS
        .union(Self::TARGET_ADDRESS)
        .union(Self::DESCRIPTOR)
        .union(Self::CHIPSET_INTEGRITY)
        .union(Self::ENGINE_INTEGRITY)
        .union(Self::READ)
        .union(Self::WRITE)
        .union(Self::CONTROL)
        .union(Self::LENGTH);

    /// One copy is to blame, and the channel is not.
    pub(super) fn blames_one_copy(self) -> bool {
        self.intersects(Self::OF_ONE)
    }

    /// What they mean for the copy that was not done.
    pub(super) fn failure(self) -> CopyFailure {
        let meanings = [
            (Self::SOURCE_ADDRESS.union(Self::READ), CopyFailure::Source),
            (Self::TARGET_ADDRESS.union(Self::WRITE), CopyFailure::Target),
            (Self::CHIPSET_INTEGRITY.union(Self::ENGINE_INTEGRITY), CopyFailure::Integrity),
            (Self::DESCRIPTOR.union(Self::CONTROL).union(Self::LENGTH), CopyFailure::Refused),
        ];
        let meaning = meanings.into_iter().find(|(errors, _)| self.intersects(*errors));
        meaning.map_or(CopyFailure::Unproven, |(_, failure)| failure)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("no error");
        }
        let mut separator = "";
        for (name, _) in self.iter_names() {
            write!(f, "{separator}")?;
            separator = ", ";
            for (part, word) in name.split('_').enumerate() {
                f.write_str(if part == 0 { "" } else { " " })?;
                word.chars().try_for_each(|letter| write!(f, "{}", letter.to_ascii_lowercase()))?;
            }
        }
        let unknown = self.bits() >> 19 << 19;
        if unknown != 0 {
            write!(f, "{separator}reserved bits {unknown:#x}")?;
        }
        f.write_str(" (CHANERR)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn errors_have_names_and_meanings() {
        assert_eq!(Errors::empty().to_string(), "no error");
        assert_eq!((Errors::READ | Errors::TARGET_ADDRESS).to_string(), "target address, read (CHANERR)");
        assert_eq!(Errors::from_bits_retain(1 << 31 | 1 << 14).to_string(), "soft, reserved bits 0x80000000 (CHANERR)");
        assert_eq!(Errors::WRITE.failure(), CopyFailure::Target);
        assert_eq!(Errors::from_bits_retain(1 << 31).failure(), CopyFailure::Unproven);
        assert!(Errors::LENGTH.blames_one_copy() && !Errors::COMMAND.blames_one_copy());
    }
}
