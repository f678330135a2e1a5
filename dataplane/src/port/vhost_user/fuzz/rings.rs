//! A guest that does anything with its rings and buffers, while both halves of a port's queue work on them.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "fuzzing, where a panic is a finding")]

use std::cell::RefCell;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

use drivers::nic::{RxQueue, TxQueue};
use drivers::virtio::Features;
use hugemem::{Batch, Iova, Region};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::MemfdFlags;

use super::Input;
use crate::guest::{Access, GuestAddress, MapOptions, Memory, RegionSpec, Words};
use crate::port::vhost_user::queue::{
    PIECES, RingConfig, SLOT_ROOM, SLOTS, STOP_LIMIT, VmRx, VmTx, Vring, receive_queue, transmit_queue,
};
use crate::port::vhost_user::ring::{Addresses, Base, Format};

/// Bytes of the guest's memory, and how much higher the frontend's addresses are.
const MEMORY: u64 = 0x2_0000;
const USER: u64 = 4 << 30;
/// The areas of both rings, those of the ring from the guest first, and then buffers.
const DESCRIPTORS: [u64; 2] = [0x1000, 0x5000];
const DRIVER: [u64; 2] = [0x3000, 0x7000];
const DEVICE: [u64; 2] = [0x4000, 0x8000];
const BUFFERS: u64 = 0x1_0000;
/// `VIRTIO_F_IN_ORDER`.
const IN_ORDER: Features = Features::from_bits_retain(1 << 35);
/// Frames in a batch.
const BURST: usize = 32;
/// Frames as short and as long as they get.
const FRAMES: std::ops::RangeInclusive<usize> = 14..=65_557;

/// Split rings. See the [module](super).
pub fn split_ring(bytes: &[u8]) {
    Vm::with(|vm| vm.run(Format::Split, bytes));
}

/// Packed rings. See the [module](super).
pub fn packed_ring(bytes: &[u8]) {
    Vm::with(|vm| vm.run(Format::Packed, bytes));
}

/// Rings of both formats, of which a second thread changes words between any two reads of ours. See the [module](super).
pub fn racing_ring(bytes: &[u8]) {
    Vm::with(|vm| vm.race(bytes));
}

/// A guest, and the port's queue pair. Stays for all scripts of a thread, for it takes long to make.
struct Vm {
    memory: Arc<Memory>,
    words: Words<AtomicU64>,
    halves: Words<AtomicU16>,
    _file: File,
    rx: VmRx,
    tx: VmTx,
    /// Handles of both, the receiving one first.
    vrings: [Vring; 2],
    batch: Batch,
}

/// Sets its flag when dropped.
struct Finally<'f>(&'f AtomicBool);

impl Drop for Finally<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How a script set up its rings, and where an honest driver would go on.
struct Script<'b> {
    input: Input<'b>,
    format: Format,
    size: u16,
    features: Features,
    next: [u32; 2],
}

thread_local! {
    static VM: RefCell<Vm> = RefCell::new(Vm::new());
}

impl Vm {
    fn with(work: impl FnOnce(&mut Self)) {
        VM.with_borrow_mut(work);
    }

    fn new() -> Self {
        let file = File::from(rustix::fs::memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(MEMORY).unwrap();
        let spec = RegionSpec { guest: 0, user: USER, size: MEMORY, offset: 0 };
        let memory = Memory::empty().with(spec, file.try_clone().unwrap().into(), &MapOptions::default()).unwrap();
        let attention = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let region = Region::on_heap(SLOTS * 256 + 4096, Iova::new(0)).unwrap();
        let pool = region.packets_with_foreign(SLOTS, SLOT_ROOM, PIECES).unwrap();
        let (rx, from_vm) = receive_queue(pool, Arc::clone(&attention));
        let (tx, to_vm) = transmit_queue(attention, None);
        let all = GuestAddress(0);
        Self {
            words: memory.words(all, MEMORY as usize / 8, Access::Write).unwrap(),
            halves: memory.words(all, MEMORY as usize / 2, Access::Write).unwrap(),
            memory,
            _file: file,
            rx,
            tx,
            vrings: [from_vm, to_vm],
            batch: Batch::new(BURST),
        }
    }

    fn run(&mut self, format: Format, bytes: &[u8]) {
        let mut script = self.begin(format, Input::new(bytes));
        while !script.input.is_empty() {
            self.step(&mut script);
        }
        self.end();
    }

    fn race(&mut self, bytes: &[u8]) {
        let mut input = Input::new(bytes);
        let format = if input.u8() & 1 == 0 { Format::Split } else { Format::Packed };
        let mut state = input.u64() | 1;
        let mut script = self.begin(format, input);
        let done = AtomicBool::new(false);
        let size = u64::from(script.size);
        let words = self.memory.words::<AtomicU64>(GuestAddress(0), MEMORY as usize / 8, Access::Write).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    // Descriptors and indexes mostly, now and then a header; a bit or a whole word.
                    let area = [DESCRIPTORS, DRIVER, DEVICE, [BUFFERS; 2]][(state >> 60) as usize & 3];
                    let at = area[(state >> 59) as usize & 1] / 8 + (state >> 40) % (2 * size + 1);
                    let word = &words[at as usize];
                    if state & 64 == 0 {
                        word.fetch_xor(1 << (state & 63), Ordering::Relaxed);
                    } else {
                        word.store(state >> (state & 31), Ordering::Relaxed);
                    }
                }
            });
            // The thread ends also when this one panics.
            let _done = Finally(&done);
            for _ in 0..64 {
                self.step(&mut script);
                self.poll();
                self.batch.clear();
                self.restart(&script, 0);
            }
        });
        self.end();
    }

    fn begin<'b>(&self, format: Format, mut input: Input<'b>) -> Script<'b> {
        for word in self.words.iter() {
            word.store(0, Ordering::Relaxed);
        }
        let size = input.u8();
        let size = if format == Format::Split { 1 << (size % 8) } else { 1 + u16::from(size % 128) };
        // Everything that a driver may leave out, by its bits.
        let optional = Features::EVENT_IDX | Features::INDIRECT_DESC | Features::MRG_RXBUF;
        let offloads = Features::CSUM | Features::GUEST_CSUM | Features::HOST_TSO4 | Features::GUEST_TSO4;
        let wanted = input.u16();
        let mut features = Features::VERSION_1;
        for (bit, feature) in (optional | offloads | Features::HOST_USO | IN_ORDER).iter().enumerate() {
            if wanted >> bit & 1 != 0 {
                features |= feature;
            }
        }
        let script = Script { input, format, size, features, next: [0; 2] };
        for vring in &self.vrings {
            vring.enable(true).unwrap();
        }
        self.restart(&script, if format == Format::Packed { 0x8000_8000 } else { 0 });
        script
    }

    /// Starts what does not run, or stopped because of a fault.
    fn restart(&self, script: &Script<'_>, base: u32) {
        for (index, vring) in self.vrings.iter().enumerate() {
            if vring.is_running() && vring.fault().is_none() {
                continue;
            }
            self.stop(vring);
            let addresses = Addresses {
                descriptors: USER + DESCRIPTORS[index],
                driver: USER + DRIVER[index],
                device: USER + DEVICE[index],
            };
            // A ring that cannot be stays stopped.
            let _ = vring.start(RingConfig {
                format: script.format,
                size: script.size,
                addresses,
                memory: Arc::clone(&self.memory),
                features: script.features,
                base: Base(base),
                call: None,
                log: None,
                inflight: None,
            });
        }
    }

    fn stop(&self, vring: &Vring) {
        if let Some(stopped) = vring.stop(STOP_LIMIT).unwrap() {
            assert!(!stopped.leaked, "no frame is underway");
        }
    }

    fn end(&mut self) {
        self.batch.clear();
        for vring in &self.vrings {
            self.stop(vring);
        }
        self.rx.receive(&mut self.batch);
        assert!(self.batch.is_empty(), "a queue without ring gives nothing");
    }

    /// What the engine does: all that is there goes back to where it came from.
    fn poll(&mut self) {
        let count = self.rx.receive(&mut self.batch);
        assert!(count <= BURST && self.batch.len() <= BURST);
        for packet in &self.batch {
            assert!(FRAMES.contains(&packet.len()), "a frame of {} bytes", packet.len());
        }
        let before = self.batch.len();
        let gone = self.tx.transmit(&mut self.batch);
        assert!(gone <= before);
        self.tx.reclaim();
    }

    /// One step of the script.
    fn step(&mut self, script: &mut Script<'_>) {
        let action = script.input.u8();
        let index = usize::from(action >> 7);
        match action & 7 {
            0 => {
                let at = usize::from(script.input.u16()) % self.words.len();
                self.words[at].store(script.input.u64(), Ordering::Relaxed);
            }
            1..=3 => {
                let times = if action & 0x40 == 0 { 1 } else { 16 };
                for _ in 0..times {
                    self.post(script, index);
                }
            }
            4 => {
                // Bytes of a frame or its header.
                let at = (BUFFERS + 256 * u64::from(script.input.u8())) / 8;
                for offset in 0..2 + u64::from(action >> 4) {
                    self.words[(at + offset) as usize % self.words.len()].store(script.input.u64(), Ordering::Relaxed);
                }
            }
            5 => {
                if self.rx.arm() {
                    self.rx.disarm();
                }
                let base = script.input.u32();
                self.batch.clear();
                if action & 0x40 != 0 {
                    self.vrings.iter().for_each(|vring| self.stop(vring));
                }
                self.restart(script, base);
            }
            6 => self.batch.clear(),
            _ => self.poll(),
        }
    }

    /// Makes a descriptor available where an honest driver would, with something in it.
    fn post(&self, script: &mut Script<'_>, index: usize) {
        let kind = script.input.u8();
        let address = match kind & 3 {
            3 => script.input.u64() >> (kind >> 2),
            _ => BUFFERS + 256 * u64::from(script.input.u8()),
        };
        let len = if kind & 4 == 0 { u32::from(script.input.u8()) * 8 } else { script.input.u32() };
        let honest = if index == 1 { 2 } else { 0 };
        let flags = if kind & 8 == 0 { honest } else { script.input.u16() };
        let size = u32::from(script.size);
        let next = script.next[index];
        let place = next % size;
        let id = if kind & 16 == 0 { place as u16 } else { script.input.u16() };
        let descriptor = (DESCRIPTORS[index] / 8 + 2 * u64::from(place)) as usize;
        self.words[descriptor].store(address, Ordering::Relaxed);
        let rest = match script.format {
            Format::Split => u64::from(len) | u64::from(flags) << 32 | u64::from(id) << 48,
            Format::Packed => {
                let turn = if (next / size).is_multiple_of(2) { 0x80 } else { 0x8000 };
                u64::from(len) | u64::from(id) << 32 | u64::from(flags ^ turn) << 48
            }
        };
        self.words[descriptor + 1].store(rest, Ordering::Release);
        script.next[index] = next.wrapping_add(1);
        if script.format == Format::Split {
            let available = DRIVER[index] as usize / 2;
            self.halves[available + 2 + place as usize].store(place as u16, Ordering::Relaxed);
            self.halves[available + 1].store(script.next[index] as u16, Ordering::Release);
        }
    }
}
