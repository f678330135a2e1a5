//! Descriptors: 64 bytes each, of which the first half says everything about a copy.

use core::sync::atomic::{AtomicU64, Ordering};

use hugemem::Iova;

/// A descriptor in memory that the engine reads, and never writes.
pub(super) type Descriptor = [AtomicU64; 8];

/// Bytes of a descriptor.
pub(super) const BYTES: u64 = 64;

/// Control: an interrupt when it is done, where interrupts are armed.
const INTERRUPT: u64 = 1 << 0;
/// Control: a completion is written when it is done.
const COMPLETION: u64 = 1 << 3;
/// Control: nothing is copied.
const NULL: u64 = 1 << 5;
/// What a descriptor that copies nothing has as its length, for none may have 0.
const NULL_LENGTH: u32 = 8;

/// Tells a descriptor where the next one is.
pub(super) fn link(descriptor: &Descriptor, next: Iova) {
    let [.., next_address, _, _, _, _] = descriptor;
    next_address.store(next.raw().to_le(), Ordering::Relaxed);
}

/// Writes a copy. Nothing is ordered here: the engine looks at it only after the count was published. No length is a
/// descriptor that does nothing, and takes its turn.
#[inline(always)]
pub(super) fn write(descriptor: &Descriptor, source: u64, target: u64, length: u32, interrupt: bool) {
    let [size_and_control, source_address, target_address, ..] = descriptor;
    let (length, null) = if length == 0 { (NULL_LENGTH, NULL) } else { (length, 0) };
    let control = COMPLETION | null | if interrupt { INTERRUPT } else { 0 };
    size_and_control.store((control << 32 | u64::from(length)).to_le(), Ordering::Relaxed);
    source_address.store(source.to_le(), Ordering::Relaxed);
    target_address.store(target.to_le(), Ordering::Relaxed);
}
