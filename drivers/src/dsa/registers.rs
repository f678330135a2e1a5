//! Registers of a device ("Intel Data Streaming Accelerator Architecture Specification", chapter "Register Descriptions"). Names are those of the
//! specification. Only what this driver uses is here.

use crate::bus::Bar;
use crate::register::{ReadOnly, Reg, WriteOnly};

/// The window of registers, and the one of portals.
pub(super) const BAR: u8 = 0;
pub(super) const PORTAL_BAR: u8 = 2;

pub(super) const VERSION: Reg<u32, ReadOnly> = Reg::at(0x00);
pub(super) const GENCAP: Reg<u64, ReadOnly> = Reg::at(0x10);
pub(super) const WQCAP: Reg<u64, ReadOnly> = Reg::at(0x20);
pub(super) const GRPCAP: Reg<u64, ReadOnly> = Reg::at(0x30);
pub(super) const ENGCAP: Reg<u64, ReadOnly> = Reg::at(0x38);
/// Of four words; further ones are for operations from 64 on.
pub(super) const OPCAP: [Reg<u64, ReadOnly>; 4] = [Reg::at(0x40), Reg::at(0x48), Reg::at(0x50), Reg::at(0x58)];
pub(super) const OFFSETS: Reg<u64, ReadOnly> = Reg::at(0x60);
pub(super) const GENCFG: Reg<u32> = Reg::at(0x80);
pub(super) const GENCTRL: Reg<u32> = Reg::at(0x88);
pub(super) const GENSTS: Reg<u32, ReadOnly> = Reg::at(0x90);
pub(super) const CMD: Reg<u32, WriteOnly> = Reg::at(0xa0);
pub(super) const CMDSTS: Reg<u32, ReadOnly> = Reg::at(0xa8);
pub(super) const CMDCAP: Reg<u32, ReadOnly> = Reg::at(0xb0);
pub(super) const SWERR: [Reg<u64>; 3] = [Reg::at(0xc0), Reg::at(0xc8), Reg::at(0xd0)];

/// Tables begin at multiples of this.
pub(super) const TABLE: u32 = 0x100;
/// Bytes of a portal: four pages, of which the first takes any descriptor, and the second obeys the threshold of a shared queue.
pub(super) const PORTAL: u32 = 0x4000;
pub(super) const LIMITED_PORTAL: u32 = 0x1000;

// A group, from the start of its entry of 64 bytes.
pub(super) const GROUP: u32 = 64;
pub(super) const GRPWQCFG: [Reg<u64>; 4] = [Reg::at(0), Reg::at(8), Reg::at(16), Reg::at(24)];
pub(super) const GRPENGCFG: Reg<u64> = Reg::at(32);
pub(super) const GRPFLAGS: Reg<u64> = Reg::at(40);

pub(super) mod group_flags {
    /// Traffic classes A and B are both class 1, as its makers recommend for the first two versions.
    pub(in super::super) const CLASSES: u64 = 1 | 1 << 3;
    /// Read buffers that the group may use.
    pub(in super::super) const BUFFERS_SHIFT: u32 = 20;
}

// A work queue, from the start of its entry.
pub(super) const WQ_SIZE: Reg<u32> = Reg::at(0);
pub(super) const WQ_THRESHOLD: Reg<u32> = Reg::at(4);
pub(super) const WQ_MODE: Reg<u32> = Reg::at(8);
pub(super) const WQ_LIMITS: Reg<u32> = Reg::at(12);
pub(super) const WQ_OCCUPANCY_INTERRUPT: Reg<u32> = Reg::at(20);
pub(super) const WQ_STATE: Reg<u32, ReadOnly> = Reg::at(24);
pub(super) const WQ_OPERATIONS: u32 = 32;

pub(super) mod wq_mode {
    pub(in super::super) const DEDICATED: u32 = 1 << 0;
    /// Lowest priority but 0, which is not valid.
    pub(in super::super) const PRIORITY: u32 = 1 << 4;
}

/// What a device is doing (GENSTS).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DeviceState {
    Disabled,
    Enabled,
    Draining,
    Halted,
}

/// What a work queue is doing (WQCFG).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QueueState {
    Disabled,
    Enabled,
    Busy,
}

/// The registers that one work queue needs.
#[derive(Debug)]
pub(super) struct Registers<B> {
    bar: B,
    /// Where its entry begins.
    entry: u32,
    pub(super) queue: u8,
}

/// What the device is doing; `None` when nobody answers.
pub(super) fn device_state(bar: &impl Bar) -> Option<DeviceState> {
    let status = GENSTS.load(bar, 0);
    (status != u32::MAX).then_some(match status & 3 {
        0 => DeviceState::Disabled,
        1 => DeviceState::Enabled,
        2 => DeviceState::Draining,
        _ => DeviceState::Halted,
    })
}

/// Of a device that halted: a command does not help.
pub(super) fn wants_bus_reset(bar: &impl Bar) -> bool {
    GENSTS.load(bar, 0) >> 2 & 3 != 0
}

impl<B: Bar> Registers<B> {
    /// Those of work queue `queue`, whose entry begins at `entry`.
    pub(super) fn new(bar: B, queue: u8, entry: u32) -> Self {
        Self { bar, entry, queue }
    }

    pub(super) fn bar(&self) -> &B {
        &self.bar
    }

    pub(super) fn device(&self) -> Option<DeviceState> {
        device_state(&self.bar)
    }

    /// What the queue is doing; `None` for what is defined nowhere, and when nobody answers.
    pub(super) fn queue_state(&self) -> Option<QueueState> {
        match WQ_STATE.load(&self.bar, self.entry) >> 30 {
            0 => Some(QueueState::Disabled),
            1 => Some(QueueState::Enabled),
            2 => Some(QueueState::Busy),
            _ => None,
        }
    }
}
