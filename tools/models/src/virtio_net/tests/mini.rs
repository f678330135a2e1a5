//! A driver of a few lines: enough of virtio to talk to the model, nothing checked.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use drivers::bus::{Bar, PciFunction};
use hugemem::{DmaArray, Iova, Region};

use crate::EventInterrupt;
use crate::virtio_net::{Device, Features, Function, QueueWire, Window};

/// A part of a buffer.
#[derive(Clone, Copy)]
pub(super) struct Part {
    address: u64,
    len: usize,
    writable: bool,
}

impl Part {
    pub(super) fn r#in(address: u64, len: usize) -> Self {
        Self { address, len, writable: false }
    }

    pub(super) fn out_to(address: u64, len: usize) -> Self {
        Self { address, len, writable: true }
    }
}

const SIZE: u16 = 16;

/// A ring as 2048 bytes: descriptors at 0, driver area at 512, device area at 1024.
struct MiniQueue {
    bytes: DmaArray<AtomicU8>,
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
    lens: [u16; SIZE as usize],
}

pub(super) struct Mini {
    pub(super) function: Function,
    pub(super) region: Region,
    pub(super) interrupts: Vec<EventInterrupt>,
    window: Window,
    common: u32,
    notify: u32,
    network: u32,
    packed: bool,
    queues: Vec<MiniQueue>,
    data: DmaArray<AtomicU64>,
    filled: usize,
}

impl Mini {
    pub(super) fn start(mut function: Function, features: Features) -> Self {
        let region = Region::on_heap(1 << 20, Iova::new(0x40_0000)).unwrap();
        function.map(&region).unwrap();
        function.set_bus_master(true).unwrap();
        let (mut common, mut notify, mut network) = (0, 0, 0);
        let mut at = u16::try_from(function.read_config(0x34).unwrap() & 0xff).unwrap();
        while at != 0 {
            let head = function.read_config(at).unwrap().to_le_bytes();
            let offset = function.read_config(at + 8).unwrap();
            match (head[0], head[3]) {
                (9, 1) => common = offset,
                (9, 2) => notify = offset,
                (9, 4) => network = offset,
                _ => {}
            }
            at = head[1].into();
        }
        let interrupts = function.interrupts(3).unwrap();
        let window = function.bar(4).unwrap();
        let data = region.array::<AtomicU64>(1 << 16, 64).unwrap();
        let packed = features.contains(Features::RING_PACKED);
        let mut mini = Self {
            function,
            region,
            interrupts,
            window,
            common,
            notify,
            network,
            packed,
            queues: Vec::new(),
            data,
            filled: 0,
        };
        mini.bring_up(features);
        mini
    }

    fn bring_up(&mut self, features: Features) {
        let (window, common) = (self.window.clone(), self.common);
        window.store::<u8>(common + 20, 0);
        window.store::<u8>(common + 20, 3);
        for half in 0..2_u32 {
            window.store::<u32>(common + 8, half);
            window.store::<u32>(common + 12, u32::try_from(features.bits() >> (32 * half) & 0xffff_ffff).unwrap());
        }
        window.store::<u8>(common + 20, 11);
        if window.load::<u8>(common + 20) & 8 == 0 {
            return;
        }
        window.store::<u16>(common + 16, 2);
        for queue in 0..window.load::<u16>(common + 18) {
            let bytes = self.region.array::<AtomicU8>(2048, 4096).unwrap();
            let base = bytes.iova().raw();
            window.store::<u16>(common + 22, queue);
            window.store::<u16>(common + 24, SIZE);
            window.store::<u16>(common + 26, queue % 2);
            for (register, offset) in [(32, 0), (40, 512), (48, 1024)] {
                let address = base + offset;
                window.store::<u32>(common + register, u32::try_from(address & 0xffff_ffff).unwrap());
                window.store::<u32>(common + register + 4, u32::try_from(address >> 32).unwrap());
            }
            window.store::<u16>(common + 28, 1);
            self.queues.push(MiniQueue {
                bytes,
                next: 0,
                wrap: true,
                used: 0,
                used_wrap: true,
                lens: [1; SIZE as usize],
            });
        }
        window.store::<u8>(common + 20, 15);
    }

    pub(super) fn reset(&mut self) {
        self.window.store::<u8>(self.common + 20, 0);
        assert_eq!(self.window.load::<u8>(self.common + 20), 0);
    }

    pub(super) fn generation(&self) -> u8 {
        self.window.load(self.common + 21)
    }

    pub(super) fn network_byte(&self, at: u32) -> u8 {
        if at < 6 {
            self.window.load(self.network + at)
        } else {
            self.window.load::<u16>(self.network + at).to_le_bytes()[0]
        }
    }

    /// Puts bytes into memory for the device; returns where.
    pub(super) fn write(&mut self, bytes: &[u8]) -> u64 {
        let start = self.filled;
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.data[self.filled].store(u64::from_le_bytes(word), Ordering::Relaxed);
            self.filled += 1;
        }
        self.filled = self.filled.next_multiple_of(2);
        self.data.iova_of(start).unwrap().raw()
    }

    pub(super) fn read(&self, address: u64, len: usize) -> Vec<u8> {
        let skip = usize::try_from(address - self.data.iova().raw()).unwrap();
        let bytes = self.data.iter().skip(skip / 8).flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
        bytes.skip(skip % 8).take(len).collect()
    }

    fn image(part: &Part, extra: u64, flags: u16) -> [[u8; 8]; 2] {
        let flags = flags | if part.writable { 2 } else { 0 };
        let (high, low) = if extra >> 63 == 0 { (u64::from(flags), extra) } else { (extra & 0xffff, u64::from(flags)) };
        [part.address.to_le_bytes(), (part.len as u64 | low << 32 | high << 48).to_le_bytes()]
    }

    /// Second half with `id` then `flags` (packed), or `flags` then `next` (split).
    fn descriptor(&self, part: &Part, number: u16, flags: u16) -> [[u8; 8]; 2] {
        let split = if self.packed { 0 } else { 1 << 63 };
        Self::image(part, u64::from(number) | split, flags)
    }

    fn poke(&self, queue: usize, at: usize, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            self.queues[queue].bytes[at + index].store(*byte, Ordering::Release);
        }
    }

    fn peek16(&self, queue: usize, at: usize) -> u16 {
        let byte = |at: usize| self.queues[queue].bytes[at].load(Ordering::Acquire);
        u16::from_le_bytes([byte(at), byte(at + 1)])
    }

    pub(super) fn post(&mut self, queue: usize, parts: &[Part]) {
        self.post_silently(queue, parts);
        self.ring_bell(queue);
    }

    pub(super) fn ring_bell(&self, queue: usize) {
        let queue = u16::try_from(queue).unwrap();
        self.window.publish(self.notify + 4 * u32::from(queue), queue);
    }

    pub(super) fn post_indirect(&mut self, queue: usize, parts: &[Part]) {
        let mut table = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let last = index + 1 == parts.len();
            let next = if last || self.packed { 0 } else { 1 };
            let number = if self.packed { 0 } else { u16::try_from(index + 1).unwrap() };
            table.extend(self.descriptor(part, number, next).concat());
        }
        let address = self.write(&table);
        self.put(queue, &[Part::r#in(address, table.len())], 4);
        self.ring_bell(queue);
    }

    pub(super) fn post_silently(&mut self, queue: usize, parts: &[Part]) {
        self.put(queue, parts, 0);
    }

    /// Descriptors go in ring order in both formats, so this serves in-order use too.
    fn put(&mut self, queue: usize, parts: &[Part], flags: u16) {
        let count = u16::try_from(parts.len()).unwrap();
        let (start, start_wrap) = (self.queues[queue].next % SIZE, self.queues[queue].wrap);
        for (index, part) in (0..count).zip(parts).rev() {
            let slot = (start + index) % SIZE;
            let more = if index + 1 < count { 1 } else { 0 };
            let wrap = start_wrap ^ (start + index >= SIZE);
            let ring = if wrap { 1 << 7 } else { 1 << 15 };
            let (number, flags) =
                if self.packed { (start, flags | more | ring) } else { ((slot + 1) % SIZE, flags | more) };
            let [first, second] = self.descriptor(part, number, flags);
            self.poke(queue, usize::from(slot) * 16, &first);
            self.poke(queue, usize::from(slot) * 16 + 8, &second);
        }
        let state = &mut self.queues[queue];
        state.lens[usize::from(start)] = count;
        state.wrap ^= start + count >= SIZE;
        state.next = (start + count) % SIZE;
        if !self.packed {
            let index = self.peek16(queue, 514);
            self.poke(queue, 516 + 2 * usize::from(index % SIZE), &start.to_le_bytes());
            self.poke(queue, 514, &index.wrapping_add(1).to_le_bytes());
        }
    }

    /// The length of the next used buffer.
    pub(super) fn used(&mut self, queue: usize) -> Option<usize> {
        let word = |at: usize| usize::from(self.peek16(queue, at)) | usize::from(self.peek16(queue, at + 2)) << 16;
        let state = &self.queues[queue];
        let slot = usize::from(state.used % SIZE);
        if !self.packed {
            if self.peek16(queue, 1026) == state.used {
                return None;
            }
            let len = word(1028 + 8 * slot + 4);
            self.queues[queue].used = state.used.wrapping_add(1);
            return Some(len);
        }
        let flags = self.peek16(queue, 16 * slot + 14);
        if (flags & 1 << 7 != 0) != state.used_wrap || (flags & 1 << 15 != 0) != state.used_wrap {
            return None;
        }
        let len = word(16 * slot + 8);
        let taken = state.lens[usize::from(self.peek16(queue, 16 * slot + 12) % SIZE)];
        let state = &mut self.queues[queue];
        state.used_wrap ^= state.used + taken >= SIZE;
        state.used = (state.used + taken) % SIZE;
        Some(len)
    }

    pub(super) fn want_interrupts(&self, queue: usize, wanted: bool) {
        let at = if self.packed { 514 } else { 512 };
        self.poke(queue, at, &[u8::from(!wanted), 0]);
    }

    /// Sends a command and returns the answer.
    pub(super) fn command(&mut self, queue: usize, bytes: &[u8], device: &mut Device<QueueWire>) -> Option<u8> {
        let command = self.write(bytes);
        let answer = self.write(&[0xee]);
        self.post(queue, &[Part::r#in(command, bytes.len()), Part::out_to(answer, 1)]);
        device.poll();
        self.used(queue)?;
        Some(self.read(answer, 1)[0])
    }
}
