//! Frames with right checksums, made and read by another library.

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

/// The Ethernet address that ends in this.
pub(super) const fn mac(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, last]
}

pub(super) const ROUTER: [u8; 6] = crate::network::topology::ROUTER_MAC.0;
pub(super) const EVERYBODY: [u8; 6] = [0xff; 6];

fn octets(address: &str) -> [u8; 4] {
    address.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn octets6(address: &str) -> [u8; 16] {
    address.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// A UDP datagram with this payload.
pub(super) fn udp(macs: ([u8; 6], [u8; 6]), addresses: (&str, &str), ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    udp_with_ttl(macs, addresses, ports, 64, payload)
}

pub(super) fn udp_with_ttl(
    macs: ([u8; 6], [u8; 6]),
    addresses: (&str, &str),
    ports: (u16, u16),
    ttl: u8,
    payload: &[u8],
) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1);
    let mut frame = Vec::new();
    if addresses.0.contains(':') {
        let builder = builder.ipv6(octets6(addresses.0), octets6(addresses.1), ttl);
        builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
    } else {
        let builder = builder.ipv4(octets(addresses.0), octets(addresses.1), ttl);
        builder.udp(ports.0, ports.1).write(&mut frame, payload).unwrap();
    }
    frame
}

/// A ping.
pub(super) fn ping(macs: ([u8; 6], [u8; 6]), addresses: (&str, &str), payload: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(macs.0, macs.1);
    let mut frame = Vec::new();
    if addresses.0.contains(':') {
        let builder = builder.ipv6(octets6(addresses.0), octets6(addresses.1), 64);
        builder.icmpv6_echo_request(7, 9).write(&mut frame, payload).unwrap();
    } else {
        let builder = builder.ipv4(octets(addresses.0), octets(addresses.1), 64);
        builder.icmpv4_echo_request(7, 9).write(&mut frame, payload).unwrap();
    }
    frame
}

/// An ARP packet: 1 asks, 2 tells.
pub(super) fn arp(operation: u8, sender: ([u8; 6], &str), destination: [u8; 6], target: &str) -> Vec<u8> {
    let mut frame = [destination, sender.0].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(sender.0);
    frame.extend(octets(sender.1));
    frame.extend(if operation == 1 { [0; 6] } else { destination });
    frame.extend(octets(target));
    frame
}

/// A datagram of flow `flow`, the `number`th, with both in its payload.
pub(super) fn numbered(macs: ([u8; 6], [u8; 6]), addresses: (&str, &str), flow: u32, number: u32) -> Vec<u8> {
    let payload = [flow.to_be_bytes(), number.to_be_bytes()].concat();
    let ports = (1024 + (flow % 60_000) as u16, 2000 + (flow / 60_000) as u16);
    udp(macs, addresses, ports, &payload)
}

/// Flow and number of a datagram.
pub(super) fn number_of(frame: &[u8]) -> (u32, u32) {
    let payload = &frame[frame.len() - 8..];
    let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
    (word(0), word(4))
}

/// The frame is whole: each checksum of it is right.
#[track_caller]
pub(super) fn assert_whole(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let (v4, v6) = match sliced.net.as_ref() {
        Some(etherparse::NetSlice::Ipv4(ip)) => (Some(ip.header().to_header()), None),
        Some(etherparse::NetSlice::Ipv6(ip)) => (None, Some(ip.header().to_header())),
        _ => (None, None),
    };
    if let Some(ip) = &v4 {
        assert_eq!(ip.header_checksum, ip.calc_header_checksum(), "IPv4 header");
    }
    match (sliced.transport, v4, v6) {
        (Some(TransportSlice::Icmpv4(icmp)), _, _) => {
            let computed = icmp.icmp_type().calc_checksum(icmp.payload());
            assert_eq!(icmp.checksum(), computed, "ICMP");
        }
        (Some(TransportSlice::Icmpv6(icmp)), _, Some(ip)) => {
            let computed = icmp.icmp_type().calc_checksum(ip.source, ip.destination, icmp.payload()).unwrap();
            assert_eq!(icmp.checksum(), computed, "ICMPv6");
        }
        (Some(TransportSlice::Udp(udp)), Some(ip), _) => {
            let computed = udp.to_header().calc_checksum_ipv4(&ip, udp.payload()).unwrap();
            assert_eq!(udp.checksum(), computed, "UDP");
        }
        _ => {}
    }
}
