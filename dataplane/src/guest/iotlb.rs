//! Translations of I/O virtual addresses, for devices behind a guest's IOMMU.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock, TryLockError};

use super::address::Access;

/// Translations that are kept at most. A guest that uses more makes us ask again.
const MOST: usize = 4096;

/// What a translation allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Both.
    ReadWrite,
}

impl Permission {
    /// Whether it allows `access`. Writing includes what a ring has to read back.
    #[must_use]
    pub const fn allows(self, access: Access) -> bool {
        matches!((self, access), (Self::ReadWrite, _) | (Self::Read, Access::Read) | (Self::Write, Access::Write))
    }
}

/// One translation: `size` bytes from `iova` on are those from `user` on in the frontend's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// First I/O virtual address.
    pub iova: u64,
    /// The frontend's address of the same byte.
    pub user: u64,
    /// Bytes.
    pub size: u64,
    /// What is allowed.
    pub permission: Permission,
}

/// The translations that the frontend has told. Control changes them while engines look them up: an engine never waits, it
/// takes a change under way for a miss.
#[derive(Debug, Default)]
pub struct Iotlb {
    /// By I/O virtual address; they do not overlap.
    known: RwLock<BTreeMap<u64, Translation>>,
}

impl Iotlb {
    /// One that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns a translation, in place of what it overlaps. `false`, and nothing happens, when it has no bytes or ends beyond the end of all
    /// addresses.
    pub fn update(&self, new: Translation) -> bool {
        let ends = |start: u64| new.size > 0 && start.checked_add(new.size - 1).is_some();
        if !ends(new.iova) || !ends(new.user) {
            return false;
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        forget(&mut known, new.iova, new.size);
        if known.len() >= MOST {
            // Any will do: what is still needed is asked for again.
            known.pop_first();
        }
        known.insert(new.iova, new);
        true
    }

    /// Forgets every translation that has one of the `size` bytes from `iova` on.
    pub fn invalidate(&self, iova: u64, size: u64) {
        forget(&mut self.known.write().unwrap_or_else(PoisonError::into_inner), iova, size);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The frontend's address of `iova`, and how many bytes from there on belong to the same translation. `None` when it is not
    /// known for this access, or control is changing things right now.
    pub(super) fn find(&self, iova: u64, access: Access) -> Option<(u64, u64)> {
        let known = match self.known.try_read() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let (_, found) = known.range(..=iova).next_back()?;
        let offset = iova - found.iova;
        (offset < found.size && found.permission.allows(access)).then(|| (found.user + offset, found.size - offset))
    }
}

/// Removes what has one of the `size` bytes from `iova` on. They do not overlap, so only the one in front can reach into the range.
fn forget(known: &mut BTreeMap<u64, Translation>, iova: u64, size: u64) {
    let Some(last) = size.checked_sub(1).map(|rest| iova.saturating_add(rest)) else { return };
    let first = known.range(..iova).next_back();
    let first = first.filter(|(start, found)| iova - *start < found.size).map_or(iova, |(start, _)| *start);
    while let Some(start) = known.range(first..=last).next().map(|(start, _)| *start) {
        known.remove(&start);
    }
}
