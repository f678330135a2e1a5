//! What the card is to be.

use std::time::Duration;

use drivers::nic::MacAddress;

use super::data::Overrun;
use super::fault::Fault;

/// Which chip of the family, and what it is on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Kind {
    /// An 82599 with an SFP+ cage (8086:10fb), as on an X520.
    #[default]
    X520,
    /// An X540 with a copper port (8086:1528).
    X540,
    /// An X550 with a copper port (8086:1563).
    X550,
}

impl Kind {
    /// Device number in configuration space.
    #[must_use]
    pub const fn device(self) -> u16 {
        match self {
            Self::X520 => 0x10fb,
            Self::X540 => 0x1528,
            Self::X550 => 0x1563,
        }
    }

    /// Whether the port is copper with a PHY behind MDIO.
    #[must_use]
    pub const fn is_copper(self) -> bool {
        !matches!(self, Self::X520)
    }
}

/// What is in the SFP+ cage.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Module {
    /// A passive copper cable with SFP+ ends.
    #[default]
    DirectAttach,
    /// An optical 10GBASE-SR module.
    ShortRange,
    /// An optical 10GBASE-LR module.
    LongRange,
    /// Nothing: the cage does not answer, and there is no link.
    Empty,
}

/// Whether tail registers are memory that driver and card share.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Doorbells {
    /// Pages of queue registers are shared memory: an access costs no call. The counters of queues that lie on these pages
    /// (QPRC, QBRC, QPRDC, and QPTC at its old address) stay zero, because memory cannot clear itself when it is read.
    #[default]
    Shared,
    /// The card sees every access, and counters on these pages count.
    Trapped,
}

/// How fast the link is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Speed {
    /// 100 Mb/s (copper only).
    Megabits100,
    /// 1 Gb/s.
    Gigabit,
    /// 10 Gb/s.
    #[default]
    TenGigabit,
}

impl Speed {
    /// Megabits a second.
    #[must_use]
    pub const fn megabits(self) -> u32 {
        match self {
            Self::Megabits100 => 100,
            Self::Gigabit => 1000,
            Self::TenGigabit => 10_000,
        }
    }
}

/// Properties of the card. Change the fields of [`Config::default`] as needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Which chip.
    pub kind: Kind,
    /// Ethernet address in the EEPROM.
    pub mac: MacAddress,
    /// Serial number in configuration space.
    pub serial: u64,
    /// Revision in configuration space.
    pub revision: u8,
    /// What is in the SFP+ cage; copper cards ignore it.
    pub module: Module,
    /// Fastest speed of the link partner.
    pub speed: Speed,
    /// From a restart of the link, or a plugged cable, until it is up.
    pub link_delay: Duration,
    /// The cable is plugged at first.
    pub link_up: bool,
    /// Whether tail registers are shared memory.
    pub doorbells: Doorbells,
    /// What happens to a frame for which the driver has no buffer.
    pub overrun: Overrun,
    /// How the card misbehaves, from the start.
    pub fault: Option<Fault>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::default(),
            mac: MacAddress([0x02, 0x1b, 0x21, 0x00, 0x00, 0x01]),
            serial: 0x021b_21ff_ff00_0001,
            revision: 1,
            module: Module::default(),
            speed: Speed::default(),
            link_delay: Duration::from_millis(20),
            link_up: true,
            doorbells: Doorbells::default(),
            overrun: Overrun::default(),
            fault: None,
        }
    }
}
