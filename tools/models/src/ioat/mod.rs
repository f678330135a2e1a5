//! A copy engine of Intel's I/OAT family (QuickData, CBDMA) of versions 3.2 to 3.4, written from the datasheets of the Xeon processors that it
//! is part of (volume 2, registers).
//!
//! [`Ioat`] is a [`Chip`]: [`crate::card`] plugs it into a bus. It has no wire: plug it into [`crate::wire::Null`]. A driver chains descriptors in
//! memory, writes the first one's address to CHAINADDR and how many there are to DMACOUNT; the engine moves the bytes, and writes the address of the
//! last one that it completed, with the channel's state, to where CHANCMP says. An error halts the channel: CHANERR says which, and the
//! completion names the last descriptor that was right. The driver clears CHANERR, resets the channel, and writes CHANCMP, CHANCTRL, CHAINADDR and DMACOUNT anew.
//!
//! What it advertises it does: copies, fills, null descriptors, broken pages, interrupts with and without delay, suspension and resumption. What
//! it cannot do (XOR, P+Q, CRC, DCA, DIF) it does not advertise, and halts with a control error.
//!
//! Whatever is not mapped is refused, recorded as an IOMMU fault, and halts the channel with a read or a write error. See [`Fault`] for the ways
//! in which the engine can lie, and [`Planned`] for when.
//!
//! Unlike the real ones it can have more than one channel, and the MSI-X table has a window of its own.

mod channel;
mod config;
mod descriptor;
mod engine;
mod errors;
mod fault;
mod interrupts;
mod pci;
mod registers;
mod report;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use drivers::bus::PciId;

use self::channel::{Channel, Surroundings};
use self::engine::Turn;
use self::interrupts::Interrupts;
use self::pci::PciErrors;
use self::registers::{MSIX, REGISTERS, block};
use crate::card::{Bus, Chip, Layout, WindowLayout, Work};
use crate::wire::Wire;

pub use self::channel::State;
pub use self::config::{Config, Doorbells, Kind};
pub use self::errors::Errors;
pub use self::fault::Fault;
pub use crate::plan::{FaultError, When};

/// A fault, and when and where it strikes.
pub type Planned = crate::plan::Planned<Fault>;
type Tricks = crate::plan::Tricks<Fault>;
type Fate = crate::plan::Fate<Fault>;

/// Most bytes that a channel moves in one poll.
const BYTES_A_POLL: u64 = 256 << 10;

/// What the engine has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Descriptors completed.
    pub descriptors: u64,
    /// Bytes moved, those of copies that failed too.
    pub bytes: u64,
}

/// The chip.
#[derive(Debug)]
pub struct Ioat {
    config: Config,
    channels: Vec<Channel>,
    interrupts: Interrupts,
    pci: PciErrors,
    tricks: Tricks,
    priority: u32,
    prefetch: u32,
    debug: u32,
    counts: Counts,
    scratch: Vec<u8>,
    /// Addresses for which a violation is on record.
    blamed: BTreeSet<(u32, bool)>,
}

impl Ioat {
    /// An engine that is switched off; the frame resets it when it is plugged in.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = Config { channels: config.channels.clamp(1, 8), longest: config.longest.clamp(12, 20), ..config };
        Self {
            channels: (0..config.channels).map(Channel::new).collect(),
            interrupts: Interrupts::default(),
            pci: PciErrors::default(),
            tricks: Tricks::new(&config.faults),
            priority: 0,
            prefetch: 0,
            debug: 0,
            counts: Counts::default(),
            scratch: Vec::new(),
            blamed: BTreeSet::new(),
            config,
        }
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Lets the engine misbehave in these ways from now on, all of them, or behave again when there is none. Descriptors count from here.
    pub fn set_faults(&mut self, faults: &[Planned]) {
        self.tricks = Tricks::new(faults);
        self.channels.iter_mut().for_each(|channel| channel.hangs = false);
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// State and errors of a channel; `None` when there is no such channel.
    #[must_use]
    pub fn channel(&self, number: u8) -> Option<(State, Errors)> {
        self.channels.get(usize::from(number)).map(|channel| (channel.state, channel.errors))
    }

    /// Halts a channel now, in the middle of whatever it does, with these errors or none.
    pub fn halt(&mut self, bus: &mut Bus, number: u8, errors: Errors) {
        let Self { channels, tricks, interrupts, pci, .. } = self;
        if let Some(channel) = channels.get_mut(usize::from(number)) {
            channel.halt(&mut Surroundings { bus, tricks, interrupts, pci }, errors);
        }
    }

    /// Looks at doorbells that are written without a call.
    fn follow(&mut self, bus: &Bus) {
        self.channels.iter_mut().for_each(|channel| channel.follow(bus));
    }

    /// Reads a word, of which the driver wants the bits in `touched`.
    fn load_word(&mut self, bus: &mut Bus, offset: u32, touched: u32) -> u32 {
        let honest = self.tricks.is_honest();
        match offset {
            registers::GENERAL => {
                let lies = |fault| !honest && self.tricks.is(fault);
                let channels = match () {
                    () if lies(Fault::ChannelsNone) => 0,
                    () if lies(Fault::ChannelsMany) => 31,
                    () => u32::from(self.config.channels),
                };
                let longest = if lies(Fault::LongestZero) { 0 } else { u32::from(self.config.longest) };
                let control = if touched >> 24 == 0 { 0 } else { self.interrupts.load_control() };
                channels | longest << 8 | self.debug << 16 | u32::from(control) << 24
            }
            registers::ATTNSTATUS => self.interrupts.load_attention(),
            registers::CBVER if !honest && self.tricks.is(Fault::VersionOld) => 0x20,
            registers::CBVER => self.config.kind.version().into(),
            registers::INTRDELAY => u32::from(self.interrupts.load_delay()) | registers::REMAPPED << 16,
            registers::DMACAPABILITY => registers::PAGE_BREAK | registers::FILL,
            registers::DCAOFFSET => 0,
            registers::CBPRIO => self.priority,
            registers::CHWPREFLMT if self.config.kind == Kind::IceLake => self.prefetch,
            _ => self.load_channel(bus, offset, touched),
        }
    }

    fn load_channel(&mut self, bus: &mut Bus, offset: u32, touched: u32) -> u32 {
        let (number, register) = (offset / block::BYTES, offset % block::BYTES);
        if let Some(latency) = self.latency(number, register) {
            return *latency;
        }
        let Self { channels, tricks, interrupts, pci, .. } = self;
        let channel = number.checked_sub(1).and_then(|number| channels.get_mut(usize::try_from(number).ok()?));
        match channel.filter(|_| register <= block::DCACTRL) {
            Some(channel) => channel.load(&mut Surroundings { bus, tricks, interrupts, pci }, register, touched),
            None => {
                self.blame(bus, offset, false);
                0
            }
        }
    }

    fn latency(&mut self, number: u32, register: u32) -> Option<&mut u32> {
        let known = self.config.kind == Kind::IceLake && (block::LATENCY..block::LATENCY_END).contains(&register);
        let channel = number.checked_sub(2).filter(|_| known)?;
        self.channels.get_mut(usize::try_from(channel).ok()?)?.latency(register)
    }

    /// Writes the bits in `mask` of a word.
    fn store_word(&mut self, bus: &mut Bus, offset: u32, value: u32, mask: u32) {
        match offset {
            registers::GENERAL => {
                self.debug = registers::merge(self.debug, value >> 16, mask >> 16 & 1);
                if mask >> 24 != 0 {
                    self.interrupts.store_control(drivers::bus::Width::narrow(u64::from(value >> 24)));
                }
            }
            registers::INTRDELAY => {
                if mask & 0xffff != 0 {
                    self.interrupts.store_delay(drivers::bus::Width::narrow(u64::from(value)));
                }
            }
            registers::CBPRIO => self.priority = registers::merge(self.priority, value, mask & 0xff),
            registers::CHWPREFLMT if self.config.kind == Kind::IceLake => {
                self.prefetch = registers::merge(self.prefetch, value, mask & 0xff);
            }
            registers::ATTNSTATUS | registers::CBVER | registers::DMACAPABILITY | registers::DCAOFFSET => {}
            _ => self.store_channel(bus, offset, value, mask),
        }
    }

    fn store_channel(&mut self, bus: &mut Bus, offset: u32, value: u32, mask: u32) {
        let (number, register) = (offset / block::BYTES, offset % block::BYTES);
        if let Some(latency) = self.latency(number, register) {
            *latency = registers::merge(*latency, value, mask);
            return;
        }
        let Self { channels, tricks, interrupts, pci, .. } = self;
        let channel = number.checked_sub(1).and_then(|number| channels.get_mut(usize::try_from(number).ok()?));
        let mut around = Surroundings { bus, tricks, interrupts, pci };
        let known = channel.is_some_and(|channel| channel.store(&mut around, register, value, mask));
        if !known {
            self.blame(bus, offset, true);
        }
    }

    /// Records, once for each address, that the driver accessed a register that does not exist.
    fn blame(&mut self, bus: &mut Bus, offset: u32, store: bool) {
        if self.blamed.insert((offset, store)) {
            let action = if store { "wrote" } else { "read" };
            bus.violation(format!("the driver {action} the reserved register {offset:#06x}"));
        }
    }
}

impl Chip for Ioat {
    fn layout(&self) -> Layout {
        let doorbell = |channel| (block::offset(channel) + block::CHANCMD + 2, 2);
        let window = WindowLayout {
            bar: REGISTERS,
            bytes: registers::WINDOW_BYTES,
            wide: true,
            shared: Vec::new(),
            doorbells: (0..self.config.channels).map(doorbell).collect(),
            trapped: self.config.doorbells == Doorbells::Trapped,
        };
        let table = WindowLayout {
            bar: MSIX,
            bytes: 0x2000,
            wide: true,
            shared: Vec::new(),
            doorbells: Vec::new(),
            trapped: false,
        };
        Layout {
            id: PciId {
                vendor: 0x8086,
                device: self.config.kind.device(),
                subsystem_vendor: 0x8086,
                subsystem_device: 0,
                class: 0x08_8000,
                revision: 4,
            },
            windows: vec![window, table],
            msix_window: MSIX,
            vectors: self.config.channels.into(),
            serial: None,
        }
    }

    fn load(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32) -> u64 {
        if bar != REGISTERS {
            return u64::MAX;
        }
        self.follow(bus);
        if bytes == 8 {
            let low = self.load_word(bus, offset, u32::MAX);
            return u64::from(low) | u64::from(self.load_word(bus, offset.wrapping_add(4), u32::MAX)) << 32;
        }
        let shift = 8 * (offset & 3);
        let touched = bits(bytes) << shift;
        u64::from((self.load_word(bus, offset & !3, touched) & touched) >> shift)
    }

    fn store(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32, value: u64) {
        if bar != REGISTERS {
            return;
        }
        self.follow(bus);
        let low: u32 = drivers::bus::Width::narrow(value);
        if bytes == 8 {
            self.store_word(bus, offset, low, u32::MAX);
            if self.tricks.is(Fault::StoreNarrow) {
                return;
            }
            let high = drivers::bus::Width::narrow(value >> 32);
            self.store_word(bus, offset.wrapping_add(4), high, u32::MAX);
            return;
        }
        let shift = 8 * (offset & 3);
        self.store_word(bus, offset & !3, low << shift, bits(bytes) << shift);
    }

    fn load_config(&mut self, _bus: &mut Bus, offset: u16) -> Option<u32> {
        self.pci.load(offset)
    }

    fn store_config(&mut self, _bus: &mut Bus, offset: u16, value: u32, mask: u32) {
        self.pci.store(offset, value, mask);
    }

    fn reset(&mut self, bus: &mut Bus) {
        for channel in &mut self.channels {
            *channel = Channel::after_reset(channel.number, channel.errors);
            bus.set_register(REGISTERS, block::offset(channel.number) + block::CHANCMD, 0);
        }
        self.interrupts = Interrupts::default();
        (self.priority, self.prefetch, self.debug) = (0, 0, 0);
        if self.tricks.is(Fault::Absent) {
            bus.remove();
        }
    }

    fn poll(&mut self, bus: &mut Bus, _wire: &mut dyn Wire, budget: usize) -> Work {
        let Self { channels, tricks, interrupts, pci, scratch, counts, config, .. } = self;
        // Also when it has become honest: then memory is back.
        bus.refuse_dma(tricks.is(Fault::DmaRefused));
        let longest = 1_u32 << config.longest;
        let mut work = Work::default();
        for channel in channels.iter_mut() {
            channel.follow(bus);
            if !channel.has_work() {
                continue;
            }
            let mut turn = Turn { descriptors: budget, bytes: BYTES_A_POLL, done: 0, moved: 0, delivered: false };
            let mut around = Surroundings { bus, tricks, interrupts, pci };
            channel.run(&mut around, &mut turn, longest, scratch);
            counts.descriptors += u64::from(turn.done);
            counts.bytes += turn.moved;
            work.transmitted += turn.done;
            work.other |= turn.moved > 0 || turn.delivered;
        }
        work.other |= interrupts.poll(bus, tricks, config.channels);
        work
    }
}

/// The bits of an access of 1, 2 or 4 bytes.
fn bits(bytes: u32) -> u32 {
    match bytes {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}
