//! Descriptors: 64 bytes each, written to a portal, or in a list in memory that a batch names.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | process address space (20 bits), privilege (bit 31) |
//! | 4..8 | flags (24 bits), operation (8 bits) |
//! | 8..16 | completion record |
//! | 16..24 | source, pattern, or list of descriptors |
//! | 24..32 | destination, second source, or pattern to compare with |
//! | 32..36 | transfer size, or number of descriptors |
//! | 36..38 | interrupt handle |
//! | 40..64 | what only some operations have: second destination, expected result |

use super::status::Status;

/// Bytes of a descriptor, and the alignment of a list of them.
pub(super) const BYTES: u64 = 64;
/// Bytes of a completion record, and its alignment.
pub(super) const RECORD: u64 = 32;

bitflags::bitflags! {
    /// Flags of a descriptor.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(super) struct Flags: u32 {
        /// All before it in the batch is done first.
        const FENCE = 1 << 0;
        /// Wait for pages that are not there.
        const BLOCK_ON_FAULT = 1 << 1;
        /// There is an address for a completion record.
        const RECORD_VALID = 1 << 2;
        /// Write the record also when all is well.
        const RECORD = 1 << 3;
        /// Interrupt when done.
        const INTERRUPT = 1 << 4;
        /// The result is to be the expected one.
        const CHECK_RESULT = 1 << 7;
        /// Where the destination is to be cached: a hint.
        const CACHE = 1 << 8;
        /// Traffic classes of the addresses: hints.
        const CLASSES = 0x7 << 9;
        /// Traffic class of the record: a hint.
        const RECORD_CLASS = 1 << 12;
        /// Writes are not reordered.
        const STRICT = 1 << 13;
    }
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Operation {
    Nothing,
    Batch,
    Drain,
    Move,
    Fill,
    Compare,
    ComparePattern,
    Dualcast,
    Flush,
}

impl Operation {
    const ALL: [(u8, Self); 9] = [
        (0x00, Self::Nothing),
        (0x01, Self::Batch),
        (0x02, Self::Drain),
        (0x03, Self::Move),
        (0x04, Self::Fill),
        (0x05, Self::Compare),
        (0x06, Self::ComparePattern),
        (0x09, Self::Dualcast),
        (0x20, Self::Flush),
    ];

    /// OPCAP: one bit for each operation.
    pub(super) fn capabilities() -> u64 {
        Self::ALL.iter().fold(0, |bits, (code, _)| bits | 1 << code)
    }

    fn decode(code: u8) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == code).map(|(_, operation)| *operation)
    }

    /// It has a transfer size and addresses.
    fn moves(self) -> bool {
        !matches!(self, Self::Nothing | Self::Batch | Self::Drain)
    }

    /// Flags that it may have, whatever the queue.
    fn flags(self) -> Flags {
        let all = Flags::RECORD_VALID | Flags::RECORD | Flags::INTERRUPT | Flags::RECORD_CLASS;
        all | match self {
            Self::Nothing | Self::Drain => Flags::empty(),
            Self::Batch => Flags::CLASSES,
            Self::Compare | Self::ComparePattern => Flags::CLASSES | Flags::CHECK_RESULT,
            Self::Move | Self::Fill | Self::Dualcast | Self::Flush => Flags::CLASSES | Flags::CACHE | Flags::STRICT,
        }
    }
}

/// What a descriptor may be where it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// It is one of a batch.
    pub(super) in_batch: bool,
    /// Its queue allows to wait for pages.
    pub(super) block_on_fault: bool,
    /// Most bytes.
    pub(super) longest: u64,
    /// Most descriptors of a batch.
    pub(super) largest_batch: u32,
    /// Bit for each operation that the queue allows.
    pub(super) operations: u64,
    /// It may be privileged.
    pub(super) privileged: bool,
    /// Its interrupt handle is one.
    pub(super) handle: bool,
}

/// Why a descriptor is not carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub(super) status: Status,
    /// Flags that are wrong.
    pub(super) flags: u32,
}

/// A descriptor as it was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Descriptor(pub(super) [u64; 8]);

impl Descriptor {
    pub(super) fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut words = [0; 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.try_into().map_or(0, u64::from_le_bytes);
        }
        Self(words)
    }

    pub(super) fn pasid(&self) -> u32 {
        low(self.0[0]) & 0xf_ffff
    }

    pub(super) fn code(&self) -> u8 {
        drivers::bus::Width::narrow(self.0[0] >> 56)
    }

    pub(super) fn raw_flags(&self) -> u32 {
        low(self.0[0] >> 32) & 0xff_ffff
    }

    pub(super) fn flags(&self) -> Flags {
        Flags::from_bits_truncate(self.raw_flags())
    }

    pub(super) fn record(&self) -> u64 {
        self.0[1]
    }

    pub(super) fn source(&self) -> u64 {
        self.0[2]
    }

    pub(super) fn target(&self) -> u64 {
        self.0[3]
    }

    /// Transfer size, or number of descriptors.
    pub(super) fn size(&self) -> u32 {
        low(self.0[4])
    }

    pub(super) fn handle(&self) -> u16 {
        drivers::bus::Width::narrow(self.0[4] >> 32)
    }

    /// Second destination.
    pub(super) fn second(&self) -> u64 {
        self.0[5]
    }

    /// Expected result of a comparison.
    pub(super) fn expected(&self) -> u8 {
        drivers::bus::Width::narrow(self.0[5] & 3)
    }

    /// The record can be written, if it must be.
    pub(super) fn record_is_aligned(&self) -> bool {
        !self.flags().contains(Flags::RECORD_VALID) || self.record().is_multiple_of(RECORD)
    }

    /// What is to be done, when all is as it must be. The order of the checks is that of the status codes.
    pub(super) fn check(&self, rules: &Rules) -> Result<Operation, Refusal> {
        let refuse = |status| Err(Refusal { status, flags: 0 });
        let known = Operation::decode(self.code()).filter(|_| rules.operations >> (self.code() & 63) & 1 != 0);
        let Some(operation) = known else { return refuse(Status::OPERATION) };
        if rules.in_batch && matches!(operation, Operation::Batch | Operation::Drain) {
            return refuse(Status::OPERATION);
        }
        let wrong = self.wrong_flags(operation, rules);
        if wrong != 0 {
            return Err(Refusal { status: Status::FLAGS, flags: wrong });
        }
        if self.has_reserved(operation) {
            return refuse(Status::RESERVED);
        }
        let size = self.size();
        if operation.moves() && (size == 0 || u64::from(size) > rules.longest) {
            return refuse(Status::SIZE);
        }
        if operation == Operation::Batch && (size < 2 || size > rules.largest_batch) {
            return refuse(Status::COUNT);
        }
        if operation == Operation::Dualcast {
            if self.overlaps(self.source(), self.target())
                || self.overlaps(self.source(), self.second())
                || self.overlaps(self.target(), self.second())
            {
                return refuse(Status::OVERLAP);
            }
            if (self.target() ^ self.second()) & 0xfff != 0 {
                return refuse(Status::DUALCAST);
            }
        }
        if operation == Operation::Batch && !self.source().is_multiple_of(BYTES) {
            return refuse(Status::LIST_ALIGNMENT);
        }
        if self.flags().contains(Flags::INTERRUPT) && !rules.handle {
            return refuse(Status::INTERRUPT_HANDLE);
        }
        if self.0[0] >> 31 & 1 != 0 && !rules.privileged {
            return refuse(Status::PRIVILEGE);
        }
        Ok(operation)
    }

    fn wrong_flags(&self, operation: Operation, rules: &Rules) -> u32 {
        let mut allowed = operation.flags();
        allowed.set(Flags::FENCE, rules.in_batch);
        allowed
            .set(Flags::BLOCK_ON_FAULT, rules.block_on_fault && (operation.moves() || operation == Operation::Batch));
        let mut wrong = self.raw_flags() & !allowed.bits();
        // A record that is asked for needs an address.
        if self.flags().contains(Flags::RECORD) && !self.flags().contains(Flags::RECORD_VALID) {
            wrong |= Flags::RECORD.bits();
        }
        wrong
    }

    fn has_reserved(&self, operation: Operation) -> bool {
        let [head, _, source, target, size, second, rest @ ..] = self.0;
        let second_mask = match operation {
            Operation::Dualcast => 0,
            Operation::Compare | Operation::ComparePattern => !0xff,
            _ => u64::MAX,
        };
        let addresses = match operation {
            Operation::Nothing | Operation::Drain => source | target | u64::from(low(size)),
            Operation::Batch => target,
            Operation::Flush => source,
            _ => 0,
        };
        head & 0x7ff0_0000 != 0 || size >> 48 != 0 || second & second_mask != 0 || rest != [0; 2] || addresses != 0
    }

    /// Whether `size` bytes from both addresses have one in common.
    pub(super) fn overlaps(&self, one: u64, other: u64) -> bool {
        one.abs_diff(other) < u64::from(self.size())
    }
}

fn low(value: u64) -> u32 {
    drivers::bus::Width::narrow(value)
}
