//! Pools of packet buffers.

use alloc::boxed::Box;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::home::{END, Home, MOST};
use crate::iova::Iova;
use crate::packet::Packet;
use crate::region::{OutOfMemory, Region};

/// Bytes in front of a fresh packet's data, for headers that are put there later.
pub const HEADROOM: usize = 128;

/// Buffers start at multiples of this: a cache line, so that no two share one.
const LINE: usize = 64;

/// What all packets of a pool share. Freed by whoever returns the last buffer after the pool is gone.
pub(crate) struct Shared {
    pub(crate) home: Home,
    /// Start and length of each segment but the first of a packet: `start << 16 | len`. Only the packet's owner uses it.
    extents: Box<[AtomicU32]>,
    base: NonNull<u8>,
    iova: Iova,
    /// Bytes from one slot to the next: headroom and room.
    stride: usize,
    slots: u32,
    /// Keeps the memory in place.
    region: Region,
}

impl Shared {
    /// Bytes of a slot: headroom and room.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// First byte of `slot`.
    #[expect(unsafe_code, reason = "pointer arithmetic inside the pool")]
    pub(crate) fn pointer(&self, slot: u32) -> NonNull<u8> {
        debug_assert!(slot < self.slots, "a slot number of this pool");
        // SAFETY: `carve` took `slots * stride` bytes at `base`, and slot numbers are made there and nowhere else.
        unsafe { self.base.add(slot as usize * self.stride) }
    }

    /// Address of the first byte of `slot` for devices.
    pub(crate) fn iova(&self, slot: u32) -> Iova {
        self.iova.offset(slot as usize * self.stride)
    }

    /// Start and length of a segment that is not the first of its packet.
    #[expect(clippy::cast_possible_truncation, reason = "two halves of a word")]
    pub(crate) fn extent(&self, slot: u32) -> (u16, u16) {
        let word = self.extents[slot as usize].load(Ordering::Relaxed);
        ((word >> 16) as u16, word as u16)
    }

    pub(crate) fn set_extent(&self, slot: u32, start: u16, len: u16) {
        self.extents[slot as usize].store(u32::from(start) << 16 | u32::from(len), Ordering::Relaxed);
    }
}

/// Returns the chain `first..=last` of `count` slots to their pool, and frees it when it waited only for them.
#[expect(unsafe_code, reason = "the pool's memory has no single owner")]
pub(crate) fn give_back(pool: NonNull<Shared>, first: u32, last: u32, count: u32) {
    // SAFETY: the pool lives while slots of it are away, and these still are.
    let shared = unsafe { pool.as_ref() };
    if shared.home.give_back(first, last, count) {
        // SAFETY: the pool is closed and nothing is away any more: this is the last reference.
        drop(unsafe { Box::from_raw(pool.as_ptr()) });
    }
}

/// Buffers for packets, all of one size. One thread takes packets from it; they may be dropped on any thread and come home without a lock.
pub struct PacketPool {
    shared: NonNull<Shared>,
    /// Free slots that only this handle knows: the first of a chain.
    free: u32,
    /// How many that chain has.
    free_count: u32,
}

#[expect(unsafe_code, reason = "the pool's memory has no single owner")]
// SAFETY: `Shared` is only changed through atomics; buffers belong to one packet at a time.
unsafe impl Send for PacketPool {}

impl PacketPool {
    pub(crate) fn carve(region: &Region, count: usize, room: usize) -> Result<Self, OutOfMemory> {
        let failure = OutOfMemory { wanted: count.saturating_mul(room), left: region.remaining() };
        let slots = u32::try_from(count).ok().filter(|slots| (1..=MOST).contains(slots)).ok_or(failure)?;
        let stride = room.checked_next_multiple_of(LINE).and_then(|room| room.checked_add(HEADROOM)).ok_or(failure)?;
        if room == 0 || stride > usize::from(u16::MAX) {
            return Err(failure);
        }
        let bytes = count.checked_mul(stride).ok_or(failure)?;
        let offset = region.take(bytes, LINE)?;
        let shared = Box::new(Shared {
            home: Home::new(slots),
            extents: (0..slots).map(|_| AtomicU32::new(0)).collect(),
            base: region.pointer(offset),
            iova: region.iova().offset(offset),
            stride,
            slots,
            region: region.clone(),
        });
        Ok(Self { shared: NonNull::from(Box::leak(shared)), free: 0, free_count: slots })
    }

    #[expect(unsafe_code, reason = "the pool's memory has no single owner")]
    fn shared(&self) -> &Shared {
        // SAFETY: freed only after this handle closed it, in `drop`.
        unsafe { self.shared.as_ref() }
    }

    /// Takes an empty packet. `None` when all are in use.
    #[inline]
    pub fn take(&mut self) -> Option<Packet> {
        if self.free == END && !self.collect() {
            return None;
        }
        let slot = self.free;
        self.free = self.shared().home.next(slot);
        self.free_count -= 1;
        Some(Packet::fresh(self.shared, slot))
    }

    /// Fetches what came home. `false` when nothing did. Only called with an empty free chain.
    #[cold]
    fn collect(&mut self) -> bool {
        self.free = self.shared().home.take_all();
        self.free_count = self.shared().home.count(self.free);
        self.free != END
    }

    /// Buffers that can be taken now.
    pub fn available(&mut self) -> usize {
        let home = &self.shared().home;
        let returned = home.take_all();
        if returned != END {
            let (mut last, mut count) = (returned, 1);
            while home.next(last) != END {
                last = home.next(last);
                count += 1;
            }
            home.link(last, self.free);
            self.free = returned;
            self.free_count += count;
        }
        self.free_count as usize
    }

    /// Buffers in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared().slots as usize
    }

    /// Bytes that a buffer has room for behind its headroom.
    #[must_use]
    pub fn room(&self) -> usize {
        self.shared().stride - HEADROOM
    }

    /// The region that its buffers lie in.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.shared().region
    }
}

impl Drop for PacketPool {
    #[expect(unsafe_code, reason = "the pool's memory has no single owner")]
    fn drop(&mut self) {
        let shared = self.shared();
        if shared.home.close(self.free_count, shared.slots) {
            // SAFETY: nothing is away and the pool is closed: this is the last reference.
            drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
        }
    }
}

impl fmt::Debug for PacketPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketPool")
            .field("capacity", &self.capacity())
            .field("room", &self.room())
            .field("region", &self.region().id())
            .finish_non_exhaustive()
    }
}
