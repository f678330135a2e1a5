//! A channel: its registers and its states.
//!
//! | from | what happens | to |
//! |---|---|---|
//! | power on, reset | | halted |
//! | any but active | CHAINADDR is written and CHANERR is clear | armed |
//! | armed, idle | DMACOUNT differs from what is done | active |
//! | active | all is done | idle |
//! | armed, active, idle | suspend, at the end of a descriptor | suspended |
//! | suspended | resume | active or idle |
//! | active | an error, abort | halted |

use std::collections::VecDeque;
use std::time::Duration;

use super::Tricks;
use super::engine::Job;
use super::errors::Errors;
use super::fault::Fault;
use super::interrupts::Interrupts;
use super::pci::PciErrors;
use super::registers::{REGISTERS, block, merge};
use super::report::Held;
use crate::card::{Bus, Hint};

/// CHANCTRL (16 bits): no interrupt until one is written here; completion and interrupt at an error; abort at any; in use.
const INTERRUPT_DISABLE: u32 = 1 << 0;
pub(super) const ERROR_COMPLETION: u32 = 1 << 2;
pub(super) const ABORT_ANY: u32 = 1 << 3;
pub(super) const ERROR_INTERRUPT: u32 = 1 << 4;
const IN_USE: u32 = 1 << 8;
/// Bits that are stored as they are: the above, and no snooping of descriptors.
const CONTROL: u32 = ERROR_COMPLETION | ABORT_ANY | ERROR_INTERRUPT | 1 << 5;
/// DMA_COMP, above CHANCTRL: compatible with versions 2 and 3.
const COMPATIBLE: u32 = 0x0006 << 16;

/// CHANCMD.
const SUSPEND: u32 = 1 << 2;
const ABORT: u32 = 1 << 3;
const RESUME: u32 = 1 << 4;
const RESET: u32 = 1 << 5;

/// The reset bit shows for this long.
const RESET_TIME: Duration = Duration::from_micros(1);

/// CHANSTS, bits 2 to 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Descriptors are being processed.
    Active = 0,
    /// All are done.
    Idle = 1,
    /// Stopped by the driver between two descriptors.
    Suspended = 2,
    /// Stopped by an error or a reset.
    Halted = 3,
    /// There is a chain, and no descriptor of it was handed over yet.
    Armed = 4,
}

/// What a channel works with.
pub(super) struct Surroundings<'a> {
    pub(super) bus: &'a mut Bus,
    pub(super) tricks: &'a mut Tricks,
    pub(super) interrupts: &'a mut Interrupts,
    pub(super) pci: &'a mut PciErrors,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) number: u8,
    pub(super) state: State,
    pub(super) control: u32,
    pub(super) interrupt_disabled: bool,
    /// One was wanted while they were disabled.
    pub(super) owed: bool,
    in_use: bool,
    reset_until: Duration,
    pub(super) chain: u64,
    pub(super) completion: u64,
    pub(super) completion_known: bool,
    pub(super) completion_hint: Hint,
    /// Address of the last completed descriptor.
    pub(super) completed: u64,
    pub(super) errors: Errors,
    pub(super) mask: Errors,
    cache: u32,
    /// Registers behind its block that only store: latencies of version 3.4.
    latency: [u32; 5],
    /// DMACOUNT, and descriptors done since CHAINADDR was written.
    pub(super) count: u16,
    pub(super) done: u16,
    /// The next descriptor, and whether it is the first of the chain.
    pub(super) next: u64,
    pub(super) is_first: bool,
    pub(super) job: Option<Job>,
    pub(super) held: VecDeque<Held>,
    pub(super) suspending: bool,
    /// A fault: stands still.
    pub(super) hangs: bool,
    pub(super) descriptor_hint: Hint,
    pub(super) data_hints: [Hint; 2],
}

impl Channel {
    pub(super) fn new(number: u8) -> Self {
        Self {
            number,
            state: State::Halted,
            control: 0,
            interrupt_disabled: false,
            owed: false,
            in_use: false,
            reset_until: Duration::ZERO,
            chain: 0,
            completion: 0,
            completion_known: false,
            completion_hint: Hint::default(),
            completed: 0,
            errors: Errors::empty(),
            mask: Errors::empty(),
            cache: 0,
            latency: [0; 5],
            count: 0,
            done: 0,
            next: 0,
            is_first: false,
            job: None,
            held: VecDeque::new(),
            suspending: false,
            hangs: false,
            descriptor_hint: Hint::default(),
            data_hints: [Hint::default(); 2],
        }
    }

    /// What a reset of the function leaves of it: errors are sticky (PCI Express, section 6.6.2).
    pub(super) fn after_reset(number: u8, errors: Errors) -> Self {
        Self { errors, ..Self::new(number) }
    }

    /// CHANSTS as it is now.
    pub(super) fn status(&self) -> u64 {
        // What is kept back is not done yet.
        let state = if self.state == State::Idle && !self.held.is_empty() { State::Active } else { self.state };
        self.status_as(state)
    }

    pub(super) fn status_as(&self, state: State) -> u64 {
        let soft = if self.errors.contains(Errors::SOFT) { 0x10 } else { 0 };
        let unaffiliated = if self.errors.contains(Errors::UNAFFILIATED) { 0x08 } else { 0 };
        self.completed | soft | unaffiliated | state as u64
    }

    /// Looks at DMACOUNT where the driver writes it without a call.
    #[inline]
    pub(super) fn follow(&mut self, bus: &Bus) {
        self.set_count(drivers::bus::Width::narrow(u64::from(bus.register(REGISTERS, self.doorbell()) >> 16)));
    }

    /// A poll may find something to do.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.state == State::Active || !self.held.is_empty()
    }

    /// The word that has DMACOUNT in its upper half.
    fn doorbell(&self) -> u32 {
        block::offset(self.number) + block::CHANCMD
    }

    #[inline]
    fn set_count(&mut self, count: u16) {
        self.count = count;
        if self.count != self.done && matches!(self.state, State::Armed | State::Idle) {
            self.state = State::Active;
        }
    }

    pub(super) fn load(&mut self, around: &mut Surroundings<'_>, register: u32, touched: u32) -> u32 {
        let status = if around.tricks.is_on(Fault::StatusOnes, self.number) { u64::MAX } else { self.status() };
        let current = self.job.as_ref().map_or(self.next, |job| job.at);
        match register {
            block::CHANCTRL => {
                let value = self.control
                    | if self.interrupt_disabled { INTERRUPT_DISABLE } else { 0 }
                    | if self.in_use { IN_USE } else { 0 };
                // The first to see the bit clear has the channel.
                self.in_use |= touched & IN_USE != 0;
                value | COMPATIBLE
            }
            block::CHANCMD => {
                let resetting = around.bus.now() < self.reset_until;
                u32::from(self.count) << 16 | if resetting { RESET } else { 0 }
            }
            block::CHANSTS => low(status),
            block::CHANSTS_HIGH => high(status),
            block::CHAINADDR => low(self.chain),
            block::CHAINADDR_HIGH => high(self.chain),
            block::CHANCMP => low(self.completion),
            block::CHANCMP_HIGH => high(self.completion),
            block::CDAR => low(current),
            block::CDAR_HIGH => high(current),
            block::CHANERR => self.errors.bits(),
            block::CHANERRMSK => self.mask.bits(),
            block::DCACTRL => self.cache,
            _ => 0,
        }
    }

    /// Writes the bits in `mask` of a register; `false` when there is none.
    pub(super) fn store(&mut self, around: &mut Surroundings<'_>, register: u32, value: u32, mask: u32) -> bool {
        match register {
            block::CHANCTRL => self.store_control(around, value, mask),
            block::CHANCMD => {
                if mask & 0xffff_0000 != 0 {
                    around.bus.set_register(REGISTERS, self.doorbell(), value & 0xffff_0000);
                    self.set_count(drivers::bus::Width::narrow(u64::from(value >> 16)));
                }
                if mask & 0xff != 0 {
                    self.command(around, value & 0xff);
                }
            }
            block::CHAINADDR | block::CHAINADDR_HIGH => self.store_chain(around, register, value, mask),
            block::CHANCMP | block::CHANCMP_HIGH => {
                self.completion = half(self.completion, register == block::CHANCMP_HIGH, value, mask);
                self.completion_known = true;
            }
            block::CHANERR => self.errors &= !Errors::from_bits_retain(value & mask & Errors::ALL),
            block::CHANERRMSK => {
                self.mask = Errors::from_bits_truncate(merge(self.mask.bits(), value, mask));
            }
            block::DCACTRL => self.cache = merge(self.cache, value, mask & 0x0001_ffff),
            block::CHANSTS | block::CHANSTS_HIGH | block::CDAR | block::CDAR_HIGH => {}
            _ => return false,
        }
        true
    }

    /// The registers behind the block: latencies.
    pub(super) fn latency(&mut self, register: u32) -> Option<&mut u32> {
        let index = register.checked_sub(block::LATENCY)? / 4;
        self.latency.get_mut(usize::try_from(index).ok()?)
    }

    fn store_control(&mut self, around: &mut Surroundings<'_>, value: u32, mask: u32) {
        self.control = merge(self.control, value, mask & CONTROL);
        if mask & IN_USE != 0 {
            self.in_use = value & IN_USE != 0;
        }
        if value & mask & INTERRUPT_DISABLE != 0 {
            self.interrupt_disabled = false;
            if std::mem::take(&mut self.owed) {
                self.interrupt(around);
            }
        }
    }

    fn store_chain(&mut self, around: &mut Surroundings<'_>, register: u32, value: u32, mask: u32) {
        if self.state == State::Active {
            around.bus.violation(format!("the driver wrote CHAINADDR while channel {} was active", self.number));
            return;
        }
        self.chain = half(self.chain, register == block::CHAINADDR_HIGH, value, mask);
        (self.next, self.is_first) = (self.chain, true);
        (self.count, self.done, self.completed) = (0, 0, 0);
        self.suspending = false;
        self.held.clear();
        around.bus.set_register(REGISTERS, self.doorbell(), 0);
        if !self.errors.difference(Errors::SOFT).is_empty() {
            let bits = self.errors.bits();
            around.bus.violation(format!(
                "the driver wrote CHAINADDR while CHANERR of channel {} was {bits:#x}: it stays halted",
                self.number
            ));
        } else if !around.tricks.is_on(Fault::ArmNever, self.number) {
            self.state = State::Armed;
        }
    }

    fn command(&mut self, around: &mut Surroundings<'_>, command: u32) {
        match command {
            0 => {}
            RESET => self.reset(around),
            SUSPEND => {
                let stuck = around.tricks.is_on(Fault::SuspendStuck, self.number);
                match self.state {
                    _ if stuck => {}
                    State::Active if self.job.is_some() => self.suspending = true,
                    State::Active | State::Idle | State::Armed => self.state = State::Suspended,
                    State::Suspended | State::Halted => {}
                }
            }
            RESUME => {
                self.suspending = false;
                if self.state == State::Suspended {
                    self.state = if self.count == self.done { State::Idle } else { State::Active };
                }
            }
            ABORT => {
                if self.state != State::Halted {
                    self.halt(around, Errors::empty());
                }
            }
            _ => {
                around.bus.violation(format!("the driver wrote {command:#04x} to CHANCMD of channel {}", self.number));
                self.halt(around, Errors::COMMAND);
            }
        }
    }

    /// CHANCMD's reset: the channel is as after power on, but for its errors.
    pub(super) fn reset(&mut self, around: &mut Surroundings<'_>) {
        let never = around.tricks.is_on(Fault::ResetNeverDone, self.number);
        let until = if never { Duration::MAX } else { around.bus.now() + RESET_TIME };
        *self = Self {
            mask: self.mask,
            in_use: self.in_use,
            cache: self.cache,
            latency: self.latency,
            reset_until: until,
            ..Self::after_reset(self.number, self.errors)
        };
        around.bus.set_register(REGISTERS, self.doorbell(), 0);
    }
}

/// One half of a register of 64 bits, changed.
fn half(before: u64, upper: bool, value: u32, mask: u32) -> u64 {
    let shift = if upper { 32 } else { 0 };
    let mask = u64::from(mask) << shift;
    before & !mask | u64::from(value) << shift & mask
}

fn low(value: u64) -> u32 {
    drivers::bus::Width::narrow(value)
}

fn high(value: u64) -> u32 {
    low(value >> 32)
}
