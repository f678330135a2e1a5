//! Receive-side scaling: the Toeplitz hash and the queue that it picks (section 7.1.2.8).

use bitflags::bitflags;

use super::parse::{Kind, Parsed};
use super::registers::{self, Registers};

bitflags! {
    /// What is hashed, as bits 16 and up of MRQC (section 8.2.3.7.12).
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    struct Fields: u32 {
        const TCP_IPV4 = 1 << 16;
        const IPV4 = 1 << 17;
        const IPV6 = 1 << 20;
        const TCP_IPV6 = 1 << 21;
        const UDP_IPV4 = 1 << 22;
        const UDP_IPV6 = 1 << 23;
    }
}

/// Bytes that are hashed at most: two IPv6 addresses and two ports.
const LONGEST: usize = 36;

/// What a frame hashes to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Hashed {
    pub(super) hash: u32,
    /// What was hashed, as in the receive descriptor (table 7-17); 0 is nothing.
    pub(super) kind: u8,
    pub(super) queue: u8,
}

/// The registers of receive-side scaling, ready for use.
pub(super) struct Rss {
    fields: Fields,
    /// What each value of each byte adds to the hash.
    table: Box<[[u32; 256]; LONGEST]>,
    queues: [u8; 128],
}

impl std::fmt::Debug for Rss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rss").field("fields", &self.fields).field("queues", &self.queues).finish_non_exhaustive()
    }
}

/// The 32 bits of the key that begin at `bit`.
fn window(key: &[u8; 40], bit: usize) -> u32 {
    let byte = |index: usize| u64::from(key.get(index).copied().unwrap_or(0));
    let first = bit / 8;
    let five = (0..5).fold(0, |value, index| value << 8 | byte(first + index));
    drivers::bus::Width::narrow(five >> (8 - bit % 8))
}

impl Rss {
    /// Reads key, redirection table and hash fields.
    pub(super) fn new(registers: &Registers) -> Self {
        let mut key = [0; 40];
        for (index, bytes) in (0..).zip(key.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&registers.get(registers::RSSRK.at(index)).to_le_bytes());
        }
        let mut queues = [0; 128];
        for (index, entries) in (0..).zip(queues.chunks_exact_mut(4)) {
            entries.copy_from_slice(&registers.get(registers::RETA.at(index)).to_le_bytes());
        }
        let fields = Fields::from_bits_truncate(registers.get(registers::MRQC.offset));
        Self::with(fields, &key, queues)
    }

    fn with(fields: Fields, key: &[u8; 40], queues: [u8; 128]) -> Self {
        let mut table = Box::new([[0; 256]; LONGEST]);
        for (position, entries) in table.iter_mut().enumerate() {
            for (value, entry) in entries.iter_mut().enumerate() {
                for bit in (0..8).filter(|bit| value & (0x80 >> bit) != 0) {
                    *entry ^= window(key, position * 8 + bit);
                }
            }
        }
        // An entry has four bits (section 8.2.3.7.15).
        Self { fields, table, queues: queues.map(|queue| queue & 15) }
    }

    fn toeplitz<'bytes>(&self, bytes: impl Iterator<Item = &'bytes u8>) -> u32 {
        bytes.zip(self.table.iter()).fold(0, |hash, (byte, entries)| hash ^ entries[usize::from(*byte)])
    }

    /// The hash of a frame: over addresses and ports when that is asked for and the frame has them, else over addresses.
    #[inline]
    pub(super) fn hash(&self, frame: &[u8], parsed: &Parsed) -> Hashed {
        let version4 = parsed.kind.contains(Kind::IPV4);
        let (whole, plain) = if version4 {
            let whole = if parsed.kind.contains(Kind::TCP) {
                (Fields::TCP_IPV4, 1)
            } else if parsed.kind.contains(Kind::UDP) {
                (Fields::UDP_IPV4, 7)
            } else {
                (Fields::empty(), 0)
            };
            (whole, (Fields::IPV4, 2))
        } else {
            let whole = if parsed.kind.contains(Kind::TCP) {
                (Fields::TCP_IPV6, 3)
            } else if parsed.kind.contains(Kind::UDP) {
                (Fields::UDP_IPV6, 8)
            } else {
                (Fields::empty(), 0)
            };
            (whole, (Fields::IPV6, 5))
        };
        let Some(addresses) = parsed.addresses(frame) else { return Hashed::default() };
        let (hash, kind) = if self.fields.intersects(whole.0) {
            let at = parsed.transport;
            let ports = frame.get(at..at + 4).unwrap_or(&[]);
            (self.toeplitz(addresses.iter().chain(ports)), whole.1)
        } else if self.fields.intersects(plain.0) {
            (self.toeplitz(addresses.iter()), plain.1)
        } else {
            return Hashed::default();
        };
        let index = usize::try_from(hash & 127).unwrap_or(0);
        Hashed { hash, kind, queue: self.queues.get(index).copied().unwrap_or(0) }
    }
}

#[cfg(test)]
#[path = "tests/rss.rs"]
mod tests;
