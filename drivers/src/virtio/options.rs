//! What a caller can ask of the driver, and what came of it.

use core::fmt;

use super::features::{Features, RingChoice};
use super::ring::TABLE;
use crate::nic::{self, MacAddress};

/// What a caller asks of the driver. Rings are rounded down to a power of two, at most 32768 descriptors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Config {
    /// What can be asked of any card.
    pub nic: nic::Config,
    /// Ring format.
    pub ring: RingChoice,
}

impl Config {
    /// Bytes of ring memory that suffice for this configuration on any device.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        // Descriptors 16, available entry 2, used entry 8; an indirect table on the transmit side; control queue and
        // the areas' alignment to cache lines.
        let size = usize::from(ring_size(self.nic.ring_size, u16::MAX));
        let ring = size * 26 + 4 * 64;
        let tables = size * usize::from(TABLE) * 16 + 64;
        usize::from(self.nic.queue_pairs.max(1)) * (2 * ring + tables) + 4096
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
}
