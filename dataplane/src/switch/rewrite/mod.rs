//! Changing headers: addresses, VLAN tags, time to live. Checksums are brought up to date by what changed (RFC 1624), never summed anew, and
//! one that is still to be completed stays so.
//!
//! Only bytes of ours are touched: the payload of a packet may lie in guest memory.

mod tag;
mod translate;

use hugemem::Packet;

use super::nat::NatTable;
use crate::checksum;
use crate::flow::{Rewrite, VlanRewrite};
use crate::headers::{Headers, NetworkKind};
pub(super) use tag::{retag, take_in};

/// Where the time to live is in an IPv4 header, and the header's checksum.
const IPV4_TTL: usize = 8;
const IPV4_CHECKSUM: usize = 10;
const IPV6_HOP_LIMIT: usize = 7;

/// The packet lacks what was to be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Impossible;

/// Changes a packet. `headers` are of its bytes before.
#[inline]
pub(super) fn rewrite(
    packet: &mut Packet,
    headers: &Headers,
    rewrite: &Rewrite,
    translations: &NatTable,
) -> Result<(), Impossible> {
    let checksum = packet.metadata().checksum;
    let frame = packet.bytes_mut();
    // Tags go last: they move what the headers point to.
    if rewrite.decrement_ttl {
        hop(frame, headers)?;
    }
    if let Some(number) = rewrite.translation {
        translate::translate(frame, headers, checksum, &translations.get(number))?;
    }
    let addresses = frame.first_chunk_mut::<12>().ok_or(Impossible)?;
    if let Some(mac) = rewrite.destination_mac {
        addresses[..6].copy_from_slice(&mac.0);
    }
    if let Some(mac) = rewrite.source_mac {
        addresses[6..].copy_from_slice(&mac.0);
    }
    if rewrite.vlan == VlanRewrite::Keep { Ok(()) } else { retag(packet, rewrite.vlan) }
}

/// Counts a hop.
#[inline]
fn hop(frame: &mut [u8], headers: &Headers) -> Result<(), Impossible> {
    let network = frame.get_mut(usize::from(headers.network_at)..).ok_or(Impossible)?;
    match headers.network {
        NetworkKind::Ipv4 => {
            let old = *read(network, IPV4_TTL)?;
            let [ttl, protocol] = old;
            let new = [ttl.checked_sub(1).ok_or(Impossible)?, protocol];
            write(network, IPV4_TTL, new)?;
            let sum = u16::from_ne_bytes(*read(network, IPV4_CHECKSUM)?);
            let sum = checksum::update(sum, u16::from_ne_bytes(old).into(), u16::from_ne_bytes(new).into());
            write(network, IPV4_CHECKSUM, sum.to_ne_bytes())
        }
        NetworkKind::Ipv6 => {
            let limit = network.get_mut(IPV6_HOP_LIMIT).ok_or(Impossible)?;
            *limit = limit.checked_sub(1).ok_or(Impossible)?;
            Ok(())
        }
        NetworkKind::None | NetworkKind::Arp => Err(Impossible),
    }
}

/// The two bytes at `at`.
#[inline]
fn read(bytes: &[u8], at: usize) -> Result<&[u8; 2], Impossible> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).ok_or(Impossible)
}

#[inline]
fn write(bytes: &mut [u8], at: usize, value: [u8; 2]) -> Result<(), Impossible> {
    *bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut).ok_or(Impossible)? = value;
    Ok(())
}

#[cfg(test)]
mod tests;
