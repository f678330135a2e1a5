//! Registers of an engine and of its channels ("Intel QuickData Technology" in the datasheets of the Xeon E5 v4 and later, volume 2). Names are
//! those of the datasheet; bits of a register are in the module of its name.
//!
//! Only what this driver uses is here. Registers of 64 bits are reached by halves: some engines lose wider writes.

use crate::bus::{Bar, Width};
use crate::register::{ReadOnly, Readable, Reg, Writable, WriteOnly};

// The whole engine.
pub(super) const CHANCNT: Reg<u8, ReadOnly> = Reg::at(0x00);
pub(super) const XFERCAP: Reg<u8, ReadOnly> = Reg::at(0x01);
pub(super) const INTRCTRL: Reg<u8> = Reg::at(0x03);
pub(super) const CBVER: Reg<u8, ReadOnly> = Reg::at(0x08);

pub(super) mod intrctrl {
    /// Interrupts at all.
    pub(in super::super) const MASTER_ENABLE: u8 = 1 << 0;
    /// One vector for each channel.
    pub(in super::super) const MSIX_CONTROL: u8 = 1 << 3;
}

/// Bytes of registers of each channel, and of those in front of the first.
const CHANNEL: u32 = 0x80;

// One channel.
pub(super) const CHANCTRL: Reg<u16> = Reg::at(0x00);
pub(super) const CHANCMD: Reg<u8> = Reg::at(0x04);
pub(super) const DMACOUNT: Reg<u16, WriteOnly> = Reg::at(0x06);
pub(super) const CHANSTS_LOW: Reg<u32, ReadOnly> = Reg::at(0x08);
pub(super) const CHAINADDR_LOW: Reg<u32, WriteOnly> = Reg::at(0x10);
pub(super) const CHAINADDR_HIGH: Reg<u32, WriteOnly> = Reg::at(0x14);
pub(super) const CHANCMP_LOW: Reg<u32, WriteOnly> = Reg::at(0x18);
pub(super) const CHANCMP_HIGH: Reg<u32, WriteOnly> = Reg::at(0x1c);
pub(super) const CHANERR: Reg<u32> = Reg::at(0x28);

pub(super) mod chanctrl {
    /// Interrupts are armed again, for one.
    pub(in super::super) const INT_REARM: u16 = 1 << 0;
    /// An error makes a completion.
    pub(in super::super) const ERR_COMPLETION: u16 = 1 << 2;
    /// Any error halts the channel.
    pub(in super::super) const ANY_ERR_ABORT: u16 = 1 << 3;
    /// An error makes an interrupt.
    pub(in super::super) const ERR_INT: u16 = 1 << 4;
}

pub(super) mod chancmd {
    pub(in super::super) const SUSPEND: u8 = 1 << 2;
    /// Reads as one until the reset is done.
    pub(in super::super) const RESET: u8 = 1 << 5;
}

/// Configuration space: errors of the channel, kept there too up to version 3.2.
pub(super) const CHANERR_INT: u16 = 0x180;

/// What a channel is doing: the lowest bits of CHANSTS and of a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Active,
    Idle,
    Suspended,
    Halted,
    Armed,
    /// Defined nowhere.
    Reserved,
}

impl State {
    /// Of a completion, or of CHANSTS.
    pub(super) fn of(status: u64) -> Self {
        match status & 7 {
            0 => Self::Active,
            1 => Self::Idle,
            2 => Self::Suspended,
            3 => Self::Halted,
            4 => Self::Armed,
            _ => Self::Reserved,
        }
    }
}

/// The address of a descriptor in a completion.
pub(super) const COMPLETED: u64 = !0x3f;

/// The registers of one channel.
#[derive(Debug)]
pub(super) struct Registers<B> {
    bar: B,
    base: u32,
}

impl<B: Bar> Registers<B> {
    /// Those of channel `number`.
    pub(super) fn new(bar: B, number: u8) -> Self {
        Self { bar, base: CHANNEL * (u32::from(number) + 1) }
    }

    pub(super) fn load<W: Width, A: Readable>(&self, register: &Reg<W, A>) -> W {
        register.load(&self.bar, self.base)
    }

    pub(super) fn store<W: Width, A: Writable>(&self, register: &Reg<W, A>, value: W) {
        register.store(&self.bar, self.base, value);
    }

    /// Writes both halves of a register.
    pub(super) fn store_halves(&self, low: &Reg<u32, WriteOnly>, high: &Reg<u32, WriteOnly>, value: u64) {
        self.store(low, u32::narrow(value & 0xffff_ffff));
        self.store(high, u32::narrow(value >> 32));
    }

    /// What the channel is doing; `None` when nobody answers.
    pub(super) fn state(&self) -> Option<State> {
        let status = self.load(&CHANSTS_LOW);
        (status != u32::MAX).then(|| State::of(status.into()))
    }

    /// So many descriptors, modulo 2^16, are the channel's since its chain was written, after all earlier writes to memory.
    #[inline(always)]
    pub(super) fn ring(&self, count: u16) {
        self.bar.publish(self.base.wrapping_add(DMACOUNT.offset()), count);
    }
}
