//! The DSA driver.

mod every;
mod honest;
mod lies;
mod shared;
mod socket;

use std::sync::Arc;

use drivers::DeviceError;
use drivers::bus::Clock;
use drivers::dsa::{self, Dsa};
use hugemem::Region;
use models::card::Function;
use models::dsa as chip;

use crate::bench::{Kind, Rig, UNIT};

pub(crate) struct OfDsa;

/// What the driver is asked for: one channel, small enough that rings wrap often.
fn config() -> dsa::Config {
    dsa::Config { depth: 32, batch: 8, interrupts: true, ..dsa::Config::default() }
}

impl Kind for OfDsa {
    type Chip = chip::Dsa;
    type Config = chip::Config;
    type Planned = chip::Planned;
    type Device = Dsa<Function<chip::Dsa>>;

    fn chip(config: chip::Config) -> chip::Dsa {
        chip::Dsa::new(config)
    }

    fn set_faults(chip: &mut chip::Dsa, faults: &[chip::Planned]) {
        chip.set_faults(faults);
    }

    fn ring_memory() -> usize {
        config().ring_memory()
    }

    fn open(function: Function<chip::Dsa>, clock: Arc<dyn Clock>, rings: &Region) -> Result<Self::Device, DeviceError> {
        Dsa::open(function, clock, rings, config())
    }
}

type Bench = Rig<OfDsa>;

/// A device with small descriptors that misbehaves in these ways.
fn chip(faults: Vec<chip::Planned>) -> chip::Config {
    assert_eq!(UNIT, 1 << 12);
    chip::Config { longest: 12, faults, ..chip::Config::default() }
}
