//! The internet checksum (RFC 1071) in the machine's byte order, which gives the same bytes as in any other; and the twin of devices that complete
//! partial checksums.

use hugemem::Packet;

/// One's complement sum of `bytes`, not folded; a last odd byte counts as if a zero followed.
#[inline]
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    // Upper and lower halves of words add up on their own: no carry is lost, and the compiler can do several at once.
    let (mut low, mut high) = (0_u64, 0_u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_ne_bytes(*word);
        low += word & 0xffff_ffff;
        high += word >> 32;
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let last = u64::from_ne_bytes(last);
    low + high + (last & 0xffff_ffff) + (last >> 32)
}

/// Folds a sum into 16 bits.
#[inline]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits before")]
pub fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// A sum over pieces of any length.
#[derive(Clone, Copy, Default, Debug)]
pub struct Sum {
    total: u64,
    /// The next byte is the second of a word.
    odd: bool,
}

impl Sum {
    /// Goes on with `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        let folded = fold(sum(bytes));
        // Bytes that start in the middle of a word weigh the other way round.
        self.total += u64::from(if self.odd { folded.swap_bytes() } else { folded });
        self.odd ^= bytes.len() % 2 == 1;
    }

    /// The sum so far, folded into 16 bits.
    #[must_use]
    pub fn folded(self) -> u16 {
        fold(self.total)
    }
}

/// Completes a partial checksum: sums `packet` from byte `start` to its end, and stores the complement at
/// `start + offset`. `false`, with nothing changed, when that field is not inside the first segment.
pub fn complete(packet: &mut Packet, start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    if packet.bytes().get(field..field + 2).is_none() {
        return false;
    }
    let mut sum = Sum::default();
    let mut skip = start;
    for segment in packet.segments() {
        sum.add(segment.get(skip..).unwrap_or_default());
        skip = skip.saturating_sub(segment.len());
    }
    // A result of zero means "no checksum" in UDP; all ones is the same number (RFC 768).
    let result = match !sum.folded() {
        0 => u16::MAX,
        result => result,
    };
    if let Some(bytes) = packet.bytes_mut().get_mut(field..field + 2) {
        bytes.copy_from_slice(&result.to_ne_bytes());
    }
    true
}

/// Takes the number `value` out of `sum`, a folded sum of big-endian words that is not complemented (RFC 1624).
pub(crate) fn subtract(sum: u16, value: u32) -> u16 {
    let sum = u64::from(sum) + u64::from(!fold(value.into()));
    fold(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{Iova, PacketPool, Region};
    use proptest::prelude::*;

    fn pool() -> PacketPool {
        Region::on_heap(1 << 16, Iova::new(0)).unwrap().packets(8, 2048).unwrap()
    }

    /// The definition, word by word.
    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            let word = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
            sum += u32::from(word);
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn a_datagram_known_from_the_wire_gets_its_checksum() {
        // UDP 10.0.0.1:1 -> 10.0.0.2:2, payload "hi"; field preset with the pseudo header's sum.
        let pseudo = [10, 0, 0, 1, 10, 0, 0, 2, 0, 17, 0, 10];
        let mut udp = std::vec![0, 1, 0, 2, 0, 10, 0, 0, b'h', b'i'];
        let mut whole = pseudo.to_vec();
        whole.extend_from_slice(&udp);
        let expected = reference(&whole);
        udp[6..8].copy_from_slice(&(!reference(&pseudo)).to_be_bytes());
        let mut pool = pool();
        let mut packet = pool.take().unwrap();
        packet.write(&udp).unwrap();
        assert!(complete(&mut packet, 0, 6));
        assert_eq!(packet.bytes()[6..8], expected.to_be_bytes());
    }

    #[test]
    fn a_zero_result_is_stored_as_all_ones() {
        let mut pool = pool();
        let mut packet = pool.take().unwrap();
        packet.write(&[0xff, 0xff, 0, 0]).unwrap();
        assert!(complete(&mut packet, 0, 2));
        assert_eq!(packet.bytes(), [0xff; 4]);
    }

    #[test]
    fn what_was_added_to_a_sum_is_taken_out_again() {
        for (rest, value) in [(0x1234, 1400), (0xfff0, 65_535), (1, 70_000), (0xabcd, 0)] {
            assert_eq!(subtract(fold(rest + u64::from(value)), value), u16::try_from(rest).unwrap());
        }
    }

    #[test]
    fn a_field_outside_the_first_segment_changes_nothing() {
        let mut pool = pool();
        let mut packet = pool.take().unwrap();
        packet.write(&[1; 10]).unwrap();
        for (start, offset) in [(9, 0), (10, 0), (0, 9), (u16::MAX, u16::MAX)] {
            assert!(!complete(&mut packet, start, offset));
        }
        assert_eq!(packet.bytes(), [1; 10]);
    }

    proptest! {
        #[test]
        fn the_sum_does_not_depend_on_how_the_frame_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..70), 1..6),
            start in 0_u16..30,
        ) {
            let mut pool = pool();
            let mut head = pool.take().unwrap();
            let mut first = std::vec![7; 40];
            head.write(&first).unwrap();
            for piece in &pieces {
                let mut tail = pool.take().unwrap();
                tail.write(piece).unwrap();
                head.append(tail).unwrap();
                first.extend_from_slice(piece);
            }
            prop_assert!(complete(&mut head, start, 8));
            let field = usize::from(start) + 8;
            let expected = match reference(&first[usize::from(start)..]) { 0 => 0xffff, sum => sum };
            first[field..field + 2].copy_from_slice(&expected.to_be_bytes());
            let mut seen = std::vec![0; first.len()];
            prop_assert_eq!(head.copy_to(0, &mut seen), first.len());
            prop_assert_eq!(seen, first);
        }
    }
}
