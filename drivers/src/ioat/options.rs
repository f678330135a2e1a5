//! What can be chosen for an engine, and what was agreed on.

use core::fmt;
use core::time::Duration;

/// Descriptors that may be underway, at least and at most.
const SMALLEST: u16 = 16;
const LARGEST: u16 = 4096;

/// What can be chosen for an engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Channels to use, of those that there are.
    pub channels: u8,
    /// Descriptors that may be underway on a channel, a power of two between 16 and 4096; others are rounded down.
    pub depth: u16,
    /// Each channel gets an interrupt, for when there is nothing else to do.
    pub interrupts: bool,
    /// How long a channel may have work and get none of it done, before it is taken to hang.
    pub patience: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { channels: 1, depth: 512, interrupts: false, patience: Duration::from_millis(200) }
    }
}

impl Config {
    /// Bytes of ring memory that suffice for this configuration.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        // Twice as many descriptors as may be underway, and a line for completions.
        usize::from(self.channels.max(1)) * (usize::from(self.underway()) * 2 * 64 + 2 * 64) + 4096
    }

    /// Descriptors that may be underway.
    pub(super) fn underway(&self) -> u16 {
        1 << self.depth.clamp(SMALLEST, LARGEST).ilog2()
    }
}

/// Version of the engine (CBVER).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version(pub u8);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 >> 4, self.0 & 0xf)
    }
}

/// What driver and engine agreed on. Prints as one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Version of the engine.
    pub version: Version,
    /// Channels in use.
    pub channels: u8,
    /// Channels that the engine has.
    pub device_channels: u8,
    /// Bytes that one descriptor can copy.
    pub unit: u32,
    /// Descriptors that may be underway on a channel.
    pub depth: u16,
    /// Each channel has an interrupt.
    pub interrupts: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, channels, device_channels, unit, depth, interrupts } = self;
        let mode = if *interrupts { "interrupts when idle" } else { "polling" };
        write!(
            f,
            "Intel I/OAT {version}, {channels} of {device_channels} channels, {depth} copies of up to {} KiB underway, {mode}",
            unit >> 10,
        )
    }
}
