//! Checksums (RFC 1071), all in one place: the sums of `drivers`, what is changed in them when a header is rewritten, and packets as a wire would show them.
//!
//! Sums are numbers in the machine's byte order: take words out of frames and put them in with `ne_bytes`.

use hugemem::{Checksum, Packet};

use drivers::checksum::Sum;
pub(crate) use drivers::checksum::{complete as complete_packet, fold, sum};

use crate::whole;

/// The checksum for a sum that is not complemented: never zero, which means "none" in UDP; all ones is the same number (RFC 768).
#[inline]
pub(crate) fn complement(total: u64) -> u16 {
    match !fold(total) {
        0 => u16::MAX,
        checksum => checksum,
    }
}

/// A checksum after bytes that summed up to `old` were replaced by such that sum up to `new` (RFC 1624, equation 3). All of them lie at even
/// distances from where the checksum starts.
#[inline]
pub(crate) fn update(checksum: u16, old: u64, new: u64) -> u16 {
    !fold(u64::from(!checksum) + u64::from(!fold(old)) + u64::from(fold(new)))
}

/// The sum of the pseudo header in front of a transport header of `protocol`, which is `len` bytes long with its payload (RFC 9293, section 3.1;
/// RFC 8200, section 8.1). `addresses` are both addresses as they stand in the header.
#[inline]
pub(crate) fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> u64 {
    // The length has 32 bits in that of IPv6.
    let [.., a, b, c, d] = len.to_be_bytes();
    sum(addresses) + sum(&[0, protocol, a, b, c, d])
}

/// The sum, folded, of the bytes `start..end` of a packet, wherever they lie.
pub(crate) fn sum_packet(packet: &Packet, start: usize, end: usize) -> u16 {
    let mut total = Sum::default();
    let mut at = 0;
    for segment in packet.segments() {
        let last = end.saturating_sub(at).min(segment.len());
        total.add(segment.get(start.saturating_sub(at)..last).unwrap_or_default());
        at += segment.len();
    }
    let mut at = at.max(start);
    let mut copy = [0; 512];
    while let Some(foreign) = copy.get_mut(..end.saturating_sub(at).min(512)).filter(|foreign| !foreign.is_empty()) {
        let count = whole::read(packet, at, foreign);
        if count == 0 {
            break;
        }
        total.add(foreign.get(..count).unwrap_or_default());
        at += count;
    }
    total.folded()
}

/// Completes a partial checksum in `frame`, the whole frame in one piece. `false`, and nothing happens, when the request lies outside.
pub(crate) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    let Some(summed) = frame.get(start..).filter(|_| field + 2 <= frame.len()) else { return false };
    let checksum = complement(sum(summed));
    match frame.get_mut(field..field + 2) {
        Some(bytes) => bytes.copy_from_slice(&checksum.to_ne_bytes()),
        None => return false,
    }
    true
}

/// Writes the whole of `packet` into `buffer`, with its VLAN tag and its checksum put in where they are still to be, as
/// it would look on a wire. `None` when `buffer` is too small or the checksum request contradicts the frame.
pub(crate) fn render<'a>(packet: &Packet, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let tag_len = if packet.metadata().vlan.is_some() && packet.len() >= 12 { 4 } else { 0 };
    let len = packet.len() + tag_len;
    let buffer = buffer.get_mut(..len)?;
    let (tag, frame) = buffer.split_at_mut(tag_len);
    packet.copy_to(0, frame);
    if let Checksum::Partial { start, offset } = packet.metadata().checksum
        && !complete(frame, start, offset)
    {
        return None;
    }
    if let (4, Some(vlan)) = (tag.len(), packet.metadata().vlan) {
        // The addresses move to the front, and the tag goes behind them (IEEE 802.1Q).
        buffer.copy_within(4..16, 0);
        let [high, low] = vlan.to_be_bytes();
        if let Some(place) = buffer.get_mut(12..16) {
            place.copy_from_slice(&[0x81, 0x00, high, low]);
        }
    }
    Some(buffer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{Iova, Region};

    #[test]
    fn the_sum_is_that_of_the_rfc() {
        // RFC 1071, section 3.
        let folded = fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]));
        assert_eq!(folded.to_ne_bytes(), [0xdd, 0xf2]);
        assert_eq!(fold(sum(&[0xff])).to_ne_bytes(), [0xff, 0x00]);
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn a_header_that_is_rewritten_gets_the_checksum_that_a_new_one_would() {
        let mut header: Vec<u8> = (0_u8..20).map(|byte| byte.wrapping_mul(37)).collect();
        header[10..12].fill(0);
        let before = !fold(sum(&header));
        for (at, word) in [(0_usize, [0_u8, 0]), (2, [0xff, 0xff]), (8, [1, 2]), (18, [0xca, 0xfe])] {
            let mut after = header.clone();
            after[at..at + 2].copy_from_slice(&word);
            let updated = update(before, sum(&header[at..at + 2]), sum(&word));
            assert_eq!(updated, !fold(sum(&after)), "word at {at}");
        }
    }

    #[test]
    fn the_pseudo_header_sums_as_if_it_were_there() {
        let addresses: Vec<u8> = (1..=32).collect();
        let long = [&addresses[..], &[0, 1, 0x02, 0x03, 0, 0, 0, 17]].concat();
        assert_eq!(fold(pseudo_header(&addresses, 17, 0x1_0203)), fold(sum(&long)));
        let short = [&addresses[..8], &[0, 6, 0x05, 0xdc]].concat();
        assert_eq!(fold(pseudo_header(&addresses[..8], 6, 1500)), fold(sum(&short)));
    }

    #[test]
    fn a_request_outside_the_frame_is_refused() {
        let mut frame = [0_u8; 20];
        assert!(!complete(&mut frame, 21, 0));
        assert!(!complete(&mut frame, 10, 9));
        assert!(!complete(&mut frame, u16::MAX, u16::MAX));
        assert_eq!(frame, [0; 20]);
        assert!(complete(&mut frame, 10, 8));
        assert_eq!(frame[18..], [0xff, 0xff]);
    }

    #[test]
    fn a_tag_that_was_taken_out_is_put_back() {
        let region = Region::on_heap(8192, Iova::new(0)).unwrap();
        let mut packet = region.packets(1, 1920).unwrap().take().unwrap();
        let frame: Vec<u8> = (0..60).collect();
        packet.write(&frame).unwrap();
        packet.metadata_mut().vlan = Some(0x2005);
        let mut buffer = [0; 100];
        let rendered = render(&packet, &mut buffer).unwrap();
        assert_eq!(rendered[..12], frame[..12]);
        assert_eq!(rendered[12..16], [0x81, 0x00, 0x20, 0x05]);
        assert_eq!(rendered[16..], frame[12..]);
        assert!(render(&packet, &mut [0; 63]).is_none());
    }
}
