//! What the device is to be.

use super::Planned;

/// Which version of the architecture.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Version {
    /// 1.0, as in Sapphire Rapids (8086:0b25).
    #[default]
    One,
    /// 2.0, as in Granite Rapids (8086:11fb): each queue also says which operations it takes.
    Two,
}

impl Version {
    /// The version with a PCI device number; `None` for others.
    #[must_use]
    pub fn with_device(device: u16) -> Option<Self> {
        match device {
            0x0b25 => Some(Self::One),
            0x11fb => Some(Self::Two),
            _ => None,
        }
    }

    /// Its PCI device number.
    #[must_use]
    pub fn device(self) -> u16 {
        match self {
            Self::One => 0x0b25,
            Self::Two => 0x11fb,
        }
    }

    /// VERSION.
    pub(super) fn register(self) -> u32 {
        match self {
            Self::One => 0x100,
            Self::Two => 0x200,
        }
    }

    /// Bytes of a queue's configuration.
    pub(super) fn queue_bytes(self) -> u32 {
        match self {
            Self::One => 32,
            Self::Two => 64,
        }
    }
}

/// What can be chosen. The rest is as in Sapphire Rapids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Version of the architecture.
    pub version: Version,
    /// Work queues, 1 to 16. Each has an interrupt vector, after the first one, which is the device's.
    pub queues: u8,
    /// Groups, 1 to 8.
    pub groups: u8,
    /// Engines, 1 to 8.
    pub engines: u8,
    /// Entries of all queues together, at least 1.
    pub entries: u16,
    /// Longest transfer, as a power of two, 12 to 31.
    pub longest: u8,
    /// Largest batch, as a power of two, 1 to 10.
    pub largest_batch: u8,
    /// Interrupts are named by handles that a command gives out, and not by their vectors.
    pub interrupt_handles: bool,
    /// A shared queue needs process address spaces (PASID) to be enabled, as in hardware. Without, a test can use one whose bus has none.
    pub shared_needs_pasid: bool,
    /// How it misbehaves from the start.
    pub faults: Vec<Planned>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::One,
            queues: 8,
            groups: 4,
            engines: 4,
            entries: 128,
            longest: 31,
            largest_batch: 10,
            interrupt_handles: false,
            shared_needs_pasid: true,
            faults: Vec::new(),
        }
    }
}

impl Config {
    /// The same within the limits.
    pub(super) fn within_limits(self) -> Self {
        Self {
            queues: self.queues.clamp(1, 16),
            groups: self.groups.clamp(1, 8),
            engines: self.engines.clamp(1, 8),
            entries: self.entries.max(1),
            longest: self.longest.clamp(12, 31),
            largest_batch: self.largest_batch.clamp(1, 10),
            ..self
        }
    }

    /// Interrupt vectors.
    pub(super) fn vectors(&self) -> u16 {
        u16::from(self.queues) + 1
    }
}
