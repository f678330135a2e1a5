//! Descriptors: 64 bytes each, in words as the device reads them. And completion records: 32 bytes each, as it writes them.

use core::sync::atomic::{AtomicU64, Ordering};

use super::status::Status;

/// A descriptor on its way to a portal.
pub(super) type Block = [u64; 8];
/// A descriptor in memory that the device reads, and never writes.
pub(super) type Descriptor = [AtomicU64; 8];
/// What the device writes when a descriptor is done.
pub(super) type CompletionRecord = [AtomicU64; 4];

/// Operations.
const NOOP: u64 = 0;
const BATCH: u64 = 1;
const MEMMOVE: u64 = 3;

/// The address of the completion record is one.
const RECORD_VALID: u64 = 1 << 2;
/// A record is written, also when all is well.
const RECORD_REQUESTED: u64 = 1 << 3;
/// An interrupt when it is done.
const INTERRUPT: u64 = 1 << 4;
/// What is written goes to the processor's cache.
const CACHE: u64 = 1 << 8;

/// What all descriptors of a queue have in common.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Style {
    /// The device can write to the processor's cache.
    pub(super) cache: bool,
    /// The handle of the interrupt, if there is one.
    pub(super) interrupt: Option<u16>,
}

fn block(operation: u64, flags: u64, record: u64, [source, target]: [u64; 2], size: u32, handle: u16) -> Block {
    let flags = flags | RECORD_VALID | RECORD_REQUESTED;
    let last = u64::from(handle) << 32 | u64::from(size);
    [operation << 56 | flags << 32, record, source, target, last, 0, 0, 0].map(u64::to_le)
}

/// A copy, with its completion record at `record`. No length is a descriptor that does nothing, and takes its turn.
#[inline(always)]
pub(super) fn copy(style: Style, record: u64, addresses: [u64; 2], length: u32, interrupts: bool) -> Block {
    let (flag, handle) = interrupt(style, interrupts);
    if length == 0 {
        return block(NOOP, flag, record, [0, 0], 0, handle);
    }
    let cache = if style.cache { CACHE } else { 0 };
    block(MEMMOVE, flag | cache, record, addresses, length, handle)
}

/// A batch of `count` descriptors at `list`.
pub(super) fn batch(style: Style, record: u64, list: u64, count: u32) -> Block {
    let (flag, handle) = interrupt(style, true);
    block(BATCH, flag, record, [list, 0], count, handle)
}

#[inline(always)]
fn interrupt(style: Style, wanted: bool) -> (u64, u16) {
    style.interrupt.filter(|_| wanted).map_or((0, 0), |handle| (INTERRUPT, handle))
}

/// Writes a descriptor into memory. Nothing is ordered here: the device looks at it only after the batch was stored to a portal.
#[inline(always)]
pub(super) fn write(descriptor: &Descriptor, block: &Block) {
    for (word, value) in descriptor.iter().zip(block) {
        word.store(*value, Ordering::Relaxed);
    }
}

/// The first word of a record: status, result, and how much was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Answer(u64);

impl Answer {
    /// Reads a record, ahead of the bytes that it is about. `None` when nothing was written there.
    #[inline(always)]
    pub(super) fn read(record: &CompletionRecord) -> Option<Self> {
        let [word, ..] = record;
        // Acquire: copied bytes are looked at only after this.
        let word = u64::from_le(word.load(Ordering::Acquire));
        (word != 0).then_some(Self(word))
    }

    pub(super) fn status(self) -> Status {
        let [status, ..] = self.0.to_le_bytes();
        Status(status)
    }

    /// Bytes of a copy, or descriptors of a batch, that were done.
    pub(super) fn amount(self) -> u32 {
        let [_, _, _, _, a, b, c, d] = self.0.to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

/// Where a copy faulted.
pub(super) fn fault_address(record: &CompletionRecord) -> u64 {
    let [_, address, ..] = record;
    u64::from_le(address.load(Ordering::Relaxed))
}

/// Nothing is written there any more.
#[inline(always)]
pub(super) fn clear(record: &CompletionRecord) {
    let [word, ..] = record;
    word.store(0, Ordering::Relaxed);
}
