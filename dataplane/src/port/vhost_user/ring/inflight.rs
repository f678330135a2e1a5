//! What outlives a device that dies: the in-flight region (`VHOST_USER_GET_INFLIGHT_FD`, `VHOST_USER_SET_INFLIGHT_FD`).
//!
//! The frontend keeps the region and hands it to the next device, which finds out what the last one had taken and not given back.
//! The layout, with its version, is the one that the vhost-user specification proposes ("Inflight I/O tracking"), so sizes and
//! fields mean to others what they mean to us. But our rings give chains back in the order in which they took them, which makes most of it needless:
//! what was taken and not given back is always what comes next in the ring, as the driver left it.
//!
//! - Split: the used index is in the driver's memory, and the one store to it gives a batch back. The region says that it is ours, and
//!   repeats the index.
//! - Packed: the driver keeps no index, and a batch is many stores. So the *intended* place and the used descriptors to be written go to the
//!   region first, then the batch to the ring, its first descriptor last, and then the *committed* place follows the intended. Whoever finds
//!   them different looks at that first descriptor: if it is used, the batch was shown whole; if not, the driver has seen nothing of it,
//!   and it is written again from the region.
//!
//! A process that is killed leaves the stores that it did, in their order, so release stores are all the order that is needed.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};

use super::packed::Staged;
use super::{Format, RingFault};
use crate::guest::{Access, GuestAddress, GuestError, MapOptions, Memory, RegionSpec, Words};

/// Version of the layout.
const VERSION: u16 = 1;
/// Largest ring.
const LARGEST: u16 = 1 << 15;
/// Most queues that are believed in.
const MOST_QUEUES: u16 = 1024;
/// Each queue's part begins at a multiple of this.
const ALIGNMENT: u64 = 64;

/// Word 1 of both layouts: version, number of descriptors, and 32 bits of the format's own.
const ABOUT: usize = 1;
/// Word 2 of the packed layout: intended and committed index (16 bits each) and wrap counter (8 bits each).
const PLACES: usize = 2;
/// First word of the entries of the packed layout, four words each.
const ENTRIES: usize = 4;
const ENTRY: usize = 4;

/// An in-flight region cannot be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InflightError {
    /// So many queues, or queues of that size, cannot be.
    #[error("an in-flight region for {queues} queues of {size} descriptors cannot be")]
    Geometry {
        /// Number of queues.
        queues: u16,
        /// Descriptors of each.
        size: u16,
    },
    /// The region is too small for its queues.
    #[error(
        "an in-flight region of {len} bytes is too small, {needed} are needed; it is not the one that was given out"
    )]
    TooSmall {
        /// Its length in bytes.
        len: u64,
        /// What its queues need.
        needed: u64,
    },
    /// The file cannot serve as memory.
    #[error("the in-flight region: {0}")]
    Memory(#[from] GuestError),
    /// The system gave no memory.
    #[error("cannot make an in-flight region: {0}; raise the memory limit of this process")]
    System(#[from] std::io::Error),
}

/// The in-flight region of a port: one part for each queue.
#[derive(Debug)]
pub(crate) struct Region {
    memory: Arc<Memory>,
    format: Format,
    queues: u16,
    size: u16,
}

impl Region {
    /// Bytes of a region for `queues` queues of up to `size` descriptors each.
    ///
    /// # Errors
    /// When there are none or too many of either.
    pub(crate) fn len(format: Format, queues: u16, size: u16) -> Result<u64, InflightError> {
        if !(1..=MOST_QUEUES).contains(&queues) || !(1..=LARGEST).contains(&size) {
            return Err(InflightError::Geometry { queues, size });
        }
        Ok(stride(format, size) * u64::from(queues))
    }

    /// A fresh region, its file for the frontend, and its length in bytes.
    ///
    /// # Errors
    /// When it cannot be, or the system has no memory.
    pub(crate) fn create(format: Format, queues: u16, size: u16) -> Result<(Self, OwnedFd, u64), InflightError> {
        let len = Self::len(format, queues, size)?;
        let system = |errno: rustix::io::Errno| InflightError::System(errno.into());
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(rustix::fs::memfd_create("mirach-inflight", flags).map_err(system)?);
        file.set_len(len)?;
        // Nobody can cut it off under us.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(system)?;
        let options = MapOptions::default();
        let region = Self::adopt(file.try_clone()?.into(), 0, len, format, queues, size, &options)?;
        Ok((region, file.into(), len))
    }

    /// The region of `len` bytes at `offset` of `file`, which a frontend kept for us and may cut off at any time.
    ///
    /// # Errors
    /// When it is too small for its queues, or the file is no memory.
    pub(crate) fn adopt(
        file: OwnedFd,
        offset: u64,
        len: u64,
        format: Format,
        queues: u16,
        size: u16,
        options: &MapOptions,
    ) -> Result<Self, InflightError> {
        let needed = Self::len(format, queues, size)?;
        if len < needed {
            return Err(InflightError::TooSmall { len, needed });
        }
        let spec = RegionSpec { guest: 0, user: 0, size: needed, offset };
        let memory = Memory::empty().with(spec, file, options)?;
        Ok(Self { memory, format, queues, size })
    }

    /// It was cut off: nothing in it outlives this process.
    pub(crate) fn is_lost(&self) -> bool {
        self.memory.is_lost()
    }

    /// The part of queue `index`; `None` for a queue that it was not made for.
    pub(crate) fn queue(&self, index: u16) -> Option<Inflight> {
        if index >= self.queues {
            return None;
        }
        let stride = stride(self.format, self.size);
        let count = usize::try_from(stride).ok()? / size_of::<u64>();
        let words = self.memory.words(GuestAddress(stride * u64::from(index)), count, Access::Write).ok()?;
        Some(Inflight { words, size: self.size, format: self.format })
    }
}

/// Bytes of a queue's part, with room to the next.
fn stride(format: Format, size: u16) -> u64 {
    let bytes = match format {
        Format::Split => 16 + 16 * u64::from(size),
        Format::Packed => 32 + 32 * u64::from(size),
    };
    bytes.next_multiple_of(ALIGNMENT)
}

/// One queue's part of an in-flight region.
#[derive(Debug)]
pub(crate) struct Inflight {
    words: Words<AtomicU64>,
    size: u16,
    format: Format,
}

/// What the region says about a packed ring. Places are an index in bits 0-14 and a wrap counter in bit 15.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PackedState {
    /// Where the last batch began.
    pub(super) from: u16,
    /// Where it was to end.
    pub(super) to: u16,
    /// When they differ, what was to be written: descriptors that a used one stands for, and its second word. Those of the last batch
    /// come first.
    pub(super) entries: Vec<(u16, u64)>,
}

#[expect(clippy::cast_possible_truncation, reason = "words are taken apart")]
impl Inflight {
    fn load(&self, index: usize) -> u64 {
        self.words.get(index).map_or(0, |word| u64::from_le(word.load(Ordering::Acquire)))
    }

    #[inline(always)]
    fn store(&self, index: usize, value: u64) {
        if let Some(word) = self.words.get(index) {
            step();
            word.store(value.to_le(), Ordering::Release);
        }
    }

    /// Whether the region was in use before. For a ring of `size` descriptors of `format`.
    fn resume(&self, format: Format, size: u16) -> Result<bool, RingFault> {
        let fault = |what| Err(RingFault::BadInflight { what });
        if self.format != format {
            return fault("it was made for rings of the other format");
        }
        if size > self.size {
            return fault("it was made for a smaller ring");
        }
        let about = self.load(ABOUT);
        match about as u16 {
            0 => Ok(false),
            VERSION if (about >> 16) as u16 == self.size => Ok(true),
            VERSION => fault("it was made for a ring of another size"),
            _ => fault("its version is unknown"),
        }
    }

    /// Word 1, from which on the region counts as in use.
    fn about(&self) -> u64 {
        u64::from(VERSION) | u64::from(self.size) << 16
    }

    /// Split: makes the region ours, for a ring of `size` descriptors that goes on at `used_index`.
    ///
    /// # Errors
    /// When it is not one for this ring.
    pub(super) fn resume_split(&self, size: u16, used_index: u16) -> Result<(), RingFault> {
        self.resume(Format::Split, size)?;
        self.published_split(used_index);
        Ok(())
    }

    /// Split: the used index, which was just stored in the ring.
    #[inline(always)]
    pub(super) fn published_split(&self, used_index: u16) {
        self.store(ABOUT, self.about() | u64::from(used_index) << 48);
    }

    /// Packed: what the device before did last; `None` when there was none.
    ///
    /// # Errors
    /// When the region is not one for this ring.
    pub(super) fn resume_packed(&self, size: u16) -> Result<Option<PackedState>, RingFault> {
        if !self.resume(Format::Packed, size)? {
            return Ok(None);
        }
        let places = self.load(PLACES);
        let turn = |bits: u64| if bits & 0xff == 0 { 0 } else { 1 << 15 };
        let to = (places as u16) & 0x7fff | turn(places >> 32);
        let from = ((places >> 16) as u16) & 0x7fff | turn(places >> 40);
        let entry = |index: u16| {
            let first = ENTRIES + ENTRY * usize::from(index);
            let rest = self.load(first + 2);
            let (id, flags, len) = (rest & 0xffff, (rest >> 16) & 0xffff, rest >> 32);
            ((self.load(first) >> 48) as u16, len | id << 32 | flags << 48)
        };
        let entries = if from == to { Vec::new() } else { (0..size).map(entry).collect() };
        Ok(Some(PackedState { from, to, entries }))
    }

    /// Packed: makes the region ours, for a ring that goes on at `place`.
    pub(super) fn resumed_packed(&self, place: u16) {
        self.committed_packed(place);
        // Only now: a region that was in use says where.
        self.store(ABOUT, self.about());
    }

    /// Packed: what is about to be written to the ring, from place `from` up to place `to`.
    #[inline(always)]
    pub(super) fn intend_packed(&self, staged: &[Staged], from: u16, to: u16) {
        let (entries, _) = self.words.get(ENTRIES..).unwrap_or_default().as_chunks::<ENTRY>();
        for (entry, staged) in entries.iter().zip(staged) {
            let [state, _, rest, _] = entry;
            let (len, id, flags) = (staged.word & 0xffff_ffff, (staged.word >> 32) & 0xffff, staged.word >> 48);
            step();
            state.store((u64::from(staged.descriptors) << 48).to_le(), Ordering::Relaxed);
            step();
            rest.store((id | flags << 16 | len << 32).to_le(), Ordering::Relaxed);
        }
        self.store(PLACES, places(from, to));
    }

    /// Packed: everything up to `place` is used, and the driver knows.
    #[inline(always)]
    pub(super) fn committed_packed(&self, place: u16) {
        self.store(PLACES, places(place, place));
    }
}

/// The word with both places, committed and intended.
#[inline(always)]
fn places(from: u16, to: u16) -> u64 {
    let index = |place: u16| u64::from(place & 0x7fff);
    let turn = |place: u16| u64::from(place >> 15);
    index(to) | index(from) << 16 | turn(to) << 32 | turn(from) << 40
}

/// Stands in front of every store that recovery depends on, so that tests can die at each of them. Nothing otherwise.
#[inline(always)]
pub(super) fn step() {
    #[cfg(test)]
    tests::step();
}

#[cfg(test)]
#[path = "inflight_tests.rs"]
mod tests;
