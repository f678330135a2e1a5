//! The memory that a model may reach: what was mapped for it, at exactly the bounds of the maps.
//!
//! This is the IOMMU of the model. Every access names an IOVA; one that is not mapped is refused and recorded. A map's bytes are a
//! region of this process, part of another process's memory file, or away: known to exist, and to be reached by message only.

mod access;
mod file;
mod watched;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use hugemem::Region;

pub(crate) use access::{Place, Span, Words};
pub(crate) use file::{FileMemory, Files};
pub use watched::watched_region;

/// What a device wanted to do with memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read it.
    Read,
    /// Write it.
    Write,
}

/// A device reached for memory that is not mapped for it: what an IOMMU would log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DmaFault {
    /// I/O virtual address of the first byte.
    pub address: u64,
    /// Bytes wanted.
    pub bytes: u64,
    /// Direction.
    pub access: Access,
}

impl fmt::Debug for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of {} bytes at IOVA {:#x}", self.access, self.bytes, self.address)
    }
}

/// Faults kept; later ones are only counted.
const FAULTS_KEPT: usize = 256;

/// What a map's bytes are, and what keeps them in place.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A region of this process.
    Region(Region),
    /// A file that this process has mapped.
    File(#[expect(dead_code, reason = "held so that the mapping stays")] Arc<FileMemory>),
    /// Reached by message only.
    Away,
}

/// Which accesses a map allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Permission {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Permission {
    pub(crate) const ALL: Self = Self { read: true, write: true };

    fn allows(self, access: Access) -> bool {
        match access {
            Access::Read => self.read,
            Access::Write => self.write,
        }
    }
}

struct Map {
    first: u64,
    /// Address of the last byte, so that a map can reach the end of the address space.
    last: u64,
    /// Where its first byte is; `None` when it is away.
    base: Option<NonNull<u8>>,
    permission: Permission,
    source: Source,
}

#[expect(unsafe_code, reason = "see below")]
// SAFETY: the pointer is to memory that `source` keeps in place and that is bound to no thread.
unsafe impl Send for Map {}

impl Map {
    /// Offset of `address` when `bytes` bytes from there on lie inside.
    #[inline]
    fn offset(&self, address: u64, bytes: usize) -> Option<u64> {
        let (offset, span) = (address.wrapping_sub(self.first), self.last - self.first);
        (offset <= span && (bytes as u64).saturating_sub(1) <= span - offset).then_some(offset)
    }
}

/// Where the last look-up of an address ended. Starts as its default and is only a hint.
#[derive(Clone, Copy, Default, Debug)]
pub struct Hint(usize);

/// A stretch of one map.
#[derive(Clone, Copy)]
pub(crate) enum Stretch<'memory> {
    /// In this process.
    Here(Place<'memory>),
    /// Reached by message only.
    Away,
}

/// All maps of one device.
#[derive(Default)]
pub(crate) struct Memory {
    /// Ascending and disjoint.
    maps: Vec<Map>,
    /// Where the last span or words were found.
    last: Cell<Hint>,
    faults: RefCell<Vec<DmaFault>>,
    fault_count: Cell<u64>,
    /// Changes with every map and unmap.
    epoch: u64,
}

impl Memory {
    /// Maps a region of this process. `false` when it overlaps another one's.
    pub(crate) fn map(&mut self, region: &Region) -> bool {
        self.map_region(region, Source::Region(region.clone()))
    }

    /// Maps a region's addresses, but its memory is reached by message only.
    pub(crate) fn map_away(&mut self, region: &Region) -> bool {
        self.map_region(region, Source::Away)
    }

    fn map_region(&mut self, region: &Region, source: Source) -> bool {
        let (first, len) = (region.iova().raw(), region.len() as u64);
        let same = |map: &Map| map.first == first && map.last - first == len - 1;
        if let (Source::Region(_), Some(map)) = (&source, self.maps.iter().find(|map| same(map)))
            && matches!(&map.source, Source::Region(old) if old.id() == region.id())
        {
            return true;
        }
        self.add(first, len, Permission::ALL, NonNull::new(region.as_ptr()), source)
    }

    /// Maps part of a file. `false` when it overlaps another map, does not lie inside the file, or may not be written as it should.
    pub(crate) fn map_file(
        &mut self,
        first: u64,
        len: u64,
        permission: Permission,
        file: Arc<FileMemory>,
        at: u64,
    ) -> bool {
        let Some(base) = file.place(at, len, permission.write) else { return false };
        self.add(first, len, permission, Some(base), Source::File(file))
    }

    /// Maps what is reached by message only.
    pub(crate) fn map_messages(&mut self, first: u64, len: u64, permission: Permission) -> bool {
        self.add(first, len, permission, None, Source::Away)
    }

    fn add(&mut self, first: u64, len: u64, permission: Permission, base: Option<NonNull<u8>>, source: Source) -> bool {
        let Some(last) = len.checked_sub(1).and_then(|more| first.checked_add(more)) else { return false };
        let index = self.maps.partition_point(|map| map.last < first);
        if self.maps.get(index).is_some_and(|next| next.first <= last) {
            return false;
        }
        let base = if matches!(source, Source::Away) { None } else { base };
        self.maps.insert(index, Map { first, last, base, permission, source });
        self.epoch += 1;
        true
    }

    /// Takes a region's map away; `false` when there is none.
    pub(crate) fn unmap(&mut self, region: &Region) -> bool {
        let (first, len) = (region.iova().raw(), region.len() as u64);
        let there = self.maps.iter().any(|map| map.first == first && map.last - first == len - 1);
        there && self.remove(first, len)
    }

    /// Takes all maps in a range away, of which there may be none. `false`, and nothing done, when the range would cut a map.
    pub(crate) fn remove(&mut self, first: u64, len: u64) -> bool {
        let Some(more) = len.checked_sub(1) else { return true };
        let last = first.saturating_add(more);
        let begin = self.maps.partition_point(|map| map.last < first);
        let end = self.maps.partition_point(|map| map.first <= last);
        let inside = self.maps.get(begin..end).unwrap_or_default();
        if inside.iter().any(|map| map.first < first || map.last > last) {
            return false;
        }
        if !inside.is_empty() {
            self.maps.drain(begin..end);
            self.epoch += 1;
        }
        true
    }

    /// Takes all maps away.
    pub(crate) fn clear(&mut self) {
        self.maps.clear();
        self.epoch += 1;
    }

    /// Number of maps.
    pub(crate) fn mapped(&self) -> usize {
        self.maps.len()
    }

    /// Changes whenever translations may have changed.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn faults(&self) -> Vec<DmaFault> {
        self.faults.borrow().clone()
    }

    pub(crate) fn fault_count(&self) -> u64 {
        self.fault_count.get()
    }

    /// Records an access that was refused.
    #[cold]
    pub(crate) fn refuse(&self, address: u64, bytes: u64, access: Access) {
        self.fault_count.set(self.fault_count.get() + 1);
        let mut faults = self.faults.borrow_mut();
        if faults.len() < FAULTS_KEPT {
            faults.push(DmaFault { address, bytes, access });
        }
    }

    /// Where `bytes` bytes at `address` are, when one map of memory in this process has them all.
    #[inline]
    pub(crate) fn here(&self, hint: &mut Hint, address: u64, bytes: usize, access: Access) -> Option<Place<'_>> {
        let (map, offset) = match self.maps.get(hint.0).and_then(|map| Some((map, map.offset(address, bytes)?))) {
            Some(found) => found,
            None => self.search(hint, address, bytes)?,
        };
        if map.permission.allows(access) { map.place(offset) } else { None }
    }

    #[cold]
    fn search(&self, hint: &mut Hint, address: u64, bytes: usize) -> Option<(&Map, u64)> {
        let index = self.maps.partition_point(|map| map.last < address);
        let map = self.maps.get(index)?;
        let offset = map.offset(address, bytes)?;
        *hint = Hint(index);
        Some((map, offset))
    }

    /// The first stretch of `bytes` bytes at `address` that lies in one map, and its length; `None` when nothing is mapped there
    /// for this access.
    pub(crate) fn stretch(&self, address: u64, bytes: usize, access: Access) -> Option<(Stretch<'_>, usize)> {
        let (map, offset) = self.search(&mut Hint::default(), address, 1)?;
        if !map.permission.allows(access) {
            return None;
        }
        let more = usize::try_from(map.last - address).unwrap_or(usize::MAX);
        let len = bytes.min(more.saturating_add(1));
        Some((map.place(offset).map_or(Stretch::Away, Stretch::Here), len))
    }

    /// Writes what is in this process, in order, and hands `away` what is not. What is not mapped at all is left out.
    pub(crate) fn write_parts(&self, address: u64, bytes: &[u8], mut away: impl FnMut(u64, &[u8])) {
        let (mut at, mut rest) = (address, bytes);
        while !rest.is_empty() {
            let Some((stretch, len)) = self.stretch(at, rest.len(), Access::Write) else { return };
            let (part, behind) = rest.split_at(len);
            match stretch {
                Stretch::Here(place) => place.write(part),
                Stretch::Away => away(at, part),
            }
            // Wraps only past the last address, where nothing is mapped.
            (at, rest) = (at.wrapping_add(len as u64), behind);
        }
    }

    /// The bytes at `address`, or a recorded fault.
    #[inline]
    pub(crate) fn span(&self, address: u64, bytes: usize, access: Access) -> Option<Span<'_>> {
        let mut hint = self.last.get();
        let place = self.here(&mut hint, address, bytes, access);
        self.last.set(hint);
        if place.is_none() {
            self.refuse(address, bytes as u64, access);
        }
        Some(Span::new(place?, bytes))
    }

    /// Ring memory at `address`, which keeps its map's source alive. A recorded fault when it is not mapped.
    pub(crate) fn words(&self, address: u64, bytes: usize, access: Access) -> Option<Words> {
        let span = self.span(address, bytes, access)?;
        let map = self.maps.get(self.last.get().0)?;
        Some(Words::new(&span, map.source.clone()))
    }
}

impl Map {
    #[inline]
    #[expect(unsafe_code, reason = "pointer arithmetic inside the map")]
    fn place(&self, offset: u64) -> Option<Place<'_>> {
        let (base, offset) = (self.base?, usize::try_from(offset).ok()?);
        // SAFETY: `offset` and the bytes that are wanted lie inside the map, which its source keeps in place.
        Some(unsafe { Place::at(base, offset) })
    }
}

#[cfg(test)]
mod tests;
