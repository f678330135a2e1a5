//! Interrupt causes, masks, vectors and throttling (7.3, 8.2.3.5).
//!
//! A cause that is set while it is clear, or that is enabled while it is set, arms its vector. An armed vector whose interval has passed
//! is signalled at the next poll; then the causes clear and mask themselves as the driver asked for.

use std::time::Duration;

use super::fault::{Fault, Trick};
use super::registers::{
    EIAC, EIAM, EIAM_EX, EICR, EICS, EICS_EX, EIMC, EIMC_EX, EIMS, EIMS_EX, EITR, EITR_HIGH, GPIE, IVAR, IVAR_MISC,
};
use crate::card::Bus;

/// Causes of EICR above the queues.
pub(super) mod cause {
    /// A frame found no room in the packet buffer.
    pub(in crate::ixgbe) const RECEIVE_MISS: u32 = 1 << 17;
    /// The link changed.
    pub(in crate::ixgbe) const LINK: u32 = 1 << 20;
}

/// GPIE: several vectors; other causes are not cleared by reading; automatic masks apply when a vector fires.
const MULTIPLE: u32 = 1 << 4;
const KEEP_QUEUES: u32 = 1 << 5;
const MASK_WHEN_FIRED: u32 = 1 << 30;
/// Queue causes in EICR and its kin.
const QUEUES: u32 = 0xffff;
/// Every other cause there is.
const OTHERS: u32 = 0x7fff_0000;
/// An entry of IVAR is valid.
const VALID: u32 = 0x80;
/// EITR: interval in units of 2.048 us, and "do not touch the counter".
const INTERVAL: u32 = 0xff8;
const KEEP_COUNTER: u32 = 1 << 31;
const VECTORS: usize = 64;

/// The interrupt block.
#[derive(Debug)]
pub(super) struct Interrupts {
    general: u32,
    allocation: [u32; 64],
    other_allocation: u32,
    intervals: [u32; 129],
    /// Causes of queues, by what IVAR says; and those that are enabled, or mask themselves.
    queues: Causes,
    /// Causes 16 to 30 of EICR.
    others: Causes,
    /// EIAC: causes that clear themselves.
    auto_clear: u32,
    signalled: [Option<Duration>; VECTORS],
}

/// A set of causes.
#[derive(Clone, Copy, Default, Debug)]
struct Causes {
    set: u64,
    enabled: u64,
    auto_mask: u64,
    /// Wait to be signalled.
    armed: u64,
}

impl Causes {
    fn raise(&mut self, bits: u64) {
        self.armed |= bits & !self.set;
        self.set |= bits;
    }

    fn clear(&mut self, bits: u64) {
        self.set &= !bits;
        self.armed &= !bits;
    }

    fn enable(&mut self, bits: u64) {
        self.armed |= bits & self.set & !self.enabled;
        self.enabled |= bits;
    }

    fn ready(&self) -> u64 {
        self.armed & self.enabled
    }
}

impl Interrupts {
    /// As after a reset.
    pub(super) fn new() -> Self {
        Self {
            general: 0,
            allocation: [0; 64],
            other_allocation: 0,
            intervals: [0; 129],
            queues: Causes::default(),
            others: Causes::default(),
            auto_clear: 0,
            signalled: [None; VECTORS],
        }
    }

    /// Receive queues have something for the driver: bit = queue.
    pub(super) fn receive(&mut self, queues: u128) {
        self.queue(queues, 0);
    }

    /// Transmit queues have something for the driver: bit = queue.
    pub(super) fn transmit(&mut self, queues: u128) {
        self.queue(queues, 8);
    }

    fn queue(&mut self, mut queues: u128, shift: u32) {
        let mut bits = 0;
        while queues != 0 {
            let queue = queues.trailing_zeros();
            queues &= queues - 1;
            let entry = self.allocation.get(queue as usize / 2).copied().unwrap_or(0) >> (16 * (queue % 2) + shift);
            if entry & VALID != 0 {
                bits |= 1_u64 << (entry & 0x3f);
            }
        }
        if self.general & MULTIPLE == 0 {
            bits = bits & u64::from(QUEUES) | u64::from(bits >> 16 != 0);
        }
        self.queues.raise(bits);
    }

    /// Something other than a queue wants the driver: bits of [`cause`].
    pub(super) fn other(&mut self, causes: u32) {
        self.others.raise(u64::from(causes & OTHERS));
    }

    /// What EICR shows.
    fn causes(&self) -> u32 {
        narrow(self.queues.set) & QUEUES | narrow(self.others.set)
    }

    /// Reads a register of this block.
    pub(super) fn load(&mut self, offset: u32) -> u32 {
        let index = |array: &super::registers::Register| array.index(offset).map(|index| index as usize);
        if offset == EICR.offset {
            let causes = self.causes();
            // Reading clears, unless several vectors are in use: then only what is not a queue, if so configured (8.2.3.5.1).
            let cleared = if self.general & KEEP_QUEUES == 0 { causes } else { causes & !QUEUES };
            self.clear(cleared);
            return causes;
        }
        match offset {
            _ if offset == EICS.offset => self.causes(),
            _ if offset == EIMS.offset => narrow(self.queues.enabled) & QUEUES | narrow(self.others.enabled),
            _ if offset == EIAC.offset => self.auto_clear,
            _ if offset == EIAM.offset => narrow(self.queues.auto_mask) & QUEUES | narrow(self.others.auto_mask),
            _ if offset == GPIE.offset => self.general,
            _ if offset == IVAR_MISC.offset => self.other_allocation,
            _ => {
                if let Some(index) = index(&IVAR) {
                    self.allocation.get(index).copied().unwrap_or(0)
                } else if let Some(vector) = vector_of(offset) {
                    self.intervals.get(vector).copied().unwrap_or(0)
                } else if let Some(index) = index(&EIMS_EX) {
                    narrow(self.queues.enabled >> (32 * index))
                } else if let Some(index) = index(&EICS_EX) {
                    narrow(self.queues.set >> (32 * index))
                } else if let Some(index) = index(&EIAM_EX) {
                    narrow(self.queues.auto_mask >> (32 * index))
                } else {
                    0
                }
            }
        }
    }

    /// Writes a register of this block.
    pub(super) fn store(&mut self, offset: u32, value: u32) {
        let (low, high) = (u64::from(value & QUEUES), u64::from(value & OTHERS));
        let wide =
            |array: &super::registers::Register| array.index(offset).map(|index| u64::from(value) << (32 * index));
        match offset {
            _ if offset == EICR.offset => self.clear(value),
            _ if offset == EICS.offset => self.force(low, high),
            _ if offset == EIMS.offset => {
                self.queues.enable(low);
                self.others.enable(high);
            }
            _ if offset == EIMC.offset => {
                self.queues.enabled &= !low;
                self.others.enabled &= !high;
            }
            _ if offset == EIAC.offset => self.auto_clear = value & (QUEUES | OTHERS),
            _ if offset == EIAM.offset => {
                self.queues.auto_mask = self.queues.auto_mask & !u64::from(QUEUES) | low;
                self.others.auto_mask = high;
            }
            _ if offset == GPIE.offset => self.general = value,
            _ if offset == IVAR_MISC.offset => self.other_allocation = value & 0xbfbf,
            _ => {
                if let Some(slot) = IVAR.index(offset).and_then(|index| self.allocation.get_mut(index as usize)) {
                    *slot = value & 0xbfbf_bfbf;
                } else if let Some(vector) = vector_of(offset) {
                    self.set_interval(vector, value);
                } else if let Some(bits) = wide(&EIMS_EX) {
                    self.queues.enable(bits);
                } else if let Some(bits) = wide(&EIMC_EX) {
                    self.queues.enabled &= !bits;
                } else if let Some(bits) = wide(&EICS_EX) {
                    self.force(bits, 0);
                } else if let Some(index) = EIAM_EX.index(offset) {
                    let shift = 32 * index;
                    self.queues.auto_mask =
                        self.queues.auto_mask & !(u64::from(u32::MAX) << shift) | u64::from(value) << shift;
                }
            }
        }
    }

    /// The driver sets causes itself. Automatic masks open for them (8.2.3.5.6).
    fn force(&mut self, queues: u64, others: u64) {
        self.queues.raise(queues);
        self.others.raise(others);
        self.queues.enable(queues & self.queues.auto_mask);
        self.others.enable(others & self.others.auto_mask);
    }

    /// The driver read or wrote EICR. Automatic masks close (8.2.3.5.6), unless they do so when a vector fires.
    fn clear(&mut self, bits: u32) {
        let (low, high) = (u64::from(bits & QUEUES), u64::from(bits & OTHERS));
        if self.general & MASK_WHEN_FIRED == 0 {
            self.queues.enabled &= !(low & self.queues.auto_mask);
            self.others.enabled &= !(high & self.others.auto_mask);
        }
        self.queues.clear(low);
        self.others.clear(high);
    }

    fn set_interval(&mut self, vector: usize, value: u32) {
        if let Some(slot) = self.intervals.get_mut(vector) {
            *slot = value & !KEEP_COUNTER;
        }
        if value & KEEP_COUNTER == 0
            && let Some(slot) = self.signalled.get_mut(vector)
        {
            *slot = None;
        }
    }

    /// Signals what is due. `true` when something was.
    pub(super) fn poll(&mut self, bus: &mut Bus, trick: &Trick) -> bool {
        if trick.is(Fault::InterruptsStorm) {
            self.storm(bus);
            return true;
        }
        let now = bus.now();
        let lost = trick.is(Fault::InterruptsLost);
        let mut signal = |vector: u32| {
            if !lost {
                bus.signal(u16::try_from(vector).unwrap_or(0));
            }
        };
        let (queues, others) = (self.queues.ready(), self.others.ready());
        if queues | others == 0 {
            return false;
        }
        if self.general & MULTIPLE == 0 {
            if self.pass(0, now) {
                self.fired(queues, others);
                signal(0);
                return true;
            }
            return false;
        }
        let mut work = false;
        let mut left = queues;
        while left != 0 {
            let bit = left.trailing_zeros();
            left &= left - 1;
            if self.pass(bit as usize, now) {
                self.fired(1 << bit, 0);
                signal(bit);
                work = true;
            }
        }
        let entry = self.other_allocation >> 8;
        if others != 0 && entry & VALID != 0 && self.pass((entry & 0x3f) as usize, now) {
            self.fired(0, others);
            signal(entry & 0x3f);
            work = true;
        }
        work
    }

    /// Whether the interval of a vector has passed; then it begins anew.
    fn pass(&mut self, vector: usize, now: Duration) -> bool {
        let units = self.intervals.get(vector).map_or(0, |value| (value & INTERVAL) >> 3);
        let interval = Duration::from_nanos(u64::from(units) * 2048);
        let Some(last) = self.signalled.get_mut(vector) else { return true };
        if last.is_some_and(|last| now.saturating_sub(last) < interval) {
            return false;
        }
        *last = Some(now);
        true
    }

    /// A message was sent for these causes: they clear and mask themselves (8.2.3.5.5, 8.2.3.5.18). Vectors from 16 on always clear.
    fn fired(&mut self, queues: u64, others: u64) {
        self.queues.armed &= !queues;
        self.others.armed &= !others;
        if self.general & MULTIPLE == 0 {
            return;
        }
        self.queues.set &= !(queues & (u64::from(self.auto_clear & QUEUES) | !u64::from(QUEUES)));
        self.others.set &= !(others & u64::from(self.auto_clear & OTHERS));
        if self.general & MASK_WHEN_FIRED != 0 {
            self.queues.enabled &= !(queues & self.queues.auto_mask);
            self.others.enabled &= !(others & self.others.auto_mask);
        }
    }

    /// Signals every vector that the driver has assigned to anything, for no reason.
    fn storm(&self, bus: &mut Bus) {
        let mut vectors = 0_u64;
        for entry in
            self.allocation.iter().flat_map(|word| word.to_le_bytes()).chain(self.other_allocation.to_le_bytes())
        {
            if u32::from(entry) & VALID != 0 {
                vectors |= 1_u64 << (entry & 0x3f);
            }
        }
        for vector in (0..64).filter(|vector| vectors >> vector & 1 == 1) {
            bus.signal(vector);
        }
    }
}

/// The vector whose interval is at `offset`.
fn vector_of(offset: u32) -> Option<usize> {
    EITR.index(offset).or_else(|| EITR_HIGH.index(offset).map(|index| index + 24)).map(|index| index as usize)
}

fn narrow(bits: u64) -> u32 {
    let [a, b, c, d, ..] = bits.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
