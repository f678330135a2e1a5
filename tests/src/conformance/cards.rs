//! A rig out of two parts that are independent of each other: a bus with two cards on it, and the driver for them.
//!
//! The suite for copy engines takes its buses from here, too.

use anyhow::Result;
use drivers::bus::{Interrupt, PciFunction};
use drivers::ixgbe;
use drivers::nic::{Config, Nic, NicError, Offloads};
use drivers::virtio::{self, Pci, RingChoice, VirtioNet};
use hugemem::{PacketPool, Region};

use super::rig::{RealTime, Rig};

/// Devices on a bus: two cards that are joined by a cable, or one device with copy engines.
pub trait Bus {
    /// How a driver sees a card.
    type Function: PciFunction;

    /// Called before the devices are opened, with none of them open.
    ///
    /// # Errors
    /// They are not there.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Memory that the device on this side can be given, before it is opened or later, at addresses that no other memory has.
    ///
    /// # Errors
    /// There is none.
    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region>;

    /// The device on this side, 0 or 1.
    ///
    /// # Errors
    /// It cannot be had.
    fn function(&mut self, side: usize) -> Result<Self::Function>;

    /// See [`Rig::set_link`].
    ///
    /// # Errors
    /// It should have been possible.
    fn set_link(&mut self, _side: usize, _up: bool) -> Result<bool> {
        Ok(false)
    }

    /// Pulls the devices out until the next call of [`Bus::prepare`]. `false` when that cannot be done here.
    ///
    /// # Errors
    /// It should have been possible.
    fn remove(&mut self) -> Result<bool> {
        Ok(false)
    }

    /// Keeps whoever plays the devices from answering, or lets them go on. `false` when that cannot be done here.
    ///
    /// # Errors
    /// It should have been possible.
    fn silence(&mut self, _silent: bool) -> Result<bool> {
        Ok(false)
    }

    /// What the devices hold against their drivers since they were opened: rules broken, memory reached that was not mapped.
    ///
    /// # Errors
    /// They cannot be asked.
    fn complaints(&mut self) -> Result<Vec<String>>;

    /// See [`Rig::leftovers`].
    ///
    /// # Errors
    /// It cannot be found out.
    fn leftovers(&mut self) -> Result<Vec<String>>;
}

/// A driver, on any bus.
pub trait Driver {
    /// The driver of a card.
    type Nic<F: PciFunction>: Nic<Interrupt: Interrupt>;

    /// Bytes of memory for the rings of a card with this configuration.
    fn ring_memory(&self, config: &Config) -> usize;

    /// Opens a card.
    ///
    /// # Errors
    /// The driver's.
    fn open<F: PciFunction>(
        &self,
        function: F,
        config: Config,
        memory: &Region,
        pools: Vec<PacketPool>,
    ) -> Result<Self::Nic<F>, NicError>;
}

/// The driver for virtio-net, with a choice of rings.
#[derive(Clone, Copy, Debug)]
pub struct Virtio(pub RingChoice);

impl Driver for Virtio {
    type Nic<F: PciFunction> = VirtioNet<Pci<F>>;

    fn ring_memory(&self, config: &Config) -> usize {
        virtio::Config { nic: config.clone(), ring: self.0 }.ring_memory()
    }

    fn open<F: PciFunction>(
        &self,
        function: F,
        nic: Config,
        memory: &Region,
        pools: Vec<PacketPool>,
    ) -> Result<VirtioNet<Pci<F>>, NicError> {
        VirtioNet::open(function, RealTime::shared(), memory, pools, virtio::Config { nic, ring: self.0 })
    }
}

/// The driver for the 82599 and its kin.
#[derive(Clone, Copy, Debug)]
pub struct Ixgbe;

impl Driver for Ixgbe {
    type Nic<F: PciFunction> = ixgbe::Ixgbe<F>;

    fn ring_memory(&self, config: &Config) -> usize {
        ixgbe::Config { nic: config.clone(), ..ixgbe::Config::default() }.ring_memory()
    }

    fn open<F: PciFunction>(
        &self,
        function: F,
        nic: Config,
        memory: &Region,
        pools: Vec<PacketPool>,
    ) -> Result<ixgbe::Ixgbe<F>, NicError> {
        let config = ixgbe::Config { nic, ..ixgbe::Config::default() };
        ixgbe::Ixgbe::open(function, RealTime::shared(), memory, pools, config)
    }
}

/// What is expected of cards on a bus with a driver. See [`Rig`] for each.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// Checks that the cards do not offer what is needed for, and why.
    pub not_offered: &'static [(&'static str, &'static str)],
    /// What a card does in hardware.
    pub offloads: Offloads,
    /// Megabits per second of the link.
    pub speed: Option<u32>,
    /// Frames of a long series.
    pub frames: u64,
    /// Largest payload of a frame.
    pub largest_mtu: u16,
    /// The cable keeps frames in order while a receiver stands still.
    pub is_patient: bool,
}

/// What is expected of an 82599, wherever it is.
pub const IXGBE: Expected = Expected {
    not_offered: &[],
    offloads: Offloads::all()
        .difference(Offloads::LRO4)
        .difference(Offloads::LRO6)
        .difference(Offloads::URO)
        .difference(Offloads::TUNNEL_CUTTING),
    speed: Some(10_000),
    frames: 30_000,
    largest_mtu: 9710,
    is_patient: true,
};

/// The rig.
#[derive(Debug)]
pub struct Cards<B, D> {
    /// What the cards are on.
    pub bus: B,
    /// What drives them.
    pub driver: D,
    /// What they are to do.
    pub expected: Expected,
}

impl<B: Bus, D: Driver> Rig for Cards<B, D> {
    type Nic = D::Nic<B::Function>;

    fn not_offered(&self) -> &'static [(&'static str, &'static str)] {
        self.expected.not_offered
    }

    fn offloads(&self) -> Offloads {
        self.expected.offloads
    }

    fn speed(&self) -> Option<u32> {
        self.expected.speed
    }

    fn frames(&self) -> u64 {
        self.expected.frames
    }

    fn largest_mtu(&self) -> u16 {
        self.expected.largest_mtu
    }

    fn is_patient(&self) -> bool {
        self.expected.is_patient
    }

    fn ring_memory(&self, config: &Config) -> usize {
        self.driver.ring_memory(config)
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        self.bus.memory(side, bytes)
    }

    fn prepare(&mut self) -> Result<()> {
        self.bus.prepare()
    }

    fn open(&mut self, side: usize, config: Config, memory: &Region, pools: Vec<PacketPool>) -> Result<Self::Nic> {
        Ok(self.driver.open(self.bus.function(side)?, config, memory, pools)?)
    }

    fn set_link(&mut self, side: usize, up: bool) -> Result<bool> {
        self.bus.set_link(side, up)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        self.bus.complaints()
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        self.bus.leftovers()
    }
}
