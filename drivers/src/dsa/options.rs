//! What can be chosen for a device, and what was agreed on.

use core::fmt;
use core::time::Duration;

use super::queue::Shape;

/// Copies that may be underway, at least and at most.
const SMALLEST: u16 = 16;
const LARGEST: u16 = 4096;

/// What can be chosen for a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Channels to use: work queues, of those that there are.
    pub channels: u8,
    /// Copies that may be underway on a channel, a power of two between 16 and 4096; others are rounded down.
    pub depth: u16,
    /// Copies that travel together at most. 1 sends each one alone.
    pub batch: u16,
    /// Work queues are shared ones, for which the bus must have ENQCMD. Otherwise they are dedicated ones.
    pub shared: bool,
    /// Each channel gets an interrupt, which comes with each submission.
    pub interrupts: bool,
    /// How long a channel may have work and get none of it done, before it is taken to hang.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            channels: 1,
            depth: 512,
            batch: 32,
            shared: false,
            interrupts: false,
            patience: Duration::from_millis(200),
        }
    }
}

impl Config {
    /// Bytes of memory for descriptors and records that suffice for this configuration.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        let shape = Shape { depth: self.underway(), entries: 1, batch: 1, unit: 1, cache: false, shift: 0 };
        usize::from(self.channels.max(1)) * shape.memory() + 4096
    }

    /// Copies that may be underway.
    pub(super) fn underway(&self) -> u16 {
        1 << self.depth.clamp(SMALLEST, LARGEST).ilog2()
    }
}

/// Version of the device (VERSION).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 8, self.0 & 0xff)
    }
}

/// What driver and device agreed on. Prints as one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Version of the device.
    pub version: Version,
    /// Channels in use.
    pub channels: u8,
    /// Work queues that the device has.
    pub device_queues: u8,
    /// Engines that serve the channels.
    pub engines: u8,
    /// Descriptors that each work queue holds.
    pub entries: u16,
    /// Copies that travel together at most.
    pub batch: u32,
    /// Bytes that one descriptor can copy.
    pub unit: u32,
    /// Copies that may be underway on a channel.
    pub depth: u16,
    /// Work queues are shared ones.
    pub shared: bool,
    /// Each channel has an interrupt.
    pub interrupts: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, channels, device_queues, engines, entries, batch, depth, shared, interrupts, .. } = self;
        let kind = if *shared { "shared" } else { "dedicated" };
        let mode = if *interrupts { "interrupts when idle" } else { "polling" };
        write!(
            f,
            "Intel DSA {version}, {channels} of {device_queues} work queues ({kind}, {entries} entries), {engines} engines, {depth} copies underway, \
             batches of {batch}, {mode}",
        )
    }
}
