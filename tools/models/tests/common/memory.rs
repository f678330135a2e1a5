//! Memory of a driver under test: where it ends is watched, and what lies between is guarded.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use hugemem::{DmaArray, Iova, IovaSpace, MemoryRequest, Packet, PacketPool, PageChoice, Region};
use models::watched_region;

use super::ROOM;

const CANARY: u64 = 0xca9a_55ca_9a55_0000;
/// Packets to send, and how many of them no driver ever gets.
const SOURCES: usize = 256;
const KEPT: usize = 8;

/// Rings' and packets' memory. Words between what the device is lent, and packets that it never is, must stay as they are.
pub(crate) struct Memory {
    pub(crate) rings: Region,
    pub(crate) data: Region,
    /// Packets to send.
    pub(crate) sources: PacketPool,
    canaries: Vec<DmaArray<AtomicU64>>,
    kept: Vec<Packet>,
    watches: Vec<(&'static str, Weak<()>)>,
}

impl Memory {
    /// Packets to send, when none is underway.
    pub(crate) const SENDABLE: usize = SOURCES - KEPT;

    /// Room for `ring_bytes` of rings, and a pool of `buffers` receive buffers for each of `pairs` queue pairs.
    pub(crate) fn new(ring_bytes: usize, pairs: usize, buffers: usize) -> (Self, Vec<PacketPool>) {
        let (rings, rings_watch) = watched_region(ring_bytes + (8 << 10), Iova::new(0x20_0000));
        let (data, data_watch) = watched_region(packet_bytes(pairs * buffers), Iova::new(0x4000_0000));
        Self::of(rings, data, vec![("rings", rings_watch), ("buffers", data_watch)], pairs, buffers)
    }

    /// As [`Memory::new`], from files that other processes can map. Nobody sees its end.
    pub(crate) fn from_files(ring_bytes: usize, pairs: usize, buffers: usize) -> (Self, Vec<PacketPool>) {
        let mut iovas = IovaSpace::unlimited();
        let mut region =
            |bytes| MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(&mut iovas).unwrap().region;
        let (rings, data) = (region(ring_bytes + (8 << 10)), region(packet_bytes(pairs * buffers)));
        Self::of(rings, data, Vec::new(), pairs, buffers)
    }

    fn of(
        rings: Region,
        data: Region,
        watches: Vec<(&'static str, Weak<()>)>,
        pairs: usize,
        buffers: usize,
    ) -> (Self, Vec<PacketPool>) {
        let mut canaries = vec![rings.array::<AtomicU64>(64, 64).unwrap(), data.array::<AtomicU64>(64, 64).unwrap()];
        let pools = (0..pairs)
            .map(|_| {
                let pool = data.packets(buffers, ROOM).unwrap();
                canaries.push(data.array::<AtomicU64>(8, 64).unwrap());
                pool
            })
            .collect();
        let mut sources = data.packets(SOURCES, ROOM).unwrap();
        for word in canaries.iter().flat_map(|words| words.iter()) {
            word.store(CANARY, Ordering::Relaxed);
        }
        let kept = (0..KEPT)
            .map(|_| {
                let mut packet = sources.take().unwrap();
                packet.write(&[0x5a; 1500]).unwrap();
                packet
            })
            .collect();
        (Self { rings, data, sources, canaries, kept, watches }, pools)
    }

    /// A packet with these bytes, spread over several buffers when there are many.
    pub(crate) fn packet(&mut self, bytes: &[u8]) -> Packet {
        let mut chunks = bytes.chunks(ROOM);
        let mut packet = self.sources.take().unwrap();
        packet.write(chunks.next().unwrap_or(&[])).unwrap();
        for chunk in chunks {
            let mut tail = self.sources.take().unwrap();
            tail.write(chunk).unwrap();
            packet.append(tail).unwrap();
        }
        packet
    }

    /// Nothing was written beside what was lent.
    pub(crate) fn is_whole(&self) {
        for word in self.canaries.iter().flat_map(|words| words.iter()) {
            assert_eq!(word.load(Ordering::Relaxed), CANARY, "memory beside what was lent was written to");
        }
        for packet in &self.kept {
            assert!(packet.bytes().iter().all(|byte| *byte == 0x5a), "a packet that was never lent was written to");
        }
    }

    /// Lets go of it; nobody else may hold any of it.
    pub(crate) fn end(self, what: &str) {
        let held: Vec<_> = self.let_go().into_iter().filter(|(_, watch)| watch.upgrade().is_some()).collect();
        assert!(held.is_empty(), "{what}: memory is still held, a buffer was lost: {held:?}");
    }

    /// Lets go of it; the watches tell who still holds any.
    pub(crate) fn let_go(self) -> Vec<(&'static str, Weak<()>)> {
        self.watches
    }
}

/// Bytes for so many receive buffers, packets to send, and what lies between.
fn packet_bytes(buffers: usize) -> usize {
    (buffers + SOURCES + 44) * (ROOM + 256) + (64 << 10)
}
