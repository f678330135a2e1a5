//! The header in front of every frame in a buffer (section 5.1.6).

use super::specification::{Features, header as flags};

/// What driver and device tell each other about a frame, in host byte order. `num_buffers` belongs to the ring and is not here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NetHeader {
    /// [`flags::NEEDS_CSUM`], [`flags::DATA_VALID`].
    pub flags: u8,
    /// One of the `GSO_` numbers.
    pub gso_type: u8,
    /// Bytes of headers, a hint.
    pub header_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksum starts summing.
    pub checksum_start: u16,
    /// Where the checksum is stored, from there.
    pub checksum_offset: u16,
    /// Hash of the frame, when reported.
    pub hash_value: u32,
    /// What was hashed.
    pub hash_report: u16,
}

impl NetHeader {
    /// Reads the first 12 bytes; hash fields stay zero (they mean nothing on transmit).
    #[must_use]
    pub fn parse(bytes: &[u8; 12]) -> (Self, u16) {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = *bytes;
        let header = Self {
            flags,
            gso_type,
            header_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            checksum_start: u16::from_le_bytes([s0, s1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
            ..Self::default()
        };
        (header, u16::from_le_bytes([n0, n1]))
    }

    /// Writes it with `num_buffers`; the first 12 or all 20 bytes are what goes on the ring.
    #[inline]
    #[must_use]
    pub fn bytes(&self, num_buffers: u16) -> [u8; 20] {
        let mut bytes = [0; 20];
        if *self == Self::default() {
            bytes[10..12].copy_from_slice(&num_buffers.to_le_bytes());
            return bytes;
        }
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        bytes[2..4].copy_from_slice(&self.header_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_le_bytes());
        bytes[10..12].copy_from_slice(&num_buffers.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.hash_value.to_le_bytes());
        bytes[16..18].copy_from_slice(&self.hash_report.to_le_bytes());
        bytes
    }

    /// Why a driver that negotiated `features` must not transmit a frame of `len` bytes with this header, if it must not
    /// (section 5.1.6.2).
    #[must_use]
    pub fn transmit_error(&self, features: Features, len: usize) -> Option<&'static str> {
        let partial = self.flags & flags::NEEDS_CSUM != 0;
        if partial && !features.contains(Features::CSUM) {
            return Some("NEEDS_CSUM without VIRTIO_NET_F_CSUM");
        }
        if partial && usize::from(self.checksum_start) + usize::from(self.checksum_offset) + 2 > len {
            return Some("the checksum lies beyond the frame");
        }
        let needed = match self.gso_type & !flags::GSO_ECN {
            flags::GSO_NONE => return (self.gso_type != 0).then_some("GSO_ECN without a GSO type"),
            flags::GSO_TCPV4 => Features::HOST_TSO4,
            flags::GSO_TCPV6 => Features::HOST_TSO6,
            flags::GSO_UDP_L4 => Features::HOST_USO,
            _ => return Some("unknown gso_type"),
        };
        if !features.contains(needed) {
            return Some("a gso_type that was not negotiated");
        }
        if self.gso_type & flags::GSO_ECN != 0 && !features.contains(Features::HOST_ECN) {
            return Some("GSO_ECN without VIRTIO_NET_F_HOST_ECN");
        }
        if !partial {
            return Some("GSO without NEEDS_CSUM");
        }
        (self.gso_size == 0).then_some("GSO with gso_size 0")
    }

    /// The driver that negotiated `features` can be given a frame with this header (section 5.1.6.4).
    #[must_use]
    pub fn can_be_received(&self, features: Features) -> bool {
        if self.flags != 0 && !features.contains(Features::GUEST_CSUM) {
            return false;
        }
        if self.gso_type & flags::GSO_ECN != 0 && !features.contains(Features::GUEST_ECN) {
            return false;
        }
        match self.gso_type & !flags::GSO_ECN {
            flags::GSO_NONE => true,
            flags::GSO_TCPV4 => features.contains(Features::GUEST_TSO4),
            flags::GSO_TCPV6 => features.contains(Features::GUEST_TSO6),
            flags::GSO_UDP_L4 => features.intersects(Features::GUEST_USO4 | Features::GUEST_USO6),
            _ => false,
        }
    }
}

/// Completes a partial checksum in `frame`, as a wire needs it. `false` when it does not lie inside.
pub fn complete_checksum(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let (start, offset) = (usize::from(start), usize::from(offset));
    let Some(summed) = frame.get(start..) else { return false };
    if offset + 2 > summed.len() {
        return false;
    }
    let mut sum = 0_u64;
    for pair in summed.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u64::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    let folded = !u16::try_from(sum).unwrap_or(0);
    // Zero means "no checksum" in UDP; its other representation is as good for TCP (RFC 768, RFC 1624).
    let stored = if folded == 0 { 0xffff } else { folded };
    frame[start + offset..start + offset + 2].copy_from_slice(&stored.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_what_was_written() {
        let header = NetHeader {
            flags: 1,
            gso_type: 4,
            header_len: 54,
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
            ..NetHeader::default()
        };
        let bytes = header.bytes(3);
        let mut short = [0; 12];
        short.copy_from_slice(&bytes[..12]);
        assert_eq!(NetHeader::parse(&short), (header, 3));
    }

    #[test]
    fn a_transmit_header_that_contradicts_the_features_is_named() {
        let all = Features::all();
        let fine = NetHeader {
            flags: 1,
            gso_type: 1,
            gso_size: 1448,
            checksum_start: 34,
            checksum_offset: 16,
            ..NetHeader::default()
        };
        assert_eq!(fine.transmit_error(all, 3000), None);
        for (wrong, features) in [
            (NetHeader { gso_size: 0, ..fine }, all),
            (NetHeader { flags: 0, ..fine }, all),
            (NetHeader { gso_type: 2, ..fine }, all),
            (NetHeader { checksum_start: 2990, ..fine }, all),
            (fine, Features::CSUM),
            (fine, Features::HOST_TSO4),
        ] {
            assert!(wrong.transmit_error(features, 3000).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_completed_checksum_sums_to_zero() {
        let mut frame: Vec<u8> = (0_u8..60).collect();
        frame[40..42].copy_from_slice(&[0x12, 0x34]);
        assert!(complete_checksum(&mut frame, 34, 6));
        let sum = frame[34..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        // The seed in the field was summed too and is gone now, so adding it gives zero.
        assert_eq!((sum + 0x1234) % 0xffff, 0);
        assert!(!complete_checksum(&mut frame, 58, 6));
    }
}
