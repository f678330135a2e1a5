//! All state of one card, behind one lock that is taken once per batch and per slow register access.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::config::{Config, Doorbells};
use super::control::NetState;
use super::pci::PciSpace;
use super::registers::{QueueRegisters, Registers};
use super::ring::{Broken, Chain, Ring, RingPlan};
use super::specification::{Features, NO_VECTOR, status};
use super::trick::Trick;
use super::wire::Wire;
use crate::interrupt::signal;
use crate::memory::{Access, Memory};

/// What the card has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames taken from the driver.
    pub transmitted: u64,
    /// Frames delivered to the driver.
    pub received: u64,
    /// Frames for the driver dropped because it had no buffer.
    pub no_buffer: u64,
    /// Times that a frame had to wait for a buffer.
    pub waits: u64,
    /// Frames for the driver dropped because they do not fit its buffers, the MTU or what was negotiated.
    pub unfit: u64,
    /// Frames dropped by the address filter.
    pub filtered: u64,
    /// Frames dropped because the link is down.
    pub link_down: u64,
    /// Frames from the driver dropped because of their header.
    pub bad_header: u64,
    /// Commands answered on the control queue.
    pub commands: u64,
    /// Interrupts sent.
    pub interrupts: u64,
    /// Device resets.
    pub resets: u64,
}

/// Violations kept; later ones are dropped.
const VIOLATIONS_KEPT: usize = 64;

/// A queue: its registers and, while it runs, its ring.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) registers: QueueRegisters,
    pub(super) ring: Option<Ring>,
    broken: bool,
    seen_bell: u32,
    /// The doorbell rang and the ring was not found empty since.
    awake: bool,
    epoch: u64,
    pub(super) chain: Chain,
}

impl Queue {
    fn new(size: u16) -> Self {
        Self {
            registers: QueueRegisters::new(size),
            ring: None,
            broken: false,
            seen_bell: 0,
            awake: false,
            epoch: 0,
            chain: Chain::default(),
        }
    }

    fn plan(&self, features: Features) -> RingPlan {
        RingPlan {
            size: self.registers.size,
            descriptors: self.registers.descriptors,
            driver: self.registers.driver,
            device: self.registers.device,
            features,
        }
    }
}

/// See the module.
pub(super) struct Core {
    pub(super) config: Config,
    pub(super) pci: PciSpace,
    pub(super) registers: Registers,
    pub(super) memory: Memory,
    pub(super) queues: Vec<Queue>,
    pub(super) vectors: Vec<Arc<OwnedFd>>,
    pub(super) net: NetState,
    pub(super) trick: Trick,
    pub(super) counters: Counters,
    pub(super) violations: Vec<String>,
}

/// What one poll did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Work {
    /// Frames taken from the driver.
    pub transmitted: usize,
    /// Frames delivered to the driver.
    pub received: usize,
    /// Commands answered.
    pub commands: usize,
}

impl Work {
    /// Nothing was done.
    #[must_use]
    pub fn is_idle(self) -> bool {
        self == Self::default()
    }
}

impl Core {
    pub(super) fn new(config: Config) -> Self {
        let count = queue_count(&config);
        Self {
            pci: PciSpace::new(&config, count, config.fault),
            registers: Registers::new(),
            memory: Memory::default(),
            queues: (0..count).map(|_| Queue::new(config.queue_size)).collect(),
            vectors: Vec::new(),
            net: NetState::new(&config),
            trick: Trick::new(config.fault, config.chaos),
            counters: Counters::default(),
            violations: Vec::new(),
            config,
        }
    }

    /// Records that the driver broke a rule.
    #[cold]
    pub(super) fn violation(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_KEPT {
            self.violations.push(what);
        }
    }

    /// Back to the state after power-on, but for maps, interrupts and PCI configuration (section 2.4).
    pub(super) fn reset(&mut self) {
        for queue in &mut self.queues {
            let seen_bell = queue.seen_bell;
            *queue = Queue::new(self.config.queue_size);
            queue.seen_bell = seen_bell;
        }
        self.registers.reset();
        self.net.reset(&self.config);
        self.trick.reset();
        self.counters.resets += 1;
    }

    /// Sends vector `vector`, if it is one and the driver enabled it.
    pub(super) fn interrupt(&mut self, vector: u16) {
        if vector == NO_VECTOR || self.trick.loses_interrupts() {
            return;
        }
        if let Some(event) = self.vectors.get(usize::from(vector)) {
            signal(event);
            self.counters.interrupts += 1;
        }
    }

    /// Tells the driver that the network configuration changed.
    pub(super) fn configuration_changed(&mut self) {
        self.registers.configuration_changed();
        self.registers.isr |= 2;
        if self.registers.status & status::DRIVER_OK != 0 {
            self.interrupt(self.registers.config_vector);
        }
    }

    /// The device cannot go on until it is reset (section 2.1.2).
    pub(super) fn need_reset(&mut self) {
        self.registers.status |= status::NEEDS_RESET;
        self.configuration_changed();
    }

    /// Index of the control queue, when there is one.
    pub(super) fn control_queue(&self) -> Option<usize> {
        let features = self.negotiated();
        let pairs = if features.intersects(Features::MQ | Features::RSS) { self.config.pairs } else { 1 };
        features.contains(Features::CTRL_VQ).then_some(2 * usize::from(pairs))
    }

    /// The device works: the driver is ready, it may access memory, and it is not broken.
    fn runs(&self) -> bool {
        self.registers.status & (status::DRIVER_OK | status::NEEDS_RESET) == status::DRIVER_OK && self.pci.bus_master()
    }

    pub(super) fn poll<W: Wire>(&mut self, wire: &mut W, bells: &[AtomicU32], budget: usize) -> Work {
        if !self.runs() {
            return Work::default();
        }
        wire.begin();
        if self.trick.storms() {
            for event in &self.vectors {
                signal(event);
            }
        }
        let mut work = Work::default();
        if let Some(index) = self.control_queue()
            && self.prepare(index, bells)
        {
            work.commands = self.serve_control(index);
        }
        let pairs = u16::try_from(self.queues.len() / 2).unwrap_or(u16::MAX);
        for pair in 0..pairs {
            let index = 2 * usize::from(pair) + 1;
            if self.prepare(index, bells) {
                work.transmitted += self.transmit(pair, index, wire, budget);
            }
        }
        for pair in 0..self.net.steering.pairs {
            self.prepare(2 * usize::from(pair), bells);
        }
        work.received = self.receive(wire, budget);
        work
    }

    /// Makes ready to look at a queue. `false` when it does not run or its doorbell did not ring.
    fn prepare(&mut self, index: usize, bells: &[AtomicU32]) -> bool {
        let features = self.negotiated();
        let Some(queue) = self.queues.get_mut(index) else { return false };
        if !queue.registers.enabled || queue.broken {
            return false;
        }
        let epoch = self.memory.epoch();
        if queue.epoch != epoch {
            queue.epoch = epoch;
            if queue.ring.is_some() && !still_mapped(&queue.plan(features), &self.memory) {
                self.break_queue(index, "ring memory was unmapped while the queue is enabled");
                return false;
            }
        }
        if queue.ring.is_none() {
            match Ring::new(&queue.plan(features), &self.memory) {
                Ok(ring) => queue.ring = Some(ring),
                Err(reason) => {
                    self.break_queue(index, reason);
                    return false;
                }
            }
            // What the driver made available before DRIVER_OK needs no doorbell to be seen.
            queue.awake = true;
        }
        match self.config.doorbells {
            Doorbells::Suppressed => {
                if let Some(ring) = &mut queue.ring {
                    ring.suppress_doorbells();
                }
                true
            }
            Doorbells::Needed => {
                let bell = bells.get(index).map_or(0, |bell| bell.load(Ordering::Acquire));
                queue.awake |= bell != queue.seen_bell;
                queue.seen_bell = bell;
                queue.awake
            }
        }
    }

    /// The ring was found empty. `true` when something came in while the doorbell was asked for.
    pub(super) fn found_empty(&mut self, index: usize) -> bool {
        let Some(queue) = self.queues.get_mut(index) else { return false };
        if self.config.doorbells == Doorbells::Suppressed || !queue.awake {
            return false;
        }
        let Some(ring) = &mut queue.ring else { return false };
        ring.ask_for_doorbell();
        let mut chain = std::mem::take(&mut queue.chain);
        let more = ring.peek(&self.memory, &mut chain);
        queue.chain = chain;
        queue.awake = more != Ok(false);
        queue.awake
    }

    /// A queue may be looked at: see [`Core::prepare`].
    pub(super) fn is_awake(&self, index: usize) -> bool {
        let awake = |queue: &Queue| queue.awake || self.config.doorbells == Doorbells::Suppressed;
        self.queues.get(index).is_some_and(|queue| queue.ring.is_some() && awake(queue))
    }

    /// The driver broke a rule: this queue stops and the device asks for a reset.
    #[cold]
    pub(super) fn break_queue(&mut self, index: usize, reason: Broken) {
        if let Some(queue) = self.queues.get_mut(index) {
            queue.broken = true;
            queue.ring = None;
        }
        // A device that scribbled over the ring, or lied about it, has no business to complain about its contents.
        if !self.trick.spoils_rings() {
            self.violation(format!("queue {index}: {reason}"));
        }
        self.need_reset();
    }

    /// Publishes what is staged on a queue, and interrupts the driver if it wants that.
    pub(super) fn publish(&mut self, index: usize) {
        let Some(queue) = self.queues.get_mut(index) else { return };
        let Some(ring) = &mut queue.ring else { return };
        ring.publish();
        self.trick.after_publish(ring);
        let vector = queue.registers.vector;
        if vector != NO_VECTOR && ring.wants_interrupt() {
            self.registers.isr |= 1;
            self.interrupt(vector);
        }
        if self.trick.needs_reset_now() {
            self.need_reset();
        }
    }
}

/// All parts of the ring are still mapped; what is not is recorded as a fault.
fn still_mapped(plan: &RingPlan, memory: &Memory) -> bool {
    [(plan.descriptors, Access::Read), (plan.driver, Access::Read), (plan.device, Access::Write)]
        .into_iter()
        .all(|(address, access)| memory.words(address, 4, access).is_some())
}

/// Queues of the device (section 5.1.2).
pub(super) fn queue_count(config: &Config) -> u16 {
    let multi = config.features.intersects(Features::MQ | Features::RSS);
    let pairs = if multi { config.pairs.clamp(1, 0x7fff) } else { 1 };
    2 * pairs + u16::from(config.features.contains(Features::CTRL_VQ))
}
