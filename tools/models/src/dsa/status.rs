//! What becomes of a descriptor: the status in its completion record, or in SWERR when that cannot be written.

use std::fmt;

/// Status of an operation, without the bit that says that a page fault was one of a write.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0x01);
    /// Done, and the result is not the expected one.
    pub const FALSE_PREDICATE: Self = Self(0x02);
    /// A page fault, of which the record has the address and the bytes that were done before.
    pub const PAGE_FAULT: Self = Self(0x03);
    /// The same after the answer to a page request was that there is no page.
    pub const PAGE_RESPONSE: Self = Self(0x04);
    /// A descriptor of the batch did not succeed.
    pub const BATCH: Self = Self(0x05);
    /// A page fault when the descriptors of the batch were fetched.
    pub const BATCH_PAGE_FAULT: Self = Self(0x06);
    /// No operation of this device or this queue.
    pub const OPERATION: Self = Self(0x10);
    /// A flag that is not allowed here.
    pub const FLAGS: Self = Self(0x11);
    /// A reserved field is not zero.
    pub const RESERVED: Self = Self(0x12);
    /// Transfer size out of range.
    pub const SIZE: Self = Self(0x13);
    /// Number of descriptors in the batch out of range.
    pub const COUNT: Self = Self(0x14);
    /// Delta record size out of range.
    pub const DELTA_SIZE: Self = Self(0x15);
    /// Buffers overlap.
    pub const OVERLAP: Self = Self(0x16);
    /// The lowest 12 bits of the two destinations differ.
    pub const DUALCAST: Self = Self(0x17);
    /// The list of descriptors is not aligned.
    pub const LIST_ALIGNMENT: Self = Self(0x18);
    /// No such interrupt handle.
    pub const INTERRUPT_HANDLE: Self = Self(0x19);
    /// A page fault when the completion record was written.
    pub const RECORD_PAGE_FAULT: Self = Self(0x1a);
    /// The completion record is not aligned.
    pub const RECORD_ALIGNMENT: Self = Self(0x1b);
    /// An address is not aligned as the operation needs it.
    pub const ALIGNMENT: Self = Self(0x1c);
    /// Privileged, and must not be.
    pub const PRIVILEGE: Self = Self(0x1d);
    /// The traffic class is not configured.
    pub const TRAFFIC_CLASS: Self = Self(0x1e);
    /// A page fault when an address was read back.
    pub const READBACK_PAGE_FAULT: Self = Self(0x1f);
    /// Hardware error.
    pub const HARDWARE: Self = Self(0x20);
    /// Hardware error while an address was read back.
    pub const HARDWARE_READBACK: Self = Self(0x21);
    /// An address could not be translated, and not for want of a page.
    pub const TRANSLATION: Self = Self(0x22);
    /// In SWERR alone: the configuration of the PCI function changed under a running device.
    pub const PCI_CONFIGURATION: Self = Self(0x51);
    /// In SWERR alone: a command while another one was active.
    pub const COMMAND: Self = Self(0x52);
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x}", self.0)
    }
}
