//! Frames made and understood in software: flows, headers and checksums, independent of any driver and any model.

use anyhow::{Context, Result, ensure};
use hugemem::Checksum;

/// Ethernet header without tag.
pub const ETHERNET: usize = 14;

/// Types of Ethernet payload.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
/// For local experiments (IEEE 802); nobody on the way looks into it.
const EXPERIMENT: u16 = 0x88b5;

/// Protocol above the internet header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum is in the header.
    fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Addresses of both ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ends {
    /// Source and target.
    V4([u8; 4], [u8; 4]),
    /// Source and target.
    V6([u8; 16], [u8; 16]),
}

/// One direction of a conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Addresses.
    pub ends: Ends,
    /// Source and target port.
    pub ports: (u16, u16),
    /// Protocol.
    pub transport: Transport,
}

/// All combinations of internet and transport protocol.
pub const KINDS: [(bool, Transport); 4] =
    [(false, Transport::Tcp), (false, Transport::Udp), (true, Transport::Tcp), (true, Transport::Udp)];

impl Flow {
    /// Flow number `number` of its kind; the addresses are those for measurements (RFC 2544, RFC 5180).
    #[must_use]
    pub fn numbered(number: u16, v6: bool, transport: Transport) -> Self {
        let [high, low] = number.to_be_bytes();
        let ends = if v6 {
            let base = [0x20, 0x01, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let end = |tail: [u8; 2]| {
                let mut address = [0; 16];
                address[..14].copy_from_slice(&base);
                address[14..].copy_from_slice(&tail);
                address
            };
            Ends::V6(end([high, low]), end([0x80, 1]))
        } else {
            Ends::V4([198, 18, high, low], [198, 19, 0, 1])
        };
        Self { ends, ports: (number.wrapping_mul(7).wrapping_add(1024), 443), transport }
    }

    /// The other direction.
    #[must_use]
    pub fn reversed(self) -> Self {
        let ends = match self.ends {
            Ends::V4(a, b) => Ends::V4(b, a),
            Ends::V6(a, b) => Ends::V6(b, a),
        };
        Self { ends, ports: (self.ports.1, self.ports.0), ..self }
    }

    /// A whole frame from `source` to `target` with right checksums.
    #[must_use]
    pub fn frame(&self, target: [u8; 6], source: [u8; 6], payload: &[u8]) -> Vec<u8> {
        let mut segment = Vec::with_capacity(payload.len() + 20);
        segment.extend(self.ports.0.to_be_bytes());
        segment.extend(self.ports.1.to_be_bytes());
        match self.transport {
            // Sequence, acknowledgement, 20 bytes of header, PSH and ACK, window, checksum, urgent.
            Transport::Tcp => segment.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0]),
            Transport::Udp => {
                segment.extend(low16(payload.len() + 8).to_be_bytes());
                segment.extend([0, 0]);
            }
        }
        segment.extend_from_slice(payload);
        let mut frame = ethernet(target, source);
        match self.ends {
            Ends::V4(from, to) => {
                frame.extend(IPV4.to_be_bytes());
                frame.extend([0x45, 0]);
                frame.extend(low16(segment.len() + 20).to_be_bytes());
                frame.extend([0xff, 0xfe, 0x40, 0, 64, self.transport.protocol(), 0, 0]);
                frame.extend(from);
                frame.extend(to);
            }
            Ends::V6(from, to) => {
                frame.extend(IPV6.to_be_bytes());
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(low16(segment.len()).to_be_bytes());
                frame.extend([self.transport.protocol(), 64]);
                frame.extend(from);
                frame.extend(to);
            }
        }
        frame.extend(segment);
        if let Some(layout) = Layout::of(&frame) {
            layout.complete_internet(&mut frame);
            layout.complete_transport(&mut frame);
        }
        frame
    }
}

fn ethernet(target: [u8; 6], source: [u8; 6]) -> Vec<u8> {
    [target, source].concat()
}

/// A frame of no known protocol: `number`, then bytes that follow from it, `len` in all.
#[must_use]
pub fn experiment(target: [u8; 6], source: [u8; 6], number: u32, len: usize) -> Vec<u8> {
    let mut frame = ethernet(target, source);
    frame.extend(EXPERIMENT.to_be_bytes());
    frame.extend(number.to_be_bytes());
    frame.extend(pattern(number, len.saturating_sub(frame.len())));
    frame
}

/// `len` bytes that follow from `seed`.
#[must_use]
pub fn pattern(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..len).map(|_| byte()).collect()
}

/// The frame with a tag behind its addresses.
#[must_use]
pub fn tagged(frame: &[u8], tag: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12.min(frame.len()));
    [addresses, &VLAN.to_be_bytes(), &tag.to_be_bytes(), rest].concat()
}

/// The low 16 bits: what a length field keeps.
#[must_use]
pub fn low16(value: usize) -> u16 {
    let [low, high, ..] = value.to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Where the headers of a TCP or UDP frame are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The internet header.
    pub internet: usize,
    /// It is IPv6.
    pub v6: bool,
    /// The transport header.
    pub transport: usize,
    /// Its protocol.
    pub protocol: Transport,
}

impl Layout {
    /// Looks at Ethernet, at most one tag, IPv4 or IPv6 without options, TCP or UDP. `None` for anything else.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?));
        let internet = if word(12)? == VLAN { ETHERNET + 4 } else { ETHERNET };
        let (v6, protocol, transport) = match word(internet - 2)? {
            IPV4 if *frame.get(internet)? == 0x45 => (false, *frame.get(internet + 9)?, internet + 20),
            IPV6 => (true, *frame.get(internet + 6)?, internet + 40),
            _ => return None,
        };
        let protocol = match protocol {
            6 => Transport::Tcp,
            17 => Transport::Udp,
            _ => return None,
        };
        (frame.len() >= transport + 8).then_some(Self { internet, v6, transport, protocol })
    }

    /// Bytes of the transport header.
    pub(super) fn transport_header(&self, frame: &[u8]) -> usize {
        match self.protocol {
            Transport::Tcp => usize::from(frame[self.transport + 12] >> 4) * 4,
            Transport::Udp => 8,
        }
    }

    /// The unfolded sum of the pseudo header for `len` bytes of transport.
    fn pseudo_sum(&self, frame: &[u8], len: usize) -> u64 {
        let addresses =
            if self.v6 { self.internet + 8..self.internet + 40 } else { self.internet + 12..self.internet + 20 };
        sum(&frame[addresses]) + u64::from(self.protocol.protocol()) + len as u64
    }

    fn field(&self) -> std::ops::Range<usize> {
        let at = self.transport + self.protocol.checksum_offset();
        at..at + 2
    }

    /// Puts the right checksum into the IPv4 header.
    pub(super) fn complete_internet(&self, frame: &mut [u8]) {
        if !self.v6 {
            frame[self.internet + 10..self.internet + 12].fill(0);
            let value = complement(sum(&frame[self.internet..self.internet + 20]));
            frame[self.internet + 10..self.internet + 12].copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Puts the right checksum into the transport header.
    pub(super) fn complete_transport(&self, frame: &mut [u8]) {
        let field = self.field();
        frame[field.clone()].fill(0);
        let len = frame.len() - self.transport;
        let value = match complement(self.pseudo_sum(frame, len) + sum(&frame[self.transport..])) {
            // In UDP zero says that there is no checksum (RFC 768).
            0 if self.protocol == Transport::Udp => u16::MAX,
            value => value,
        };
        frame[field].copy_from_slice(&value.to_be_bytes());
    }

    /// The transport checksum sums up, pseudo header included.
    #[must_use]
    pub fn is_right(&self, frame: &[u8]) -> bool {
        complement(self.pseudo_sum(frame, frame.len() - self.transport) + sum(&frame[self.transport..])) == 0
    }

    /// The request to complete the checksum, whose field gets the sum of the pseudo header alone.
    #[must_use]
    pub fn make_partial(&self, frame: &mut [u8]) -> Checksum {
        let value = !complement(self.pseudo_sum(frame, frame.len() - self.transport));
        frame[self.field()].copy_from_slice(&value.to_be_bytes());
        Checksum::Partial { start: low16(self.transport), offset: low16(self.protocol.checksum_offset()) }
    }

    /// Leaves the length out of a partial checksum, as cards want it that cut segments: each of these has another one.
    pub(crate) fn leave_out_length(&self, frame: &mut [u8]) {
        let value = !complement(self.pseudo_sum(frame, 0));
        frame[self.field()].copy_from_slice(&value.to_be_bytes());
    }
}

/// The sum of 16-bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(2).map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]))).sum()
}

/// Folds a sum and complements it.
fn complement(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// Does in software what a partial checksum asks for.
///
/// # Errors
/// The field is not inside the frame.
pub fn complete(frame: &mut [u8], start: u16, offset: u16) -> Result<()> {
    let (start, field) = (usize::from(start), usize::from(start) + usize::from(offset));
    ensure!(field + 2 <= frame.len(), "a partial checksum at {field} in a frame of {} bytes", frame.len());
    let layout = Layout::of(frame).context("a partial checksum in a frame that has none")?;
    ensure!((layout.transport, layout.field().start) == (start, field), "a partial checksum in the wrong place");
    let value = match complement(sum(&frame[start..])) {
        0 if layout.protocol == Transport::Udp => u16::MAX,
        value => value,
    };
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_partial_checksum_completes_to_what_was_there() {
        for (v6, transport) in KINDS {
            for len in [0, 1, 7, 1400] {
                let frame = Flow::numbered(3, v6, transport).frame([2; 6], [4; 6], &pattern(9, len));
                for frame in [tagged(&frame, 7), frame] {
                    let layout = Layout::of(&frame).unwrap();
                    assert!(layout.is_right(&frame));
                    let mut partial = frame.clone();
                    let Checksum::Partial { start, offset } = layout.make_partial(&mut partial) else { unreachable!() };
                    assert!(!layout.is_right(&partial));
                    complete(&mut partial, start, offset).unwrap();
                    assert_eq!(partial, frame);
                }
            }
        }
    }

    #[test]
    fn a_datagram_known_from_the_wire_has_its_checksum() {
        // UDP 10.0.0.1:1 -> 10.0.0.2:2, payload "hi": words of pseudo header and datagram added by hand.
        let flow = Flow { ends: Ends::V4([10, 0, 0, 1], [10, 0, 0, 2]), ports: (1, 2), transport: Transport::Udp };
        let frame = flow.frame([0; 6], [0; 6], b"hi");
        let by_hand = 0x0a00 + 1 + 0x0a00 + 2 + 17 + 10 + 1 + 2 + 10 + 0x6869_u32;
        assert_eq!(frame[40..42], (!u16::try_from(by_hand).unwrap()).to_be_bytes());
    }
}
