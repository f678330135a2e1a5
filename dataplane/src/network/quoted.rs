//! Errors of ICMP: they quote the packet that they are about, and pass when it was one of a connection. Path MTU discovery rests on them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::config::Protocol;
use super::connection::Tuple;
use super::decision::First;
use crate::flow::FlowKey;
use crate::headers::NetworkKind;

/// Whether a packet is an error of ICMP (RFC 792, RFC 4443).
pub(super) fn is_error(key: &FlowKey) -> bool {
    let [kind, _] = key.source_port().to_be_bytes();
    match (key.network(), Protocol(key.protocol())) {
        _ if key.is_later_fragment() => false,
        (NetworkKind::Ipv4, Protocol::ICMP) => matches!(kind, 3 | 11 | 12),
        (NetworkKind::Ipv6, Protocol::ICMPV6) => matches!(kind, 1..=4),
        _ => false,
    }
}

/// The ends of the packet that an error quotes, when it came from where the error goes to. Networks are not filled in.
pub(super) fn tuple(first: &First<'_>) -> Option<Tuple> {
    if !is_error(&first.key) {
        return None;
    }
    let quoted = first.view.get(usize::from(first.headers.transport_at) + 8..)?;
    let (source, destination, protocol, transport): (IpAddr, IpAddr, u8, &[u8]) = match first.key.network() {
        NetworkKind::Ipv4 => {
            let header = quoted.first_chunk::<20>()?;
            let [version_and_length, _, _, _, _, _, fragment, more, _, protocol, _, _, a, b, c, d, e, f, g, h] =
                *header;
            let length = usize::from(version_and_length & 0xf) * 4;
            if version_and_length >> 4 != 4 || length < 20 || (fragment & 0x1f, more) != (0, 0) {
                return None;
            }
            let (source, destination) = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            (source.into(), destination.into(), protocol, quoted.get(length..)?)
        }
        NetworkKind::Ipv6 => {
            // Quoted packets with extension headers have no ports where they are looked for, and are found to be of no connection.
            let header = quoted.first_chunk::<40>()?;
            let address =
                |at: usize| header.get(at..).and_then(<[u8]>::first_chunk::<16>).map(|it| Ipv6Addr::from(*it));
            let [version, _, _, _, _, _, protocol, ..] = *header;
            if version >> 4 != 6 {
                return None;
            }
            (address(8)?.into(), address(24)?.into(), protocol, quoted.get(40..)?)
        }
        _ => return None,
    };
    if Some(source) != first.key.destination() {
        return None;
    }
    let protocol = Protocol(protocol);
    let (source_port, destination_port) = match *transport.first_chunk::<4>()? {
        [a, b, c, d] if protocol.has_ports() => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        [kind, code, ..] if protocol.has_types() => (u16::from_be_bytes([kind, code]), 0),
        _ => (0, 0),
    };
    Some(Tuple { networks: (0, 0), source, destination, protocol, source_port, destination_port })
}
