//! What a caller can ask of the driver, and what came of it.

use core::fmt;
use core::time::Duration;

use super::device::{Family, Medium};
use super::sfp::Module;
use crate::nic::{self, FlowControl, MacAddress, Offloads};

/// Descriptors of a ring at least and at most. Rings are multiples of 128 bytes (8.2.3.8.3); powers of two here.
const SMALLEST_RING: u16 = 64;
const LARGEST_RING: u16 = 4096;

/// Largest payload of a frame: the MAC takes 9728 bytes with headers and frame check sequence (7.1.6.1).
pub(super) const LARGEST_MTU: u16 = 9710;
/// Smallest, as IPv4 has it.
pub(super) const SMALLEST_MTU: u16 = 68;
pub(super) const USUAL_MTU: u16 = 1500;
/// What an Ethernet frame has beside its payload: header and two VLAN tags.
const ETHERNET: usize = 22;

/// All that the card can do and the driver makes use of.
pub(super) const OFFLOADS: Offloads = Offloads::RX_CHECKSUM
    .union(Offloads::TX_CHECKSUM)
    .union(Offloads::TSO4)
    .union(Offloads::TSO6)
    .union(Offloads::TSO_ECN)
    .union(Offloads::USO)
    .union(Offloads::RSS)
    .union(Offloads::VLAN_STRIP)
    .union(Offloads::VLAN_INSERT);

/// What a caller asks of the driver.
///
/// Rings are rounded down to a power of two, 64 to 4096 descriptors. The card fills whole kilobytes of a buffer: packet
/// pools should have room for a multiple of 1024 bytes, and need room for 1024. A frame that is larger takes
/// several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What can be asked of any card.
    pub nic: nic::Config,
    /// Pause frames to agree on. On a link that negotiates nothing, as over SFP+, it is used as it is.
    pub flow_control: FlowControl,
    /// Time that passes at least from one interrupt of a queue to the next, at most 1046 microseconds.
    pub interrupt_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            nic: nic::Config::default(),
            flow_control: FlowControl::default(),
            interrupt_interval: Duration::from_micros(20),
        }
    }
}

impl Config {
    /// Bytes of ring memory that suffice for this configuration.
    #[must_use]
    pub fn ring_memory(&self) -> usize {
        // Two rings of 16-byte descriptors with their alignment for each pair.
        let ring = usize::from(ring_size(self.nic.ring_size)) * 16 + 128;
        usize::from(self.nic.queue_pairs.max(1)) * 2 * ring + 4096
    }
}

/// The size of a ring.
pub(super) fn ring_size(wanted: u16) -> u16 {
    1 << wanted.clamp(SMALLEST_RING, LARGEST_RING).ilog2()
}

/// Longest frame for a payload of `mtu` bytes, without its frame check sequence.
pub(super) fn longest(mtu: u16) -> usize {
    usize::from(mtu) + ETHERNET
}

/// What a receive queue has to know.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct ReceiveSetup {
    /// Offloads in use.
    pub(super) offloads: Offloads,
    /// Bytes of the longest frame, without its frame check sequence.
    pub(super) longest: usize,
}

/// What a transmit queue has to know.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct TransmitSetup {
    /// Offloads in use.
    pub(super) offloads: Offloads,
    /// Bytes of the longest frame, without its frame check sequence.
    pub(super) longest: usize,
}

/// What driver and card agreed on. Prints as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Generation of the controller.
    pub family: Family,
    /// What the link runs over.
    pub medium: Medium,
    /// The module in its SFP+ cage when the card was opened or last started. `None` for cards without, and for an
    /// empty cage.
    pub module: Option<Module>,
    /// Offloads in use.
    pub offloads: Offloads,
    /// Queue pairs in use.
    pub queue_pairs: u16,
    /// Queue pairs that the card has for this driver.
    pub device_queue_pairs: u16,
    /// Descriptors of each receive ring.
    pub receive_ring_size: u16,
    /// Descriptors of each transmit ring.
    pub transmit_ring_size: u16,
    /// Every receive queue has an interrupt.
    pub interrupts: bool,
    /// Ethernet address.
    pub mac: MacAddress,
    /// Largest payload of a frame.
    pub mtu: u16,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, medium, mac, mtu, queue_pairs, device_queue_pairs, .. } = self;
        write!(f, "Intel {family} {medium}")?;
        match (medium, self.module) {
            (Medium::Sfp, Some(module)) => write!(f, " ({module})")?,
            (Medium::Sfp, None) if *family == Family::Intel82599 => f.write_str(" (no module in its cage)")?,
            _ => {}
        }
        let mode = if self.interrupts { "interrupts when idle" } else { "polling" };
        write!(
            f,
            " {mac}, mtu {mtu}, {queue_pairs} of {device_queue_pairs} queue pairs, rings rx {} tx {}, {mode}, offloads",
            self.receive_ring_size, self.transmit_ring_size,
        )?;
        for (name, _) in self.offloads.iter_names() {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two_within_the_cards_limits() {
        for (wanted, expected) in [(0, 64), (64, 64), (300, 256), (4096, 4096), (u16::MAX, 4096)] {
            assert_eq!(ring_size(wanted), expected, "{wanted}");
        }
    }
}
