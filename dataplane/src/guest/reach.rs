//! Devices that copy from and to guest memory by themselves, and copies that are left to them.
//!
//! A mapping is made reachable for a [`Reach`] when it is made, and taken away before it goes: whoever holds the [`Memory`](super::Memory) holds
//! that as well. Where a byte lies for the device is looked up by its address ([`Finder`]), in the table that the handler of faults has.
//!
//! A [`Transfer`] is a copy that was planned and not done yet. Its maker sees to it that the memory of both ends stays until it is done.

#![expect(unsafe_code, reason = "windows of guest memory are shown to devices, and late copies are done by address")]

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use hugemem::{Foreign, Iova, Region};

use super::address::GuestAddress;
use super::copy;
use super::fault;
use super::piece::Piece;

/// A device that can reach guest memory by itself, in an address space of its own.
pub trait Reach: fmt::Debug + Send + Sync {
    /// A number above 0 that no other device of this process has.
    fn id(&self) -> u32;

    /// Lets the device reach `len` bytes, which `window` shows at the address that it is given.
    ///
    /// # Errors
    /// A sentence that says why not, and what to do.
    fn attach(&self, len: usize, window: Box<dyn FnOnce(Iova) -> Region + '_>) -> Result<Region, String>;

    /// Takes the window away again. No copy from or to it is underway.
    fn detach(&self, window: &Region);
}

/// A window that a device reaches. Dropping it takes the window away.
pub(super) struct Attachment {
    pub(super) reach: Arc<dyn Reach>,
    pub(super) window: Region,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.reach.detach(&self.window);
    }
}

/// Finds where bytes of guest memory lie for a device. Remembers where it found the last, which is mostly where the next is.
#[derive(Debug, Default)]
pub struct Finder {
    /// Place in the table.
    last: usize,
}

impl Finder {
    /// The address of a byte for the device of that number.
    #[inline]
    fn find(&mut self, byte: NonNull<u8>, device: u32) -> Option<Iova> {
        let (place, iova) = fault::reached(byte.addr().get(), device, self.last)?;
        self.last = place;
        Some(iova)
    }
}

/// A copy from a foreign piece to a guest that is done later, by a device or by [`Transfer::run`].
///
/// Invariant: `len` bytes at either end lie in mappings of guest memory that were there when it was planned.
#[derive(Clone, Copy)]
pub struct Transfer {
    from: NonNull<u8>,
    to: NonNull<u8>,
    len: u32,
    /// Guest-physical address that is written to.
    guest: u64,
    source: Iova,
    target: Iova,
}

// SAFETY: what is behind the addresses belongs to no thread, and is only copied.
unsafe impl Send for Transfer {}

impl Transfer {
    /// Plans to copy bytes of `from`, from its byte `offset` on, over the first bytes of `to`, as many as both have. `None` when the device of
    /// that number does not reach both.
    #[inline]
    pub fn plan(from: &Foreign, offset: u32, to: Piece<'_>, device: u32, finders: &mut [Finder; 2]) -> Option<Self> {
        let offset = offset.min(from.len());
        let len = (from.len() - offset).min(to.len());
        // SAFETY: `offset` is at most the piece's length.
        let from = unsafe { from.address().add(offset as usize) };
        let [there, here] = finders;
        let source = there.find(from, device)?;
        let target = here.find(to.pointer(), device)?;
        Some(Self { from, to: to.pointer(), len, guest: to.guest().0, source, target })
    }

    /// Bytes to copy.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// There is nothing to copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the bytes are, for the device.
    #[must_use]
    pub fn source(&self) -> Iova {
        self.source
    }

    /// Where they are to be, for the device.
    #[must_use]
    pub fn target(&self) -> Iova {
        self.target
    }

    /// Guest-physical address of the first byte that is written to.
    #[must_use]
    pub fn guest(&self) -> GuestAddress {
        GuestAddress(self.guest)
    }

    /// Does the copy here and now.
    ///
    /// # Safety
    /// The memory of both ends has been there since the copy was planned: the packet that has the foreign piece, and the
    /// [`Memory`](super::Memory) of the other.
    pub unsafe fn run(&self) {
        // SAFETY: both sides have `len` bytes by the invariant, and are there still as the caller promises.
        unsafe { copy::copy(self.from.as_ptr(), self.to.as_ptr(), self.len as usize) };
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("guest", &self.guest()).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Copies bytes from window to window, each with the offset of the first, as a device would: what is written meanwhile is mixed up. Gives `false`
/// when either end leaves its window.
pub fn copy_windows(source: (&Region, usize), target: (&Region, usize), length: u32) -> bool {
    let length = length as usize;
    let fits = |(window, offset): (&Region, usize)| offset.checked_add(length).is_some_and(|end| end <= window.len());
    if !fits(source) || !fits(target) {
        return false;
    }
    let (from, to) = (source.0.as_ptr().wrapping_add(source.1), target.0.as_ptr().wrapping_add(target.1));
    // SAFETY: both ranges lie in regions, as just seen, which keep them mapped; nobody has borrowed what devices copy.
    unsafe { copy::copy(from, to, length) };
    true
}
