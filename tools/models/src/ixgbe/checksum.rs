//! Internet checksums (RFC 1071), and the two cyclic ones that the chip computes: the frame check sequence and SCTP's.

/// A one's complement sum under way. Pieces but the last have an even number of bytes.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian 16-bit words; an odd last one is the high half of a word.
    #[inline]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        // Summed in little endian and four bytes at a time: the sum of swapped words is the swapped sum, and the
        // upper half of each four is folded in at the end (RFC 1071, section 2).
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
        let mut last = [0; 4];
        for (target, byte) in last.iter_mut().zip(rest) {
            *target = *byte;
        }
        sum += u64::from(u32::from_le_bytes(last));
        Self(self.0 + u64::from(fold(sum).swap_bytes()))
    }

    /// Adds a 16-bit word.
    #[inline]
    pub(super) fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Adds a length of up to 32 bits.
    #[inline]
    pub(super) fn length(self, length: u32) -> Self {
        Self(self.0 + u64::from(length >> 16) + u64::from(length & 0xffff))
    }

    /// The sum, folded into 16 bits. All ones when correct data with its checksum was summed.
    #[inline]
    pub(super) fn folded(self) -> u16 {
        fold(self.0)
    }

    /// What goes into a checksum field.
    #[inline]
    pub(super) fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    drivers::bus::Width::narrow(sum)
}

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0_usize;
    let mut value = 0_u32;
    while index < 256 {
        let mut entry = value;
        let mut bit = 0;
        while bit < 8 {
            entry = if entry & 1 == 1 { (entry >> 1) ^ polynomial } else { entry >> 1 };
            bit += 1;
        }
        table[index] = entry;
        index += 1;
        value += 1;
    }
    table
}

/// IEEE 802.3, clause 3.2.9, bit by bit from the low end.
static ETHERNET: [u32; 256] = table(0xedb8_8320);
/// RFC 9260, appendix A (Castagnoli), bit by bit from the low end.
static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);

fn cyclic(table: &[u32; 256], crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ table[usize::from(low ^ byte)]
    })
}

/// The frame check sequence of a frame, in the order in which it goes over the wire.
pub(super) fn frame_check(frame: &[u8]) -> [u8; 4] {
    (!cyclic(&ETHERNET, u32::MAX, frame)).to_le_bytes()
}

/// The checksum of an SCTP packet, in the order in which it stands in the header. The field itself (bytes 8 to 11) counts as zero.
pub(super) fn sctp_check(packet: &[u8]) -> [u8; 4] {
    let head = packet.get(..8).unwrap_or(packet);
    let rest = packet.get(12..).unwrap_or(&[]);
    let crc = cyclic(&CASTAGNOLI, u32::MAX, head);
    let crc = cyclic(&CASTAGNOLI, crc, &[0; 4]);
    (!cyclic(&CASTAGNOLI, crc, rest)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Word by word, as the RFC's text says it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap_or(0)
    }

    #[test]
    fn sums_equal_the_plain_sum_at_every_length() {
        let mut random = crate::Random::new(1);
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length).map(|_| random.bits().to_le_bytes()[0]).collect();
            assert_eq!(Sum::default().bytes(&bytes).folded(), plain(&bytes), "{length} bytes");
            let half = length / 4 * 2;
            assert_eq!(Sum::default().bytes(&bytes[..half]).bytes(&bytes[half..]).folded(), plain(&bytes));
        }
        assert_eq!(Sum::default().bytes(&[0xff; 1 << 16]).length(0x0002_0003).folded(), 5);
    }

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let sum = Sum::default().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.folded(), sum.checksum()), (0xddf2, 0x220d));
    }

    #[test]
    fn cyclic_checks_have_their_published_values() {
        assert_eq!(frame_check(b"123456789"), 0xcbf4_3926_u32.to_le_bytes());
        assert_eq!((!cyclic(&CASTAGNOLI, u32::MAX, b"123456789")), 0xe306_9283);
    }
}
