//! What fits, and what senders are told that does not.

use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4};
use hugemem::{Checksum, Segmentation, SegmentationKind};

use super::*;
use crate::overlay::mtu::{LONGEST_ANSWER, too_big};

#[test]
fn the_longest_frame_fits_and_one_byte_more_does_not() {
    for (addresses, mtu, room) in [(v4(), 1500, 1464), (v6(), 1500, 1444), (v6(), 1280, 1224), (v4(), 9000, 8964)] {
        for vlan in [None, Some(5)] {
            let encapsulation =
                Encapsulation { vlan, mtu, ..Encapsulation::new(TunnelKind::Vxlan, 1, addresses, HERE, THERE) };
            let template = encapsulation.template().unwrap();
            assert_eq!((template.room(), template.inner_mtu()), (room, room - 14));
            let mut fits = packet(&payload(room));
            encapsulate(&mut fits, &template, 1).unwrap();
            let network = if vlan.is_some() { 18 } else { 14 };
            assert_eq!(fits.len() - network, usize::from(mtu), "the IP packet is as long as the MTU");
            let mut more = packet(&payload(room + 1));
            assert_eq!(encapsulate(&mut more, &template, 1), Err(Reason::TooBig));
            assert_eq!(bytes_of(&more), payload(room + 1));
            let mut tagged = packet(&payload(room - 3));
            tagged.metadata_mut().vlan = Some(1);
            assert_eq!(encapsulate(&mut tagged, &template, 1), Err(Reason::TooBig), "the tag counts");
        }
    }
}

#[test]
fn of_a_packet_that_is_to_be_cut_each_segment_has_to_fit() {
    let template = Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE).template().unwrap();
    let attempt = |size| {
        let mut packet = packet(&tcp(0, 20_000));
        packet.metadata_mut().checksum = Checksum::Partial { start: 34, offset: 16 };
        let segmentation = Segmentation { kind: SegmentationKind::TcpV4, size, header_len: 0, ecn: false };
        packet.metadata_mut().segmentation = Some(segmentation);
        encapsulate(&mut packet, &template, 1)
    };
    assert_eq!(attempt(1464 - 54), Ok(()));
    assert_eq!(attempt(1464 - 53), Err(Reason::TooBig));
}

/// The answer about `frame`, whose first 128 bytes alone are at hand.
fn answer_to(frame: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let packet = foreign(frame, 128);
    let mut answer = pool(1, LONGEST_ANSWER).take().unwrap();
    too_big(&packet, &headers_of(&packet), mtu, &mut answer).then(|| bytes_of(&answer))
}

#[test]
fn a_sender_over_ipv4_is_told_what_fits() {
    for (len, tags) in [(1500, 0), (100, 0), (1500, 1)] {
        let mut frame = tcp(0, len);
        for tag in 0..tags {
            frame.splice(12..12, [0x81, 0, 0, tag]);
        }
        let bytes = answer_to(&frame, 1450).unwrap();
        assert_eq!(bytes[..12], [&frame[6..12], &frame[..6]].concat());
        let network = 14 + 4 * usize::from(tags);
        let answer = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(NetSlice::Ipv4(ip)) = answer.net else { panic!("no IPv4") };
        let header = ip.header().to_header();
        assert_eq!((header.source, header.destination), ([10, 0, 0, 2], [10, 0, 0, 1]));
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert!(usize::from(header.total_len) <= 576);
        let Some(TransportSlice::Icmpv4(icmp)) = answer.transport else { panic!("no ICMP") };
        let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: 1450 };
        assert_eq!(icmp.header().icmp_type, Icmpv4Type::DestinationUnreachable(needed));
        assert_eq!(icmp.header().checksum, icmp.header().icmp_type.calc_checksum(icmp.payload()));
        let quoted = (frame.len() - network).min(548);
        assert_eq!(icmp.payload(), &frame[network..network + quoted]);
    }
}

#[test]
fn a_sender_over_ipv6_is_told_what_fits() {
    for (told, mtu) in [(1430, 1430), (1280, 1210)] {
        let frame = udp6(0, 1500);
        let bytes = answer_to(&frame, mtu).unwrap();
        let answer = SlicedPacket::from_ethernet(&bytes).unwrap();
        let Some(NetSlice::Ipv6(ip)) = answer.net else { panic!("no IPv6") };
        let header = ip.header().to_header();
        assert_eq!((&header.source[..], &header.destination[..]), (&frame[38..54], &frame[22..38]));
        assert_eq!(bytes.len() - 14, 1280);
        let Some(TransportSlice::Icmpv6(icmp)) = answer.transport else { panic!("no ICMPv6") };
        assert_eq!(icmp.header().icmp_type, Icmpv6Type::PacketTooBig { mtu: told });
        assert!(icmp.is_checksum_valid(header.source, header.destination));
        assert_eq!(icmp.payload(), &frame[54 - 40..54 - 40 + 1232]);
    }
}

#[test]
fn nobody_else_is_told() {
    let good = tcp(0, 1500);
    let change = |at: usize, byte: u8| {
        let mut frame = good.clone();
        frame[at] = byte;
        answer_to(&frame, 1450)
    };
    assert!(change(0, 2).is_some(), "unchanged");
    assert_eq!(change(0, 0xff), None, "to everybody");
    assert_eq!(change(6, 3), None, "from a group");
    assert_eq!(change(20, 0), None, "may be fragmented");
    assert_eq!(change(21, 100), None, "a later fragment");
    assert_eq!(change(26, 0), None, "from nobody");
    assert_eq!(change(26, 127), None, "from itself");
    assert_eq!(change(30, 224), None, "to a group");
    assert_eq!(change(14, 0x55), None, "of another version");
    let mut icmp = good.clone();
    icmp[23] = 1;
    icmp[34] = 8;
    assert!(answer_to(&icmp, 1450).is_some(), "a question");
    icmp[34] = 3;
    assert_eq!(answer_to(&icmp, 1450), None, "an error message");
    assert_eq!(answer_to(&payload(1500), 1450), None, "no IP");

    let good = udp6(0, 1500);
    let change = |range: std::ops::Range<usize>, byte: u8| {
        let mut frame = good.clone();
        frame[range].fill(byte);
        answer_to(&frame, 1450)
    };
    assert!(change(0..0, 0).is_some(), "unchanged");
    assert_eq!(change(22..38, 0), None, "from nobody");
    assert_eq!(change(38..39, 0xff), None, "to a group");
    assert_eq!(answer_to(&udp6(0, 1232), 1210), None, "every link carries 1280 bytes");
    assert!(answer_to(&udp6(0, 1233), 1210).is_some());
    let mut icmp = good.clone();
    icmp[20] = 58;
    icmp[54] = 128;
    assert!(answer_to(&icmp, 1450).is_some(), "a question");
    icmp[54] = 2;
    assert_eq!(answer_to(&icmp, 1450), None, "an error message");
    icmp[54] = 137;
    assert_eq!(answer_to(&icmp, 1450), None, "a redirect");
}
