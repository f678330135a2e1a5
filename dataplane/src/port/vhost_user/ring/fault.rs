//! How a driver can break a ring.

use crate::guest::{Access, BadAddress};

/// A driver broke a rule of its ring. The queue stops; the guest's driver has to reset the device to get it going again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RingFault {
    /// More is available than the ring can hold.
    #[error("the driver's available index jumped from {from} to {to} in a ring of {size}")]
    IndexJump {
        /// Next index that was expected.
        from: u16,
        /// Index found.
        to: u16,
        /// Descriptors in the ring.
        size: u16,
    },
    /// A descriptor index beyond the ring or its indirect table.
    #[error("there is no descriptor {index} in a table of {size}")]
    NoSuchDescriptor {
        /// Index found.
        index: u32,
        /// Descriptors in the table.
        size: u32,
    },
    /// A chain that has more descriptors than the ring, which a cycle has, too.
    #[error("the chain of descriptor {head} is longer than the ring of {size}, or a cycle")]
    ChainTooLong {
        /// First descriptor, or identifier, of the chain.
        head: u16,
        /// Descriptors in the ring.
        size: u16,
    },
    /// A chain that is available in part only.
    #[error("the chain at place {place} of the ring is available in part only")]
    ChainCutOff {
        /// Place of the first descriptor.
        place: u16,
    },
    /// The same chain is available twice.
    #[error("the driver made descriptor {head} available while it was in use")]
    InUse {
        /// First descriptor, or identifier, of the chain.
        head: u16,
    },
    /// An indirect table within an indirect table.
    #[error("an indirect table of descriptor {head} has an indirect table in it")]
    NestedTable {
        /// First descriptor, or identifier, of the chain.
        head: u16,
    },
    /// An indirect table whose length is no multiple of a descriptor's, or zero.
    #[error("an indirect table of {len} bytes, which is no positive multiple of 16")]
    TableLength {
        /// Its length in bytes.
        len: u32,
    },
    /// A descriptor that points to an indirect table and goes on or is writable; or indirect tables were not negotiated.
    #[error("descriptor {head} has flags {flags:#x}, which are not allowed")]
    BadFlags {
        /// First descriptor, or identifier, of the chain.
        head: u16,
        /// Flags found.
        flags: u16,
    },
    /// A buffer to read behind one to write to, or of the wrong kind for the queue.
    #[error("the chain of descriptor {head} has buffers in the wrong direction")]
    Direction {
        /// First descriptor, or identifier, of the chain.
        head: u16,
    },
    /// A buffer to write to has no room for the header of a frame.
    #[error("a receive buffer of {len} bytes cannot hold the header of a frame")]
    RuntBuffer {
        /// Its length in bytes.
        len: u32,
    },
    /// A buffer, table or ring that does not lie in the guest's memory.
    #[error("{len} bytes at {address:#x} are not memory of the guest")]
    BadAddress {
        /// Address as the driver gave it.
        address: u64,
        /// Length in bytes.
        len: u32,
    },
    /// The size of a ring cannot be.
    #[error("a ring cannot have {size} descriptors")]
    BadSize {
        /// Size found.
        size: u16,
    },
    /// The state from before a crash cannot be.
    #[error("the in-flight region contradicts the ring: {what}")]
    BadInflight {
        /// What does not fit.
        what: &'static str,
    },
    /// No fault of the driver: an I/O virtual address has no translation yet, and the frontend is to be asked for it. The
    /// queue waits for new memory.
    #[error("the I/O virtual address {address:#x} has no translation yet")]
    Miss {
        /// I/O virtual address.
        address: u64,
        /// What is to be done there.
        access: Access,
    },
    /// Memory of the guest was taken away while it was in use.
    #[error("memory of the guest was taken away while it was in use")]
    MemoryLost,
}

impl RingFault {
    /// What `reason`, found at the `len` bytes at `address`, means for the ring.
    #[cold]
    pub(in super::super) fn address(reason: BadAddress, address: u64, len: u32) -> Self {
        match reason {
            BadAddress::Miss { iova, access } => Self::Miss { address: iova.0, access },
            _ => Self::BadAddress { address, len },
        }
    }
}
