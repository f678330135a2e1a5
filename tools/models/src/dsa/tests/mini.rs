//! A driver of a few lines, written from the specification like the model, but with numbers of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drivers::bus::{Bar, PciFunction};
use hugemem::{DmaArray, Iova, Region};

use crate::Random;
use crate::card::{self, Control, Device, Function, Options, Time, Window};
use crate::dsa::{Config, Dsa, Fault, Planned, When};
use crate::wire::Null;

/// Registers, as the specification has them.
pub(super) mod at {
    pub(in super::super) const GENCTRL: u32 = 0x88;
    pub(in super::super) const GENSTS: u32 = 0x90;
    pub(in super::super) const INTCAUSE: u32 = 0x98;
    pub(in super::super) const CMD: u32 = 0xa0;
    pub(in super::super) const CMDSTS: u32 = 0xa8;
    pub(in super::super) const OFFSETS: u32 = 0x60;
    pub(in super::super) const SWERR: u32 = 0xc0;
}

/// Commands.
pub(super) mod command {
    pub(in super::super) const ENABLE_DEVICE: u32 = 1;
    pub(in super::super) const DISABLE_DEVICE: u32 = 2;
    pub(in super::super) const DRAIN_ALL: u32 = 3;
    pub(in super::super) const ABORT_ALL: u32 = 4;
    pub(in super::super) const RESET_DEVICE: u32 = 5;
    pub(in super::super) const ENABLE_WQ: u32 = 6;
    pub(in super::super) const DISABLE_WQ: u32 = 7;
    pub(in super::super) const DRAIN_WQ: u32 = 8;
    pub(in super::super) const ABORT_WQ: u32 = 9;
    pub(in super::super) const RESET_WQ: u32 = 10;
    pub(in super::super) const REQUEST_HANDLE: u32 = 13;
    pub(in super::super) const RELEASE_HANDLE: u32 = 14;
}

/// Operations.
pub(super) mod operation {
    pub(in super::super) const NOOP: u64 = 0;
    pub(in super::super) const BATCH: u64 = 1;
    pub(in super::super) const DRAIN: u64 = 2;
    pub(in super::super) const MOVE: u64 = 3;
    pub(in super::super) const FILL: u64 = 4;
    pub(in super::super) const COMPARE: u64 = 5;
    pub(in super::super) const COMPARE_PATTERN: u64 = 6;
    pub(in super::super) const DUALCAST: u64 = 9;
    pub(in super::super) const FLUSH: u64 = 0x20;
}

/// Flags.
pub(super) const FENCE: u64 = 0x01;
pub(super) const BLOCK: u64 = 0x02;
pub(super) const VALID: u64 = 0x04;
pub(super) const RECORD: u64 = 0x08;
pub(super) const INTERRUPT: u64 = 0x10;
pub(super) const CHECK: u64 = 0x80;
/// A record, whatever happens.
pub(super) const TOLD: u64 = VALID | RECORD;

/// Memory: records, lists of batches, data.
pub(super) const BASE: u64 = 0x4000_0000;
const BYTES: usize = 4 << 20;
pub(super) const LISTS: u64 = BASE + (64 << 10);
pub(super) const DATA: u64 = BASE + (1 << 20);
pub(super) const END: u64 = BASE + BYTES as u64;

/// The driver, its memory, and the device, which it polls.
pub(super) struct Mini {
    pub(super) device: Device<Dsa, Null>,
    pub(super) control: Control<Dsa>,
    pub(super) function: Function<Dsa>,
    pub(super) bar: Window<Dsa>,
    pub(super) portals: Window<Dsa>,
    memory: DmaArray<AtomicU64>,
    _region: Region,
}

impl Mini {
    /// A device as it is after power on.
    pub(super) fn new(config: Config) -> Self {
        Self::with(config, Options::default())
    }

    pub(super) fn with(config: Config, options: Options) -> Self {
        let options = Options { time: Time::PerPoll(Duration::from_micros(100)), ..options };
        let (mut function, device) = card::new(options, Dsa::new(config), Null).unwrap();
        let region = Region::on_heap(BYTES, Iova::new(BASE)).unwrap();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let memory = region.array(BYTES / 8, 4096).unwrap();
        let (bar, portals, control) = (function.bar(0).unwrap(), function.bar(2).unwrap(), device.control());
        Self { device, control, function, bar, portals, memory, _region: region }
    }

    /// One with two dedicated queues of 32 entries that lies in these ways.
    pub(super) fn lying(faults: &[Planned]) -> Self {
        let mini = Self::new(Config { faults: faults.to_vec(), ..Config::default() });
        mini.start(&[32, 32]);
        mini
    }

    /// The same, at descriptor 2 alone.
    pub(super) fn struck(fault: Fault) -> Self {
        Self::lying(&[Planned::new(fault, When::Once(2))])
    }

    /// Dedicated queues of these sizes, each in a group of its own with one engine, enabled.
    pub(super) fn start(&self, sizes: &[u32]) {
        self.configure(sizes);
        assert_eq!(self.command(command::ENABLE_DEVICE, 0), 0);
        for queue in (0..).take(sizes.len()) {
            assert_eq!(self.command(command::ENABLE_WQ, queue), 0);
        }
    }

    pub(super) fn configure(&self, sizes: &[u32]) {
        for (queue, size) in (0..).zip(sizes) {
            let at = self.queue(queue);
            self.bar.store(at, *size);
            self.bar.store(at + 4, 0_u32);
            // Dedicated, priority 5.
            self.bar.store(at + 8, 0x51_u32);
            self.bar.store(at + 12, 10 << 5 | 31_u32);
            self.bar.store(self.group(queue), 1_u64 << queue);
            self.bar.store(self.group(queue) + 32, 1_u64 << queue);
        }
        // Interrupts at errors and when it halts.
        self.bar.store(at::GENCTRL, 3_u32);
    }

    /// WQCFG of a queue.
    pub(super) fn queue(&self, queue: u32) -> u32 {
        let offsets: u64 = self.bar.load(at::OFFSETS);
        u32::try_from(offsets >> 16 & 0xffff).unwrap() * 0x100 + 32 * queue
    }

    /// GRPCFG of a group.
    pub(super) fn group(&self, group: u32) -> u32 {
        let offsets: u64 = self.bar.load(at::OFFSETS);
        u32::try_from(offsets & 0xffff).unwrap() * 0x100 + 64 * group
    }

    /// MSIXPERM of a vector.
    pub(super) fn permission(&self, vector: u32) -> u32 {
        let offsets: u64 = self.bar.load(at::OFFSETS);
        u32::try_from(offsets >> 32 & 0xffff).unwrap() * 0x100 + 8 * vector
    }

    /// CMDSTS after a command that takes no time.
    pub(super) fn command(&self, command: u32, operand: u32) -> u32 {
        self.bar.store(at::CMD, command << 20 | operand);
        self.bar.load(at::CMDSTS)
    }

    /// Where the record of descriptor `number` is.
    pub(super) fn place(number: u64) -> u64 {
        BASE + 32 * number
    }

    /// A descriptor, whose record is that with this number.
    pub(super) fn descriptor(number: u64, operation: u64, flags: u64, source: u64, target: u64, size: u64) -> [u64; 8] {
        [operation << 56 | flags << 32, Self::place(number), source, target, size, 0, 0, 0]
    }

    /// Writes a descriptor to the portal of a queue, at a place that moves on.
    pub(super) fn submit(&self, queue: u32, descriptor: &[u64; 8]) {
        let line = u32::try_from(descriptor[1] / 32 % 64).unwrap();
        self.portals.store_block(0x4000 * queue + 64 * line, descriptor);
    }

    /// Puts descriptors into a list, and gives the batch of them, which interrupts nobody.
    pub(super) fn batch(&self, number: u64, list: &[[u64; 8]]) -> [u64; 8] {
        let at = LISTS + 0x1000 * (number % 64);
        for (index, descriptor) in (0..).zip(list) {
            (0..8).for_each(|word| self.put(at + 64 * index + 8 * word, descriptor[usize::try_from(word).unwrap()]));
        }
        Self::descriptor(number, operation::BATCH, TOLD, at, 0, list.len() as u64)
    }

    /// Copies of 100 bytes, each from another place of numbered bytes, with records from this number on; `right` finds out which took place.
    pub(super) fn copies(&self, first: u64, count: u64) -> Vec<[u64; 8]> {
        self.fill(DATA, 1 << 16, 7);
        let copy = |number| {
            Self::descriptor(first + number, operation::MOVE, TOLD, DATA + 101 * number, Self::target(number), 100)
        };
        (0..count).map(copy).collect()
    }

    pub(super) fn target(number: u64) -> u64 {
        DATA + (1 << 20) + 128 * number
    }

    /// How many bytes of such a copy are right, from its start.
    pub(super) fn right(&self, number: u64) -> usize {
        let (source, target) = (self.bytes(DATA + 101 * number, 100), self.bytes(Self::target(number), 100));
        source.iter().zip(&target).take_while(|(source, target)| source == target).count()
    }

    /// Status, result, count, fault address and flags of a record.
    pub(super) fn record(&self, number: u64) -> (u64, u64, u64, u64, u64) {
        let at = Self::place(number);
        let head = self.get(at);
        (head & 0xff, head >> 8 & 0xff, head >> 32, self.get(at + 8), self.get(at + 16))
    }

    pub(super) fn status(&self, number: u64) -> u64 {
        self.record(number).0
    }

    /// Polls until nothing happens any more, for at most a second of the device's time.
    pub(super) fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.device.poll().is_idle() { idle + 1 } else { 0 };
            if idle > 100 {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    pub(super) fn state(&self) -> u32 {
        self.bar.load(at::GENSTS)
    }

    /// Error code and the whole of SWERR's first word, and its address.
    pub(super) fn error(&self) -> (u64, u64, u64) {
        let head: u64 = self.bar.load(at::SWERR);
        (head >> 8 & 0xff, head, self.bar.load(at::SWERR + 16))
    }

    /// No access went astray and no rule was broken.
    pub(super) fn is_clean(&self) -> bool {
        self.control.faults().is_empty() && self.control.violations().is_empty()
    }

    fn word(&self, address: u64) -> &AtomicU64 {
        &self.memory[usize::try_from((address - BASE) / 8).unwrap()]
    }

    pub(super) fn put(&self, address: u64, value: u64) {
        self.word(address).store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self, address: u64) -> u64 {
        self.word(address).load(Ordering::Acquire)
    }

    pub(super) fn bytes(&self, address: u64, len: u64) -> Vec<u8> {
        let byte = |at: u64| self.get(at & !7).to_le_bytes()[usize::try_from(at & 7).unwrap()];
        (address..address + len).map(byte).collect()
    }

    /// Bytes at random, never 0.
    pub(super) fn fill(&self, address: u64, len: u64, seed: u64) {
        let mut random = Random::new(seed);
        (address..address + len).step_by(8).for_each(|at| self.put(at, random.bits() | 0x0101_0101_0101_0101));
    }
}
