//! A driver of a few lines, written from the datasheet like the model, but with numbers of its own.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use drivers::bus::{Bar, PciFunction};
use hugemem::{DmaArray, Iova, Region};

use crate::card::{self, Control, Device, Function, Options, Time, Window};
use crate::ixgbe::{Config, Ixgbe};
use crate::wire::QueueWire;

/// Registers, as the datasheet has them.
pub(super) mod at {
    pub(in super::super) const CTRL_EXT: u32 = 0x18;
    pub(in super::super) const RDRXCTL: u32 = 0x2f00;
    pub(in super::super) const RXCTRL: u32 = 0x3000;
    pub(in super::super) const HLREG0: u32 = 0x4240;
    pub(in super::super) const MAXFRS: u32 = 0x4268;
    pub(in super::super) const DMATXCTL: u32 = 0x4a80;
    pub(in super::super) const RXCSUM: u32 = 0x5000;
    pub(in super::super) const FCTRL: u32 = 0x5080;
    pub(in super::super) const MRQC: u32 = 0xec80;
    pub(in super::super) const RETA: u32 = 0xeb00;
    pub(in super::super) const RSSRK: u32 = 0xeb80;

    pub(in super::super) fn receive(queue: u32) -> u32 {
        if queue < 64 { 0x1000 + 0x40 * queue } else { 0xd000 + 0x40 * (queue - 64) }
    }

    pub(in super::super) fn transmit(queue: u32) -> u32 {
        0x6000 + 0x40 * queue
    }
}

/// Descriptors of each ring.
pub(super) const SIZE: u32 = 16;
pub(super) const BASE: u64 = 0x4000_0000;
const BYTES: usize = 1 << 20;

/// Bits of the upper word of an advanced data descriptor.
pub(super) const EOP: u64 = 1 << 24;
pub(super) const IFCS: u64 = 1 << 25;
pub(super) const RS: u64 = 1 << 27;
pub(super) const DEXT: u64 = 1 << 29;
pub(super) const VLE: u64 = 1 << 30;
pub(super) const TSE: u64 = 1 << 31;
pub(super) const DATA: u64 = 3 << 20 | DEXT | IFCS;
pub(super) const IXSM: u64 = 1 << 40;
pub(super) const TXSM: u64 = 1 << 41;

/// A received buffer: its descriptor as written back, and its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Got {
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) bytes: Vec<u8>,
}

impl Got {
    pub(super) fn is_last(&self) -> bool {
        self.high & 2 != 0
    }
}

struct Ring {
    at: u64,
    next: u32,
    used: u32,
    buffers: Vec<u64>,
}

pub(super) struct Mini {
    pub(super) device: Device<Ixgbe, QueueWire>,
    pub(super) control: Control<Ixgbe>,
    bar: Window<Ixgbe>,
    _function: Function<Ixgbe>,
    memory: DmaArray<AtomicU8>,
    free: u64,
    receive: Vec<(u32, Ring)>,
    transmit: Vec<(u32, Ring)>,
    room: u64,
    legacy: bool,
}

impl Mini {
    /// A card that receives everything, with hashes in its descriptors, checksums stripped, and no queues yet.
    pub(super) fn new(config: Config) -> Self {
        Self::with(config, Options::default())
    }

    pub(super) fn with(config: Config, options: Options) -> Self {
        let options = Options { time: Time::PerPoll(Duration::from_millis(1)), ..options };
        let config = Config { link_delay: Duration::ZERO, ..config };
        let (mut function, mut device) = card::new(options, Ixgbe::new(config), QueueWire::default()).unwrap();
        let region = Region::on_heap(BYTES, Iova::new(BASE)).unwrap();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let memory = region.array(BYTES, 4096).unwrap();
        let bar = function.bar(0).unwrap();
        let control = device.control();
        while !control.with(|chip, _| chip.is_link_up()) {
            device.poll();
        }
        let (receive, transmit) = (Vec::new(), Vec::new());
        let mut mini = Self {
            device,
            control,
            bar,
            _function: function,
            memory,
            free: 0,
            receive,
            transmit,
            room: 2048,
            legacy: false,
        };
        mini.set(at::FCTRL, 0x700);
        mini.set(at::RXCSUM, 1 << 13);
        mini.set(at::RDRXCTL, mini.get(at::RDRXCTL) | 2);
        mini.set(at::DMATXCTL, mini.get(at::DMATXCTL) | 1);
        mini.set(at::RXCTRL, 1);
        mini
    }

    pub(super) fn get(&self, register: u32) -> u32 {
        self.bar.load(register)
    }

    pub(super) fn set(&mut self, register: u32, value: u32) {
        self.bar.store(register, value);
    }

    /// The counter of bytes whose low word is at `register`.
    pub(super) fn octets(&self, register: u32) -> u64 {
        let low = u64::from(self.get(register));
        low | u64::from(self.get(register + 4)) << 32
    }

    pub(super) fn allocate(&mut self, bytes: u64) -> u64 {
        let at = self.free.next_multiple_of(128);
        self.free = at + bytes;
        assert!(self.free <= BYTES as u64);
        BASE + at
    }

    pub(super) fn write(&self, address: u64, bytes: &[u8]) {
        let at = usize::try_from(address - BASE).unwrap();
        for (cell, byte) in self.memory[at..].iter().zip(bytes) {
            cell.store(*byte, Ordering::Relaxed);
        }
    }

    pub(super) fn read(&self, address: u64, bytes: usize) -> Vec<u8> {
        let at = usize::try_from(address - BASE).unwrap();
        self.memory[at..at + bytes].iter().map(|cell| cell.load(Ordering::Relaxed)).collect()
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.read(address, 8).try_into().unwrap())
    }

    fn ring(&mut self, page: u32) -> Ring {
        let at = self.allocate(u64::from(SIZE) * 16);
        self.set(page, u32::try_from(at).unwrap());
        self.set(page + 4, 0);
        self.set(page + 8, SIZE * 16);
        self.set(page + 0x10, 0);
        self.set(page + 0x18, 0);
        Ring { at, next: 0, used: 0, buffers: Vec::new() }
    }

    /// Sets a receive queue up with buffers of 2 KiB, and fills it but for one descriptor. `control` goes into RXDCTL.
    pub(super) fn receive_queue(&mut self, queue: u32, control: u32) {
        self.receive_queue_of(queue, control, 1 << 25 | 2, SIZE - 1);
    }

    /// As [`Mini::receive_queue`], with SRRCTL and a number of buffers.
    pub(super) fn receive_queue_of(&mut self, queue: u32, control: u32, split: u32, buffers: u32) {
        let page = at::receive(queue);
        self.room = u64::from(split & 0x1f) * 1024;
        self.legacy = split >> 25 & 7 == 0;
        let mut ring = self.ring(page);
        self.set(page + 0x14, split);
        self.set(page + 0x28, control | 1 << 25);
        ring.buffers = (0..SIZE).map(|_| self.allocate(self.room)).collect();
        self.receive.retain(|(other, _)| *other != queue);
        self.receive.push((queue, ring));
        self.post(queue, buffers);
    }

    /// Gives the card more buffers.
    pub(super) fn post(&mut self, queue: u32, buffers: u32) {
        let index = self.receive.iter().position(|(other, _)| *other == queue).unwrap();
        for _ in 0..buffers {
            let ring = &self.receive[index].1;
            let slot = ring.next % SIZE;
            let (at, buffer) = (ring.at + 16 * u64::from(slot), ring.buffers[slot as usize]);
            self.write(buffer, &[0xee; 64]);
            self.write(at, &buffer.to_le_bytes());
            self.write(at + 8, &[0; 8]);
            self.receive[index].1.next += 1;
        }
        let tail = self.receive[index].1.next % SIZE;
        self.set(at::receive(queue) + 0x18, tail);
    }

    /// The next buffer that the card filled.
    pub(super) fn received(&mut self, queue: u32) -> Option<Got> {
        let index = self.receive.iter().position(|(other, _)| *other == queue).unwrap();
        let ring = &self.receive[index].1;
        let slot = ring.used % SIZE;
        let at = ring.at + 16 * u64::from(slot);
        let high = self.word(at + 8);
        let done = if self.legacy { 1 << 32 } else { 1 };
        if high & done == 0 {
            return None;
        }
        let length = if self.legacy { high & 0xffff } else { high >> 32 & 0xffff };
        let bytes = self.read(ring.buffers[slot as usize], usize::try_from(length.min(self.room)).unwrap());
        let got = Got { low: self.word(at), high, bytes };
        self.receive[index].1.used += 1;
        Some(got)
    }

    /// Puts a frame on the wire, lets the card work, and returns what arrived.
    pub(super) fn exchange(&mut self, queue: u32, frame: &[u8]) -> Option<Got> {
        self.device.wire_mut().incoming.push_back(frame.to_vec());
        self.device.poll();
        let got = self.received(queue);
        if got.is_some() {
            self.post(queue, 1);
        }
        got
    }

    pub(super) fn transmit_queue(&mut self, queue: u32) {
        let page = at::transmit(queue);
        let ring = self.ring(page);
        self.transmit.retain(|(other, _)| *other != queue);
        self.transmit.push((queue, ring));
        self.set(page + 0x28, 1 << 25);
    }

    /// Puts descriptors on a transmit ring; returns where the last one is.
    pub(super) fn put(&mut self, queue: u32, descriptors: &[[u64; 2]]) -> u64 {
        let index = self.transmit.iter().position(|(other, _)| *other == queue).unwrap();
        let mut last = 0;
        for [low, high] in descriptors {
            let ring = &self.transmit[index].1;
            last = ring.at + 16 * u64::from(ring.next % SIZE);
            self.write(last, &low.to_le_bytes());
            self.write(last + 8, &high.to_le_bytes());
            self.transmit[index].1.next += 1;
        }
        let tail = self.transmit[index].1.next % SIZE;
        self.set(at::transmit(queue) + 0x18, tail);
        last
    }

    /// The descriptor at `address` was reported done.
    pub(super) fn is_done(&self, address: u64) -> bool {
        self.word(address + 8) & 1 << 32 != 0
    }

    /// Bytes in memory, to transmit.
    pub(super) fn store(&mut self, bytes: &[u8]) -> u64 {
        let at = self.allocate(bytes.len() as u64);
        self.write(at, bytes);
        at
    }

    /// A frame of one advanced descriptor; `more` are bits of its upper word. Returns where the descriptor is.
    pub(super) fn send(&mut self, queue: u32, frame: &[u8], more: u64) -> u64 {
        let at = self.store(frame);
        let length = frame.len() as u64;
        self.put(queue, &[[at, DATA | EOP | RS | length | length << 46 | more]])
    }

    /// What went out since it was asked last.
    pub(super) fn sent(&mut self) -> Vec<Vec<u8>> {
        self.device.poll();
        self.device.wire_mut().outgoing.drain(..).collect()
    }

    /// The driver kept all rules, and the card stayed inside what was mapped.
    pub(super) fn assert_honest(&self) {
        assert_eq!(self.control.violations(), Vec::<String>::new());
        assert_eq!(self.control.faults(), vec![]);
    }
}
