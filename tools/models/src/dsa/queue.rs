//! A work queue: its configuration, the descriptors in it, and its portals.

use std::collections::{BTreeMap, VecDeque};

use super::config::{Config, Version};
use super::descriptor::{Descriptor, Rules};
use super::engine::{Batch, Job};
use super::general::{General, Origin};
use super::pci::Capabilities;
use super::registers::{PORTAL_BYTES, merge};
use super::report::Held;
use crate::card::{BlockWrite, Hint};

/// Words of WQCFG.
const SIZE: usize = 0;
const THRESHOLD: usize = 1;
const MODE: usize = 2;
const LIMITS: usize = 3;
const OCCUPANCY_HANDLE: usize = 4;
const OCCUPANCY_LIMIT: usize = 5;
const STATUS: usize = 6;
const OPERATIONS: usize = 8;

/// MODE: dedicated, block on fault, no translation services, no page requests; priority; PASID, its enable, privilege.
const DEDICATED: u32 = 1 << 0;
const BLOCK_ON_FAULT: u32 = 1 << 1;
const PRIORITY: u32 = 0xf << 4;
const PASID_ENABLE: u32 = 1 << 28;
const PRIVILEGED: u32 = 1 << 29;

/// Bits that a driver can write, by word.
const WRITABLE: [u32; 16] = [
    0xffff,
    0xffff,
    0x3fff_ffff,
    0x1ff,
    0x1_ffff,
    0x1_ffff,
    0x1_0000,
    0,
    u32::MAX,
    u32::MAX,
    u32::MAX,
    u32::MAX,
    u32::MAX,
    u32::MAX,
    u32::MAX,
    u32::MAX,
];

/// When a descriptor was refused at the door.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refused {
    /// The queue is not enabled.
    Disabled,
    /// There is no room.
    Full,
    /// A dedicated queue takes no deferrable writes, a shared one no posted ones.
    Kind,
}

/// 64 bytes that come in pieces.
#[derive(Clone, Copy, Default, Debug)]
struct Line {
    words: [u64; 8],
    /// One bit for each 4 bytes.
    filled: u16,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) number: u8,
    words: [u32; 16],
    pub(super) enabled: bool,
    /// It takes no more, and is disabled once it is empty.
    pub(super) closing: bool,
    pub(super) entries: VecDeque<Descriptor>,
    pub(super) batch: Option<Batch>,
    pub(super) job: Option<Job>,
    /// Completions that come late.
    pub(super) held: VecDeque<Held>,
    /// Descriptors taken, and done with.
    pub(super) taken: u64,
    pub(super) retired: u64,
    /// A fault: stands still.
    pub(super) hangs: bool,
    lines: BTreeMap<u32, Line>,
    /// Where the last completion record was written.
    pub(super) last_record: u64,
    pub(super) list_hint: Hint,
    pub(super) record_hint: Hint,
    pub(super) data_hints: [Hint; 2],
    pub(super) second_hint: Hint,
}

impl Queue {
    pub(super) fn new(number: u8) -> Self {
        Self { number, ..Self::default() }
    }

    /// Reads a word of WQCFG.
    pub(super) fn load(&self, word: usize) -> u32 {
        let occupancy = u32::try_from(self.entries.len()).unwrap_or(u32::MAX).min(0xffff);
        match word {
            // Its mode can be set; bits 31 to 30 are its state.
            STATUS => self.words[STATUS] | occupancy | 1 << 29 | u32::from(self.enabled) << 30,
            _ => self.words.get(word).copied().unwrap_or(0),
        }
    }

    /// Writes the bits in `mask` of a word. What is wrong with that, if anything; then nothing happens.
    pub(super) fn store(&mut self, word: usize, value: u32, mask: u32, device_is_disabled: bool) -> Option<String> {
        let (Some(before), Some(writable)) = (self.words.get_mut(word), WRITABLE.get(word)) else { return None };
        if word == STATUS {
            // The occupancy interrupt's state: ones clear.
            *before &= !(value & mask & writable);
            return None;
        }
        let after = merge(*before, value, mask & writable);
        let may = match word {
            SIZE => device_is_disabled,
            THRESHOLD | OCCUPANCY_HANDLE | OCCUPANCY_LIMIT => true,
            _ => !self.enabled,
        };
        if may {
            *before = after;
        } else if after != *before {
            let what = if word == SIZE { "the device" } else { "the queue" };
            return Some(format!(
                "the driver changed word {word} of WQCFG of queue {} while {what} was enabled",
                self.number
            ));
        }
        None
    }

    pub(super) fn size(&self) -> u32 {
        self.words[SIZE] & 0xffff
    }

    pub(super) fn is_dedicated(&self) -> bool {
        self.words[MODE] & DEDICATED != 0
    }

    /// The address space of its own.
    fn own_pasid(&self) -> Option<u32> {
        (self.words[MODE] & PASID_ENABLE != 0).then_some(self.words[MODE] >> 8 & 0xf_ffff)
    }

    /// The address space of a descriptor.
    pub(super) fn pasid(&self, descriptor: &Descriptor) -> Option<u32> {
        if self.is_dedicated() { self.own_pasid() } else { self.own_pasid().map(|_| descriptor.pasid()) }
    }

    pub(super) fn origin(&self, descriptor: Descriptor, member: Option<u16>) -> Origin {
        let pasid = self.pasid(&descriptor).unwrap_or(0);
        Origin { queue: self.number, member, descriptor, pasid }
    }

    /// What a descriptor of this queue may be. Members of a batch are of the address space of the batch.
    pub(super) fn rules(
        &self,
        config: &Config,
        pci: &Capabilities,
        general: &General,
        descriptor: &Descriptor,
        of: &Descriptor,
        in_batch: bool,
    ) -> Rules {
        let own = |word: usize| u64::from(self.words.get(word).copied().unwrap_or(0));
        Rules {
            in_batch,
            block_on_fault: self.words[MODE] & BLOCK_ON_FAULT != 0,
            longest: 1 << (self.words[LIMITS] & 0x1f),
            largest_batch: 1 << (self.words[LIMITS] >> 5 & 0xf),
            operations: match config.version {
                Version::One => u64::MAX,
                Version::Two => own(OPERATIONS) | own(OPERATIONS + 1) << 32,
            },
            privileged: self.is_dedicated() || in_batch || pci.privileged(),
            handle: general.vector(descriptor.handle(), self.pasid(of)).is_some(),
        }
    }

    /// The status of the command that enables it, when it cannot be.
    pub(super) fn may_be_enabled(&self, config: &Config, pci: &Capabilities) -> Result<(), u8> {
        let [mode, limits] = [self.words[MODE], self.words[LIMITS]];
        let has_pasid = mode & PASID_ENABLE != 0;
        let needs_pasid = !self.is_dedicated() && config.shared_needs_pasid;
        let fails = [
            (self.enabled, 0x21),
            (self.size() == 0, 0x22),
            (mode & PRIORITY == 0, 0x23),
            ((has_pasid && !pci.pasid()) || (needs_pasid && !has_pasid), 0x26),
            (limits >> 5 & 0xf > u32::from(config.largest_batch), 0x27),
            (limits & 0x1f > u32::from(config.longest), 0x28),
            (self.is_dedicated() && has_pasid && mode & PRIVILEGED != 0 && !pci.privileged(), 0x2a),
        ];
        fails.iter().find(|(fails, _)| *fails).map_or(Ok(()), |(_, status)| Err(*status))
    }

    /// Whether one more descriptor fits, by this portal.
    fn has_room(&self, portal: u32) -> bool {
        let is_limited = !self.is_dedicated() && portal & 1 != 0;
        let most = if is_limited { self.words[THRESHOLD] & 0xffff } else { self.size() };
        self.entries.len() < most as usize
    }

    /// A descriptor comes in.
    pub(super) fn take(&mut self, portal: u32, descriptor: Descriptor, write: BlockWrite) -> Result<(), Refused> {
        let kind = if self.is_dedicated() { BlockWrite::Posted } else { BlockWrite::Deferrable };
        if !self.enabled || self.closing {
            return Err(Refused::Disabled);
        }
        if write != kind && write != BlockWrite::Either {
            return Err(Refused::Kind);
        }
        if !self.has_room(portal) {
            return Err(Refused::Full);
        }
        self.entries.push_back(descriptor);
        self.taken += 1;
        Ok(())
    }

    /// A piece of a descriptor comes in, on a bus that carries no 64 bytes at once. Gives the descriptor with its last piece.
    pub(super) fn collect(&mut self, offset: u32, bytes: u32, value: u64) -> Option<Descriptor> {
        let line = self.lines.entry(offset / 64).or_default();
        let word = usize::try_from(offset % 64 / 8).ok().and_then(|index| line.words.get_mut(index))?;
        let bit = offset % 64 / 4;
        match (bytes, offset & 4) {
            (8, _) => (*word, line.filled) = (value, line.filled | 3 << bit),
            (4, 0) => (*word, line.filled) = (*word & !0xffff_ffff | value & 0xffff_ffff, line.filled | 1 << bit),
            (4, _) => (*word, line.filled) = (*word & 0xffff_ffff | value << 32, line.filled | 1 << bit),
            _ => return None,
        }
        if line.filled != u16::MAX {
            return None;
        }
        let descriptor = Descriptor(line.words);
        self.lines.remove(&(offset / 64));
        Some(descriptor)
    }

    /// The portal that an offset in its pages is in.
    pub(super) fn portal(offset: u32) -> u32 {
        offset / PORTAL_BYTES
    }

    /// It has come down to the occupancy that is to interrupt: gives the handle.
    pub(super) fn occupancy_reached(&mut self) -> bool {
        let (limit, enabled) = (self.words[OCCUPANCY_LIMIT] & 0xffff, self.words[OCCUPANCY_LIMIT] & 1 << 16 != 0);
        let reached = enabled && self.words[STATUS] & 1 << 16 == 0 && self.entries.len() == limit as usize;
        if reached {
            self.words[STATUS] |= 1 << 16;
        }
        reached
    }

    /// A poll may find something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.entries.is_empty() || self.is_busy()
    }

    /// Something was begun and is not reported yet.
    pub(super) fn is_busy(&self) -> bool {
        self.job.is_some() || self.batch.is_some() || !self.held.is_empty()
    }

    /// Drops all descriptors, without a word to anybody.
    pub(super) fn abort(&mut self) {
        self.entries.clear();
        self.held.clear();
        (self.job, self.batch, self.hangs) = (None, None, false);
        self.retired = self.taken;
    }

    /// Drops those of one address space.
    pub(super) fn abort_pasid(&mut self, pasid: u32) {
        let mut entries = std::mem::take(&mut self.entries);
        let before = entries.len();
        entries.retain(|descriptor| self.pasid(descriptor) != Some(pasid));
        self.retired += (before - entries.len()) as u64;
        self.entries = entries;
    }

    pub(super) fn disable(&mut self) {
        (self.enabled, self.closing) = (false, false);
        self.lines.clear();
    }

    /// As after a reset of the device.
    pub(super) fn reset(&mut self) {
        *self = Self { taken: self.taken, retired: self.taken, ..Self::new(self.number) };
    }

    /// As after a reset of the queue: its size belongs to the device's configuration, and stays.
    pub(super) fn reset_configuration(&mut self) {
        let size = self.words[SIZE];
        self.words = [0; 16];
        self.words[SIZE] = size;
    }
}
