//! Which engine the flow of a packet belongs to, for ports that have fewer queues than there are engines.

use hugemem::Packet;

use crate::headers::{Fragment, NetworkKind, TransportKind, parse};

/// An odd number without a pattern (2^64 divided by the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// The number of the engine, of so many, that switches the flow of `packet`: by its card's hash, else by one of addresses and ports, which is the same in
/// both directions. All fragments of a datagram belong together.
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
        let word = |at: usize| bytes.get(at..at + length).map_or(0, fold);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{Iova, PacketPool, Region};

    /// A UDP datagram or, with `fragment` (flags and offset), a part of one.
    fn datagram(v6: bool, [from, to]: [u8; 2], ports: [u8; 2], fragment: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from];
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend([[0xfd; 15].as_slice(), &[from], &[0xfd; 15], &[to]].concat());
        } else {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 1]);
            frame.extend(fragment.to_be_bytes());
            frame.extend([64, 17, 0, 0, 10, 0, 0, from, 10, 0, 0, to]);
        }
        frame.extend([4, ports[0], 4, ports[1], 0, 8, 0, 0]);
        frame
    }

    fn engine(pool: &mut PacketPool, frame: &[u8]) -> usize {
        let mut packet = pool.take().unwrap();
        packet.write(frame).unwrap();
        engine_of(&packet, 4)
    }

    #[test]
    fn both_directions_and_all_fragments_belong_together_and_flows_are_spread() {
        let mut pool = Region::on_heap(1 << 16, Iova::new(0)).unwrap().packets(8, 256).unwrap();
        for v6 in [false, true] {
            let mut counts = [0; 4];
            for number in 0..=255 {
                let there = engine(&mut pool, &datagram(v6, [1, 2], [number, 7], 0));
                assert_eq!(there, engine(&mut pool, &datagram(v6, [2, 1], [7, number], 0)));
                *counts.get_mut(there).unwrap() += 1;
            }
            assert!(counts.iter().all(|count| (32..=96).contains(count)), "{counts:?}");
        }
        for number in 0..=255 {
            // The first one has ports, which say nothing about the others.
            let first = engine(&mut pool, &datagram(false, [1, number], [number, 7], 0x2000));
            assert_eq!(first, engine(&mut pool, &datagram(false, [1, number], [0, 0], 0x0001)));
        }
        // A card's hash goes before the bytes.
        let mut packet = pool.take().unwrap();
        let mut engines: Vec<usize> = (0..64_u32)
            .map(|hash| {
                packet.metadata_mut().hash = Some(hash);
                engine_of(&packet, 4)
            })
            .collect();
        engines.sort_unstable();
        engines.dedup();
        assert_eq!(engines, [0, 1, 2, 3]);
    }
}
