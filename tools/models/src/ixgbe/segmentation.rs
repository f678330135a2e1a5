//! Checksums and segments of frames to transmit (sections 7.2.4 and 7.2.5).

use super::checksum::{Sum, sctp_check};
use super::descriptor::{Context, Transport};

/// Which bits of the flags of a TCP header remain, in the first, the middle and the last segment (DTXTCPFLGL and DTXTCPFLGH, section 8.2.3.9.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct FlagMasks {
    pub(super) first: u16,
    pub(super) middle: u16,
    pub(super) last: u16,
}

/// What is inserted into a frame.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Checksums {
    pub(super) network: bool,
    pub(super) transport: bool,
}

fn put(frame: &mut [u8], at: usize, value: u16) -> Option<()> {
    frame.get_mut(at..at + 2)?.copy_from_slice(&value.to_be_bytes());
    Some(())
}

fn get(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

impl Context {
    /// Offset of the IP header.
    fn network(&self) -> usize {
        usize::from(self.link_length)
    }

    /// Offset of the transport header.
    fn transport(&self) -> usize {
        self.network() + usize::from(self.network_length)
    }

    /// Bytes of all headers of a segment.
    pub(super) fn headers(&self) -> usize {
        self.transport() + usize::from(self.transport_length)
    }

    /// Inserts the checksums that a data descriptor asks for (section 7.2.5). The transport checksum field holds the pseudo header's sum.
    /// `None`, and the frame is spoilt, when the context does not fit it.
    pub(super) fn insert(&self, frame: &mut [u8], wanted: Checksums) -> Option<()> {
        let (network, transport) = (self.network(), self.transport());
        if wanted.network {
            if !self.ipv4 || self.network_length < 20 {
                return None;
            }
            put(frame, network + 10, 0)?;
            let sum = Sum::default().bytes(frame.get(network..transport)?);
            put(frame, network + 10, sum.checksum())?;
        }
        if !wanted.transport {
            return Some(());
        }
        let field = match self.transport {
            Transport::Udp => transport + 6,
            Transport::Tcp => transport + 16,
            Transport::Sctp => {
                let check = sctp_check(frame.get(transport..).filter(|packet| packet.len() >= 12)?);
                frame.get_mut(transport + 8..transport + 12)?.copy_from_slice(&check);
                return Some(());
            }
            Transport::Reserved => return None,
        };
        let sum = Sum::default().bytes(frame.get(transport..)?);
        put(frame, field, self.never_zero(sum.checksum()))
    }

    /// A UDP checksum of zero would mean that there is none (RFC 768).
    fn never_zero(&self, checksum: u16) -> u16 {
        if checksum == 0 && self.transport == Transport::Udp { 0xffff } else { checksum }
    }

    /// Why this context cannot segment what `checksums` asks for, if it cannot.
    pub(super) fn refusal(&self, checksums: Checksums) -> Option<&'static str> {
        let shortest = match self.transport {
            Transport::Tcp => 20,
            Transport::Udp => 8,
            Transport::Sctp | Transport::Reserved => return Some("segmentation of neither TCP nor UDP"),
        };
        if self.segment == 0 {
            return Some("segmentation with MSS 0");
        }
        if usize::from(self.transport_length) < shortest {
            return Some("segmentation with an L4LEN shorter than the transport header");
        }
        if self.link_length < 14 || self.network_length < if self.ipv4 { 20 } else { 40 } {
            return Some("segmentation with a MACLEN or IPLEN shorter than the headers");
        }
        if !checksums.transport || checksums.network != self.ipv4 {
            return Some("segmentation without TXSM, or without IXSM for IPv4");
        }
        None
    }

    /// How many frames `payload` bytes become.
    pub(super) fn segments(&self, payload: usize) -> usize {
        payload.div_ceil(usize::from(self.segment).max(1)).max(1)
    }

    /// Builds segment `index` of `whole` (headers and payload) in `frame` (section 7.2.4.5). `None` when the headers do not fit the context.
    pub(super) fn segment(&self, whole: &[u8], index: usize, masks: FlagMasks, frame: &mut Vec<u8>) -> Option<()> {
        let (headers, payload) = whole.split_at_checked(self.headers())?;
        let size = usize::from(self.segment);
        let from = index.checked_mul(size)?;
        let part = payload.get(from..payload.len().min(from + size))?;
        let last = from + part.len() == payload.len();
        frame.clear();
        frame.extend_from_slice(headers);
        frame.extend_from_slice(part);
        let (network, transport) = (self.network(), self.transport());
        let after_network = u16::try_from(frame.len() - transport).ok()?;
        if self.ipv4 {
            let identification = get(frame, network + 4)?;
            put(frame, network + 2, after_network.checked_add(self.network_length)?)?;
            let number = u16::try_from(index).ok()?;
            put(frame, network + 4, identification.wrapping_add(number))?;
        } else {
            put(frame, network + 4, after_network.checked_add(self.network_length.checked_sub(40)?)?)?;
        }
        let field = if self.transport == Transport::Tcp {
            let sequence = u32::from_be_bytes(*frame.get(transport + 4..)?.first_chunk()?);
            let sequence = sequence.wrapping_add(u32::try_from(from).ok()?);
            frame.get_mut(transport + 4..transport + 8)?.copy_from_slice(&sequence.to_be_bytes());
            let mask = match (index, last) {
                (0, true) => masks.first | masks.last,
                (0, false) => masks.first,
                (_, false) => masks.middle,
                (_, true) => masks.last,
            };
            // The data offset above the 12 bits of flags stays.
            let flags = get(frame, transport + 12)?;
            put(frame, transport + 12, flags & (mask | 0xf000))?;
            transport + 16
        } else {
            put(frame, transport + 4, after_network)?;
            transport + 6
        };
        // The field holds the sum of a pseudo header without length (section 7.2.4.4).
        let seed = get(frame, field)?;
        put(frame, field, Sum::default().word(seed).word(after_network).folded())?;
        self.insert(frame, Checksums { network: self.ipv4, transport: true })
    }
}

/// Inserts the checksum that a legacy descriptor asks for: of everything from `start`, at `offset` (section 7.2.5.2). Nothing when it does not lie in
/// the frame, as the datasheet has it.
pub(super) fn insert_legacy(frame: &mut [u8], start: usize, offset: usize) {
    if offset < start || offset + 2 > frame.len() {
        return;
    }
    let Some(summed) = frame.get(start..) else { return };
    let checksum = Sum::default().bytes(summed).checksum();
    // What is in the field was summed too: a pseudo header's sum, or zero.
    let _inside = put(frame, offset, checksum);
}

#[cfg(test)]
#[path = "tests/segmentation.rs"]
mod tests;
