//! What the engine is to be.

use super::Planned;

/// Which chip of the family.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// Ice Lake server: version 3.4 (8086:0b00).
    #[default]
    IceLake,
    /// Skylake server: version 3.3 (8086:2021).
    Skylake,
    /// Broadwell server: version 3.2, one of its functions 0 to 7 (8086:6f20 to 6f27).
    Broadwell(u8),
}

impl Kind {
    /// The kind with a PCI device number; `None` for others.
    #[must_use]
    pub fn with_device(device: u16) -> Option<Self> {
        match device {
            0x0b00 => Some(Self::IceLake),
            0x2021 => Some(Self::Skylake),
            0x6f20..=0x6f27 => Some(Self::Broadwell(device.to_le_bytes()[0] & 7)),
            _ => None,
        }
    }

    /// Its PCI device number.
    #[must_use]
    pub fn device(self) -> u16 {
        match self {
            Self::IceLake => 0x0b00,
            Self::Skylake => 0x2021,
            Self::Broadwell(function) => 0x6f20 | u16::from(function & 7),
        }
    }

    /// CBVER.
    pub(super) fn version(self) -> u8 {
        match self {
            Self::IceLake => 0x34,
            Self::Skylake => 0x33,
            Self::Broadwell(_) => 0x32,
        }
    }
}

/// How the driver reaches DMACOUNT.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Doorbells {
    /// In the same process as memory: a store wakes nobody and costs nothing, and the engine, on its own core, sees it when it looks. All other
    /// registers share its page and have side effects, so over a socket it is a message like theirs.
    #[default]
    Shared,
    /// As all other registers: the engine is called for every store.
    Trapped,
}

/// What the engine is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Chip.
    pub kind: Kind,
    /// Channels of the function, 1 to 8. The real ones have one each.
    pub channels: u8,
    /// The longest copy of one descriptor, as a power of two: 12 (4 KiB) to 20 (1 MiB).
    pub longest: u8,
    /// How the driver reaches DMACOUNT.
    pub doorbells: Doorbells,
    /// How it misbehaves.
    pub faults: Vec<Planned>,
}

impl Default for Config {
    fn default() -> Self {
        Self { kind: Kind::default(), channels: 1, longest: 20, doorbells: Doorbells::default(), faults: Vec::new() }
    }
}
