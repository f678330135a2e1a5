//! What the suite needs of whoever provides two cards and the cable between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use drivers::bus::{Clock, Interrupt};
use drivers::nic::{Config, Nic, Offloads};
use hugemem::{PacketPool, Region};

/// Two cards of one kind on one kind of bus, joined by a cable: what one sends, the other receives.
pub trait Rig {
    /// The driver.
    type Nic: Nic<Interrupt: Interrupt>;

    /// The checks that cannot be made here because the device lacks what they are about, and what that is. The suite
    /// finds out by itself, and fails when it finds anything else.
    fn not_offered(&self) -> &'static [(&'static str, &'static str)];

    /// What a card with a default configuration does in hardware, with one queue pair, exactly.
    fn offloads(&self) -> Offloads;

    /// Megabits per second of the link.
    fn speed(&self) -> Option<u32>;

    /// Frames of a long series: many, where that takes no more than a few seconds.
    fn frames(&self) -> u64;

    /// Largest payload of a frame that the cards can be set to.
    fn largest_mtu(&self) -> u16 {
        9000
    }

    /// Whether the cable keeps frames in order while a receiver stands still.
    fn is_patient(&self) -> bool {
        true
    }

    /// Bytes of memory for the rings of a card with this configuration.
    fn ring_memory(&self, config: &Config) -> usize;

    /// Memory that the card on this side can be given.
    ///
    /// # Errors
    /// There is none.
    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region>;

    /// Called before both cards are opened: the card of neither side is open.
    ///
    /// # Errors
    /// The cards are not there.
    fn prepare(&mut self) -> Result<()> {
        Ok(())
    }

    /// Opens the card on a side, 0 or 1, with rings in `memory` and a pool for each queue pair. All of `memory` is mapped for it.
    ///
    /// # Errors
    /// The driver's.
    fn open(&mut self, side: usize, config: Config, memory: &Region, pools: Vec<PacketPool>) -> Result<Self::Nic>;

    /// Takes the link of the card on this side down, or up again. `false` when that cannot be done here.
    ///
    /// # Errors
    /// It should have been possible.
    fn set_link(&mut self, side: usize, up: bool) -> Result<bool>;

    /// What the cards hold against their drivers since they were opened: rules broken, memory reached that was not mapped.
    ///
    /// # Errors
    /// They cannot be asked.
    fn complaints(&mut self) -> Result<Vec<String>>;

    /// Called after everything was dropped: what is still held and must not be (memory, maps, threads).
    ///
    /// # Errors
    /// It cannot be found out.
    fn leftovers(&mut self) -> Result<Vec<String>>;
}

/// The real clock.
#[derive(Debug)]
pub struct RealTime(Instant);

impl RealTime {
    /// A clock at zero.
    #[must_use]
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for RealTime {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
