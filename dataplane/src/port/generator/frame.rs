//! The frames of a generator: how they are written and recognised.
//!
//! | bytes | content |
//! |---|---|
//! | 0..14 | Ethernet: to 02:6d:69:00:00:02, from 02:6d:69:00:00:01, IPv4 |
//! | 14..34 | IPv4: from 198.18.0.0 + flow, to 198.19.0.0 + flow, not to be fragmented |
//! | 34..42 | UDP: from port 49152 + flow mod 16384, to port 9 (discard) |
//! | 42..44 | the letters `mi` |
//! | 44..52 | number of the frame in its flow, from 0, little-endian |
//! | 52..60 | cycle counter when the frame was made, little-endian |
//! | 60.. | a fixed pattern |

use crate::checksum::{complement, fold, sum};

/// Bytes of a frame that differ from frame to frame; the rest is pattern.
pub const HEAD: usize = 60;

/// Where the IPv4 header begins.
const IP: usize = 14;
/// Where the UDP header begins.
const UDP: usize = 34;
/// First bytes of the payload.
const MARK: [u8; 2] = *b"mi";

const TEMPLATE: [u8; HEAD] = {
    let mut bytes = [0; HEAD];
    let fixed: [u8; 14] = [2, 0x6d, 0x69, 0, 0, 2, 2, 0x6d, 0x69, 0, 0, 1, 0x08, 0x00];
    let mut index = 0;
    while index < fixed.len() {
        bytes[index] = fixed[index];
        index += 1;
    }
    bytes[IP] = 0x45;
    // Don't fragment.
    bytes[IP + 6] = 0x40;
    // Time to live, and UDP.
    bytes[IP + 8] = 64;
    bytes[IP + 9] = 17;
    bytes[IP + 12] = 198;
    bytes[IP + 13] = 18;
    bytes[IP + 16] = 198;
    bytes[IP + 17] = 19;
    // Discard.
    bytes[UDP + 3] = 9;
    bytes[42] = MARK[0];
    bytes[43] = MARK[1];
    bytes
};

/// The byte of the pattern at `offset` of the frame.
#[expect(clippy::cast_possible_truncation, reason = "a pattern of bytes")]
pub(super) const fn pattern(offset: usize) -> u8 {
    (offset.wrapping_mul(7).wrapping_add(offset >> 8)) as u8
}

/// What tells one frame from another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Its flow.
    pub flow: u16,
    /// Its number in the flow.
    pub sequence: u64,
    /// Cycle counter when it was made.
    pub stamp: u64,
}

/// Writes the first bytes of frames. Checksums are computed from the fields' values, never from bytes just written: a load
/// that spans several small stores waits for all of them.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// Sum of the IPv4 header's fixed part.
    ip: u64,
    /// Sum of what is fixed in pseudo header, UDP header and payload head.
    udp: u64,
    /// Sums of the pattern from [`HEAD`] to each frame length.
    pattern: Vec<u16>,
}

impl Writer {
    /// For frames of up to `longest` bytes.
    pub(super) fn new(longest: u16) -> Self {
        let bytes: Vec<u8> = (HEAD..usize::from(longest).max(HEAD)).map(pattern).collect();
        let pattern = (0..=bytes.len()).map(|len| fold(sum(bytes.get(..len).unwrap_or_default()))).collect();
        Self { ip: sum(&TEMPLATE[IP..UDP]), udp: sum(&TEMPLATE[26..]) + PROTOCOL, pattern }
    }

    /// Writes the head of a frame of `len` bytes, of which there are at least [`HEAD`].
    #[inline]
    pub(super) fn write(&self, bytes: &mut [u8; HEAD], identity: Identity, len: u16) {
        // All in the order of memory, as the sums are.
        let flow = identity.flow.to_be();
        let port = (0xc000 | (identity.flow & 0x3fff)).to_be();
        let (ip_len, udp_len) = ((len - 14).to_be(), (len - 34).to_be());
        let (sequence, stamp) = (identity.sequence.to_le(), identity.stamp.to_le());
        let pattern = usize::from(len).checked_sub(HEAD).and_then(|tail| self.pattern.get(tail)).copied().unwrap_or(0);
        let wide = |word: u16| u64::from(word);
        let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
        let ip = !fold(self.ip + wide(ip_len) + 2 * wide(flow));
        // The length counts twice: in the header and in the pseudo header (RFC 768).
        let fields = 2 * wide(flow) + wide(port) + 2 * wide(udp_len) + halves(sequence) + halves(stamp);
        let udp = complement(self.udp + fields + wide(pattern));
        *bytes = TEMPLATE;
        for (place, word) in [(16, ip_len), (24, ip), (28, flow), (32, flow), (34, port), (38, udp_len), (40, udp)] {
            bytes[place..place + 2].copy_from_slice(&word.to_ne_bytes());
        }
        bytes[44..52].copy_from_slice(&sequence.to_ne_bytes());
        bytes[52..60].copy_from_slice(&stamp.to_ne_bytes());
    }
}

/// The protocol in the pseudo header, as it sums.
const PROTOCOL: u64 = u16::from_ne_bytes([0, 17]) as u64;

/// What the sink takes a frame for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// An intact frame of a generator.
    Intact(Identity),
    /// A frame of a generator whose bytes were changed.
    Corrupt,
    /// A frame that no generator made.
    Foreign,
}

/// Reads a frame, the whole of it in one piece. Every byte is checked.
#[inline]
#[must_use]
pub fn read(frame: &[u8]) -> Verdict {
    let Some(head) = frame.first_chunk::<HEAD>() else { return Verdict::Foreign };
    let ours = head[12..15] == TEMPLATE[12..15]
        && head[23] == TEMPLATE[23]
        && head[30..32] == TEMPLATE[30..32]
        && head[36..38] == TEMPLATE[36..38]
        && head[42..44] == MARK;
    if !ours {
        return Verdict::Foreign;
    }
    let udp_len = [head[38], head[39]];
    let lengths_agree = usize::from(u16::from_be_bytes([head[16], head[17]])) + IP == frame.len()
        && usize::from(u16::from_be_bytes(udp_len)) + UDP == frame.len();
    let pseudo = PROTOCOL + u64::from(u16::from_ne_bytes(udp_len));
    // A sum over everything, checksum included, is all ones.
    if !lengths_agree
        || fold(sum(&head[IP..UDP])) != u16::MAX
        || fold(sum(frame.get(26..).unwrap_or_default()) + pseudo) != u16::MAX
        || head[..12] != TEMPLATE[..12]
    {
        return Verdict::Corrupt;
    }
    let word = |from: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[from..from + 8]);
        u64::from_le_bytes(bytes)
    };
    Verdict::Intact(Identity { flow: u16::from_be_bytes([head[28], head[29]]), sequence: word(44), stamp: word(52) })
}
