//! Pools of packet buffers.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;

use crate::foreign::Table;
use crate::home::{END, Home, MOST};
use crate::iova::Iova;
use crate::lent::Lent;
use crate::metadata::Metadata;
use crate::packet::Packet;
use crate::region::{Holding, OutOfMemory, Region};

/// Bytes in front of a fresh packet's data, for headers that are put there later.
pub const HEADROOM: usize = 128;

/// Buffers start at multiples of this: a cache line, so that no two share one.
const LINE: usize = 64;

/// What is known about one slot. It lies in ordinary memory that no device reaches, one cache line for each slot; a
/// [`Packet`] is a pointer to it, so that moving a packet moves eight bytes.
#[repr(align(64))]
pub(crate) struct Header {
    pub(crate) pool: NonNull<Shared>,
    /// First byte of the slot, headroom included.
    pub(crate) data: NonNull<u8>,
    pub(crate) slot: u32,
    /// Slot of the packet's last segment. Only the first segment's header knows, as for the next three.
    pub(crate) last: u32,
    /// Bytes in all segments and foreign pieces.
    pub(crate) total: u32,
    /// Number of segments, at least one.
    pub(crate) segments: u16,
    /// Number of foreign pieces; they follow the segments.
    pub(crate) foreign: u16,
    /// Where this segment's bytes start in the slot.
    pub(crate) start: u16,
    /// Bytes in this segment.
    pub(crate) len: u16,
    pub(crate) metadata: Metadata,
}

/// What all packets of a pool share. Freed by whoever returns the last buffer after the pool is gone.
pub(crate) struct Shared {
    pub(crate) home: Home,
    /// One for each slot, used by whoever owns the slot.
    headers: Box<[UnsafeCell<Header>]>,
    foreign: Table,
    base: NonNull<u8>,
    iova: Iova,
    /// Bytes from one slot to the next: headroom and room.
    stride: usize,
    slots: u32,
    /// Keeps the memory in place.
    region: Holding,
}

impl Shared {
    /// Bytes of a slot: headroom and room.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The header of `slot`. Only the owner of the slot may look behind the pointer.
    #[inline]
    #[expect(unsafe_code, reason = "a pointer out of a cell is never null")]
    pub(crate) fn header(&self, slot: u32) -> NonNull<Header> {
        // SAFETY: the address of a cell is not null.
        unsafe { NonNull::new_unchecked(self.headers[slot as usize].get()) }
    }

    /// The foreign pieces of all slots.
    #[inline]
    pub(crate) fn foreign(&self) -> &Table {
        &self.foreign
    }

    /// Address for devices of `pointer`, which lies in this pool's memory.
    #[inline]
    pub(crate) fn iova(&self, pointer: NonNull<u8>) -> Iova {
        self.iova.offset(pointer.addr().get() - self.base.addr().get())
    }
}

/// Returns the chain `first..=last` of `count` slots to their pool, and frees it when it waited only for them.
#[expect(unsafe_code, reason = "the pool's memory has no single owner")]
pub(crate) fn give_back(pool: NonNull<Shared>, first: u32, last: u32, count: u32) {
    // SAFETY: the pool lives while slots of it are away, and these still are.
    let home = NonNull::from(unsafe { &pool.as_ref().home });
    // SAFETY: as above; the slots are the caller's.
    if unsafe { Home::give_back(home, first, last, count) } {
        // SAFETY: the pool is closed and nothing is away any more: this is the last reference.
        drop(unsafe { Box::from_raw(pool.as_ptr()) });
    }
}

/// Buffers for packets, all of one size. One thread takes packets from it; they may be dropped on any thread and come home without a lock.
pub struct PacketPool {
    shared: NonNull<Shared>,
    /// Free slots that only this handle knows: the first of a chain.
    free: u32,
}

#[expect(unsafe_code, reason = "the pool's memory has no single owner")]
// SAFETY: `Shared` is only changed through atomics; buffers belong to one packet at a time.
unsafe impl Send for PacketPool {}

impl PacketPool {
    pub(crate) fn carve(region: &Region, count: usize, room: usize, pieces: u16) -> Result<Self, OutOfMemory> {
        let failure = OutOfMemory { wanted: count.saturating_mul(room), left: region.remaining() };
        let slots = u32::try_from(count).ok().filter(|slots| (1..=MOST).contains(slots)).ok_or(failure)?;
        let stride = room.checked_next_multiple_of(LINE).and_then(|room| room.checked_add(HEADROOM)).ok_or(failure)?;
        if room == 0 || stride > usize::from(u16::MAX) {
            return Err(failure);
        }
        let bytes = count.checked_mul(stride).ok_or(failure)?;
        let offset = region.take(bytes, LINE)?;
        let header = |slot| {
            UnsafeCell::new(Header {
                pool: NonNull::dangling(),
                data: region.pointer(offset + slot as usize * stride),
                slot,
                last: slot,
                total: 0,
                segments: 1,
                foreign: 0,
                start: 0,
                len: 0,
                metadata: Metadata::default(),
            })
        };
        let shared = NonNull::from(Box::leak(Box::new(Shared {
            home: Home::new(slots),
            headers: (0..slots).map(header).collect(),
            foreign: Table::new(count, pieces),
            base: region.pointer(offset),
            iova: region.iova().offset(offset),
            stride,
            slots,
            region: Holding::new(region),
        })));
        let pool = Self { shared, free: 0 };
        for slot in 0..slots {
            let header = pool.shared().header(slot).as_ptr();
            #[expect(unsafe_code, reason = "headers point back to what holds them")]
            // SAFETY: no packet exists yet, so the header is ours.
            unsafe {
                (*header).pool = shared;
            }
        }
        Ok(pool)
    }

    #[expect(unsafe_code, reason = "the pool's memory has no single owner")]
    fn shared(&self) -> &Shared {
        // SAFETY: freed only after this handle closed it, in `drop`.
        unsafe { self.shared.as_ref() }
    }

    /// Takes an empty packet. `None` when all are in use.
    #[inline]
    pub fn take(&mut self) -> Option<Packet> {
        let header = self.take_slot()?;
        #[expect(unsafe_code, reason = "the slot changes hands")]
        // SAFETY: the slot was free, and nobody else can take it now.
        Some(unsafe { Packet::fresh(header) })
    }

    /// Lends an empty packet to a device for each of `places`, until places or packets end. Gives how many it lent. What
    /// [`PacketPool::take`] and [`Packet::lend`] do for one.
    #[inline]
    pub fn lend_to<P>(&mut self, places: impl IntoIterator<Item = P>, mut lend: impl FnMut(P, Lent)) -> usize {
        let mut count = 0;
        for place in places {
            let Some(header) = self.take_slot() else { break };
            #[expect(unsafe_code, reason = "the slot changes hands")]
            // SAFETY: the slot was free, and nobody else can take it now.
            let packet = unsafe { Packet::blank(header) };
            lend(place, packet.lend());
            count += 1;
        }
        count
    }

    /// Takes a free slot.
    #[inline]
    fn take_slot(&mut self) -> Option<NonNull<Header>> {
        if self.free == END && !self.collect() {
            return None;
        }
        let slot = self.free;
        let shared = self.shared();
        let header = shared.header(slot);
        self.free = shared.home.next(slot);
        Some(header)
    }

    /// Fetches what came home. `false` when nothing did, or only [`PacketPool::sweep`] may. Only called with an empty free chain.
    #[cold]
    fn collect(&mut self) -> bool {
        if self.is_swept() {
            return false;
        }
        self.free = self.shared().home.take_all();
        self.free != END
    }

    /// Takes in what came home, tells the slot of each buffer, and gives these out again before any other: they are the ones that the
    /// processor's cache still knows. Of a pool with room for foreign pieces no buffer is free again before this was called, so that
    /// whoever lent the pieces learns of every one that is done with. (What is left when `each` panics is leaked.)
    #[inline]
    pub fn sweep(&mut self, mut each: impl FnMut(u32)) {
        let home = &self.shared().home;
        let returned = home.take_all();
        let mut last = returned;
        if last == END {
            return;
        }
        loop {
            each(last);
            match home.next(last) {
                END => break,
                next => last = next,
            }
        }
        home.link(last, self.free);
        self.free = returned;
    }

    /// Its packets may have foreign pieces.
    fn is_swept(&self) -> bool {
        self.shared().foreign.room() > 0
    }

    /// Buffers that can be taken now. Walks over all of them.
    pub fn available(&mut self) -> usize {
        if !self.is_swept() {
            self.sweep(|_| ());
        }
        self.shared().home.count(self.free) as usize
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
        let held = shared.home.count(self.free);
        let slots = shared.slots;
        let home = NonNull::from(&shared.home);
        // SAFETY: this handle is the pool's one owner, and goes.
        if unsafe { Home::close(home, held, slots) } {
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
