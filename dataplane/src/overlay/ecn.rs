//! Explicit congestion notification in tunnels (RFC 6040), and where a frame's traffic class is.

use super::Reason;
use crate::checksum::{sum, update};
use crate::headers::{ETHERNET, MOST_TAGS, ether_type};

/// The bits of a traffic class that are about congestion.
pub(super) const MASK: u8 = 0b11;
const NOT_CAPABLE: u8 = 0b00;
const CAPABLE_1: u8 = 0b01;
const CAPABLE_0: u8 = 0b10;
const CONGESTED: u8 = 0b11;

/// An IP header in a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Network {
    /// Where it begins.
    pub(super) at: usize,
    pub(super) ipv4: bool,
    /// Its traffic class.
    pub(super) class: u8,
}

/// The IP header of `frame`; `None` when there is none.
#[inline]
pub(super) fn network(frame: &[u8]) -> Option<Network> {
    let mut at = ETHERNET;
    loop {
        match u16::from_be_bytes(*frame.get(at - 2..)?.first_chunk()?) {
            ether_type::IPV4 => {
                let [_, class] = *frame.get(at..)?.first_chunk()?;
                return Some(Network { at, ipv4: true, class });
            }
            ether_type::IPV6 => {
                let [a, b] = *frame.get(at..)?.first_chunk()?;
                return Some(Network { at, ipv4: false, class: (a << 4) | (b >> 4) });
            }
            ether_type::VLAN | ether_type::PROVIDER_VLAN if at < ETHERNET + 4 * MOST_TAGS => at += 4,
            _ => return None,
        }
    }
}

/// What the inner packet's bits become when the outer packet arrived with `outer` (RFC 6040, figure 4).
///
/// # Errors
/// When the packet has to be dropped.
pub(super) fn combine(inner: u8, outer: u8) -> Result<u8, Reason> {
    match (inner & MASK, outer & MASK) {
        (NOT_CAPABLE, CONGESTED) => Err(Reason::Congestion),
        (NOT_CAPABLE, _) => Ok(NOT_CAPABLE),
        (_, CONGESTED) => Ok(CONGESTED),
        (CAPABLE_0, CAPABLE_1) => Ok(CAPABLE_1),
        (inner, _) => Ok(inner),
    }
}

/// Writes `bits` into the IP header at hand of `frame`.
pub(super) fn mark(frame: &mut [u8], network: Network, bits: u8) -> Option<()> {
    let header = frame.get_mut(network.at..)?;
    if network.ipv4 {
        let header: &mut [u8; 20] = header.first_chunk_mut()?;
        let before = [header[0], header[1]];
        header[1] = (network.class & !MASK) | bits;
        let checksum = u16::from_ne_bytes([header[10], header[11]]);
        let checksum = update(checksum, sum(&before), sum(&header[..2]));
        header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    } else {
        let second = header.get_mut(1)?;
        // The lower half of the traffic class is the upper half of this byte.
        *second = (*second & !(MASK << 4)) | (bits << 4);
    }
    Some(())
}
