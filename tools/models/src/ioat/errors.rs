//! CHANERR: what can go wrong on a channel.

bitflags::bitflags! {
    /// Bits of CHANERR, CHANERRMSK and their twins in configuration space.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct Errors: u32 {
        /// A descriptor's source address is illegal.
        const SOURCE_ADDRESS = 1 << 0;
        /// A descriptor's destination address is illegal.
        const TARGET_ADDRESS = 1 << 1;
        /// A descriptor's pointer to the next one is illegal or not aligned to 64 bytes.
        const NEXT_ADDRESS = 1 << 2;
        /// A descriptor is wrong in a way that has no bit of its own.
        const DESCRIPTOR = 1 << 3;
        /// CHAINADDR is illegal or not aligned to 64 bytes.
        const CHAIN_ADDRESS = 1 << 4;
        /// A value written to CHANCMD is no command.
        const COMMAND = 1 << 5;
        /// The chipset found bytes whose parity is wrong.
        const CHIPSET_INTEGRITY = 1 << 6;
        /// The engine found bytes whose parity is wrong.
        const ENGINE_INTEGRITY = 1 << 7;
        /// Memory could not be read: data or a descriptor.
        const READ = 1 << 8;
        /// Memory could not be written.
        const WRITE = 1 << 9;
        /// A descriptor's control field has an unknown operation or reserved bits.
        const CONTROL = 1 << 10;
        /// A descriptor's length is 0 or above XFERCAP.
        const LENGTH = 1 << 11;
        /// CHANCMP is illegal, or was never written.
        const COMPLETION_ADDRESS = 1 << 12;
        /// Interrupts are not configured as they have to be.
        const INTERRUPT = 1 << 13;
        /// Something was corrected: nothing is lost and the channel goes on.
        const SOFT = 1 << 14;
        /// An error that belongs to no channel.
        const UNAFFILIATED = 1 << 15;
        /// A check of P parity or of a CRC failed.
        const PARITY_P = 1 << 16;
        /// A check of Q parity failed.
        const PARITY_Q = 1 << 17;
        /// A descriptor needs an extension that DMACOUNT does not cover.
        const COUNT = 1 << 18;
        /// Not defined.
        const RESERVED = 1 << 30;
    }
}

impl Errors {
    /// The bits that a write of ones clears.
    pub(super) const ALL: u32 = 0x4007_ffff;
}
