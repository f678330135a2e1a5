//! What the suite needs of whoever provides a device with copy engines.

use anyhow::Result;
use drivers::bus::Interrupt;
use drivers::copy_engine::CopyDevice;
use hugemem::Region;

use super::driver::Driver;
use crate::conformance::Bus;

/// How a device is to be set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Engines.
    pub engines: u8,
    /// Pieces that each of them may have underway.
    pub depth: u16,
    /// Each has an interrupt.
    pub interrupts: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self { engines: 1, depth: 32, interrupts: false }
    }
}

/// What is expected of a device, wherever it is.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Checks that the device lacks what is needed for, and why.
    pub not_offered: &'static [(&'static str, &'static str)],
    /// Engines that the device has.
    pub engines: u8,
    /// A job that fails leaves those beside it alone. Where DMA that is refused is told to somebody else by message, the engine's word for what was done
    /// before comes after that message, and can come too late for a driver that looked at the registers: then the next jobs are unproven.
    pub fails_alone: bool,
    /// Jobs of a long series: many, where that takes no more than a few seconds.
    pub jobs: usize,
}

/// A device with copy engines on some bus.
pub trait Rig {
    /// The device.
    type Device: CopyDevice<Interrupt: Interrupt>;

    /// What it is to do.
    fn expected(&self) -> Expected;

    /// Called before the device is opened, and after everything of an earlier check was dropped.
    ///
    /// # Errors
    /// The device is not there.
    fn prepare(&mut self) -> Result<()>;

    /// Memory to copy, at addresses that no other memory has since [`Rig::prepare`]. It is not mapped for the device.
    ///
    /// # Errors
    /// There is none.
    fn memory(&mut self, bytes: usize) -> Result<Region>;

    /// Opens the device.
    ///
    /// # Errors
    /// The driver's.
    fn open(&mut self, plan: &Plan) -> Result<Self::Device>;

    /// See [`Bus::remove`].
    ///
    /// # Errors
    /// It should have been possible.
    fn remove(&mut self) -> Result<bool>;

    /// See [`Bus::silence`].
    ///
    /// # Errors
    /// It should have been possible.
    fn silence(&mut self, silent: bool) -> Result<bool>;

    /// See [`Bus::complaints`].
    ///
    /// # Errors
    /// The device cannot be asked.
    fn complaints(&mut self) -> Result<Vec<String>>;

    /// Called after everything was dropped: what is still held and must not be (memory, maps, threads, files).
    ///
    /// # Errors
    /// It cannot be found out.
    fn leftovers(&mut self) -> Result<Vec<String>>;
}

/// A rig out of two parts that are independent of each other.
#[derive(Debug)]
pub struct Engines<B, D> {
    /// What the device is on. It is the one on side 0.
    pub bus: B,
    /// What drives it.
    pub driver: D,
    /// What it is to do.
    pub expected: Expected,
}

impl<B: Bus, D: Driver> Rig for Engines<B, D> {
    type Device = D::Device<B::Function>;

    fn expected(&self) -> Expected {
        self.expected
    }

    fn prepare(&mut self) -> Result<()> {
        self.bus.prepare()
    }

    fn memory(&mut self, bytes: usize) -> Result<Region> {
        self.bus.memory(0, bytes)
    }

    fn open(&mut self, plan: &Plan) -> Result<Self::Device> {
        let memory = self.bus.memory(0, self.driver.ring_memory(plan))?;
        Ok(self.driver.open(self.bus.function(0)?, &memory, plan)?)
    }

    fn remove(&mut self) -> Result<bool> {
        self.bus.remove()
    }

    fn silence(&mut self, silent: bool) -> Result<bool> {
        self.bus.silence(silent)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        self.bus.complaints()
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        self.bus.leftovers()
    }
}
