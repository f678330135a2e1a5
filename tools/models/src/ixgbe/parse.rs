//! Reads the headers of a frame, once, for everything that the receive path wants to know of them (sections 7.1.1, 7.1.2.8 and 7.1.11).
//!
//! Bounded: it follows at most [`EXTENSIONS`] IPv6 extension headers, and never looks beyond the frame.

use bitflags::bitflags;

bitflags! {
    /// Packet type as it stands in the receive descriptor (section 7.1.6.2, table 7-19).
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub(super) struct Kind: u16 {
        const IPV4 = 1 << 0;
        /// With options.
        const IPV4_LONG = 1 << 1;
        const IPV6 = 1 << 2;
        /// With extension headers.
        const IPV6_LONG = 1 << 3;
        const TCP = 1 << 4;
        const UDP = 1 << 5;
        const SCTP = 1 << 6;
        /// IPsec, encapsulating security payload.
        const ESP = 1 << 8;
        /// IPsec, authentication header.
        const AH = 1 << 9;
    }
}

/// EtherTypes that mark tags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TagTypes {
    /// VLNCTRL.VET.
    pub(super) tag: u16,
    /// EXVET.VET_EXT while CTRL_EXT.EXTENDED_VLAN is set: frames may have an outer tag of this type.
    pub(super) outer: Option<u16>,
}

/// What the headers of a frame say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Parsed {
    pub(super) kind: Kind,
    /// There is an outer tag (at offset 12).
    pub(super) outer: bool,
    /// Priority and VLAN of the 802.1Q tag, and the offset of its EtherType.
    pub(super) tag: Option<(u16, usize)>,
    /// The EtherType, or the length of an 802.3 frame, behind all tags.
    pub(super) ether_type: u16,
    /// Offset of what follows the EtherType.
    pub(super) payload: usize,
    /// Offset of the IP header, when there is one.
    pub(super) network: usize,
    /// Offset of the header behind it. Beyond the frame's end only when nothing is there.
    pub(super) transport: usize,
    /// End of the IP packet: padding of the frame lies beyond.
    pub(super) end: usize,
    /// The IP packet is a fragment of a larger one, and its offset is not 0.
    pub(super) fragment: bool,
    pub(super) later_fragment: bool,
    /// The last IP protocol number that was understood.
    pub(super) protocol: u8,
}

/// IPv6 extension headers that are followed.
const EXTENSIONS: usize = 8;

#[inline]
fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

impl Parsed {
    /// Reads a frame's headers.
    #[inline]
    pub(super) fn new(frame: &[u8], types: TagTypes) -> Self {
        let mut parsed = Self::default();
        parsed.read(frame, types);
        parsed
    }

    /// In place and with one way out, because moving what was just written in pieces stalls the processor.
    #[inline]
    fn read(&mut self, frame: &[u8], types: TagTypes) {
        let mut at = 12;
        let Some(mut kind) = word(frame, at) else { return };
        if let Some(outer) = types.outer
            && kind == outer
            && let Some(next) = word(frame, at + 4)
        {
            self.outer = true;
            at += 4;
            kind = next;
        }
        if kind == types.tag
            && let (Some(tag), Some(next)) = (word(frame, at + 2), word(frame, at + 4))
        {
            self.tag = Some((tag, at));
            at += 4;
            kind = next;
        }
        self.ether_type = kind;
        at += 2;
        self.payload = at;
        if kind <= 1500 && frame.get(at..at + 6) == Some(&[0xaa, 0xaa, 3, 0, 0, 0]) {
            let Some(inner) = word(frame, at + 6) else { return };
            kind = inner;
            at += 8;
        }
        match kind {
            0x0800 => self.version4(frame, at),
            0x86dd => self.version6(frame, at),
            _ => {}
        }
    }

    #[inline]
    fn version4(&mut self, frame: &[u8], at: usize) {
        let Some(header) = frame.get(at..).and_then(|rest| rest.first_chunk::<20>()) else { return };
        let length = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[0] >> 4 != 4 || length < 20 || total < length || at + length > frame.len() {
            return;
        }
        self.kind = Kind::IPV4;
        self.kind.set(Kind::IPV4_LONG, length > 20);
        self.network = at;
        self.transport = at + length;
        self.protocol = header[9];
        let piece = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        self.fragment = piece != 0;
        self.later_fragment = piece & 0x1fff != 0;
        self.end_at(frame, at + total);
        if !self.fragment {
            self.classify();
        }
    }

    #[inline]
    fn version6(&mut self, frame: &[u8], at: usize) {
        let Some(header) = frame.get(at..).and_then(|rest| rest.first_chunk::<40>()) else { return };
        if header[0] >> 4 != 6 {
            return;
        }
        self.kind = Kind::IPV6;
        self.network = at;
        self.end_at(frame, at + 40 + usize::from(u16::from_be_bytes([header[4], header[5]])));
        let mut next = header[6];
        let mut here = at + 40;
        for _ in 0..EXTENSIONS {
            // Hop by hop, routing, fragment, destination options (RFC 8200, section 4).
            if !matches!(next, 0 | 43 | 44 | 60) {
                break;
            }
            let Some(option) = frame.get(here..).and_then(|rest| rest.first_chunk::<8>()) else { break };
            self.kind |= Kind::IPV6_LONG;
            if next == 44 {
                self.fragment = true;
                self.later_fragment = u16::from_be_bytes([option[2], option[3]]) & 0xfff8 != 0;
                next = option[0];
                here += 8;
                break;
            }
            // With segments left the destination is not the one that the transport checksum covers, and the chip does not
            // look further (table 7-12).
            if next == 43 && option[3] != 0 {
                self.transport = here;
                return;
            }
            next = option[0];
            here += 8 * (usize::from(option[1]) + 1);
        }
        self.transport = here;
        self.protocol = next;
        if !self.fragment {
            self.classify();
        }
    }

    /// Where the IP packet ends. One that says that it is longer than its frame has no transport header.
    #[inline]
    fn end_at(&mut self, frame: &[u8], end: usize) {
        self.end = if end <= frame.len() { end } else { 0 };
    }

    #[inline]
    fn classify(&mut self) {
        let (kind, shortest) = match self.protocol {
            6 => (Kind::TCP, 20),
            17 => (Kind::UDP, 8),
            132 => (Kind::SCTP, 12),
            50 => (Kind::ESP, 8),
            51 => (Kind::AH, 12),
            _ => return,
        };
        if self.transport + shortest <= self.end {
            self.kind |= kind;
        }
    }

    /// Both addresses of the IP header.
    #[inline]
    pub(super) fn addresses<'frame>(&self, frame: &'frame [u8]) -> Option<&'frame [u8]> {
        let at = self.network;
        if self.kind.contains(Kind::IPV4) {
            frame.get(at + 12..at + 20)
        } else if self.kind.contains(Kind::IPV6) {
            frame.get(at + 8..at + 40)
        } else {
            None
        }
    }

    /// The IP packet's payload, without padding of the frame.
    #[inline]
    pub(super) fn segment<'frame>(&self, frame: &'frame [u8]) -> Option<&'frame [u8]> {
        frame.get(self.transport..self.end)
    }
}

#[cfg(test)]
#[path = "tests/parse.rs"]
mod tests;
