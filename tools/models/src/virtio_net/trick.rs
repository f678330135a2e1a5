//! How a card lies: decides at each buffer and each register what to say instead of the truth.

use super::fault::{Chaos, Fault, STRIKES_AFTER};
use super::header::NetHeader;
use super::ring::Ring;
use crate::random::Random;

/// The liar's state. An honest card has one too, and asks it nothing but [`Trick::is_honest`].
#[derive(Debug)]
pub(super) struct Trick {
    pub(super) fault: Option<Fault>,
    pub(super) chaos: Option<Chaos>,
    pub(super) random: Random,
    buffers: u64,
    struck: bool,
}

impl Trick {
    pub(super) fn new(fault: Option<Fault>, chaos: Option<Chaos>) -> Self {
        let random = Random::new(chaos.map_or(1, |chaos| chaos.seed));
        Self { fault, chaos, random, buffers: 0, struck: false }
    }

    /// A reset of the device: it starts honest again.
    pub(super) fn reset(&mut self) {
        self.buffers = 0;
        self.struck = false;
    }

    #[inline]
    pub(super) fn is_honest(&self) -> bool {
        self.fault.is_none() && self.chaos.is_none()
    }

    fn active(&self, fault: Fault) -> bool {
        self.fault == Some(fault) && self.buffers > STRIKES_AFTER
    }

    /// The first time that `fault` is asked for after it became active.
    fn once(&mut self, fault: Fault) -> bool {
        let now = self.active(fault) && !self.struck;
        self.struck |= now;
        now
    }

    pub(super) fn is_gone(&self) -> bool {
        self.fault == Some(Fault::Absent) || self.active(Fault::Removed)
    }

    pub(super) fn loses_interrupts(&self) -> bool {
        self.fault == Some(Fault::InterruptsLost)
    }

    pub(super) fn storms(&self) -> bool {
        self.fault == Some(Fault::InterruptsStorm)
    }

    pub(super) fn spoils_rings(&self) -> bool {
        self.fault == Some(Fault::RingOverwritten) || self.chaos.is_some()
    }

    pub(super) fn needs_reset_now(&mut self) -> bool {
        self.once(Fault::NeedsReset)
    }

    pub(super) fn register_at_random(&mut self, bytes: u32) -> Option<u64> {
        let chaos = self.chaos?;
        if !self.random.chance(chaos.registers) {
            return None;
        }
        // Small numbers and all ones get further than noise.
        let value = match self.random.below(4) {
            0 => self.random.below(4),
            1 => u64::MAX,
            2 => 1 << self.random.below(32),
            _ => self.random.bits(),
        };
        Some(value & (u64::MAX >> (64 - 8 * bytes.clamp(1, 8))))
    }

    /// Answers on the control queue: what to say instead of `ack`; `None` says nothing ever.
    pub(super) fn control_answer(&mut self, ack: u8) -> Option<(u8, u32)> {
        match self.fault {
            Some(Fault::ControlNeverAnswers) => None,
            Some(Fault::ControlGarbage) => Some((0xa5, u32::MAX)),
            Some(Fault::ControlRefuses) => Some((super::specification::control::ERROR, 1)),
            _ => Some((ack, 1)),
        }
    }

    /// Completes one buffer on `ring`, truthfully or not. `room` is what the driver's buffer holds.
    pub(super) fn complete(&mut self, ring: &mut Ring, id: u16, len: u32, slots: u16, room: u32) {
        self.buffers += 1;
        if let Some(chaos) = self.chaos
            && self.random.chance(chaos.rings)
        {
            let id = self.random.below(2 * u64::from(ring.size()));
            let len = if self.random.chance(128) { self.random.bits() } else { self.random.below(4096) };
            let slots = self.random.below(3);
            ring.complete_raw(low32(id), low32(len), low16(slots));
            return;
        }
        let size = u32::from(ring.size());
        let truth = u32::from(id);
        let active = if self.buffers > STRIKES_AFTER { self.fault } else { None };
        let (id, len) = match active {
            Some(Fault::UsedIdOutOfRange) => (size + truth, len),
            Some(Fault::UsedIdNotOutstanding) => ((truth + size / 2) % size, len),
            Some(Fault::LengthTooBig) => (truth, room.saturating_add(1)),
            Some(Fault::LengthHuge) => (truth, u32::MAX),
            Some(Fault::LengthTooSmall) => (truth, 11),
            Some(Fault::LengthZero) => (truth, 0),
            Some(Fault::DoneNever) => return,
            Some(Fault::UsedIdTwice) => {
                ring.complete_raw(truth, len, slots);
                (truth, len)
            }
            _ => (truth, len),
        };
        ring.complete_raw(id, len, slots);
    }

    /// Called when used entries have just become visible.
    pub(super) fn after_publish(&mut self, ring: &mut Ring) {
        if self.is_honest() {
            return;
        }
        if self.active(Fault::UsedIndexJumps) {
            let size = i16::try_from(ring.size()).unwrap_or(i16::MAX);
            ring.jump(size.saturating_add(7));
        }
        if self.active(Fault::UsedIndexBackwards) {
            ring.jump(-3);
        }
        if self.once(Fault::RingOverwritten) {
            ring.overwrite(&mut self.random);
        }
        if let Some(chaos) = self.chaos
            && self.random.chance(chaos.rings / 4)
        {
            let by = low16(self.random.below(64)).cast_signed() - 32;
            ring.jump(by);
        }
    }

    /// What to write as `num_buffers` and header instead of the truth.
    pub(super) fn header(&mut self, header: &mut NetHeader, buffers: u16) -> u16 {
        if let Some(chaos) = self.chaos
            && self.random.chance(chaos.rings)
        {
            let [a, b, c, d, e, f, g, h] = self.random.bits().to_le_bytes();
            *header = NetHeader {
                flags: a & 3,
                gso_type: b & 0x87,
                header_len: u16::from_le_bytes([c, d]),
                gso_size: u16::from_le_bytes([e, f]),
                checksum_start: u16::from_le_bytes([g, h & 1]),
                checksum_offset: u16::from_le_bytes([c, d & 1]),
                ..*header
            };
            return low16(self.random.below(4));
        }
        if self.buffers <= STRIKES_AFTER {
            return buffers;
        }
        match self.fault {
            Some(Fault::NumBuffersZero) => 0,
            Some(Fault::NumBuffersHuge) => u16::MAX,
            Some(Fault::NumBuffersMore) => buffers + 1,
            Some(Fault::HeaderSegmentation) => {
                *header = NetHeader { flags: 1, gso_type: 0xff, header_len: 0xffff, gso_size: 0, ..*header };
                buffers
            }
            Some(Fault::HeaderChecksum) => {
                *header = NetHeader { flags: 1, checksum_start: 0xfff0, checksum_offset: 0xfff0, ..*header };
                buffers
            }
            _ => buffers,
        }
    }
}

fn low16(value: u64) -> u16 {
    drivers::bus::Width::narrow(value)
}

fn low32(value: u64) -> u32 {
    drivers::bus::Width::narrow(value)
}
