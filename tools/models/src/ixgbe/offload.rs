//! Checks checksums of received frames (section 7.1.11).

use super::checksum::{Sum, sctp_check};
use super::descriptor::{ReceiveError, ReceiveStatus};
use super::parse::{Kind, Parsed};

/// What the chip says of a frame's checksums.
#[inline]
pub(super) fn check(frame: &[u8], parsed: &Parsed) -> (ReceiveStatus, ReceiveError) {
    let (mut status, mut error) = (ReceiveStatus::empty(), ReceiveError::empty());
    if parsed.kind.contains(Kind::IPV4) {
        status |= ReceiveStatus::IPCS;
        let header = frame.get(parsed.network..parsed.transport);
        if Sum::default().bytes(header.unwrap_or(&[])).folded() != 0xffff {
            error |= ReceiveError::IPE;
        }
    }
    let checked = Kind::TCP | Kind::UDP | Kind::SCTP;
    if !parsed.kind.intersects(checked) {
        return (status, error);
    }
    let Some(segment) = parsed.segment(frame) else { return (status, error) };
    let good = if parsed.kind.contains(Kind::SCTP) {
        segment.get(8..12) == Some(&sctp_check(segment))
    } else if parsed.kind.contains(Kind::UDP) {
        let Some([_, _, _, _, high, low, check @ ..]) = segment.first_chunk::<8>() else { return (status, error) };
        // A sender that computed none (RFC 768); in IPv6 that is an error (RFC 8200, section 8.1).
        if *check == [0, 0] && parsed.kind.contains(Kind::IPV4) {
            return (status, error);
        }
        status |= ReceiveStatus::UDPCS;
        let length = u16::from_be_bytes([*high, *low]);
        let datagram = segment.get(..usize::from(length)).filter(|datagram| datagram.len() >= 8);
        *check != [0, 0] && datagram.is_some_and(|datagram| sums_up(frame, parsed, 17, datagram))
    } else {
        sums_up(frame, parsed, 6, segment)
    };
    status |= ReceiveStatus::L4CS;
    if !good {
        error |= ReceiveError::L4E;
    }
    (status, error)
}

/// A segment and its pseudo header sum up to all ones.
#[inline]
fn sums_up(frame: &[u8], parsed: &Parsed, protocol: u16, segment: &[u8]) -> bool {
    let addresses = parsed.addresses(frame).unwrap_or(&[]);
    let length = u32::try_from(segment.len()).unwrap_or(u32::MAX);
    Sum::default().bytes(addresses).word(protocol).length(length).bytes(segment).folded() == 0xffff
}

/// What stands in the descriptor in place of the hash while RXCSUM.PCSD is 0 (section 7.1.2.8.3 and table 7-17): identification of the IP packet and, for a
/// fragment of a UDP datagram over IPv4 while RXCSUM.IPPCSE is 1, the sum of its payload.
pub(super) fn fragment(frame: &[u8], parsed: &Parsed, sums: bool) -> (u32, ReceiveStatus) {
    if !parsed.kind.contains(Kind::IPV4) {
        return (0, ReceiveStatus::empty());
    }
    let at = parsed.network;
    let identification = frame.get(at + 4..at + 6).map_or(0, |id| u32::from(id[0]) << 8 | u32::from(id[1]));
    if !(sums && parsed.fragment && parsed.protocol == 17) {
        return (identification, ReceiveStatus::empty());
    }
    let payload = parsed.segment(frame).unwrap_or(&[]);
    let sum = u32::from(Sum::default().bytes(payload).folded());
    let first = !parsed.later_fragment && payload.get(6..8).is_some_and(|check| check != [0, 0]);
    let valid = if first { ReceiveStatus::UDPV } else { ReceiveStatus::empty() };
    (sum << 16 | identification, valid | ReceiveStatus::UDPCS)
}
