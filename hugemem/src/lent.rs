//! One frame, owned by a device.

use core::fmt;
use core::mem::ManuallyDrop;

use crate::iova::Iova;
use crate::metadata::Metadata;
use crate::packet::Packet;
use crate::pool::Header;
use crate::prefetch;

/// A packet that a device owns: it has addresses for the device and no bytes for us. Dropping it leaks its buffers, because the device may
/// still write to them; that is safe, and what remains to be done when a device cannot be stopped.
pub struct Lent(ManuallyDrop<Packet>);

/// A piece of a lent packet, contiguous for devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Address of its first byte.
    pub iova: Iova,
    /// Its length in bytes.
    pub len: u32,
}

impl Lent {
    #[inline]
    pub(crate) fn new(packet: Packet) -> Self {
        Self(ManuallyDrop::new(packet))
    }

    /// Address of the first byte of the first segment.
    #[inline]
    #[must_use]
    pub fn iova(&self) -> Iova {
        self.0.shared().iova(self.0.header().pointer())
    }

    /// Bytes that the device may write from [`Lent::iova`] on: to the end of the first buffer.
    #[inline]
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Bytes of the frame, in all segments.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a lent receive buffer has no frame yet, and nobody asks")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Number of segments, at least one.
    #[inline]
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.0.segment_count()
    }

    /// The pieces that a device has to read, in order.
    pub fn pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let shared = self.0.shared();
        let piece = |header: &Header| Piece { iova: shared.iova(header.pointer()), len: u32::from(header.len) };
        self.0.headers().map(piece)
    }

    /// Fetches the start of the frame into the processor's cache, ahead of [`Lent::reclaim_received`].
    #[inline]
    pub fn prefetch(&self) {
        prefetch::at(self.0.header().pointer());
    }

    /// Takes a receive buffer back into which the device wrote `len` bytes, of which nothing else is known yet. `None` when it cannot have, because that exceeds
    /// the buffer; the buffer has then gone home.
    ///
    /// # Safety
    /// The device is done with the packet: it said so and that was read with `Acquire`, or it has been reset.
    #[inline]
    #[expect(unsafe_code, reason = "only the caller knows that the device is done")]
    #[must_use]
    pub unsafe fn reclaim_received(self, len: u32) -> Option<Packet> {
        let mut packet = ManuallyDrop::into_inner(self.0);
        let len = usize::try_from(len).ok()?;
        packet.resize(len).ok()?;
        *packet.metadata_mut() = Metadata::default();
        Some(packet)
    }

    /// Takes back a packet that the device only read.
    ///
    /// # Safety
    /// The device is done with the packet: it said so and that was read with `Acquire`, or it has been reset.
    #[inline]
    #[expect(unsafe_code, reason = "only the caller knows that the device is done")]
    #[must_use]
    pub unsafe fn reclaim_sent(self) -> Packet {
        ManuallyDrop::into_inner(self.0)
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").field("iova", &self.iova()).field("packet", &*self.0).finish()
    }
}
