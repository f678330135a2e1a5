//! The drivers that the suite knows.

use drivers::DeviceError;
use drivers::bus::{Interrupt, PciFunction};
use drivers::copy_engine::CopyDevice;
use drivers::ioat::{self, Ioat};
use hugemem::Region;

use super::rig::Plan;
use crate::conformance::RealTime;

/// A driver, on any bus.
pub trait Driver {
    /// The driver of a device.
    type Device<F: PciFunction>: CopyDevice<Interrupt: Interrupt>;

    /// Bytes of memory for the rings of a device that is set up in this way.
    fn ring_memory(&self, plan: &Plan) -> usize;

    /// Opens a device.
    ///
    /// # Errors
    /// The driver's.
    fn open<F: PciFunction>(&self, function: F, memory: &Region, plan: &Plan) -> Result<Self::Device<F>, DeviceError>;
}

/// The driver for I/OAT.
#[derive(Clone, Copy, Debug)]
pub struct IoatDriver;

impl IoatDriver {
    fn config(plan: &Plan) -> ioat::Config {
        let Plan { engines: channels, depth, interrupts } = *plan;
        ioat::Config { channels, depth, interrupts, ..ioat::Config::default() }
    }
}

impl Driver for IoatDriver {
    type Device<F: PciFunction> = Ioat<F>;

    fn ring_memory(&self, plan: &Plan) -> usize {
        Self::config(plan).ring_memory()
    }

    fn open<F: PciFunction>(&self, function: F, memory: &Region, plan: &Plan) -> Result<Ioat<F>, DeviceError> {
        Ioat::open(function, RealTime::shared(), memory, Self::config(plan))
    }
}
