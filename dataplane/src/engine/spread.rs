//! Which engine the flow of a packet belongs to, for ports that have fewer queues than there are engines.

use hugemem::Packet;

use crate::headers::{Fragment, NetworkKind, TransportKind, parse};

/// An odd number without a pattern (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of the engine, of so many, that switches the flow of `packet`. Packets of both directions of a flow belong to the same, and fragments of a
/// datagram do.
#[inline]
pub(super) fn engine_of(packet: &Packet, engines: usize) -> usize {
    let hash = match packet.metadata().hash {
        Some(hash) => u64::from(hash),
        None => hash(packet),
    };
    // The upper bits are the better ones.
    let spread = (hash.wrapping_mul(MIX) >> 32) * engines as u64;
    usize::try_from(spread >> 32).unwrap_or(0)
}

/// A hash of addresses, protocol and ports that is the same in both directions. Frames without addresses belong together.
fn hash(packet: &Packet) -> u64 {
    let bytes = packet.bytes();
    let headers = parse(bytes, packet.len());
    let (first, length) = match headers.network {
        NetworkKind::Ipv4 => (12, 4),
        NetworkKind::Ipv6 => (8, 16),
        NetworkKind::Arp | NetworkKind::None => return 0,
    };
    let at = usize::from(headers.network_at) + first;
    let both = |at: usize, length: usize| {
        let word = |at: usize| bytes.get(at..at + length).map_or(0, |bytes| fold(bytes));
        let (one, other) = (word(at), word(at + length));
        // Whichever comes first.
        (one ^ other).wrapping_mul(MIX) ^ one.wrapping_add(other)
    };
    let addresses = both(at, length);
    let has_ports = matches!(headers.transport, TransportKind::Tcp | TransportKind::Udp | TransportKind::Sctp);
    // Later fragments have none, and belong with the first.
    let has_ports = has_ports && headers.fragment == Fragment::Whole;
    let ports = if has_ports { both(usize::from(headers.transport_at), 2) } else { 0 };
    (addresses ^ ports.rotate_left(17)).wrapping_add(u64::from(headers.protocol)).wrapping_mul(MIX) >> 29
}

/// Any number of bytes in one word.
fn fold(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0_u64, |word, byte| word.rotate_left(8) ^ u64::from(*byte))
}
