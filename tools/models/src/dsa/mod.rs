//! An Intel Data Streaming Accelerator (DSA) of version 1.0 or 2.0, written from its architecture specification.
//!
//! [`Dsa`] is a [`Chip`]: [`crate::card`] plugs it into a bus, and [`crate::wire::Null`] is its wire. A driver resets the device, gives queues and
//! engines to groups (GRPCFG), makes the queues dedicated or shared (WQCFG), and enables the device and the queues by commands. Descriptors are written to
//! a queue's portal, 64 bytes at once: a posted write to a dedicated queue, which drops what it has no room for, a deferrable one
//! to a shared queue, which says whether it was taken. A descriptor that is done, or cannot be, has its status in a completion
//! record of its own; when there is none to write, SWERR tells.
//!
//! What it advertises it does: no-op, batch, drain, memory move, fill, compare with memory and with a pattern, dualcast and cache flush;
//! all commands; interrupts by vector or by handle; occupancy interrupts; limits of each queue. Other operations end with the status that says so. It has neither
//! an event log, nor a table of interrupts of its own, nor performance counters, and says so in its capabilities.
//!
//! Whatever is not mapped is refused, recorded as an IOMMU fault, and is a page fault in the completion record, with address and bytes done. See
//! [`Fault`] for the ways in which the device can lie, and [`Planned`] for when.
//!
//! Unlike real ones: the MSI-X table has a window of its own; a bus that does not carry 64 bytes at once may deliver them in pieces of 4 or 8; the
//! address spaces of processes (PASID) are looked at and all the same.

mod command;
mod config;
mod descriptor;
mod engine;
mod fault;
mod general;
mod moving;
mod pci;
mod queue;
mod registers;
mod report;
mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use drivers::bus::PciId;

use self::command::Commands;
use self::descriptor::{Descriptor, Operation};
use self::engine::{Around, Turn};
use self::general::General;
use self::pci::Capabilities;
use self::queue::{Queue, Refused};
use self::registers::{GROUP_BYTES, GROUPS, MSIX, PORTALS, QUEUE_PORTALS, QUEUES, REGISTERS, half};
use crate::card::{BlockWrite, Bus, Chip, Layout, WindowLayout, Work};
use crate::wire::Wire;

pub use self::config::{Config, Version};
pub use self::fault::Fault;
pub use self::general::{ResetKind, State};
pub use self::status::Status;
pub use crate::plan::{FaultError, When};

/// A fault, and when and where it strikes: `channel` is a work queue.
pub type Planned = crate::plan::Planned<Fault>;
type Tricks = crate::plan::Tricks<Fault>;
type Fate = crate::plan::Fate<Fault>;

/// Most bytes that a queue moves in one poll.
const BYTES_A_POLL: u64 = 256 << 10;
/// Read buffers of all groups together.
const READ_BUFFERS: u8 = 96;

/// What the device has done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Descriptors done, those of batches and the batches themselves.
    pub descriptors: u64,
    /// Bytes moved, written or compared, those of descriptors that failed too.
    pub bytes: u64,
    /// Descriptors that a dedicated queue, or one that is not enabled, did not take.
    pub dropped: u64,
    /// Answers that a shared queue is full.
    pub retries: u64,
}

/// The chip.
#[derive(Debug)]
pub struct Dsa {
    config: Config,
    general: General,
    commands: Commands,
    queues: Vec<Queue>,
    /// GRPCFG, in words of 32 bits.
    groups: Vec<[u32; GROUP_BYTES as usize / 4]>,
    pci: Capabilities,
    tricks: Tricks,
    counts: Counts,
    scratch: [Vec<u8>; 2],
    /// Addresses for which a violation is on record.
    blamed: BTreeSet<(u8, u32, bool)>,
}

impl Dsa {
    /// A device that is disabled; the frame resets it when it is plugged in.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let config = config.within_limits();
        let mut dsa = Self {
            general: General::default(),
            commands: Commands::default(),
            queues: (0..config.queues).map(Queue::new).collect(),
            groups: Vec::new(),
            pci: Capabilities::default(),
            tricks: Tricks::new(&config.faults),
            counts: Counts::default(),
            scratch: [Vec::new(), Vec::new()],
            blamed: BTreeSet::new(),
            config,
        };
        dsa.reset_all();
        dsa
    }

    /// What it was made from.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Lets the device misbehave in these ways from now on, all of them, or behave again when there is none. Descriptors count from here: those of
    /// portals and of batches, in the order in which they are begun; a batch comes before its own.
    pub fn set_faults(&mut self, faults: &[Planned]) {
        self.tricks = Tricks::new(faults);
        self.queues.iter_mut().for_each(|queue| queue.hangs = false);
    }

    /// What it has done since it was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// GENSTS.
    #[must_use]
    pub fn state(&self) -> State {
        self.general.state
    }

    /// Whether a queue is enabled, and the descriptors that wait in it; `None` when there is no such queue.
    #[must_use]
    pub fn queue(&self, number: u8) -> Option<(bool, usize)> {
        self.queues.get(usize::from(number)).map(|queue| (queue.enabled, queue.entries.len()))
    }

    /// Halts the device now, in the middle of whatever it does.
    pub fn halt(&mut self, bus: &mut Bus, needs: ResetKind) {
        self.general.halt(bus, &self.tricks, needs, false);
    }

    fn lies(&self, fault: Fault) -> bool {
        !self.tricks.is_honest() && self.tricks.is(fault)
    }

    /// GENCAP: blocking on faults, overlapping copies, cache control of both kinds, CMDCAP, limits, configuration.
    fn general_capabilities(&self) -> u64 {
        let (longest, batch) =
            if self.lies(Fault::LimitsOne) { (0, 0) } else { (self.config.longest, self.config.largest_batch) };
        let configurable = u64::from(!self.lies(Fault::ConfigurationFixed));
        0x1f | u64::from(longest) << 16 | u64::from(batch) << 21 | configurable << 31
    }

    /// WQCAP: entries, queues, bytes of each; shared, dedicated, translation services, priority, occupancy and its interrupt, operations.
    fn queue_capabilities(&self) -> u64 {
        let queues = match () {
            () if self.lies(Fault::QueuesNone) => 0,
            () if self.lies(Fault::QueuesMany) => 255,
            () => self.config.queues,
        };
        let entries = if self.lies(Fault::EntriesNone) { 0 } else { self.config.entries };
        let (bytes, operations) = match self.config.version {
            Version::One => (0, 0),
            Version::Two => (1, 1 << 54),
        };
        let dedicated = u64::from(!self.lies(Fault::DedicatedNone));
        u64::from(entries) | u64::from(queues) << 16 | bytes << 24 | 0x3d << 48 | dedicated << 49 | operations
    }

    /// Reads a word.
    fn load_word(&mut self, bus: &mut Bus, offset: u32) -> u32 {
        match offset & !4 {
            registers::VERSION if offset == 0 && self.lies(Fault::VersionZero) => 0,
            registers::VERSION if offset == 0 => self.config.version.register(),
            registers::GENCAP => half(self.general_capabilities(), offset),
            registers::WQCAP => half(self.queue_capabilities(), offset),
            // Read buffers can be limited and reserved.
            registers::GRPCAP => {
                let groups = if self.lies(Fault::GroupsNone) { 0 } else { self.config.groups };
                half(u64::from(groups) | u64::from(READ_BUFFERS) << 8 | 0x3 << 16, offset)
            }
            registers::ENGCAP => {
                let engines = if self.lies(Fault::EnginesNone) { 0 } else { self.config.engines };
                half(engines.into(), offset)
            }
            registers::OPCAP if self.lies(Fault::OperationsNone) => 0,
            registers::OPCAP => half(Operation::capabilities(), offset),
            registers::OFFSETS => {
                let tables = [GROUPS, QUEUES, registers::PERMISSIONS].map(|table| u64::from(table / 0x100));
                let [groups, queues, permissions] = if self.lies(Fault::OffsetsWild) { [0xffff; 3] } else { tables };
                half(groups | queues << 16 | permissions << 32, offset)
            }
            registers::GENCFG if offset == registers::GENCFG => self.general.load_configuration(),
            registers::GENCTRL if offset == registers::GENCTRL => self.general.load_control(),
            registers::GENSTS if offset == registers::GENSTS => {
                if self.lies(Fault::StatusOnes) {
                    u32::MAX
                } else {
                    self.general.load_status()
                }
            }
            registers::INTCAUSE if offset == registers::INTCAUSE => self.general.load_cause(),
            registers::CMD if offset == registers::CMD => self.commands.load(),
            registers::CMDSTS if offset == registers::CMDSTS => self.commands.load_status(),
            registers::CMDCAP if offset == registers::CMDCAP => self.commands(),
            registers::SWERR..=registers::SWERR_LAST => self.general.load_error(offset - registers::SWERR),
            _ => self.load_table(bus, offset),
        }
    }

    fn load_table(&mut self, bus: &mut Bus, offset: u32) -> u32 {
        if let Some((queue, word)) = self.queue_word(offset) {
            return queue.load(word);
        }
        if let Some(word) = self.group_word(offset) {
            return *word;
        }
        if let Some(permission) = self.general.permission(offset) {
            return *permission;
        }
        // Upper halves of registers, and what lies between them, read as zero; what is far away is none.
        if offset >= GROUPS && !self.general.is_permission(offset) {
            self.blame(bus, REGISTERS, offset, false);
        }
        0
    }

    fn queue_word(&mut self, offset: u32) -> Option<(&mut Queue, usize)> {
        let (offset, bytes) = (offset.checked_sub(QUEUES)?, self.config.version.queue_bytes());
        let queue = self.queues.get_mut(usize::try_from(offset / bytes).ok()?)?;
        Some((queue, usize::try_from(offset % bytes / 4).ok()?))
    }

    fn group_word(&mut self, offset: u32) -> Option<&mut u32> {
        let offset = offset.checked_sub(GROUPS)?;
        let group = self.groups.get_mut(usize::try_from(offset / GROUP_BYTES).ok()?)?;
        group.get_mut(usize::try_from(offset % GROUP_BYTES / 4).ok()?)
    }

    /// Writes the bits in `mask` of a word.
    fn store_word(&mut self, bus: &mut Bus, offset: u32, value: u32, mask: u32) {
        let is_disabled = self.general.state == State::Disabled;
        match offset {
            registers::GENCFG if is_disabled => self.general.store_configuration(value, mask),
            registers::GENCFG
                if registers::merge(self.general.load_configuration(), value, mask)
                    == self.general.load_configuration() => {}
            registers::GENCFG => bus.violation("the driver changed GENCFG while the device was enabled"),
            registers::GENCTRL => self.general.store_control(value, mask),
            registers::INTCAUSE => self.general.store_cause(value, mask),
            registers::CMD => {
                if mask == u32::MAX {
                    self.command(bus, value);
                } else {
                    bus.violation("the driver wrote a part of CMD");
                }
            }
            registers::SWERR..=registers::SWERR_LAST => {
                self.general.store_error(offset - registers::SWERR, value, mask);
            }
            _ if offset < GROUPS => {}
            _ => self.store_table(bus, offset, value, mask, is_disabled),
        }
    }

    fn store_table(&mut self, bus: &mut Bus, offset: u32, value: u32, mask: u32, is_disabled: bool) {
        if let Some((queue, word)) = self.queue_word(offset) {
            if let Some(wrong) = queue.store(word, value, mask, is_disabled) {
                bus.violation(wrong);
            }
        } else if let Some(word) = self.group_word(offset) {
            let after = registers::merge(*word, value, mask);
            if is_disabled {
                *word = after;
            } else if after != *word {
                bus.violation(format!("the driver changed GRPCFG at {offset:#06x} while the device was enabled"));
            }
        } else if let Some(permission) = self.general.permission(offset) {
            *permission = registers::merge(*permission, value, mask & 0xffff_f00c);
        } else if !self.general.is_permission(offset) {
            self.blame(bus, REGISTERS, offset, true);
        }
    }

    /// A descriptor has come to a portal. `false` asks for it again later.
    fn submit(&mut self, bus: &mut Bus, offset: u32, descriptor: Descriptor, write: BlockWrite) -> bool {
        let number = usize::try_from(offset / QUEUE_PORTALS).unwrap_or(usize::MAX);
        let Some(queue) = self.queues.get_mut(number) else {
            self.blame(bus, PORTALS, offset, true);
            return false;
        };
        if self.tricks.is(Fault::PortalRetry) && !queue.is_dedicated() {
            self.counts.retries += 1;
            return false;
        }
        let dedicated = queue.is_dedicated();
        let taken = if self.general.state == State::Enabled {
            queue.take(Queue::portal(offset % QUEUE_PORTALS), descriptor, write)
        } else {
            Err(Refused::Disabled)
        };
        let Err(refused) = taken else { return true };
        if refused == Refused::Full && !dedicated {
            self.counts.retries += 1;
            return false;
        }
        self.counts.dropped += 1;
        match refused {
            // What an engine that halted is given meanwhile is nobody's mistake.
            Refused::Disabled if self.general.state == State::Halted => {}
            Refused::Disabled => bus.violation(format!("a descriptor came to queue {number}, which is not enabled")),
            Refused::Full => bus.violation(format!("a descriptor came to queue {number}, which was full")),
            Refused::Kind => bus.violation(if dedicated {
                format!("a descriptor came to the dedicated queue {number} by a deferrable write")
            } else {
                format!("a descriptor came to the shared queue {number} by a posted write")
            }),
        }
        // A posted write has no answer; a deferrable one is asked for again, in vain.
        dedicated && write != BlockWrite::Deferrable
    }

    /// Records, once for each address, that the driver accessed a register that does not exist.
    fn blame(&mut self, bus: &mut Bus, bar: u8, offset: u32, store: bool) {
        if self.blamed.insert((bar, offset, store)) {
            let action = if store { "wrote" } else { "read" };
            bus.violation(format!("the driver {action} the reserved register {offset:#06x} of BAR {bar}"));
        }
    }

    /// The bus was told to let the device do no DMA while it was enabled.
    fn watch_bus_master(&mut self, bus: &mut Bus) {
        if self.general.state == State::Enabled && !bus.is_master() {
            self.general.report(bus, &self.tricks, Status::PCI_CONFIGURATION, None, 0);
            self.general.halt(bus, &self.tricks, ResetKind::Function, false);
        }
    }
}

impl Chip for Dsa {
    fn layout(&self) -> Layout {
        let window = |bar, bytes| WindowLayout {
            bar,
            bytes,
            wide: true,
            shared: Vec::new(),
            doorbells: Vec::new(),
            trapped: false,
        };
        let portals = (u32::from(self.config.queues) * QUEUE_PORTALS).next_power_of_two();
        Layout {
            id: PciId {
                vendor: 0x8086,
                device: self.config.version.device(),
                subsystem_vendor: 0x8086,
                subsystem_device: 0,
                class: 0x08_8000,
                revision: 0,
            },
            windows: vec![window(REGISTERS, registers::WINDOW_BYTES), window(PORTALS, portals), window(MSIX, 0x2000)],
            msix_window: MSIX,
            vectors: self.config.vectors(),
            serial: None,
        }
    }

    fn load(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32) -> u64 {
        if bar != REGISTERS {
            // Portals read all ones.
            return u64::MAX;
        }
        self.go_on(bus);
        if bytes == 8 {
            return u64::from(self.load_word(bus, offset))
                | u64::from(self.load_word(bus, offset.wrapping_add(4))) << 32;
        }
        u64::from(self.load_word(bus, offset & !3) >> (8 * (offset & 3)))
    }

    fn store(&mut self, bus: &mut Bus, bar: u8, offset: u32, bytes: u32, value: u64) {
        if bar == PORTALS {
            let queue = usize::try_from(offset / QUEUE_PORTALS).ok().and_then(|number| self.queues.get_mut(number));
            let whole = queue.and_then(|queue| queue.collect(offset % QUEUE_PORTALS, bytes, value));
            if let Some(descriptor) = whole {
                self.submit(bus, offset, descriptor, BlockWrite::Either);
            }
            return;
        }
        if bar != REGISTERS {
            return;
        }
        let low: u32 = drivers::bus::Width::narrow(value);
        match bytes {
            8 => {
                self.store_word(bus, offset, low, u32::MAX);
                self.store_word(bus, offset.wrapping_add(4), drivers::bus::Width::narrow(value >> 32), u32::MAX);
            }
            4 => self.store_word(bus, offset, low, u32::MAX),
            _ => {
                let (shift, bits) = (8 * (offset & 3), if bytes == 1 { 0xff } else { 0xffff });
                self.store_word(bus, offset & !3, low << shift, bits << shift);
            }
        }
    }

    fn store_block(&mut self, bus: &mut Bus, bar: u8, offset: u32, block: &[u64; 8], write: BlockWrite) -> bool {
        if bar == PORTALS {
            return self.submit(bus, offset, Descriptor(*block), write);
        }
        self.blame(bus, bar, offset, true);
        true
    }

    fn load_config(&mut self, _bus: &mut Bus, offset: u16) -> Option<u32> {
        self.pci.load(offset)
    }

    fn store_config(&mut self, _bus: &mut Bus, offset: u16, value: u32, mask: u32) {
        self.pci.store(offset, value, mask);
    }

    fn reset(&mut self, bus: &mut Bus) {
        self.pci = Capabilities::default();
        self.reset_all();
        if self.tricks.is(Fault::Absent) {
            bus.remove();
        }
    }

    fn poll(&mut self, bus: &mut Bus, _wire: &mut dyn Wire, budget: usize) -> Work {
        // Also when it has become honest: then memory is back.
        bus.refuse_dma(self.tricks.is(Fault::DmaRefused));
        self.watch_bus_master(bus);
        let Self { queues, tricks, general, config, pci, scratch, counts, .. } = self;
        let mut around = Around { bus, tricks, general, config, pci, scratch };
        let mut work = Work::default();
        for queue in queues.iter_mut().filter(|queue| queue.has_work()) {
            let mut turn = Turn { descriptors: budget, bytes: BYTES_A_POLL, done: 0, moved: 0, delivered: false };
            queue.run(&mut around, &mut turn);
            counts.descriptors += u64::from(turn.done);
            counts.bytes += turn.moved;
            work.transmitted += turn.done;
            work.other |= turn.moved > 0 || turn.delivered;
        }
        if self.general.state == State::Disabled && self.queues.iter().any(|queue| queue.enabled) {
            // It has reset itself.
            self.reset_device();
        }
        work.other |= self.go_on(bus);
        if self.tricks.is(Fault::InterruptsStorm) {
            (0..self.config.vectors()).for_each(|vector| General::signal(bus, &self.tricks, vector));
        }
        work
    }
}
