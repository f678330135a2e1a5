//! What both ring formats do for the driver (virtio 1.3, section 2.6).
//!
//! A ring passes buffers to the device and gets them back. Each buffer is one or more [`Part`]s and carries a token
//! `T`: what the driver gave away with it, usually a [`Lent`] packet. The ring keeps tokens in its own memory under the
//! identifiers that it hands to the device, so whatever the device answers is looked up in a record that the device
//! cannot reach.
//!
//! Life cycle: [`Ring::new`] once; then [`Ring::start`] after every reset of the device, `post` / `publish` and `poll`
//! / `pop` while it runs, and [`Ring::drain`] after the next reset.
#![expect(unsafe_code, reason = "only the ring knows when a device is done with a packet")]

use core::sync::atomic::{AtomicU64, Ordering};

use hugemem::{DmaArray, Iova, Lent, OutOfMemory, Packet, Region};

use crate::health::Fault;
use crate::stopped::Stopped;

/// Entries of an indirect table: a 64 KiB frame in 2 KiB buffers with its header, and two to spare.
pub(super) const TABLE: u16 = 36;

/// A piece of a buffer, contiguous for the device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// Where it starts.
    pub(super) iova: Iova,
    /// Its length in bytes.
    pub(super) len: u32,
    /// The device writes it; otherwise the device reads it.
    pub(super) writable: bool,
}

/// What a buffer of several parts consists of.
pub(super) trait Parts {
    /// How many parts there are, at least one.
    fn count(&self) -> usize;
    /// Visits them in order: those that the device reads come before those that it writes.
    fn each(&self, visit: impl FnMut(Part));
}

/// A packet to send.
impl Parts for Lent {
    fn count(&self) -> usize {
        self.segment_count()
    }

    fn each(&self, mut visit: impl FnMut(Part)) {
        for piece in self.pieces() {
            visit(Part { iova: piece.iova, len: piece.len, writable: false });
        }
    }
}

/// A buffer that the device is done with (or never saw), and how many bytes it says it wrote.
#[derive(Debug)]
pub(super) struct Returned<T> {
    token: T,
    len: u32,
}

impl<T> Returned<T> {
    /// For ring formats alone: either the device's word that it is done was read with `Acquire` and the buffer was
    /// on record as being out, or the buffer was never published, or the device has been reset.
    #[inline]
    pub(super) fn new(token: T, len: u32) -> Self {
        Self { token, len }
    }
}

impl Returned<Lent> {
    /// Fetches the start of the buffer into the cache.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        self.token.prefetch();
    }

    /// The packet that the device wrote; `None` when it claims more bytes than the buffer has.
    #[inline]
    pub(super) fn received(self) -> Option<Packet> {
        let Self { token, len } = self;
        // SAFETY: a `Returned` exists only when the device is done with its buffer, see `Returned::new`.
        unsafe { token.reclaim_received(len) }
    }

    /// The packet that the device only read.
    #[inline]
    pub(super) fn sent(self) -> Packet {
        // SAFETY: a `Returned` exists only when the device is done with its buffer, see `Returned::new`.
        unsafe { self.token.reclaim_sent() }
    }
}

/// Where a ring lies, as the device is told (4.1.4.3: `queue_desc`, `queue_driver`, `queue_device`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Descriptors.
    pub descriptors: Iova,
    /// What the driver writes: available ring, or driver event suppression.
    pub driver: Iova,
    /// What the device writes: used ring, or device event suppression.
    pub device: Iova,
}

/// The driver's side of a ring.
pub(super) trait Ring<T: Parts>: Sized + Send {
    /// Takes memory for a ring of `size` descriptors, a power of two; with an indirect table for each when `tables`.
    fn new(memory: &Region, size: u16, tables: bool) -> Result<Self, OutOfMemory>;

    /// Where it lies.
    fn addresses(&self) -> Addresses;

    /// Descriptors in all.
    fn size(&self) -> u16;

    /// Descriptors that can be posted now.
    fn free(&self) -> u16;

    /// Buffers that the device holds.
    fn outstanding(&self) -> u16;

    /// Descriptors that a buffer of `parts` parts takes; `None` when it can never fit.
    fn descriptors_for(&self, parts: usize) -> Option<u16>;

    /// Makes the ring as new, without interrupts. The device, which must be stopped, may then be started with it.
    /// Anything still outstanding is leaked: [`Ring::drain`] first. `event_index` and `indirect` say what was
    /// negotiated.
    fn start(&mut self, stopped: &Stopped, event_index: bool, indirect: bool);

    /// Stages a buffer of one part.
    ///
    /// # Errors
    /// Gives the token back when nothing is free.
    fn post(&mut self, part: Part, token: T) -> Result<(), Returned<T>>;

    /// Stages a buffer of all the parts of `token`.
    ///
    /// # Errors
    /// Gives the token back when the descriptors that it takes ([`Ring::descriptors_for`]) are not free.
    fn post_parts(&mut self, token: T) -> Result<(), Returned<T>>;

    /// Shows the device what was staged. Whether it wants to be notified.
    fn publish(&mut self) -> bool;

    /// Asks how far the device has come; what it has returned by now is what [`Ring::pop`] gives.
    ///
    /// # Errors
    /// When the answer cannot be.
    fn poll(&mut self) -> Result<(), Fault>;

    /// Takes back the next buffer that the device is done with.
    ///
    /// # Errors
    /// When the device's answer cannot be.
    fn pop(&mut self) -> Result<Option<Returned<T>>, Fault>;

    /// Asks for an interrupt at the next returned buffer. `false` when one is there already.
    fn enable_interrupt(&mut self) -> bool;

    /// No interrupts, as far as the format can say so.
    fn disable_interrupt(&mut self);

    /// Takes back all buffers that the device held. The ring cannot be used until [`Ring::start`].
    fn drain<'a>(&'a mut self, stopped: &Stopped) -> impl Iterator<Item = Returned<T>> + use<'a, Self, T>
    where
        T: 'a;
}

/// Descriptors that a buffer of `parts` parts takes in a ring of `size`, with indirect tables or without; `None` when it
/// can never fit. A chain is never longer than the queue, not even in a table (2.7.5.3.1, 2.8.19).
#[inline]
pub(super) fn descriptors_for(parts: usize, size: usize, tables: bool) -> Option<u16> {
    if parts > size {
        return None;
    }
    if parts == 1 || tables && parts <= usize::from(TABLE) { Some(1) } else { u16::try_from(parts).ok() }
}

/// Two words that hold a descriptor, in either format.
pub(super) type Descriptor = [AtomicU64; 2];

/// Indirect tables, one of [`TABLE`] descriptors for each identifier of a ring (2.7.5.3, 2.8.7).
#[derive(Debug)]
pub(super) struct Tables(DmaArray<Descriptor>);

impl Tables {
    /// Takes memory for the tables of a ring of `size` descriptors.
    pub(super) fn new(memory: &Region, size: u16) -> Result<Self, OutOfMemory> {
        memory.array(usize::from(size) * usize::from(TABLE), 64).map(Self)
    }

    /// The table of `identifier` with its address. `None` for an identifier that the ring does not have.
    pub(super) fn get(&self, identifier: u16) -> Option<(&[Descriptor], Iova)> {
        let first = usize::from(identifier) * usize::from(TABLE);
        Some((self.0.get(first..first + usize::from(TABLE))?, self.0.iova_of(first)?))
    }
}

/// Writes a descriptor: address and the word behind it. Nothing is ordered here.
#[inline(always)]
pub(super) fn write(descriptor: &Descriptor, iova: Iova, word: u64) {
    let [address, rest] = descriptor;
    address.store(iova.raw().to_le(), Ordering::Relaxed);
    rest.store(word.to_le(), Ordering::Relaxed);
}

#[cfg(test)]
#[path = "ring_tests.rs"]
pub(super) mod tests;
