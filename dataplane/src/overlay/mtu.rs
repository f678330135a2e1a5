//! Telling a sender that its packet did not get there: it is too big for what lies between hosts, or may take no further hop.
//!
//! The first answer looks as if it came from where the packet was going: the network inside has no router of its own between the two. The second comes from the
//! virtual router.

use std::net::IpAddr;

use hugemem::Packet;

use crate::checksum::{fold, pseudo_header, sum};
use crate::headers::{ETHERNET, Fragment, Headers, NetworkKind, TransportKind, protocol};
use crate::whole;

const IPV4: usize = 20;
const IPV6: usize = 40;
const ICMP: usize = 8;
/// Most of an IPv4 packet that an answer is (RFC 1812, section 4.3.2.3).
const MOST_IPV4: usize = 576;
/// Most of an IPv6 packet that an answer is (RFC 4443, section 3.2), and least MTU that may be told (RFC 8201, section 4).
const LEAST_IPV6: usize = 1280;

/// Bytes that the longest answer has: what [`too_big`] needs as room.
pub const LONGEST_ANSWER: usize = ETHERNET + 8 + LEAST_IPV6;

/// Makes `answer`, a packet of one's own, the message that tells the sender of `packet` that `mtu` bytes are the longest IP packet that fits:
/// ICMP "fragmentation needed" (RFC 1191, section 4) or ICMPv6 "packet too big" (RFC 4443, section 3.2). `headers` are those of `packet`.
///
/// `false` when nobody may be told, and `answer` is of no use: the packet may be fragmented, is no IP, is itself an error message, is a later fragment, comes from nobody or goes
/// to many (RFC 1122, section 3.2.2; RFC 4443, section 2.4), or is IPv6 and so small that every link has to carry it. How often somebody is told is the caller's to limit.
#[must_use]
pub fn too_big(packet: &Packet, headers: &Headers, mtu: usize, answer: &mut Packet) -> bool {
    make(packet, headers, Fault::TooBig(mtu), answer).is_some()
}

/// Makes `answer`, a packet of one's own, the message that tells the sender of `packet` that its time to live ran out at the router with the address `router`: ICMP
/// (RFC 792) or ICMPv6 (RFC 4443, section 3.3) "time exceeded". `headers` are those of `packet`.
///
/// `false` when nobody may be told, and `answer` is of no use: as for [`too_big`], but that the packet may be fragmented and small, and when the router's
/// address is of another family.
#[must_use]
pub fn time_exceeded(packet: &Packet, headers: &Headers, router: IpAddr, answer: &mut Packet) -> bool {
    make(packet, headers, Fault::Expired(router), answer).is_some()
}

/// Why a packet did not get there.
#[derive(Clone, Copy)]
enum Fault {
    TooBig(usize),
    /// At this router.
    Expired(IpAddr),
}

fn make(packet: &Packet, headers: &Headers, fault: Fault, answer: &mut Packet) -> Option<()> {
    if headers.malformed.is_some() || headers.fragment == Fragment::Later {
        return None;
    }
    let bytes = packet.bytes();
    let network = usize::from(headers.network_at);
    // Ethernet and its tags, to go back where they came from.
    let ethernet = bytes.get(..network)?;
    let (destination, source) = (ethernet.get(..6)?, ethernet.get(6..12)?);
    if (destination.first()? | source.first()?) & 1 != 0 {
        return None;
    }
    let ip = bytes.get(network..)?;
    let quotable = (headers.end as usize).checked_sub(network)?;
    let too_big = matches!(fault, Fault::TooBig(_));
    let (header, most) = match headers.network {
        // Only who forbade fragments wants to know that a packet is too big.
        NetworkKind::Ipv4
            if (!too_big || ip.get(6)? & 0x40 != 0) && may_be_told_v4(ip.first_chunk()?, bytes, headers) =>
        {
            (IPV4, MOST_IPV4)
        }
        NetworkKind::Ipv6
            if (!too_big || quotable > LEAST_IPV6) && may_be_told_v6(ip.first_chunk()?, bytes, headers) =>
        {
            (IPV6, LEAST_IPV6)
        }
        _ => return None,
    };
    let quoted = quotable.min(most - header - ICMP);
    answer.resize(network + header + ICMP + quoted).ok()?;
    *answer.metadata_mut() = hugemem::Metadata { vlan: packet.metadata().vlan, ..hugemem::Metadata::default() };
    let target = answer.bytes_mut();
    target.get_mut(..6)?.copy_from_slice(source);
    target.get_mut(6..12)?.copy_from_slice(destination);
    target.get_mut(12..network)?.copy_from_slice(ethernet.get(12..)?);
    let (front, quote) = target.get_mut(network..)?.split_at_mut_checked(header + ICMP)?;
    if whole::read(packet, network, quote) != quoted {
        return None;
    }
    let (front, icmp) = front.split_at_mut_checked(header)?;
    let icmp: &mut [u8; ICMP] = icmp.first_chunk_mut()?;
    match headers.network {
        NetworkKind::Ipv4 => {
            let to: &[u8; IPV4] = ip.first_chunk()?;
            let mut from = *to.last_chunk::<4>()?;
            *icmp = match fault {
                Fault::TooBig(mtu) => {
                    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes();
                    [3, 4, 0, 0, 0, 0, mtu[0], mtu[1]]
                }
                Fault::Expired(IpAddr::V4(router)) => {
                    from = router.octets();
                    [11, 0, 0, 0, 0, 0, 0, 0]
                }
                Fault::Expired(IpAddr::V6(_)) => return None,
            };
            set_checksum(icmp, sum(quote));
            ipv4(front.first_chunk_mut()?, from, to, ICMP + quoted)
        }
        _ => {
            let to: &[u8; IPV6] = ip.first_chunk()?;
            let mut from = *to.last_chunk::<16>()?;
            *icmp = match fault {
                Fault::TooBig(mtu) => {
                    let [a, b, c, d] = u32::try_from(mtu.max(LEAST_IPV6)).unwrap_or(u32::MAX).to_be_bytes();
                    [2, 0, 0, 0, a, b, c, d]
                }
                Fault::Expired(IpAddr::V6(router)) => {
                    from = router.octets();
                    [3, 0, 0, 0, 0, 0, 0, 0]
                }
                Fault::Expired(IpAddr::V4(_)) => return None,
            };
            let addresses = ipv6(front.first_chunk_mut()?, from, to, ICMP + quoted)?;
            set_checksum(icmp, sum(quote) + pseudo_header(&addresses, protocol::ICMPV6, ICMP + quoted));
            Some(())
        }
    }
}

fn set_checksum(icmp: &mut [u8; ICMP], rest: u64) {
    let checksum = !fold(sum(icmp) + rest);
    icmp[2..4].copy_from_slice(&checksum.to_ne_bytes());
}

/// The header of the answer, from `from`, to a packet with the header `to`, in front of `len` bytes.
fn ipv4(header: &mut [u8; IPV4], from: [u8; 4], to: &[u8; IPV4], len: usize) -> Option<()> {
    let total = u16::try_from(IPV4 + len).ok()?.to_be_bytes();
    // Precedence of internetwork control (RFC 1812, section 4.3.2.5); never fragmented.
    *header = [0x45, 0xc0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol::ICMP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&from);
    header[16..20].copy_from_slice(&to[12..16]);
    let checksum = !fold(sum(header));
    header[10..12].copy_from_slice(&checksum.to_ne_bytes());
    Some(())
}

/// The same for IPv6; gives the addresses of the answer.
fn ipv6(header: &mut [u8; IPV6], from: [u8; 16], to: &[u8; IPV6], len: usize) -> Option<[u8; 32]> {
    let len = u16::try_from(len).ok()?.to_be_bytes();
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, len[0], len[1], protocol::ICMPV6, 64]);
    header[8..24].copy_from_slice(&from);
    header[24..40].copy_from_slice(&to[8..24]);
    header.last_chunk().copied()
}

/// The sender is somebody, and does not only tell of an error itself.
fn may_be_told_v4(header: &[u8; IPV4], bytes: &[u8], headers: &Headers) -> bool {
    // Nobody, a group, or this host itself; group addresses and the broadcast address are the last.
    let somebody = |first: u8| (1..224).contains(&first) && first != 127;
    // Echo, timestamp and information messages ask; all others tell (RFC 792).
    let asks = [0, 8, 13, 14, 15, 16, 17, 18];
    let tells = headers.transport == TransportKind::Icmp
        && bytes.get(usize::from(headers.transport_at)).is_none_or(|kind| !asks.contains(kind));
    somebody(header[12]) && somebody(header[16]) && !tells
}

/// The sender is somebody, the receiver is one, and the packet does not itself tell of an error.
fn may_be_told_v6(header: &[u8; IPV6], bytes: &[u8], headers: &Headers) -> bool {
    let group = |first: u8| first == 0xff;
    let unspecified = header[8..24].iter().all(|byte| *byte == 0);
    // Types below 128 are errors (RFC 4443, section 2.1), and a redirect counts as one.
    let tells = headers.transport == TransportKind::Icmpv6
        && bytes.get(usize::from(headers.transport_at)).is_none_or(|kind| *kind < 128 || *kind == 137);
    !unspecified && !group(header[8]) && !group(header[24]) && !tells
}
