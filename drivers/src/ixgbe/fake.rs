//! A card for tests of the control side: registers with as much behind them as bring-up asks for, and faults to choose
//! from. It moves no frames.

#![allow(clippy::unwrap_used, reason = "tests")]

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::string::ToString;
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

use hugemem::{IovaRange, Region};

use crate::bus::{Bar, BusError, Clock, Interrupt, PciFunction, PciId, Width};

/// What the card is and does wrong.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Values of registers.
    pub(super) registers: BTreeMap<u32, u32>,
    /// Words of the NVM; those missing are all ones.
    pub(super) nvm: BTreeMap<u16, u16>,
    /// LINKS.
    pub(super) links: u32,
    /// What its PHY at address 1 answers, by device and register. Empty: there is none.
    pub(super) phy: BTreeMap<(u32, u32), u16>,
    mdio_address: u32,
    /// Resets through CTRL so far.
    pub(super) resets: u32,
    /// How many of these there were when what waits for the bus was thrown away last (GCR_EXT).
    pub(super) emptied_at: Option<u32>,
    /// Resets by the bus so far.
    pub(super) bus_resets: u32,
    pub(super) bus_master: bool,
    /// Regions that it reaches.
    pub(super) mapped: BTreeSet<u64>,
    /// The region that the bus cannot take away.
    pub(super) stuck: Option<u64>,
    /// Everything reads as ones.
    pub(super) gone: bool,
    /// CTRL.RST stays set.
    pub(super) never_resets: bool,
    /// The bus cannot reset it either.
    pub(super) no_bus_reset: bool,
    /// Requests on the bus never end until the second reset.
    pub(super) pending: bool,
    /// The receive memory is never prepared.
    pub(super) never_ready: bool,
    /// Queues do not come up.
    pub(super) dead_queues: bool,
    /// Registers in the order in which they were written.
    pub(super) stores: Vec<u32>,
    /// Registers that clear when read.
    pub(super) counters: BTreeMap<u32, u32>,
    /// Time.
    now: Duration,
}

const CTRL: u32 = 0x0;
const RESET_BITS: u32 = 1 << 26 | 1 << 3;

impl State {
    fn get(&self, offset: u32) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn set(&mut self, offset: u32, value: u32) {
        self.registers.insert(offset, value);
    }

    fn reset(&mut self) {
        // The address of the card comes back from its NVM.
        self.registers = BTreeMap::from([(0xa200, 0x3322_1100), (0xa204, 0x8000_5544)]);
        self.counters.clear();
    }

    fn load(&mut self, offset: u32) -> u32 {
        if self.gone {
            return u32::MAX;
        }
        match offset {
            0x8 => u32::from(self.get(CTRL) & 4 == 0 || self.pending) << 19,
            0x28 => {
                // Wires that nobody else pulls.
                let out = self.get(offset);
                (out & 0xa) | (out & 0xa) >> 1
            }
            0x10010 => 0x300,
            0x10014 => self.get(offset) | 2,
            0x10140 => {
                let value = self.get(offset);
                self.set(offset, value | 1);
                value
            }
            0x2f00 => self.get(offset) & !8 | u32::from(!self.never_ready) << 3,
            0x8d04 => 1,
            0x42a4 => self.links,
            0x42b0 => 1 << 16 | self.get(offset),
            0x1028..0x2000 | 0x6028..0x7000 if offset & 0x3f == 0x28 && self.dead_queues => {
                self.get(offset) & !(1 << 25)
            }
            _ => self.counters.remove(&offset).unwrap_or_else(|| self.get(offset)),
        }
    }

    fn store(&mut self, offset: u32, value: u32) {
        self.stores.push(offset);
        match offset {
            CTRL if value & RESET_BITS != 0 => {
                self.resets += 1;
                if self.never_resets {
                    self.set(CTRL, value);
                    return;
                }
                self.pending = false;
                self.reset();
            }
            0x11050 if value & 1 << 30 != 0 => {
                // With nothing on its way to the wire: in loopback, and the receiver off.
                assert!(self.get(0x4240) & 1 << 15 != 0 && self.get(0x3000) & 1 == 0);
                self.emptied_at = Some(self.resets);
                self.set(offset, value);
            }
            // Write one to clear.
            0x800 => self.set(offset, self.get(offset) & !value),
            0x10014 => {
                let word = self.nvm.get(&u16::narrow((value >> 2).into())).copied().unwrap_or(u16::MAX);
                self.set(offset, u32::from(word) << 16);
            }
            0x425c => {
                self.set(offset, value & !(1 << 30));
                let place = (value >> 16 & 0x1f, self.mdio_address);
                let ours = value >> 21 & 0x1f == 1 && !self.phy.is_empty();
                match value >> 26 & 3 {
                    0 => self.mdio_address = value & 0xffff,
                    1 if ours => {
                        let data = u16::narrow(self.get(0x4260).into());
                        self.phy.insert(place, data);
                    }
                    3 => {
                        let data = if ours { self.phy.get(&place).copied().unwrap_or(0) } else { u16::MAX };
                        self.set(0x4260, u32::from(data) << 16);
                    }
                    _ => {}
                }
            }
            _ => self.set(offset, value),
        }
    }
}

/// A handle on the card: its function, its register window and its clock.
#[derive(Clone, Debug)]
pub(super) struct Fake {
    state: Arc<Mutex<State>>,
    id: PciId,
}

impl Fake {
    /// A card with device number `device` and an NVM that adds up.
    pub(super) fn new(device: u16) -> Self {
        let mut state = State::default();
        state.reset();
        state.nvm = (0..0x40).map(|address| (address, 0)).collect();
        state.nvm.insert(0x3f, 0xbaba);
        Self { state: Arc::new(Mutex::new(state)), id: PciId { vendor: 0x8086, device, ..PciId::default() } }
    }

    /// What it is and does.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A register, without the effects of reading it.
    pub(super) fn register(&self, offset: u32) -> u32 {
        self.state().get(offset)
    }

    fn refuse(&self, action: &str) -> BusError {
        BusError::Missing { device: "fake".to_string(), missing: action.to_string() }
    }
}

impl Clock for Fake {
    fn now(&self) -> Duration {
        self.state().now
    }

    fn pause(&self, duration: Duration) {
        self.state().now += duration;
    }
}

impl Bar for Fake {
    fn size(&self) -> u64 {
        0x2_0000
    }

    fn load<W: Width>(&self, offset: u32) -> W {
        W::narrow(self.state().load(offset).into())
    }

    fn store<W: Width>(&self, offset: u32, value: W) {
        self.state().store(offset, u32::narrow(value.widen()));
    }

    fn store_block(&self, _: u32, _: &[u64; 8]) {}

    fn publish<W: Width>(&self, offset: u32, value: W) {
        self.store(offset, value);
    }
}

/// An interrupt that never comes.
#[derive(Debug)]
pub(super) struct Never;

impl Interrupt for Never {
    fn wait(&mut self, _: Duration) -> Result<bool, BusError> {
        Ok(false)
    }
}

impl PciFunction for Fake {
    type Bar = Self;
    type Interrupt = Never;

    fn name(&self) -> &'static str {
        "fake"
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn read_config(&self, _: u16) -> Result<u32, BusError> {
        Ok(if self.state().gone { u32::MAX } else { 0 })
    }

    fn write_config(&mut self, _: u16, _: u32) -> Result<(), BusError> {
        Ok(())
    }

    fn bar(&mut self, _: u8) -> Result<Self, BusError> {
        Ok(self.clone())
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        Ok(Vec::new())
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        self.state().mapped.insert(region.iova().raw());
        Ok(())
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        let mut state = self.state();
        let iova = region.iova().raw();
        if state.stuck == Some(iova) || !state.mapped.remove(&iova) {
            return Err(self.refuse("it keeps its memory"));
        }
        Ok(())
    }

    fn interrupt_count(&self) -> u16 {
        64
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<Never>, BusError> {
        Ok((0..count).map(|_| Never).collect())
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        self.state().bus_master = enabled;
        Ok(())
    }

    fn reset(&mut self) -> Result<(), BusError> {
        if self.state().no_bus_reset {
            return Err(self.refuse("it has no function reset"));
        }
        let mut state = self.state();
        state.bus_resets += 1;
        state.bus_master = false;
        Ok(())
    }
}
