//! What a caller can ask of the driver, and what came of it.

use core::fmt;

use super::features::{Features, RingChoice};
use super::ring::TABLE;
use crate::nic::{MacAddress, Offloads};

/// Descriptors of a ring unless asked otherwise: two of the largest bursts (128) fit, and 256 buffers of 2 KiB stay
/// within a core's second-level cache, where a larger ring would wander through all of the pool.
pub const DEFAULT_RING_SIZE: u16 = 256;

/// Bytes of a key for the Toeplitz hash.
pub const RSS_KEY_LENGTH: usize = 40;

/// A key that gives both directions of a flow the same hash: 16 bits that repeat.
pub const SYMMETRIC_RSS_KEY: [u8; RSS_KEY_LENGTH] = {
    let mut key = [0x6d; RSS_KEY_LENGTH];
    let mut index = 1;
    while index < RSS_KEY_LENGTH {
        key[index] = 0x5a;
        index += 2;
    }
    key
};

/// What a caller asks of the driver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Queue pairs wanted; fewer are used when the device has fewer.
    pub queue_pairs: u16,
    /// Ring format.
    pub ring: RingChoice,
    /// Most descriptors of a ring, rounded down to a power of two; a device may allow fewer. At most 32768.
    pub ring_size: u16,
    /// An interrupt for each receive queue, for sleeping while idle. Without, the queues can only be polled.
    pub interrupts: bool,
    /// Receive frames for every address, where the device can choose.
    pub promiscuous: bool,
    /// Ethernet address to set; `None` keeps the device's.
    pub mac: Option<MacAddress>,
    /// Offloads that may be used. Receiving large segments (LRO, URO) makes sense only when whoever gets the packets
    /// can send or cut them.
    pub offloads: Offloads,
    /// Key of the hash that spreads flows over queues.
    pub rss_key: [u8; RSS_KEY_LENGTH],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            queue_pairs: 1,
            ring: RingChoice::Auto,
            ring_size: DEFAULT_RING_SIZE,
            interrupts: false,
            promiscuous: true,
            mac: None,
            offloads: Offloads::all(),
            rss_key: SYMMETRIC_RSS_KEY,
        }
    }
}

impl Config {
    /// Bytes of ring memory that suffice for this configuration on any device.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        // Descriptors 16, available entry 2, used entry 8; an indirect table on the transmit side; control queue and
        // the areas' alignment to cache lines.
        let size = usize::from(ring_size(self.ring_size, u16::MAX));
        let ring = size * 26 + 4 * 64;
        let tables = size * usize::from(TABLE) * 16 + 64;
        usize::from(self.queue_pairs.max(1)) * (2 * ring + tables) + 4096
    }
}

/// The size of a ring: a power of two within both limits. `0` when there is none.
pub(super) fn ring_size(wanted: u16, largest: u16) -> u16 {
    // Queue sizes end at 32768 (2.6).
    match wanted.max(2).min(largest).min(1 << 15) {
        0 => 0,
        size => 1 << size.ilog2(),
    }
}

/// Ring format in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RingFormat {
    /// Split (virtio 1.3, section 2.7).
    Split,
    /// Packed (virtio 1.3, section 2.8).
    Packed,
}

impl fmt::Display for RingFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Split => "split",
            Self::Packed => "packed",
        })
    }
}

/// What driver and device agreed on. Prints as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Features in use.
    pub features: Features,
    /// Ring format in use.
    pub ring: RingFormat,
    /// Queue pairs in use.
    pub queue_pairs: u16,
    /// Queue pairs that the device has.
    pub device_queue_pairs: u16,
    /// Descriptors of each receive ring.
    pub receive_ring_size: u16,
    /// Descriptors of each transmit ring.
    pub transmit_ring_size: u16,
    /// Every receive queue has an interrupt. Known for sure after the device was started.
    pub interrupts: bool,
    /// Ethernet address.
    pub mac: MacAddress,
    /// Largest payload of a frame.
    pub mtu: u16,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { features, ring, queue_pairs, device_queue_pairs, mac, mtu, .. } = self;
        let mode = if self.interrupts { "interrupts when idle" } else { "polling" };
        write!(
            f,
            "virtio-net {mac}, mtu {mtu}, {queue_pairs} of {device_queue_pairs} queue pairs, {ring} rings rx {} tx {}, \
             {mode}, features",
            self.receive_ring_size, self.transmit_ring_size,
        )?;
        for (name, _) in features.iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two_within_both_limits() {
        let table = [(256, 1024, 256), (300, 1024, 256), (512, 200, 128), (1, 256, 2), (0, 1, 1), (256, 0, 0)];
        for (wanted, largest, expected) in table {
            assert_eq!(ring_size(wanted, largest), expected, "{wanted} {largest}");
        }
        assert_eq!(ring_size(u16::MAX, u16::MAX), 32768);
    }

    #[test]
    fn the_default_key_is_symmetric() {
        assert!(SYMMETRIC_RSS_KEY.chunks(2).all(|pair| pair == [0x6d, 0x5a]));
    }
}
