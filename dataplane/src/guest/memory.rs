//! The table of a guest's memory regions, and the way from a guest's address to ours.

#![expect(unsafe_code, reason = "addresses that were looked up become pieces")]

use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use hugemem::SharedWord;

use super::address::{Access, GuestAddress};
use super::error::{BadAddress, GuestError};
use super::file::{self, Extent, MOST_BYTES};
use super::iotlb::Iotlb;
use super::mapping::{MapOptions, Mapping};
use super::piece::Piece;
use super::words::Words;

/// Regions that a table may have: what is answered to `VHOST_USER_GET_MAX_MEM_SLOTS`.
pub const MAXIMUM_REGIONS: usize = 128;

/// Pieces that one range of a frame may fall into: a frame has at most 64 KiB, in pages of 4 KiB at least.
const MOST_PIECES: usize = 64;

/// One region of a memory table, as a frontend describes it (`VhostUserMemoryRegion`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RegionSpec {
    /// Guest-physical address of its first byte.
    pub guest: u64,
    /// The frontend's own address of the same byte.
    pub user: u64,
    /// Bytes.
    pub size: u64,
    /// Offset of the first byte in the file.
    pub offset: u64,
}

/// A region that is mapped.
///
/// Invariant: the `size` bytes at `base` lie in `mapping`.
#[derive(Clone)]
struct Region {
    guest: u64,
    size: u64,
    base: NonNull<u8>,
    user: u64,
    mapping: Arc<Mapping>,
}

// SAFETY: `base` points into `mapping`, which is `Send + Sync`, and is only used for copies and atomics.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// The address of the byte at `offset`, which is less than `size`.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "all of the region is mapped, so its offsets fit")]
    fn address(&self, offset: u64) -> NonNull<u8> {
        debug_assert!(offset < self.size, "the region has the byte");
        // SAFETY: the bytes below `size` lie in the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    /// The piece of at most `len` bytes at `offset`, which is less than `size`.
    #[inline(always)]
    fn piece(&self, offset: u64, len: u32) -> Piece<'_> {
        let rest = self.size - offset;
        let len = u32::try_from(rest).map_or(len, |rest| rest.min(len));
        let pointer = self.address(offset);
        // SAFETY: `len` bytes from there on lie in the region, whose mapping the borrow of `self` keeps.
        unsafe { Piece::new(pointer, len, self.guest + offset) }
    }
}

/// An immutable table of memory regions. Changing it gives a new one that shares the mappings of regions that stay.
#[derive(Clone, Default)]
pub struct Memory {
    /// The largest first: that is where most addresses lie.
    regions: Vec<Region>,
    iotlb: Option<Arc<Iotlb>>,
}

impl Memory {
    /// A table without regions.
    #[must_use]
    pub fn empty() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// This table and one more region, mapped from `file`. The file is closed again.
    ///
    /// # Errors
    /// When the file is not memory or too short, the region overlaps another, or there are too many. Nothing is mapped then.
    pub fn with(&self, spec: RegionSpec, file: OwnedFd, options: &MapOptions) -> Result<Arc<Self>, GuestError> {
        self.check(spec)?;
        let extent = file::check(&file, spec.offset, spec.size)?;
        let mut mapping = Mapping::new(&file, extent, options)?;
        if let Some(reach) = &options.reach {
            // Where it cannot, the device's owner says so, and the memory is used without it.
            let _ = mapping.attach(reach, file, extent.start);
        }
        let mapping = Arc::new(mapping);
        let base = first(&mapping, extent);
        let mut regions = self.regions.clone();
        regions.push(Region { guest: spec.guest, size: spec.size, base, user: spec.user, mapping });
        regions.sort_by_key(|region| std::cmp::Reverse(region.size));
        Ok(Arc::new(Self { regions, iotlb: self.iotlb.clone() }))
    }

    /// This table without the region that has these addresses and size. (Its offset is not looked at: frontends do not always repeat it.)
    ///
    /// # Errors
    /// When there is no such region.
    pub fn without(&self, spec: RegionSpec) -> Result<Arc<Self>, GuestError> {
        let is_it = |region: &Region| (region.guest, region.user, region.size) == (spec.guest, spec.user, spec.size);
        let mut regions = self.regions.clone();
        regions.retain(|region| !is_it(region));
        if regions.len() == self.regions.len() {
            return Err(GuestError::NoSuchRegion { at: spec.guest, size: spec.size });
        }
        Ok(Arc::new(Self { regions, iotlb: self.iotlb.clone() }))
    }

    /// This table, with addresses that go through `iotlb` first; or guest-physical ones again.
    #[must_use]
    pub fn with_iotlb(&self, iotlb: Option<Arc<Iotlb>>) -> Arc<Self> {
        Arc::new(Self { regions: self.regions.clone(), iotlb })
    }

    /// Its number of regions.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// How many of its regions a device reaches by itself.
    #[must_use]
    pub fn reached_count(&self) -> usize {
        self.regions.iter().filter(|region| region.mapping.is_reached()).count()
    }

    /// A fault hit one of its mappings: the guest is to be let go.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_lost())
    }

    /// Guest-physical address of the frontend's address `user`.
    #[must_use]
    pub fn user_address(&self, user: u64) -> Option<GuestAddress> {
        let (region, offset) = self.by_user(user)?;
        Some(GuestAddress(region.guest + offset))
    }

    /// Addresses go through an I/O TLB.
    #[must_use]
    pub fn has_iotlb(&self) -> bool {
        self.iotlb.is_some()
    }

    /// The `len` bytes from `at` on, when they are known to be one piece without asking an I/O TLB: the usual case. Otherwise
    /// [`Memory::pieces`] has the answer.
    #[inline(always)]
    #[must_use]
    pub fn whole(&self, at: GuestAddress, len: u32) -> Option<Piece<'_>> {
        if self.iotlb.is_some() {
            return None;
        }
        for region in &self.regions {
            let offset = at.0.wrapping_sub(region.guest);
            if offset < region.size {
                return (region.size - offset >= len.into()).then(|| region.piece(offset, len));
            }
        }
        None
    }

    /// The pieces of `len` bytes from `at` on, in order. (`len` 0 gives none, or an empty one.)
    ///
    /// # Errors
    /// When a byte is in no region, or, with an I/O TLB, has no translation for `access`; or when there are more than 64 pieces. Pieces in
    /// front of that byte may have been given.
    #[inline]
    pub fn pieces<'m>(
        &'m self,
        at: GuestAddress,
        len: u32,
        access: Access,
        mut each: impl FnMut(Piece<'m>),
    ) -> Result<(), BadAddress> {
        if let Some(piece) = self.whole(at, len) {
            each(piece);
            return Ok(());
        }
        self.scattered(at, len, access, &mut each)
    }

    /// As [`Memory::pieces`], when the range is not inside of one region.
    #[cold]
    fn scattered<'m>(
        &'m self,
        start: GuestAddress,
        len: u32,
        access: Access,
        each: &mut dyn FnMut(Piece<'m>),
    ) -> Result<(), BadAddress> {
        let (mut at, mut left) = (start, len);
        for _ in 0..MOST_PIECES {
            if left == 0 {
                return Ok(());
            }
            let piece = self.piece(at, left, access)?;
            left -= piece.len();
            each(piece);
            if left > 0 {
                at = GuestAddress(at.0.checked_add(piece.len().into()).ok_or(BadAddress::Outside { at })?);
            }
        }
        if left == 0 { Ok(()) } else { Err(BadAddress::Scattered { at: start, len, most: MOST_PIECES }) }
    }

    /// The piece that starts at `at`, at most `len` bytes long.
    fn piece(&self, at: GuestAddress, len: u32, access: Access) -> Result<Piece<'_>, BadAddress> {
        let (region, offset, len) = self.locate(at, len, access)?;
        Ok(region.piece(offset, len))
    }

    /// The region that `at` is in, the offset there, and how many of `len` bytes are known to go on there.
    fn locate(&self, at: GuestAddress, len: u32, access: Access) -> Result<(&Region, u64, u32), BadAddress> {
        let outside = BadAddress::Outside { at };
        let Some(iotlb) = &self.iotlb else {
            let (region, offset) = self.by_guest(at.0).ok_or(outside)?;
            return Ok((region, offset, len));
        };
        let (user, size) = iotlb.find(at.0, access).ok_or(BadAddress::Miss { iova: at, access })?;
        let (region, offset) = self.by_user(user).ok_or(outside)?;
        Ok((region, offset, u32::try_from(size).map_or(len, |size| size.min(len))))
    }

    fn by_guest(&self, at: u64) -> Option<(&Region, u64)> {
        let inside = |region: &&Region| at.wrapping_sub(region.guest) < region.size;
        self.regions.iter().find(inside).map(|region| (region, at - region.guest))
    }

    fn by_user(&self, user: u64) -> Option<(&Region, u64)> {
        let inside = |region: &&Region| user.wrapping_sub(region.user) < region.size;
        self.regions.iter().find(inside).map(|region| (region, user - region.user))
    }

    /// The `count` words from `at` on, kept mapped for as long as they are held. With an I/O TLB, `at` goes through it as it
    /// is now.
    ///
    /// # Errors
    /// When they are outside of memory, have no translation, are not aligned, or not contiguous.
    pub fn words<W: SharedWord>(&self, at: GuestAddress, count: usize, access: Access) -> Result<Words<W>, BadAddress> {
        let bytes = count.checked_mul(size_of::<W>()).and_then(|bytes| u32::try_from(bytes).ok());
        let divided = |bytes: u32| BadAddress::Divided { at, bytes: bytes.into() };
        let bytes = bytes.ok_or(divided(u32::MAX))?;
        let (region, offset, _) = self.locate(at, bytes, access)?;
        let end = offset.checked_add(bytes.into()).filter(|end| *end <= region.size);
        let _ = end.ok_or(divided(bytes))?;
        self.contiguous(at, bytes, access, region, offset)?;
        let base = region.address(offset).cast::<W>();
        if !base.is_aligned() {
            return Err(divided(bytes));
        }
        let guest = GuestAddress(region.guest + offset);
        // SAFETY: aligned, as just seen; they end inside the region, and so inside its mapping.
        Ok(unsafe { Words::new(base, count, guest, Arc::clone(&region.mapping)) })
    }

    /// Whether `bytes` bytes from `at` on are translated to those of `region` from `offset` on, translation after translation.
    fn contiguous(
        &self,
        at: GuestAddress,
        bytes: u32,
        access: Access,
        region: &Region,
        offset: u64,
    ) -> Result<(), BadAddress> {
        let divided = BadAddress::Divided { at, bytes: bytes.into() };
        let mut done = 0;
        while done < bytes && self.iotlb.is_some() {
            let next = GuestAddress(at.0.checked_add(done.into()).ok_or(divided)?);
            let (there, from, len) = self.locate(next, bytes - done, access)?;
            if there.base != region.base || from != offset + u64::from(done) {
                return Err(divided);
            }
            done += len;
        }
        Ok(())
    }

    /// Checks a new region against itself and the others.
    fn check(&self, spec: RegionSpec) -> Result<(), GuestError> {
        if self.regions.len() >= MAXIMUM_REGIONS {
            return Err(GuestError::TooManyRegions { most: MAXIMUM_REGIONS });
        }
        for (what, at) in [("guest address", spec.guest), ("user address", spec.user)] {
            if spec.size == 0 || at.checked_add(spec.size).is_none() {
                return Err(GuestError::Geometry { what, at, size: spec.size });
            }
        }
        let total = self.regions.iter().fold(spec.size, |sum, region| sum.saturating_add(region.size));
        if total > MOST_BYTES {
            return Err(GuestError::TooLarge { most: MOST_BYTES });
        }
        let overlap = |one: u64, other: u64, region: &Region| one < other + region.size && other < one + spec.size;
        if self.regions.iter().any(|region| overlap(spec.guest, region.guest, region)) {
            return Err(GuestError::Overlap { what: "guest", at: spec.guest });
        }
        if self.regions.iter().any(|region| overlap(spec.user, region.user, region)) {
            return Err(GuestError::Overlap { what: "user", at: spec.user });
        }
        Ok(())
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.regions.iter().map(|region| (GuestAddress(region.guest), region.size));
        f.debug_struct("Memory")
            .field("regions", &ranges.collect::<Vec<_>>())
            .field("iotlb", &self.iotlb.is_some())
            .finish()
    }
}

/// The first byte that was asked for of `extent`, which `mapping` maps.
fn first(mapping: &Mapping, extent: Extent) -> NonNull<u8> {
    debug_assert!(extent.inset < mapping.len(), "the extent has the byte");
    // SAFETY: the inset lies inside the extent, all of which is mapped.
    unsafe { mapping.base().add(extent.inset) }
}

/// The `len` bytes of `extent`, which `mapping` maps, from the first that was asked for on.
pub(super) fn bytes(mapping: &Arc<Mapping>, extent: Extent, len: usize) -> Words<AtomicU8> {
    let len = len.min(extent.len - extent.inset);
    // SAFETY: bytes are always aligned, and these end with the mapping at the latest.
    unsafe { Words::new(first(mapping, extent).cast(), len, GuestAddress(0), Arc::clone(mapping)) }
}
