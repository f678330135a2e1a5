//! One frame, owned by the processor.

use core::fmt;
use core::ptr::NonNull;

use crate::home::END;
use crate::lent::Lent;
use crate::metadata::Metadata;
use crate::pool::{HEADROOM, Shared, give_back};

/// The bytes do not fit into the packet's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{len} bytes do not fit into a buffer of {capacity}")]
pub struct TooLong {
    /// Bytes that were to go in.
    pub len: usize,
    /// Bytes that can go in.
    pub capacity: usize,
}

/// One frame in one or more buffers (segments) of the same pool. Dropping it sends the buffers home, from any thread.
pub struct Packet {
    pub(crate) pool: NonNull<Shared>,
    /// Slot of the first segment; the others follow by the pool's links.
    pub(crate) first: u32,
    /// Slot of the last segment.
    pub(crate) last: u32,
    /// Bytes in all segments.
    total: u32,
    /// Where the first segment's bytes start in its slot.
    start: u16,
    /// Bytes in the first segment.
    len: u16,
    /// How many segments there are, at least one.
    pub(crate) segments: u32,
    /// What is known about the packet beside its bytes.
    pub metadata: Metadata,
}

#[expect(unsafe_code, reason = "a packet owns its buffers alone")]
// SAFETY: the buffers belong to this packet alone and the pool is only used through atomics.
unsafe impl Send for Packet {}
#[expect(unsafe_code, reason = "a packet owns its buffers alone")]
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for Packet {}

#[expect(clippy::cast_possible_truncation, reason = "a slot is at most 65535 bytes long, which its pool checked")]
impl Packet {
    #[inline]
    pub(crate) fn fresh(pool: NonNull<Shared>, slot: u32) -> Self {
        Self {
            pool,
            first: slot,
            last: slot,
            total: 0,
            start: HEADROOM as u16,
            len: 0,
            segments: 1,
            metadata: Metadata::default(),
        }
    }

    #[inline]
    #[expect(unsafe_code, reason = "the pool's memory has no single owner")]
    pub(crate) fn shared(&self) -> &Shared {
        // SAFETY: the pool lives while a packet of it does.
        unsafe { self.pool.as_ref() }
    }

    /// Bytes of the frame, in all segments.
    #[must_use]
    pub fn len(&self) -> usize {
        self.total as usize
    }

    /// The frame has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Number of segments, at least one.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments as usize
    }

    /// The frame has more than one segment, so [`Packet::bytes`] is not all of it.
    #[must_use]
    pub fn is_chained(&self) -> bool {
        self.segments > 1
    }

    /// Bytes of the first segment.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        slice(self.shared(), self.first, self.start, self.len)
    }

    /// Bytes of the first segment, to change.
    #[inline]
    #[expect(unsafe_code, reason = "raw memory becomes bytes")]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.len);
        let pointer = self.byte_pointer();
        // SAFETY: `start + len` lies inside the slot, whose bytes this packet alone owns.
        unsafe { core::slice::from_raw_parts_mut(pointer.as_ptr(), len) }
    }

    #[inline]
    #[expect(unsafe_code, reason = "pointer arithmetic inside a buffer")]
    fn byte_pointer(&self) -> NonNull<u8> {
        // SAFETY: `start` lies inside the slot.
        unsafe { self.shared().pointer(self.first).add(usize::from(self.start)) }
    }

    /// Fetches the start of the frame into the processor's cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.byte_pointer());
    }

    /// The bytes of each segment in turn.
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments { packet: self, slot: self.first, left: self.segments }
    }

    /// Copies bytes from `offset` of the frame on into `target`; returns how many there were.
    pub fn copy_to(&self, mut offset: usize, target: &mut [u8]) -> usize {
        let mut done = 0;
        for segment in self.segments() {
            let Some(bytes) = segment.get(offset..) else {
                offset -= segment.len();
                continue;
            };
            offset = 0;
            let Some(rest) = target.get_mut(done..) else {
                break;
            };
            let count = bytes.len().min(rest.len());
            rest[..count].copy_from_slice(&bytes[..count]);
            done += count;
        }
        done
    }

    /// Bytes that the first segment could hold from its start to the end of its buffer.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared().stride() - usize::from(self.start)
    }

    /// Unused bytes in front of the frame.
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.start)
    }

    /// Makes a frame of one segment `len` bytes long. Bytes that come into view hold what was there before.
    ///
    /// # Errors
    /// When `len` exceeds [`Packet::capacity`], or the frame has several segments (then nothing can grow).
    #[inline]
    pub fn resize(&mut self, len: usize) -> Result<(), TooLong> {
        let capacity = if self.is_chained() { 0 } else { self.capacity() };
        if len > capacity {
            return Err(TooLong { len, capacity });
        }
        self.len = len as u16;
        self.total = u32::from(self.len);
        Ok(())
    }

    /// Makes `bytes` the whole content of a frame of one segment, from its present start on.
    ///
    /// # Errors
    /// As [`Packet::resize`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        self.resize(bytes.len())?;
        self.bytes_mut().copy_from_slice(bytes);
        Ok(())
    }

    /// Grows the frame by `count` bytes at its front and gives these. `None` when the headroom is too small.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let start = usize::from(self.start).checked_sub(count)?;
        let len = usize::from(self.len) + count;
        self.start = start as u16;
        self.len = len as u16;
        self.total += count as u32;
        self.bytes_mut().get_mut(..count)
    }

    /// Removes `count` bytes from the front. `false`, and nothing happens, when the first segment has fewer.
    #[inline]
    #[must_use]
    pub fn trim_front(&mut self, count: usize) -> bool {
        if count > usize::from(self.len) {
            return false;
        }
        self.start += count as u16;
        self.len -= count as u16;
        self.total -= count as u32;
        true
    }

    /// Keeps the first `len` bytes. Segments that become empty go home, all but the first.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        let mut slot = self.first;
        let mut left = len;
        let mut segment_len = usize::from(self.len);
        let mut kept = 1;
        while left > segment_len {
            left -= segment_len;
            slot = self.shared().home.next(slot);
            segment_len = usize::from(self.shared().extent(slot).1);
            kept += 1;
        }
        if slot == self.first {
            self.len = left as u16;
        } else {
            let (start, _) = self.shared().extent(slot);
            self.shared().set_extent(slot, start, left as u16);
        }
        self.total = len as u32;
        if kept < self.segments {
            let tail = self.shared().home.next(slot);
            give_back(self.pool, tail, self.last, self.segments - kept);
            self.last = slot;
            self.segments = kept;
        }
    }

    /// Puts the segments of `tail` behind those of this frame. The tail's metadata is lost.
    ///
    /// # Errors
    /// Gives `tail` back when it is of another pool, or both together exceed 4 GiB.
    pub fn append(&mut self, tail: Self) -> Result<(), Self> {
        let total = self.total.checked_add(tail.total);
        let Some(total) = total.filter(|_| tail.pool == self.pool) else {
            return Err(tail);
        };
        let tail = core::mem::ManuallyDrop::new(tail);
        let shared = self.shared();
        shared.set_extent(tail.first, tail.start, tail.len);
        shared.home.link(self.last, tail.first);
        self.last = tail.last;
        self.total = total;
        self.segments += tail.segments;
        Ok(())
    }

    /// Hands the frame to a device.
    #[inline]
    #[must_use]
    pub fn lend(self) -> Lent {
        Lent::new(self)
    }

    /// Slot, start and length of the segment after `slot`, `None` after the last.
    pub(crate) fn segment_after(&self, slot: u32) -> Option<(u32, u16, u16)> {
        if slot == self.last {
            return None;
        }
        let next = self.shared().home.next(slot);
        debug_assert_ne!(next, END, "the chain reaches the last segment");
        let (start, len) = self.shared().extent(next);
        Some((next, start, len))
    }

    /// Start and length of the first segment in its slot.
    pub(crate) fn first_extent(&self) -> (u16, u16) {
        (self.start, self.len)
    }
}

/// Bytes of one segment.
#[inline]
#[expect(unsafe_code, reason = "raw memory becomes bytes")]
fn slice(shared: &Shared, slot: u32, start: u16, len: u16) -> &[u8] {
    // SAFETY: `start` lies inside the slot.
    let pointer = unsafe { shared.pointer(slot).add(usize::from(start)) };
    // SAFETY: `start + len` lies inside the slot; its bytes belong to the packet whose borrow this slice takes over.
    unsafe { core::slice::from_raw_parts(pointer.as_ptr(), usize::from(len)) }
}

#[inline]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "no prefetch there"))]
pub(crate) fn prefetch(pointer: NonNull<u8>) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        #![expect(unsafe_code, reason = "prefetching is a raw instruction")]
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching neither faults nor changes memory, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(pointer.as_ptr().cast()) };
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        give_back(self.pool, self.first, self.last, self.segments);
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.total)
            .field("segments", &self.segments)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// The bytes of each segment of a packet in turn.
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    packet: &'a Packet,
    slot: u32,
    left: u32,
}

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        let packet = self.packet;
        let (slot, start, len) = if self.left + 1 == packet.segments {
            (packet.first, packet.start, packet.len)
        } else {
            packet.segment_after(self.slot)?
        };
        self.slot = slot;
        Some(slice(packet.shared(), slot, start, len))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Segments<'_> {}
