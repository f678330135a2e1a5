//! The Internet checksum (RFC 1071) in the machine's byte order, which gives the same bytes as in any other.

use hugemem::{Checksum, Packet};

/// One's complement sum of `bytes`, not folded; a last odd byte counts as if a zero followed.
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
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
#[expect(clippy::cast_possible_truncation, reason = "folded to 16 bits before")]
pub(crate) fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    total as u16
}

/// Completes a partial checksum in `frame`, the whole frame in one piece. `false`, and nothing happens, when the request lies outside.
pub(super) fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let start = usize::from(start);
    let field = start + usize::from(offset);
    let Some(summed) = frame.get(start..).filter(|_| field + 2 <= frame.len()) else { return false };
    let checksum = match !fold(sum(summed)) {
        // Zero means "none" in UDP; all ones is the same number (RFC 768).
        0 => u16::MAX,
        checksum => checksum,
    };
    match frame.get_mut(field..field + 2) {
        Some(bytes) => bytes.copy_from_slice(&checksum.to_ne_bytes()),
        None => return false,
    }
    true
}

/// Writes the whole of `packet` into `buffer`, with its VLAN tag and its checksum put in where they are still to be, as
/// it would look on a wire. `None` when `buffer` is too small or the checksum request contradicts the frame.
pub(super) fn render<'a>(packet: &Packet, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
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
