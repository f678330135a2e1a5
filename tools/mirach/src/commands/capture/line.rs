//! A captured frame as a line of text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dataplane::control::hex;
use dataplane::headers::{Fragment, NetworkKind, TransportKind, parse};
use dataplane::network::config::Protocol;
use drivers::nic::MacAddress;

use super::Frame;

/// `12:34:56.123456789 vm0 receive red: tcp 10.0.0.1:1000 > 10.0.0.2:80, 60 bytes`.
pub(super) fn text(frame: &Frame) -> String {
    let of_day = frame.nanoseconds / 1_000_000_000 % 86_400;
    let (hours, minutes, seconds) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let rest = frame.nanoseconds % 1_000_000_000;
    let mut text = format!("{hours:02}:{minutes:02}:{seconds:02}.{rest:09} {} {}", frame.port, frame.point);
    if let Some(to) = &frame.to {
        text.push_str(&format!(" to {to}"));
    }
    if let Some(network) = &frame.network {
        text.push_str(&format!(" {network}"));
    }
    let bytes = hex::read(&frame.bytes).unwrap_or_default();
    text.push_str(&format!(": {}, {} bytes", summary(&bytes, frame.length), frame.length));
    if let Some(reason) = &frame.reason {
        text.push_str(&format!("; dropped, {reason}: {}", frame.sentence.as_deref().unwrap_or_default()));
    }
    text
}

/// Who sends what to whom, by the outermost headers.
fn summary(bytes: &[u8], length: usize) -> String {
    let headers = parse(bytes, length);
    let tag = headers.vlan_id().map(|vlan| format!("vlan {vlan} ")).unwrap_or_default();
    let addresses = addresses(bytes, headers.network, headers.network_at.into());
    let Some((source, destination)) = addresses else {
        let mac = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<6>()).map(|mac| MacAddress(*mac));
        return match (mac(6), mac(0)) {
            (Some(source), Some(destination)) => format!("{tag}{:#06x} {source} > {destination}", headers.ether_type),
            _ => "too short a frame".to_owned(),
        };
    };
    if headers.network == NetworkKind::Arp {
        let kind = if headers.protocol == 1 { "who has" } else { "tells" };
        return format!("{tag}arp {source} {kind} {destination}");
    }
    let protocol = Protocol(headers.protocol);
    let port = |at: usize| {
        let place = usize::from(headers.transport_at) + at;
        bytes.get(place..).and_then(|rest| rest.first_chunk::<2>()).map(|port| u16::from_be_bytes(*port))
    };
    let has_ports = matches!(headers.transport, TransportKind::Tcp | TransportKind::Udp | TransportKind::Sctp);
    let end = |address: IpAddr, port: Option<u16>| match (address, port.filter(|_| has_ports)) {
        (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        (address, Some(port)) => format!("{address}:{port}"),
        (address, None) => address.to_string(),
    };
    let fragment = if headers.fragment == Fragment::Whole { "" } else { " fragment" };
    format!("{tag}{protocol}{fragment} {} > {}", end(source, port(0)), end(destination, port(2)))
}

fn addresses(bytes: &[u8], network: NetworkKind, at: usize) -> Option<(IpAddr, IpAddr)> {
    let v4 = |place: usize| Some(IpAddr::from(Ipv4Addr::from(*bytes.get(at + place..)?.first_chunk::<4>()?)));
    let v6 = |place: usize| Some(IpAddr::from(Ipv6Addr::from(*bytes.get(at + place..)?.first_chunk::<16>()?)));
    match network {
        NetworkKind::Ipv4 => Some((v4(12)?, v4(16)?)),
        NetworkKind::Ipv6 => Some((v6(8)?, v6(24)?)),
        NetworkKind::Arp => Some((v4(14)?, v4(24)?)),
        NetworkKind::None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::why::frame_of_words;

    fn captured(words: &str) -> Frame {
        let bytes = frame_of_words(words);
        Frame {
            nanoseconds: 45_296_123_456_789,
            point: "receive".to_owned(),
            port: "vm0".to_owned(),
            length: bytes.len(),
            bytes: hex::write(&bytes),
            ..Frame::default()
        }
    }

    #[test]
    fn a_line_says_what_it_is() {
        for (words, expected) in [
            ("tcp 10.0.0.1:1000 > 10.0.0.2:80", "tcp 10.0.0.1:1000 > 10.0.0.2:80, 70 bytes"),
            ("udp [fd00::1]:1 > [fd00::2]:2 vlan 7", "vlan 7 udp [fd00::1]:1 > [fd00::2]:2, 82 bytes"),
            ("icmp 10.0.0.1 > 10.0.0.2", "icmp 10.0.0.1 > 10.0.0.2, 58 bytes"),
            ("arp 10.0.0.1 > 10.0.0.2", "arp 10.0.0.1 who has 10.0.0.2, 42 bytes"),
        ] {
            assert_eq!(text(&captured(words)), format!("12:34:56.123456789 vm0 receive: {expected}"));
        }
        let dropped = Frame {
            network: Some("red".to_owned()),
            reason: Some("denied".to_owned()),
            sentence: Some("a rule denies it".to_owned()),
            ..captured("icmp 10.0.0.1 > 10.0.0.2")
        };
        let text_of = text(&dropped);
        let expected = "receive red: icmp 10.0.0.1 > 10.0.0.2, 58 bytes; dropped, denied: a rule denies it";
        assert!(text_of.ends_with(expected), "{text_of}");
        // Whatever the bytes are.
        for length in 0..60 {
            let bytes: Vec<u8> = frame_of_words("tcp 10.0.0.1:1 > 10.0.0.2:2").into_iter().take(length).collect();
            let short = Frame { bytes: hex::write(&bytes), length: 70, ..Frame::default() };
            assert!(text(&short).ends_with("70 bytes"), "{}", text(&short));
        }
    }
}
