//! New addresses and ports, and what that means for checksums.

use std::net::IpAddr;

use hugemem::Checksum;

use super::{IPV4_CHECKSUM, Impossible, read, write};
use crate::checksum::{fold, sum, update};
use crate::headers::{Fragment, Headers, NetworkKind, TransportKind};
use crate::switch::nat::{Endpoint, Translation};

/// A change of bytes, as sums before and after.
#[derive(Clone, Copy, Default)]
struct Change {
    old: u64,
    new: u64,
}

impl Change {
    /// Puts `new` in place of the bytes at `at`.
    fn make(&mut self, frame: &mut [u8], at: usize, new: &[u8]) -> Result<(), Impossible> {
        let place = frame.get_mut(at..at + new.len()).ok_or(Impossible)?;
        self.old += sum(place);
        self.new += sum(new);
        place.copy_from_slice(new);
        Ok(())
    }

    fn and(self, other: Self) -> Self {
        Self { old: self.old + other.old, new: self.new + other.new }
    }
}

/// Changes addresses and ports of a packet. When that is impossible, the packet is spoilt.
///
/// SCTP's checksum is over all of the packet, so that its ports cannot be changed; of other protocols than TCP, UDP and ICMP
/// echoes only addresses are.
pub(super) fn translate(
    frame: &mut [u8],
    headers: &Headers,
    checksum: Checksum,
    translation: &Translation,
) -> Result<(), Impossible> {
    let mut addresses = Change::default();
    let mut ports = Change::default();
    let at = usize::from(headers.network_at);
    let (source_at, destination_at) = match headers.network {
        NetworkKind::Ipv4 => (at + 12, at + 16),
        NetworkKind::Ipv6 => (at + 8, at + 24),
        NetworkKind::None | NetworkKind::Arp => return Err(Impossible),
    };
    let places = [(translation.source, source_at, 0), (translation.destination, destination_at, 2)];
    for (endpoint, address_at, port_at) in places {
        let Some(Endpoint { address, port }) = endpoint else { continue };
        match (address, headers.network) {
            (IpAddr::V4(address), NetworkKind::Ipv4) => addresses.make(frame, address_at, &address.octets())?,
            (IpAddr::V6(address), NetworkKind::Ipv6) => addresses.make(frame, address_at, &address.octets())?,
            _ => return Err(Impossible),
        }
        if port != 0 && headers.fragment != Fragment::Later {
            let port_at = usize::from(headers.transport_at) + port_offset(frame, headers, port_at)?;
            ports.make(frame, port_at, &port.to_be_bytes())?;
        }
    }
    if headers.network == NetworkKind::Ipv4 {
        let old = u16::from_ne_bytes(*read(frame, at + IPV4_CHECKSUM)?);
        write(frame, at + IPV4_CHECKSUM, update(old, addresses.old, addresses.new).to_ne_bytes())?;
    }
    if headers.fragment == Fragment::Later {
        return Ok(());
    }
    let (offset, covered) = match headers.transport {
        TransportKind::Tcp => (16, addresses.and(ports)),
        TransportKind::Udp => (6, addresses.and(ports)),
        TransportKind::Icmpv6 => (2, addresses.and(ports)),
        // There is no pseudo header.
        TransportKind::Icmp => (2, ports),
        TransportKind::Sctp | TransportKind::None => return Ok(()),
    };
    let field = usize::from(headers.transport_at) + offset;
    let old = *read(frame, field)?;
    let number = u16::from_ne_bytes(old);
    let partial = matches!(checksum, Checksum::Partial { start, offset }
        if usize::from(start) + usize::from(offset) == field && start == headers.transport_at);
    let new = if partial {
        // The field holds the sum of the pseudo header, not complemented; ports are summed later.
        fold(u64::from(number) + u64::from(!fold(addresses.old)) + u64::from(fold(addresses.new)))
    } else if headers.transport == TransportKind::Udp {
        if number == 0 {
            // The sender made none (RFC 768).
            return Ok(());
        }
        match update(number, covered.old, covered.new) {
            0 => u16::MAX,
            number => number,
        }
    } else {
        update(number, covered.old, covered.new)
    };
    write(frame, field, new.to_ne_bytes())
}

/// Where the port is in the transport header; of an echo, where its identifier is.
fn port_offset(frame: &[u8], headers: &Headers, port_at: usize) -> Result<usize, Impossible> {
    match headers.transport {
        TransportKind::Tcp | TransportKind::Udp => Ok(port_at),
        TransportKind::Icmp | TransportKind::Icmpv6 => {
            let kind = frame.get(usize::from(headers.transport_at)).copied();
            // Echo request and reply (RFC 792, RFC 4443).
            matches!(kind, Some(0 | 8 | 128 | 129)).then_some(4).ok_or(Impossible)
        }
        TransportKind::Sctp | TransportKind::None => Err(Impossible),
    }
}
