//! CMD and CMDSTS: one command at a time, some of which take until queues are empty.

use super::Dsa;
use super::fault::Fault;
use super::general::{ResetKind, State};
use super::registers::GROUP_BYTES;
use super::status::Status;
use crate::card::Bus;

/// CMD: ask for an interrupt at the end.
const INTERRUPT: u32 = 1 << 31;
/// CMDSTS: not yet over.
const ACTIVE: u32 = 1 << 31;
/// In an operand: a handle of another table than MSI-X's.
const OTHER_TABLE: u32 = 1 << 16;

/// Numbers of commands.
const ENABLE_DEVICE: u32 = 1;
const DISABLE_DEVICE: u32 = 2;
const DRAIN_ALL: u32 = 3;
const ABORT_ALL: u32 = 4;
const RESET_DEVICE: u32 = 5;
const ENABLE_QUEUE: u32 = 6;
const DISABLE_QUEUE: u32 = 7;
const DRAIN_QUEUE: u32 = 8;
const ABORT_QUEUE: u32 = 9;
const RESET_QUEUE: u32 = 10;
const DRAIN_PASID: u32 = 11;
const ABORT_PASID: u32 = 12;
const REQUEST_HANDLE: u32 = 13;
const RELEASE_HANDLE: u32 = 14;

/// Status of a command.
mod failure {
    pub(super) const COMMAND: u8 = 0x01;
    pub(super) const QUEUE: u8 = 0x02;
    pub(super) const HARDWARE: u8 = 0x03;
    pub(super) const NOT_DISABLED: u8 = 0x10;
    pub(super) const CONFIGURATION: u8 = 0x11;
    pub(super) const BUS_MASTER: u8 = 0x12;
    pub(super) const SIZES: u8 = 0x14;
    pub(super) const GROUP: u8 = 0x15;
    pub(super) const GROUP_QUEUES: u8 = 0x16;
    pub(super) const GROUP_ENGINES: u8 = 0x17;
    pub(super) const GROUP_BUFFERS: u8 = 0x18;
    pub(super) const DEVICE_NOT_ENABLED: u8 = 0x20;
    pub(super) const QUEUE_SIZE: u8 = 0x22;
    pub(super) const NOT_ENABLED: u8 = 0x31;
    pub(super) const QUEUE_NOT_ENABLED: u8 = 0x32;
    pub(super) const VECTOR: u8 = 0x41;
    pub(super) const NO_HANDLE: u8 = 0x42;
}

/// What follows when the queues that are waited for are empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    Nothing,
    DisableQueues,
    DisableDevice,
}

/// A command that takes its time.
#[derive(Debug)]
struct Waiting {
    then: Then,
    /// Queues, and how many of their descriptors have to be done with.
    queues: Vec<(usize, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Commands {
    /// CMD as it was written last.
    command: u32,
    /// CMDSTS.
    status: u32,
    waiting: Option<Waiting>,
}

impl Commands {
    pub(super) fn load(&self) -> u32 {
        self.command
    }

    pub(super) fn load_status(&self) -> u32 {
        self.status
    }
}

impl Dsa {
    /// CMDCAP: the commands there are.
    pub(super) fn commands(&self) -> u32 {
        if self.config.interrupt_handles { 0x7ffe } else { 0x1ffe }
    }

    /// Something is written to CMD.
    pub(super) fn command(&mut self, bus: &mut Bus, command: u32) {
        if self.commands.status & ACTIVE != 0 {
            bus.violation("the driver wrote a command while another one was active");
            self.general.report(bus, &self.tricks, Status::COMMAND, None, 0);
            return;
        }
        self.commands.command = command;
        self.commands.status = ACTIVE;
        let (number, operand) = (command >> 20 & 0x1f, command & 0xf_ffff);
        let stuck = self.tricks.is(Fault::CommandStuck)
            || number == RESET_DEVICE && self.tricks.is(Fault::ResetNeverDone)
            || matches!(number, DRAIN_ALL | DRAIN_QUEUE | DRAIN_PASID) && self.tricks.is(Fault::DrainStuck);
        if stuck {
            return;
        }
        if self.tricks.is(Fault::CommandFails) {
            self.end_command(bus, Err(failure::HARDWARE));
            return;
        }
        match self.start(bus, number, operand) {
            Ok(Some(waiting)) => {
                self.commands.waiting = Some(waiting);
                self.go_on(bus);
            }
            Ok(None) => self.end_command(bus, Ok(0)),
            Err(result) => self.end_command(bus, result),
        }
    }

    /// Looks whether the active command is over. `true` when it is since now.
    pub(super) fn go_on(&mut self, bus: &mut Bus) -> bool {
        let Some(waiting) = &self.commands.waiting else { return false };
        if self.general.state == State::Halted {
            self.commands.waiting = None;
            self.end_command(bus, Err(failure::HARDWARE));
            return true;
        }
        let done = |(queue, until): &(usize, u64)| self.queues.get(*queue).is_none_or(|queue| queue.retired >= *until);
        if !waiting.queues.iter().all(done) {
            return false;
        }
        let Some(Waiting { then, queues }) = self.commands.waiting.take() else { return false };
        if then != Then::Nothing {
            for (number, _) in queues {
                if let Some(queue) = self.queues.get_mut(number) {
                    queue.disable();
                }
            }
        }
        if then == Then::DisableDevice {
            self.general.state = State::Disabled;
        }
        self.end_command(bus, Ok(0));
        true
    }

    fn end_command(&mut self, bus: &mut Bus, result: Result<u16, u8>) {
        self.commands.status = match result {
            Ok(answer) => u32::from(answer) << 8,
            Err(status) => status.into(),
        };
        if self.commands.command & INTERRUPT != 0 {
            self.general.command_ended(bus, &self.tricks);
        }
    }

    /// Begins a command. What it waits for, or how it has ended.
    fn start(&mut self, bus: &mut Bus, number: u32, operand: u32) -> Result<Option<Waiting>, Result<u16, u8>> {
        let enabled = self.general.state == State::Enabled;
        let needs_enabled = if enabled { Ok(()) } else { Err(Err(failure::NOT_ENABLED)) };
        if self.commands() >> number & 1 == 0 {
            bus.violation(format!("the driver wrote command {number}, which CMDCAP does not have"));
            return Err(Err(failure::COMMAND));
        }
        if self.general.state == State::Halted {
            // Only a reset helps, if it is the right one.
            return if number == RESET_DEVICE && self.general.needs == ResetKind::Software {
                self.reset_device();
                Ok(None)
            } else {
                Err(Err(failure::HARDWARE))
            };
        }
        match number {
            ENABLE_DEVICE => {
                self.may_be_enabled(bus).map_err(Err)?;
                self.general.state = State::Enabled;
                Ok(None)
            }
            DISABLE_DEVICE => {
                needs_enabled?;
                self.general.state = State::Draining;
                self.queues.iter_mut().for_each(|queue| queue.closing = true);
                Ok(Some(self.wait_for(Then::DisableDevice, |_| true)))
            }
            DRAIN_ALL | DRAIN_PASID => {
                needs_enabled?;
                Ok(Some(self.wait_for(Then::Nothing, |_| true)))
            }
            ABORT_ALL => {
                needs_enabled?;
                self.queues.iter_mut().for_each(super::queue::Queue::abort);
                Ok(None)
            }
            ABORT_PASID => {
                needs_enabled?;
                self.queues.iter_mut().for_each(|queue| queue.abort_pasid(operand));
                Ok(None)
            }
            RESET_DEVICE => {
                self.reset_device();
                Ok(None)
            }
            ENABLE_QUEUE => self.enable_queue(operand).map(|()| None).map_err(Err),
            DISABLE_QUEUE | DRAIN_QUEUE | ABORT_QUEUE | RESET_QUEUE => self.change_queues(number, operand),
            REQUEST_HANDLE if operand & OTHER_TABLE != 0 => Err(Err(failure::NO_HANDLE)),
            REQUEST_HANDLE => Err(self.general.give_handle(drivers::bus::Width::narrow(operand.into()))),
            RELEASE_HANDLE if operand & OTHER_TABLE != 0 => Err(Err(failure::VECTOR)),
            _ => Err(self.general.take_handle(drivers::bus::Width::narrow(operand.into()))),
        }
    }

    /// Waits for what the chosen queues have now.
    fn wait_for(&self, then: Then, chosen: impl Fn(usize) -> bool) -> Waiting {
        let queues = self.queues.iter().enumerate().filter(|(number, _)| chosen(*number));
        Waiting { then, queues: queues.map(|(number, queue)| (number, queue.taken)).collect() }
    }

    fn change_queues(&mut self, number: u32, operand: u32) -> Result<Option<Waiting>, Result<u16, u8>> {
        if self.general.state != State::Enabled {
            return Err(Err(failure::NOT_ENABLED));
        }
        // Bits of sixteen queues, and which sixteen.
        let (bits, first) = (operand & 0xffff, (operand >> 16) as usize * 16);
        let chosen = move |queue: usize| queue.checked_sub(first).is_some_and(|bit| bit < 16 && bits >> bit & 1 != 0);
        let beyond = (0..16).filter(|bit| bits >> bit & 1 != 0).any(|bit| first + bit >= self.queues.len());
        if bits == 0 || beyond {
            return Err(Err(failure::QUEUE));
        }
        let mut queues: Vec<_> =
            self.queues.iter_mut().enumerate().filter(|(number, _)| chosen(*number)).map(|(_, queue)| queue).collect();
        if queues.iter().any(|queue| !queue.enabled) {
            return Err(Err(failure::QUEUE_NOT_ENABLED));
        }
        match number {
            DISABLE_QUEUE => {
                queues.iter_mut().for_each(|queue| queue.closing = true);
                Ok(Some(self.wait_for(Then::DisableQueues, chosen)))
            }
            DRAIN_QUEUE => Ok(Some(self.wait_for(Then::Nothing, chosen))),
            ABORT_QUEUE => {
                queues.iter_mut().for_each(|queue| queue.abort());
                Ok(None)
            }
            _ => {
                for queue in queues {
                    queue.abort();
                    queue.disable();
                    queue.reset_configuration();
                }
                Ok(None)
            }
        }
    }

    fn enable_queue(&mut self, number: u32) -> Result<(), u8> {
        if self.general.state != State::Enabled {
            return Err(failure::DEVICE_NOT_ENABLED);
        }
        let belongs = (0..self.groups.len()).any(|group| self.group(group, 0) >> number.min(63) & 1 != 0);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let queue = self.queues.get_mut(number).ok_or(failure::QUEUE)?;
        queue.may_be_enabled(&self.config, &self.pci)?;
        if self.tricks.is(Fault::QueueRefused) || !belongs {
            return Err(failure::QUEUE_SIZE);
        }
        queue.enabled = true;
        Ok(())
    }

    /// One of a group's eight words of 64 bits.
    fn group(&self, group: usize, word: usize) -> u64 {
        let words = self.groups.get(group).map(|words| (words.get(2 * word), words.get(2 * word + 1)));
        let Some((Some(low), Some(high))) = words else { return 0 };
        u64::from(*low) | u64::from(*high) << 32
    }

    /// Whether the device's configuration makes sense.
    fn may_be_enabled(&self, bus: &Bus) -> Result<(), u8> {
        if self.general.state != State::Disabled {
            return Err(failure::NOT_DISABLED);
        }
        if self.tricks.is(Fault::EnableRefused) {
            return Err(failure::CONFIGURATION);
        }
        if !bus.is_master() {
            return Err(failure::BUS_MASTER);
        }
        let entries: u32 = self.queues.iter().map(super::queue::Queue::size).sum();
        if entries > u32::from(self.config.entries) {
            return Err(failure::SIZES);
        }
        let (mut queues, mut engines, mut reserved) = (0, 0, 0);
        for group in 0..self.groups.len() {
            let ([own_queues, own_engines, flags], beyond) = (
                [self.group(group, 0), self.group(group, 4), self.group(group, 5)],
                (1..4).map(|word| self.group(group, word)),
            );
            if (own_queues == 0) != (own_engines == 0) {
                return Err(failure::GROUP);
            }
            if own_queues & queues != 0
                || own_queues >> self.config.queues != 0
                || beyond.into_iter().any(|more| more != 0)
            {
                return Err(failure::GROUP_QUEUES);
            }
            if own_engines & engines != 0 || own_engines >> self.config.engines != 0 {
                return Err(failure::GROUP_ENGINES);
            }
            reserved += flags >> 8 & 0xff;
            if flags >> 20 & 0xff > u64::from(super::READ_BUFFERS) || reserved > u64::from(super::READ_BUFFERS) {
                return Err(failure::GROUP_BUFFERS);
            }
            (queues, engines) = (queues | own_queues, engines | own_engines);
        }
        Ok(())
    }

    /// Everything as after power on, but for what belongs to the PCI function.
    pub(super) fn reset_device(&mut self) {
        self.queues.iter_mut().for_each(super::queue::Queue::reset);
        self.groups = vec![[0; GROUP_BYTES as usize / 4]; self.config.groups.into()];
        self.general = super::general::General::new(self.config.vectors(), self.config.interrupt_handles);
    }

    /// The same, and the commands too.
    pub(super) fn reset_all(&mut self) {
        self.reset_device();
        self.commands = Commands::default();
    }
}
