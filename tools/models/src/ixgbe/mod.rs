//! A 10 gigabit card of Intel's 82599 family, written from the 82599 10 GbE Controller Datasheet (Intel 331520); section numbers are
//! those of it.
//!
//! [`Ixgbe`] is a [`Chip`]: [`crate::card`] plugs it into a bus and a wire. Registers have their side effects: clear on read, write one to
//! clear, bits that clear themselves, semaphores that reading takes, statistics that stick. The EEPROM has a right checksum
//! and what stock drivers look for, the SFP+ cage answers on its I2C pins, and link, resets and waits take their time.
//!
//! A rule that the driver breaks (a write to a reserved register, a ring of a bad size) is recorded as a violation. The stock driver of
//! Linux causes none, but for `ethtool`'s offline test, which enables rings that it filled with patterns. See [`Fault`] for the ways in which the card itself can lie.
//!
//! Not modelled: virtual functions, traffic classes and rate limits (their registers only store), flow director matches (its commands
//! are taken, and no frame matches), receive coalescing, header split, LinkSec and IPsec, FCoE, wake up, pause frames, the
//! EEPROM's and the flash's serial pins, and the management controller.

mod config;
mod control;
mod director;
mod eeprom;
mod i2c;
mod interrupts;
mod link;
mod management;
mod mdio;
mod registers;
mod rules;
mod semaphore;
mod sfp;
mod statistics;
mod time;

mod checksum;
mod count;
mod data;
mod descriptor;
mod fault;
mod filter;
mod offload;
mod parse;
mod queue;
mod receive;
mod rss;
mod segmentation;
mod steering;
mod transmit;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use drivers::bus::PciId;

use self::control::Control;
use self::data::{DataPath, Rest};
use self::director::Director;
use self::eeprom::Nvm;
use self::fault::Trick;
use self::i2c::I2c;
use self::interrupts::{Interrupts, cause};
use self::link::Link;
use self::management::Management;
use self::mdio::Mdio;
use self::registers::{Access, Part, Registers};
use self::semaphore::Semaphore;
use self::statistics::Statistics;
use self::time::Time;
use crate::card::{Bus, Chip, Layout, WindowLayout, Work};
use crate::wire::Wire;

pub use self::config::{Config, Doorbells, Kind, Module, Speed};
pub use self::count::Offloaded;
pub use self::data::Overrun;
pub use self::fault::{Chaos, Fault, UnknownFault};

/// The window of registers, and that of the MSI-X table.
const REGISTERS: u8 = 0;
const MSIX: u8 = 4;
/// Vectors of the physical function (7.3.1).
const VECTORS: u16 = 64;

/// The chip.
#[derive(Debug)]
pub struct Ixgbe {
    config: Config,
    registers: Registers,
    statistics: Statistics,
    interrupts: Interrupts,
    control: Control,
    nvm: Nvm,
    semaphore: Semaphore,
    mdio: Mdio,
    i2c: I2c,
    link: Link,
    director: Director,
    management: Management,
    time: Time,
    data: DataPath,
    trick: Trick,
    /// Addresses for which a violation is on record: one each is enough.
    blamed: BTreeSet<(u32, bool)>,
}

impl Ixgbe {
    /// A card that is switched off; the frame resets it when it is plugged in.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let trick = Trick::new(config.fault);
        Self {
            registers: Registers::new(),
            statistics: Statistics::new(),
            interrupts: Interrupts::new(),
            control: Control::default(),
            nvm: Nvm::new(&config, &trick),
            semaphore: Semaphore::new(config.kind),
            mdio: Mdio::new(config.kind, config.speed),
            i2c: I2c::new(&config),
            link: Link::new(&config),
            director: Director::default(),
            management: Management::new(config.kind),
            time: Time::default(),
            data: DataPath::new(),
            trick,
            blamed: BTreeSet::new(),
            config,
        }
    }

    /// What the card was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Plugs the cable in, or pulls it out. The link follows after a while.
    pub fn set_link(&mut self, up: bool) {
        self.link.plug(up);
    }

    /// The link is up.
    #[must_use]
    pub fn is_link_up(&self) -> bool {
        self.link.is_up()
    }

    /// What the card did for the driver that the wire does not show.
    #[must_use]
    pub fn offloads(&self) -> Offloaded {
        self.data.offloaded()
    }

    /// Lets the card misbehave from now on, or behave again.
    pub fn set_fault(&mut self, fault: Option<Fault>) {
        self.trick.set(fault);
        self.nvm = Nvm::new(&self.config, &self.trick);
    }

    /// As [`Ixgbe::set_fault`], after so many more honest frames.
    pub fn set_fault_after(&mut self, fault: Option<Fault>, frames: u64) {
        self.trick.set_after(fault, frames);
        self.nvm = Nvm::new(&self.config, &self.trick);
    }

    /// Lets the card answer at random from now on, or stop that.
    pub fn set_chaos(&mut self, chaos: Option<Chaos>) {
        self.trick.set_chaos(chaos);
    }

    fn load_word(&mut self, bus: &mut Bus, offset: u32) -> u32 {
        if let Some(noise) = self.trick.register_at_random() {
            return noise;
        }
        let offset = registers::canonical(offset);
        let Some(register) = self.registers.find(offset) else {
            if registers::is_queue(offset) {
                let value = self.data.view(offset, bus.register(REGISTERS, offset));
                self.data.looked_at(bus, &self.trick, offset);
                return value;
            }
            self.blame(bus, offset, false);
            return 0;
        };
        match register.access {
            Access::Plain(_) | Access::Fixed => self.registers.get(offset),
            Access::Silent => 0,
            Access::Counter | Access::Octets | Access::OctetsHigh => {
                let count = self.statistics.take(register, offset);
                if self.trick.is(Fault::StatisticsJump) { u32::MAX } else { count }
            }
            Access::Part(part) => self.load_part(part, bus, offset),
        }
    }

    fn load_part(&mut self, part: Part, bus: &mut Bus, offset: u32) -> u32 {
        match part {
            Part::Control => self.control.load(&self.registers, &self.trick, bus, offset),
            Part::Nvm => self.nvm.load(&self.control, &self.trick, bus, offset),
            Part::Semaphore => self.semaphore.load(&self.trick, offset),
            Part::Mdio => self.mdio.load(offset),
            Part::I2c => self.i2c.load(offset),
            Part::Link => self.link.load(offset),
            Part::Interrupts => self.interrupts.load(offset),
            Part::Clock => self.time.load(bus.now(), offset),
            Part::Security => control::load_security(&self.registers, offset),
            Part::Director => self.director.load(offset),
            Part::Management => self.management.load(),
        }
    }

    fn store_word(&mut self, bus: &mut Bus, offset: u32, value: u32) {
        let offset = registers::canonical(offset);
        let Some(register) = self.registers.find(offset) else {
            if registers::is_queue(offset) {
                bus.set_register(REGISTERS, offset, value & registers::queue_bits(offset));
            } else {
                self.blame(bus, offset, true);
            }
            return;
        };
        match register.access {
            Access::Plain(writable) => {
                let before = self.registers.get(offset);
                let after = before & !writable | value & writable;
                if after != before {
                    self.registers.set(offset, after);
                    if let Some(sentence) = rules::broken(&self.registers, offset) {
                        bus.violation(sentence);
                    }
                    self.data.stored(offset);
                }
            }
            Access::Fixed | Access::Silent | Access::Counter | Access::Octets | Access::OctetsHigh => {}
            Access::Part(part) => self.store_part(part, bus, offset, value),
        }
    }

    fn store_part(&mut self, part: Part, bus: &mut Bus, offset: u32, value: u32) {
        match part {
            Part::Control => {
                if let Some(reset) = self.control.store(&mut self.registers, offset, value) {
                    self.software_reset(bus, reset == control::Reset::Link);
                }
                self.data.stored(offset);
            }
            Part::Nvm => self.nvm.store(offset, value),
            Part::Semaphore => self.semaphore.store(offset, value),
            Part::Mdio => {
                self.mdio.store(offset, value, self.link.is_up());
                if self.mdio.take_restart() {
                    self.link.negotiate(self.mdio.agreed());
                }
            }
            Part::I2c => self.i2c.store(offset, value),
            Part::Link => self.link.store(offset, value),
            Part::Interrupts => self.interrupts.store(offset, value),
            Part::Clock => self.time.store(bus.now(), offset, value),
            Part::Security => control::store_security(&mut self.registers, offset, value),
            Part::Director => self.director.store(offset, value),
            Part::Management => {
                self.management.store(&mut self.registers, &mut self.nvm, value);
                self.data.stored(offset);
            }
        }
    }

    /// CTRL.RST or CTRL.LRST (4.2.1.6): registers go back to their first values, and the link starts anew if it is meant.
    fn software_reset(&mut self, bus: &mut Bus, with_link: bool) {
        self.control.begin(bus.now(), &self.trick);
        self.start(bus, false);
        if with_link {
            self.link.restart();
        }
    }

    /// What all resets have in common. `power`: as at power on, so counters and memories are cleared too.
    fn start(&mut self, bus: &mut Bus, power: bool) {
        self.registers.reset(power);
        self.interrupts = Interrupts::new();
        self.director = Director::default();
        self.time = Time::default();
        self.i2c.reset();
        self.nvm.reload(&mut self.registers);
        self.data.reset(bus);
        self.trick.reset();
        if power {
            self.statistics.clear();
            self.semaphore = Semaphore::new(self.config.kind);
            self.mdio = Mdio::new(self.config.kind, self.config.speed);
            if self.config.kind.is_copper() {
                self.link.negotiate(self.mdio.agreed());
            }
            self.link.power_on();
        }
    }

    /// Faults of the whole card.
    fn strike(&mut self, bus: &mut Bus) {
        // Also when it has become honest: then memory is back.
        bus.refuse_dma(self.trick.is(Fault::DmaRefused));
        if self.trick.is_honest() {
            return;
        }
        if self.trick.is(Fault::Removed) {
            bus.remove();
        }
        if self.trick.once(Fault::ResetSpontaneous) {
            self.software_reset(bus, true);
        }
    }

    /// Records, once for each address, that the driver accessed a register that does not exist.
    fn blame(&mut self, bus: &mut Bus, offset: u32, store: bool) {
        if self.blamed.insert((offset, store)) {
            let action = if store { "wrote" } else { "read" };
            bus.violation(format!("the driver {action} the reserved register {offset:#07x} (8.2.2)"));
        }
    }
}

impl Chip for Ixgbe {
    fn layout(&self) -> Layout {
        let window = WindowLayout {
            bar: REGISTERS,
            bytes: registers::WINDOW_BYTES,
            wide: true,
            shared: registers::QUEUE_PAGES.to_vec(),
            doorbells: Vec::new(),
            trapped: self.config.doorbells == Doorbells::Trapped,
        };
        let table = WindowLayout {
            bar: MSIX,
            bytes: 0x4000,
            wide: true,
            shared: Vec::<Range<u32>>::new(),
            doorbells: Vec::new(),
            trapped: false,
        };
        Layout {
            id: PciId {
                vendor: 0x8086,
                device: self.config.kind.device(),
                subsystem_vendor: 0x8086,
                subsystem_device: 0x0003,
                class: 0x02_0000,
                revision: self.config.revision,
            },
            windows: vec![window, table],
            msix_window: MSIX,
            vectors: VECTORS,
            serial: Some(self.config.serial),
        }
    }

    fn load(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32) -> u64 {
        if bar != REGISTERS {
            return u64::MAX;
        }
        let low = u64::from(self.load_word(bus, offset & !3));
        match bytes {
            4 => low,
            8 => low | u64::from(self.load_word(bus, (offset & !3).wrapping_add(4))) << 32,
            _ => low >> (8 * (offset & 3)),
        }
    }

    fn store(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32, value: u64) {
        if bar != REGISTERS {
            return;
        }
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        match bytes {
            4 | 8 => {
                self.store_word(bus, offset, u32::from_le_bytes([a, b, c, d]));
                if bytes == 8 {
                    self.store_word(bus, offset.wrapping_add(4), u32::from_le_bytes([e, f, g, h]));
                }
            }
            _ => bus.violation(format!(
                "the driver wrote {bytes} byte(s) at {offset:#07x}: registers take 32 bits (8.2.1)"
            )),
        }
    }

    fn reset(&mut self, bus: &mut Bus) {
        self.control.power_on(bus.now(), &self.trick);
        self.start(bus, true);
        if self.trick.is(Fault::Absent) {
            bus.remove();
        }
    }

    fn poll(&mut self, bus: &mut Bus, wire: &mut dyn Wire, budget: usize) -> Work {
        if self.link.poll(bus.now(), &self.trick) {
            self.interrupts.other(cause::LINK);
        }
        let rest = Rest {
            registers: &self.registers,
            statistics: &mut self.statistics,
            interrupts: &mut self.interrupts,
            trick: &mut self.trick,
            link_up: self.link.is_up(),
            trapped: self.config.doorbells == Doorbells::Trapped,
            overrun: self.config.overrun,
        };
        let mut work = self.data.poll(rest, bus, wire, budget);
        if work.received != 0
            && let Some(sentence) = rules::broken_by_receive(&self.registers)
            && self.blamed.insert((registers::RDRXCTL.offset, true))
        {
            bus.violation(sentence);
        }
        self.strike(bus);
        work.other |= self.interrupts.poll(bus, &self.trick);
        work
    }
}
