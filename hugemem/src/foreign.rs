//! Pieces of somebody else's memory that hang on packets.
//!
//! A port that gives out frames before it copied them (a virtual machine's) attaches what it left behind. This crate gives the address no meaning
//! and never looks behind it: whoever made a piece knows how to copy from it.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

use crate::pool::Header;

/// A piece of somebody else's memory: an address and a length in bytes. It can neither be made nor copied without `unsafe`: who has a reference to one
/// knows that the memory is there.
pub struct Foreign {
    address: NonNull<u8>,
    len: u32,
}

#[expect(unsafe_code, reason = "what is behind the address belongs to no thread")]
// SAFETY: by the promise of `Foreign::new`, any thread may copy from the memory.
unsafe impl Send for Foreign {}
#[expect(unsafe_code, reason = "what is behind the address belongs to no thread")]
// SAFETY: as above.
unsafe impl Sync for Foreign {}

impl Foreign {
    /// A piece of `len` bytes at `address`.
    ///
    /// # Safety
    /// From any thread, the bytes can be read by a copy that bears with their being written meanwhile, for as long as
    /// this value exists and the packet that it is attached to.
    #[inline]
    #[expect(unsafe_code, reason = "only the caller knows what is at the address")]
    #[must_use]
    pub const unsafe fn new(address: NonNull<u8>, len: u32) -> Self {
        Self { address, len }
    }

    /// Address of its first byte.
    #[inline]
    #[must_use]
    pub const fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// Its length in bytes.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// It has no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign").field("len", &self.len).finish_non_exhaustive()
    }
}

/// The foreign pieces of all slots of a pool, as many places for each slot. Memory that no packet used was never touched.
pub(crate) struct Table {
    /// The first [`Header::foreign`] places of a slot hold pieces. Used by whoever owns the slot.
    places: Box<[UnsafeCell<MaybeUninit<Foreign>>]>,
    room: u16,
}

impl Table {
    /// A table with `room` places for each of `slots` slots.
    pub(crate) fn new(slots: usize, room: u16) -> Self {
        let places = Box::new_uninit_slice(slots.saturating_mul(room.into()));
        #[expect(unsafe_code, reason = "nothing is asked of the places")]
        // SAFETY: a place may be uninitialised.
        let places = unsafe { places.assume_init() };
        Self { places, room }
    }

    /// Places for each slot.
    #[inline]
    pub(crate) fn room(&self) -> u16 {
        self.room
    }

    /// The places of the slot of `header`.
    #[inline]
    fn places(&self, header: &Header) -> &[UnsafeCell<MaybeUninit<Foreign>>] {
        let room = usize::from(self.room);
        let start = header.slot as usize * room;
        self.places.get(start..start + room).unwrap_or_default()
    }

    /// Puts a piece behind those of the packet that owns `header`, which counts it then. `false` when there is no place left.
    #[inline]
    pub(crate) fn put(&self, header: &Header, piece: Foreign) -> bool {
        let Some(place) = self.places(header).get(usize::from(header.foreign)) else { return false };
        #[expect(unsafe_code, reason = "places belong to whoever owns the slot")]
        // SAFETY: only the packet that owns the header comes here, with an exclusive borrow, and nobody borrows this place yet.
        let place = unsafe { &mut *place.get() };
        place.write(piece);
        true
    }

    /// The pieces of the packet that owns `header`.
    #[inline]
    pub(crate) fn of<'a>(&'a self, header: &'a Header) -> &'a [Foreign] {
        let Some(places) = self.places(header).get(..usize::from(header.foreign)) else { return &[] };
        #[expect(unsafe_code, reason = "places belong to whoever owns the slot")]
        // SAFETY: the first `foreign` places were written by `put`; they are changed only with an exclusive borrow of the packet.
        unsafe {
            core::slice::from_raw_parts(places.as_ptr().cast(), places.len())
        }
    }

    /// Shortens the pieces of the packet that owns `header` to `len` bytes in all; gives how many pieces that leaves.
    pub(crate) fn cut(&self, header: &Header, len: usize) -> u16 {
        let mut left = len;
        let mut kept = 0;
        for place in self.places(header).iter().take(header.foreign.into()) {
            if left == 0 {
                break;
            }
            #[expect(unsafe_code, reason = "places belong to whoever owns the slot")]
            // SAFETY: only the packet that owns the header comes here, with an exclusive borrow.
            let place = unsafe { &mut *place.get() };
            #[expect(unsafe_code, reason = "what the header counts was written")]
            // SAFETY: the first `foreign` places were written by `put`.
            let piece = unsafe { place.assume_init_mut() };
            piece.len = u32::try_from(left).map_or(piece.len, |left| piece.len.min(left));
            left -= piece.len as usize;
            kept += 1;
        }
        kept
    }
}
