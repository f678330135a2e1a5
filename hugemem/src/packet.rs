//! One frame, owned by the processor.

use core::fmt;
use core::ptr::NonNull;

use crate::foreign::Foreign;
use crate::lent::Lent;
use crate::metadata::Metadata;
use crate::pool::{HEADROOM, Header, Shared, give_back};
use crate::prefetch;

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
///
/// Its last bytes may lie in memory of somebody else ([`Packet::foreign`]): then only its segments have bytes that can be borrowed.
///
/// It is one pointer wide; what is known about the frame lies beside the pool.
pub struct Packet(NonNull<Header>);

#[expect(unsafe_code, reason = "a packet owns its buffers alone")]
// SAFETY: the buffers belong to this packet alone and the pool is only used through atomics.
unsafe impl Send for Packet {}
#[expect(unsafe_code, reason = "a packet owns its buffers alone")]
// SAFETY: through a shared reference the bytes can only be read.
unsafe impl Sync for Packet {}

#[expect(clippy::cast_possible_truncation, reason = "a slot is at most 65535 bytes long, which its pool checked")]
impl Packet {
    /// The empty packet of a slot.
    ///
    /// # Safety
    /// The slot's owner gives it up to this packet.
    #[inline]
    #[expect(unsafe_code, reason = "the slot changes hands")]
    pub(crate) unsafe fn fresh(header: NonNull<Header>) -> Self {
        // SAFETY: passed on to the caller.
        let mut packet = unsafe { Self::blank(header) };
        packet.header_mut().metadata = Metadata::default();
        packet
    }

    /// As [`Packet::fresh`], with whatever metadata the slot's last packet had.
    ///
    /// # Safety
    /// The slot's owner gives it up to this packet.
    #[inline]
    #[expect(unsafe_code, reason = "the slot changes hands")]
    pub(crate) unsafe fn blank(header: NonNull<Header>) -> Self {
        let mut packet = Self(header);
        let header = packet.header_mut();
        header.last = header.slot;
        header.total = 0;
        header.segments = 1;
        header.foreign = 0;
        header.start = HEADROOM as u16;
        header.len = 0;
        packet
    }

    /// Header of the first segment.
    #[inline]
    #[expect(unsafe_code, reason = "the packet is a pointer to what it owns")]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: the header belongs to this packet alone, and its pool lives as long as the packet.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    #[expect(unsafe_code, reason = "the packet is a pointer to what it owns")]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: as for `header`; the borrow is exclusive.
        unsafe { self.0.as_mut() }
    }

    #[inline]
    #[expect(unsafe_code, reason = "the pool's memory has no single owner")]
    pub(crate) fn shared(&self) -> &Shared {
        // SAFETY: the pool lives while a packet of it does.
        unsafe { self.header().pool.as_ref() }
    }

    /// What is known about the packet beside its bytes.
    #[inline]
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.header().metadata
    }

    /// What is known about the packet beside its bytes, to change.
    #[inline]
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.header_mut().metadata
    }

    /// Number of its first segment's buffer in its pool: what [`PacketPool::sweep`](crate::PacketPool::sweep) tells.
    #[inline]
    #[must_use]
    pub fn slot(&self) -> u32 {
        self.header().slot
    }

    /// Bytes of the frame, in all segments and foreign pieces.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.header().total as usize
    }

    /// The frame has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.header().total == 0
    }

    /// Number of segments, at least one.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.header().segments as usize
    }

    /// The frame has more than one segment, so [`Packet::bytes`] is not all of it.
    #[inline]
    #[must_use]
    pub fn is_chained(&self) -> bool {
        self.header().segments > 1
    }

    /// Bytes of the first segment.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.header().bytes()
    }

    /// Bytes of the first segment, to change.
    #[inline]
    #[expect(unsafe_code, reason = "raw memory becomes bytes")]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = usize::from(self.header().len);
        let pointer = self.header().pointer();
        // SAFETY: `start + len` lies inside the slot, whose bytes this packet alone owns.
        unsafe { core::slice::from_raw_parts_mut(pointer.as_ptr(), len) }
    }

    /// Fetches the start of the frame into the processor's cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch::at(self.header().pointer());
    }

    /// Fetches the start of the frame, to be written soon, and what is in front of it for a header, which may be there already.
    #[inline]
    pub fn prefetch_to_write(&self) {
        let header = self.header();
        prefetch::at_to_write(header.pointer());
        if header.start > 0 {
            prefetch::at(header.data.map_addr(|data| data.saturating_add(usize::from(header.start) - 1)));
        }
    }

    /// The bytes of each segment in turn. Foreign pieces, which follow, are not among them.
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        Segments(self.headers())
    }

    /// The headers of each segment in turn.
    pub(crate) fn headers(&self) -> Headers<'_> {
        Headers { packet: self, next: Some(self.header()), left: self.header().segments.into() }
    }

    /// Copies bytes from `offset` of the frame on into `target`; returns how many there were. Bytes of foreign pieces are not copied.
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
        self.shared().stride() - usize::from(self.header().start)
    }

    /// Unused bytes in front of the frame.
    #[must_use]
    pub fn headroom(&self) -> usize {
        usize::from(self.header().start)
    }

    /// Makes a frame of one segment `len` bytes long. Bytes that come into view hold what was there before.
    ///
    /// # Errors
    /// When `len` exceeds [`Packet::capacity`], or the frame has several segments or a foreign piece (then nothing can grow).
    #[inline]
    pub fn resize(&mut self, len: usize) -> Result<(), TooLong> {
        let capacity = if self.is_chained() || self.header().foreign > 0 { 0 } else { self.capacity() };
        if len > capacity {
            return Err(TooLong { len, capacity });
        }
        let header = self.header_mut();
        header.len = len as u16;
        header.total = len as u32;
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
        let header = self.header_mut();
        header.start = usize::from(header.start).checked_sub(count)? as u16;
        header.len += count as u16;
        header.total += count as u32;
        self.bytes_mut().get_mut(..count)
    }

    /// Removes `count` bytes from the front. `false`, and nothing happens, when the first segment has fewer.
    #[inline]
    #[must_use]
    pub fn trim_front(&mut self, count: usize) -> bool {
        let header = self.header_mut();
        if count > usize::from(header.len) {
            return false;
        }
        header.start += count as u16;
        header.len -= count as u16;
        header.total -= count as u32;
        true
    }

    /// Keeps the first `len` bytes. Segments that become empty go home, all but the first; foreign pieces that become empty are forgotten.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        let own = self.len() - self.foreign().iter().map(|piece| piece.len() as usize).sum::<usize>();
        self.header_mut().foreign = self.shared().foreign().cut(self.header(), len.saturating_sub(own));
        if len >= own {
            self.header_mut().total = len as u32;
            return;
        }
        let Header { pool, last, segments, .. } = *self.header();
        let mut end = self.0;
        let mut left = len;
        let mut kept = 1;
        loop {
            let shared = self.shared();
            #[expect(unsafe_code, reason = "headers are linked by slot number")]
            // SAFETY: a header of this packet's chain belongs to this packet alone.
            let header = unsafe { &mut *end.as_ptr() };
            if left <= usize::from(header.len) {
                header.len = left as u16;
                if kept < segments {
                    let slot = header.slot;
                    let tail = shared.home.next(slot);
                    give_back(pool, tail, last, u32::from(segments - kept));
                    self.header_mut().last = slot;
                }
                break;
            }
            left -= usize::from(header.len);
            end = shared.header(shared.home.next(header.slot));
            kept += 1;
        }
        let first = self.header_mut();
        first.total = len as u32;
        first.segments = kept;
    }

    /// Puts the segments of `tail` behind those of this frame. The tail's metadata is lost.
    ///
    /// # Errors
    /// Gives `tail` back when it is of another pool, either has a foreign piece, or both together exceed 4 GiB or 65535 segments.
    pub fn append(&mut self, tail: Self) -> Result<(), Self> {
        let (this, added) = (self.header(), tail.header());
        let plain = added.pool == this.pool && this.foreign == 0 && added.foreign == 0;
        let total = this.total.checked_add(added.total).filter(|_| plain);
        let Some((total, segments)) = total.zip(this.segments.checked_add(added.segments)) else { return Err(tail) };
        let (first, last) = (added.slot, added.last);
        self.shared().home.link(self.header().last, first);
        core::mem::forget(tail);
        let header = self.header_mut();
        header.last = last;
        header.total = total;
        header.segments = segments;
        Ok(())
    }

    /// Puts a piece of somebody else's memory behind the frame. `false`, and nothing happens, when the packet's pool has room for no more
    /// of them, or the frame would exceed 4 GiB.
    #[inline]
    #[must_use]
    pub fn attach(&mut self, piece: Foreign) -> bool {
        let Some(total) = self.header().total.checked_add(piece.len()) else { return false };
        if !self.shared().foreign().put(self.header(), piece) {
            return false;
        }
        let header = self.header_mut();
        header.foreign += 1;
        header.total = total;
        true
    }

    /// The pieces of somebody else's memory that the frame goes on with behind its segments, in order.
    #[inline]
    #[must_use]
    pub fn foreign(&self) -> &[Foreign] {
        if self.header().foreign == 0 {
            return &[];
        }
        self.shared().foreign().of(self.header())
    }

    /// It is of a pool whose packets may have foreign pieces, whether it has any or not.
    #[inline]
    #[must_use]
    pub fn may_be_foreign(&self) -> bool {
        self.shared().foreign().room() > 0
    }

    /// Hands the frame to a device. Its foreign pieces are not: whoever lends a frame makes it whole first.
    #[inline]
    #[must_use]
    pub fn lend(self) -> Lent {
        Lent::new(self)
    }
}

impl Header {
    /// First byte of the segment.
    #[inline]
    #[expect(unsafe_code, reason = "pointer arithmetic inside a buffer")]
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `start` lies inside the slot.
        unsafe { self.data.add(usize::from(self.start)) }
    }

    /// Bytes of the segment.
    #[inline]
    #[expect(unsafe_code, reason = "raw memory becomes bytes")]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `start + len` lies inside the slot, whose bytes belong to the packet that this header was borrowed from.
        unsafe { core::slice::from_raw_parts(self.pointer().as_ptr(), usize::from(self.len)) }
    }
}

impl Drop for Packet {
    fn drop(&mut self) {
        let Header { pool, slot, last, segments, .. } = *self.header();
        give_back(pool, slot, last, segments.into());
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("len", &self.len())
            .field("segments", &self.segment_count())
            .field("foreign", &self.foreign())
            .field("metadata", self.metadata())
            .finish()
    }
}

/// The headers of a packet's segments in turn.
#[derive(Clone)]
pub(crate) struct Headers<'a> {
    packet: &'a Packet,
    next: Option<&'a Header>,
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = &'a Header;

    #[inline]
    fn next(&mut self) -> Option<&'a Header> {
        let header = self.next?;
        self.left -= 1;
        self.next = (self.left > 0).then(|| {
            let shared = self.packet.shared();
            let next = shared.header(shared.home.next(header.slot));
            #[expect(unsafe_code, reason = "headers are linked by slot number")]
            // SAFETY: a header of this packet's chain, which the packet owns and `'a` borrows.
            unsafe {
                next.as_ref()
            }
        });
        Some(header)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

/// The bytes of each segment of a packet in turn.
#[derive(Clone)]
pub struct Segments<'a>(Headers<'a>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.0.next().map(Header::bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for Segments<'_> {}

impl fmt::Debug for Segments<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}
