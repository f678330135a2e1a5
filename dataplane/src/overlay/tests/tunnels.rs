//! Outer headers against an independent parser, and the way back.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hugemem::{Checksum, Metadata};
use proptest::prelude::*;

use super::*;

#[test]
fn outer_headers_are_what_an_independent_parser_expects() {
    for encapsulation in encapsulations() {
        let template = encapsulation.template().unwrap();
        for (inner, class) in [(tcp(0xb8 | 2, 700), 0xba), (udp6(0x28 | 1, 701), 0x29), (payload(60), 0)] {
            for own in [64, inner.len()] {
                let mut packet = if own < inner.len() { foreign(&inner, own) } else { packet(&inner) };
                encapsulate(&mut packet, &template, 0x1234_5678).unwrap();
                let bytes = if own < inner.len() {
                    let mut whole = super::packet(&bytes_of(&packet));
                    *whole.metadata_mut() = *packet.metadata();
                    complete(&mut whole);
                    bytes_of(&whole)
                } else {
                    complete(&mut packet);
                    bytes_of(&packet)
                };
                check(&encapsulation, &bytes, &inner, class);
            }
        }
    }
}

fn check(encapsulation: &Encapsulation, bytes: &[u8], inner: &[u8], class: u8) {
    assert_eq!(bytes[..12], [THERE.0, HERE.0].concat());
    assert_eq!(encapsulation.vlan.is_some(), bytes[12..14] == [0x81, 0]);
    let outer = SlicedPacket::from_ethernet(bytes).unwrap();
    let Some(TransportSlice::Udp(udp)) = outer.transport else { panic!("no UDP") };
    let header = udp.to_header();
    let (local, remote) = encapsulation.addresses.ends();
    let expected = match outer.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), (local, remote));
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!((ip.dscp.value() << 2) | ip.ecn.value(), class);
            assert_eq!((ip.time_to_live, ip.dont_fragment, ip.identification), (64, true, 0));
            assert_eq!(usize::from(ip.total_len), 20 + 8 + 8 + inner.len());
            header.calc_checksum_ipv4_raw(ip.source, ip.destination, udp.payload()).unwrap()
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            assert_eq!((IpAddr::from(ip.source), IpAddr::from(ip.destination)), (local, remote));
            assert_eq!((ip.traffic_class, ip.hop_limit), (class, 64));
            assert_eq!(usize::from(ip.payload_length), 8 + 8 + inner.len());
            header.calc_checksum_ipv6_raw(ip.source, ip.destination, udp.payload()).unwrap()
        }
        NetSlice::Arp(_) => panic!("no IP"),
    };
    assert_eq!(header.checksum, if encapsulation.checksum { expected } else { 0 });
    assert!(header.source_port >= 49152);
    let (port, tunnel) = match encapsulation.kind {
        TunnelKind::Vxlan => (4789, [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0]),
        TunnelKind::Geneve => (6081, [0, 0, 0x65, 0x58, 0xab, 0xcd, 0xef, 0]),
    };
    assert_eq!(header.destination_port, port);
    assert_eq!(udp.payload(), [&tunnel[..], inner].concat());
}

#[test]
fn flows_keep_their_port_and_differ_from_each_other() {
    let template = Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE).template().unwrap();
    let port = |hash: u32| {
        let mut packet = packet(&payload(60));
        encapsulate(&mut packet, &template, hash).unwrap();
        u16::from_be_bytes([packet.bytes()[34], packet.bytes()[35]])
    };
    assert_eq!(port(5), port(5));
    let ports: std::collections::HashSet<u16> = (0..1000).map(|flow| port(flow << 16)).collect();
    assert!(ports.len() > 900, "{} ports", ports.len());
}

#[test]
fn a_tag_that_was_taken_out_is_put_back_inside() {
    let encapsulation = Encapsulation::new(TunnelKind::Geneve, 5, v4(), HERE, THERE);
    let frame = tcp(0, 100);
    let mut packet = packet(&frame);
    packet.metadata_mut().vlan = Some(0x6007);
    encapsulate(&mut packet, &encapsulation.template().unwrap(), 1).unwrap();
    assert_eq!(packet.metadata().vlan, None);
    let headers = headers_of(&packet);
    assert_eq!(decapsulate(&mut packet, &headers, &terminations(&encapsulation)), Ok(Some(ARRIVAL)));
    let tagged = [&frame[..12], &[0x81, 0, 0x60, 7], &frame[12..]].concat();
    assert_eq!(bytes_of(&packet), tagged);
}

#[test]
fn descriptions_that_make_no_sense_are_refused() {
    let good = Encapsulation::new(TunnelKind::Vxlan, 0xff_ffff, v6(), HERE, THERE);
    let bad: [(Encapsulation, &str); 5] = [
        (Encapsulation { vni: 1 << 24, ..good }, "16777216"),
        (Encapsulation { dscp: Some(64), ..good }, "DSCP 64"),
        (Encapsulation { hop_limit: 0, ..good }, "hop limit"),
        (Encapsulation { port: 0, ..good }, "4789"),
        (Encapsulation { mtu: 1279, ..good }, "1280"),
    ];
    assert!(good.template().is_ok());
    for (encapsulation, word) in bad {
        let text = encapsulation.template().unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    assert!(
        Encapsulation { mtu: 575, ..Encapsulation::new(TunnelKind::Vxlan, 1, v4(), HERE, THERE) }.template().is_err()
    );
    assert!(Addresses::new(ip("192.0.2.1"), ip("::1")).is_none());
}

#[test]
fn congestion_is_told_as_the_rfc_says() {
    // Inner bits, outer bits, what the inner ones become (RFC 6040, figure 4).
    let table = [
        (0, 0, Some(0)),
        (0, 1, Some(0)),
        (0, 2, Some(0)),
        (0, 3, None),
        (2, 0, Some(2)),
        (2, 1, Some(1)),
        (2, 2, Some(2)),
        (2, 3, Some(3)),
        (1, 0, Some(1)),
        (1, 1, Some(1)),
        (1, 2, Some(1)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 1, Some(3)),
        (3, 2, Some(3)),
        (3, 3, Some(3)),
    ];
    for (inner, outer, expected) in table {
        for (frame, addresses) in [(tcp(0x48 | inner, 50), v4()), (udp6(0x48 | inner, 50), v6())] {
            let encapsulation = Encapsulation::new(TunnelKind::Vxlan, 1, addresses, HERE, THERE);
            let mut packet = packet(&frame);
            encapsulate(&mut packet, &encapsulation.template().unwrap(), 1).unwrap();
            complete(&mut packet);
            // A router on the way.
            let network = ecn::network(packet.bytes()).unwrap();
            assert_eq!(network.class, 0x48 | inner);
            ecn::mark(packet.bytes_mut(), network, outer).unwrap();
            let (before, headers) = (bytes_of(&packet), headers_of(&packet));
            let result = decapsulate(&mut packet, &headers, &terminations(&encapsulation));
            let Some(bits) = expected else {
                assert_eq!(result, Err(Reason::Congestion));
                assert_eq!(bytes_of(&packet), before);
                continue;
            };
            assert_eq!(result, Ok(Some(ARRIVAL)));
            let expected =
                if matches!(addresses, Addresses::V4 { .. }) { tcp(0x48 | bits, 50) } else { udp6(0x48 | bits, 50) };
            assert_eq!(bytes_of(&packet), expected, "inner {inner}, outer {outer}");
        }
    }
}

#[test]
fn what_ends_here_is_told_from_what_does_not() {
    let tunnel = |kind, vni, addresses: Addresses, number| {
        let arrival = Arrival { network: vni, tunnel: number };
        Termination { kind, vni, addresses, zero_checksum: false, arrival }
    };
    let swapped = |addresses: Addresses| {
        let (local, remote) = addresses.ends();
        Addresses::new(remote, local).unwrap()
    };
    let mut all = Vec::new();
    for vni in 0..50 {
        for kind in [TunnelKind::Vxlan, TunnelKind::Geneve] {
            for addresses in [v4(), v6()] {
                all.push((kind, vni, addresses));
            }
        }
    }
    let ends = (0..).zip(&all).map(|(number, (kind, vni, addresses))| tunnel(*kind, *vni, swapped(*addresses), number));
    let terminations = Terminations::new(ends);
    let arrive = |encapsulation: Encapsulation| {
        let mut packet = packet(&payload(60));
        encapsulate(&mut packet, &encapsulation.template().unwrap(), 1).unwrap();
        complete(&mut packet);
        let headers = headers_of(&packet);
        decapsulate(&mut packet, &headers, &terminations)
    };
    for (number, (kind, vni, addresses)) in (0..).zip(&all) {
        let good = Encapsulation::new(*kind, *vni, *addresses, HERE, THERE);
        assert_eq!(arrive(good), Ok(Some(Arrival { network: *vni, tunnel: number })));
    }
    let good = Encapsulation::new(TunnelKind::Vxlan, 5, v6(), HERE, THERE);
    let stranger = Addresses::new(ip("2001:db8::3"), ip("2001:db8::ffff:2")).unwrap();
    let elsewhere = Addresses::new(ip("2001:db8::1"), ip("2001:db8::4")).unwrap();
    assert_eq!(arrive(Encapsulation { vni: 50, ..good }), Err(Reason::UnknownTunnel));
    assert_eq!(arrive(Encapsulation { addresses: stranger, ..good }), Err(Reason::UnknownTunnel));
    assert_eq!(arrive(Encapsulation { addresses: elsewhere, ..good }), Err(Reason::UnknownTunnel));
    assert_eq!(arrive(Encapsulation { checksum: false, ..good }), Err(Reason::BadChecksum), "IPv6 without a checksum");
    assert_eq!(arrive(Encapsulation { port: 4790, ..good }), Ok(None), "another port is no tunnel");
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        inner in prop::collection::vec(any::<u8>(), 14..2000),
        which in 0_usize..12,
        own in 14_usize..129,
        hash in any::<u32>(),
        partial in prop::option::of((0_u16..120, 0_u16..10)),
    ) {
        let encapsulation = encapsulations()[which];
        let mut packet = if own % 2 == 0 { foreign(&inner, own) } else { packet(&inner) };
        let request = partial.map(|(start, offset)| Checksum::Partial { start, offset: offset * 2 });
        packet.metadata_mut().checksum = request.unwrap_or_default();
        match encapsulate(&mut packet, &encapsulation.template().unwrap(), hash) {
            Ok(()) => {}
            Err(reason) => {
                prop_assert_eq!(reason, Reason::BadRequest);
                prop_assert_eq!(bytes_of(&packet), inner);
                return Ok(());
            }
        }
        let headers = headers_of(&packet);
        prop_assert_eq!(decapsulate(&mut packet, &headers, &terminations(&encapsulation)), Ok(Some(ARRIVAL)));
        prop_assert_eq!(bytes_of(&packet), inner);
        prop_assert_eq!(*packet.metadata(), Metadata { checksum: request.unwrap_or_default(), ..Metadata::default() });
    }
}
