//! A driver of a few lines, written from the datasheet like the model, but with numbers of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drivers::bus::{Bar, PciFunction};
use hugemem::{DmaArray, Iova, Region};

use crate::Random;
use crate::card::{self, Control, Device, Function, Options, Time, Window};
use crate::ioat::{Config, Fault, Ioat, Planned, When};
use crate::wire::Null;

/// Registers of channel 0, as the datasheet has them.
pub(super) mod at {
    pub(in super::super) const CHANCTRL: u32 = 0x80;
    pub(in super::super) const CHANCMD: u32 = 0x84;
    pub(in super::super) const DMACOUNT: u32 = 0x86;
    pub(in super::super) const CHANSTS: u32 = 0x88;
    pub(in super::super) const CHAINADDR: u32 = 0x90;
    pub(in super::super) const CHANCMP: u32 = 0x98;
    pub(in super::super) const CHANERR: u32 = 0xa8;
    pub(in super::super) const CHANERRMSK: u32 = 0xac;
}

/// States in the lowest bits of CHANSTS and of completions.
pub(super) const ACTIVE: u64 = 0;
pub(super) const IDLE: u64 = 1;
pub(super) const SUSPENDED: u64 = 2;
pub(super) const HALTED: u64 = 3;
pub(super) const ARMED: u64 = 4;

/// Control bits of a descriptor.
pub(super) const INTERRUPT: u64 = 1;
pub(super) const COMPLETE: u64 = 1 << 3;
pub(super) const NULL: u64 = 1 << 5;
pub(super) const FILL: u64 = 1 << 24;

/// Descriptors in a channel's ring.
pub(super) const RING: u64 = 16;
pub(super) const BASE: u64 = 0x4000_0000;
const BYTES: usize = 4 << 20;
/// Of each channel: completion, ring. Data lies behind all channels.
const CHANNEL: u64 = 0x1000;
pub(super) const DATA: u64 = BASE + 8 * CHANNEL;

pub(super) struct Mini {
    pub(super) device: Device<Ioat, Null>,
    pub(super) control: Control<Ioat>,
    pub(super) function: Function<Ioat>,
    pub(super) bar: Window<Ioat>,
    memory: DmaArray<AtomicU64>,
    _region: Region,
    /// Descriptors submitted on each channel.
    pub(super) submitted: [u16; 8],
}

impl Mini {
    pub(super) fn new(config: Config) -> Self {
        Self::with(config, Options::default())
    }

    /// One channel that lies in these ways, started.
    pub(super) fn lying(faults: &[Planned]) -> Self {
        let mut mini = Self::new(Config { faults: faults.to_vec(), ..Config::default() });
        mini.start(0);
        mini
    }

    /// As [`Mini::lying`], at descriptor 2 alone.
    pub(super) fn struck(fault: Fault) -> Self {
        Self::lying(&[Planned::new(fault, When::Once(2))])
    }

    pub(super) fn with(config: Config, options: Options) -> Self {
        let options = Options { time: Time::PerPoll(Duration::from_micros(100)), ..options };
        let (mut function, device) = card::new(options, Ioat::new(config), Null).unwrap();
        let region = Region::on_heap(BYTES, Iova::new(BASE)).unwrap();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let memory = region.array(BYTES / 8, 4096).unwrap();
        let (bar, control) = (function.bar(0).unwrap(), device.control());
        Self { device, control, function, bar, memory, _region: region, submitted: [0; 8] }
    }

    fn base(channel: u8) -> u64 {
        BASE + CHANNEL * u64::from(channel)
    }

    pub(super) fn descriptor(channel: u8, index: u64) -> u64 {
        Self::base(channel) + 0x400 + 64 * (index % RING)
    }

    /// Gives a channel its ring and its completion, with all errors reported.
    pub(super) fn start(&mut self, channel: u8) {
        let offset = 0x80 * u32::from(channel);
        for index in 0..RING {
            self.put(Self::descriptor(channel, index) + 24, Self::descriptor(channel, index + 1));
        }
        self.put(Self::base(channel), 0);
        self.bar.store(at::CHANCTRL + offset, 0x1d_u16);
        self.bar.store(at::CHANCMP + offset, Self::base(channel));
        self.bar.store(at::CHAINADDR + offset, Self::descriptor(channel, 0));
        self.submitted[usize::from(channel)] = 0;
    }

    /// As a driver recovers: errors cleared, the channel reset, and its chain given anew, from the start of the ring.
    pub(super) fn recover(&mut self, channel: u8) {
        let offset = 0x80 * u32::from(channel);
        let errors: u32 = self.bar.load(at::CHANERR + offset);
        self.bar.store(at::CHANERR + offset, errors);
        self.bar.store(at::CHANCMD + offset, 0x20_u8);
        self.device.poll();
        assert_eq!(self.bar.load::<u8>(at::CHANCMD + offset), 0, "the reset is over");
        assert_eq!(self.status(channel), HALTED);
        self.start(channel);
        assert_eq!(self.status(channel), ARMED);
    }

    /// The same with no questions asked.
    pub(super) fn recover_quietly(&mut self, channel: u8) {
        let offset = 0x80 * u32::from(channel);
        self.bar.store(at::CHANERR + offset, u32::MAX);
        self.bar.store(at::CHANCMD + offset, 0x20_u8);
        self.start(channel);
    }

    /// Puts a descriptor into the ring.
    pub(super) fn push(&mut self, channel: u8, bytes: u64, control: u64, source: u64, target: u64) -> u64 {
        let index = self.submitted[usize::from(channel)];
        let at = Self::descriptor(channel, index.into());
        self.put(at, control << 32 | bytes);
        self.put(at + 8, source);
        self.put(at + 16, target);
        self.submitted[usize::from(channel)] = index.wrapping_add(1);
        at
    }

    pub(super) fn ring(&self, channel: u8) {
        let offset = 0x80 * u32::from(channel);
        self.bar.publish(at::DMACOUNT + offset, self.submitted[usize::from(channel)]);
    }

    /// Copies that each report their completion, from different places of numbered bytes; `check` finds out which took place.
    pub(super) fn batch(&mut self, count: u64) {
        self.fill(DATA, 1 << 16, 7);
        for number in 0..count {
            self.push(0, 100, COMPLETE | INTERRUPT, DATA + 101 * number, Self::place(number));
        }
        self.ring(0);
    }

    fn place(number: u64) -> u64 {
        DATA + (1 << 20) + 128 * number
    }

    /// How many bytes of a copy of the batch are right, from its start.
    pub(super) fn right(&self, number: u64) -> usize {
        let (source, target) = (self.bytes(DATA + 101 * number, 100), self.bytes(Self::place(number), 100));
        source.iter().zip(&target).take_while(|(source, target)| source == target).count()
    }

    /// Polls until nothing happens any more, for at most a second of the engine's time.
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

    pub(super) fn status(&self, channel: u8) -> u64 {
        self.bar.load(at::CHANSTS + 0x80 * u32::from(channel))
    }

    pub(super) fn errors(&self, channel: u8) -> u32 {
        self.bar.load(at::CHANERR + 0x80 * u32::from(channel))
    }

    /// What the engine wrote as completion.
    pub(super) fn completion(&self, channel: u8) -> u64 {
        self.get(Self::base(channel))
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
