//! What is still to be done for a frame when it goes into a tunnel. (Cutting is tested where it is done.)

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use hugemem::{Checksum, Segmentation, SegmentationKind};

use super::*;

/// Makes the checksum of a frame from [`tcp`] or [`udp6`] partial, the plain way.
fn make_partial(frame: &mut [u8]) -> Checksum {
    let v6 = frame[12..14] == [0x86, 0xdd];
    let (start, addresses, offset, protocol) = if v6 { (54, 22..54, 6, 17) } else { (34, 26..34, 16, 6) };
    let len = u16::try_from(frame.len() - start).unwrap();
    let words = frame[addresses].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + protocol + u32::from(len);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let field = start + usize::from(offset);
    frame[field..field + 2].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    Checksum::Partial { start: u16::try_from(start).unwrap(), offset }
}

#[test]
fn an_outer_checksum_is_right_once_the_inner_one_is_complete() {
    for encapsulation in encapsulations() {
        let template = encapsulation.template().unwrap();
        let shift = template.headers().len();
        for complete_inner in [tcp(0, 333), tcp(0, 0), udp6(0, 334), udp6(0, 1)] {
            let mut frame = complete_inner.clone();
            let request = make_partial(&mut frame);
            let mut packet = packet(&frame);
            packet.metadata_mut().checksum = request;
            encapsulate(&mut packet, &template, 77).unwrap();
            let Checksum::Partial { start, offset } = request else { panic!() };
            let moved = Checksum::Partial { start: start + u16::try_from(shift).unwrap(), offset };
            assert_eq!(packet.metadata().checksum, moved);
            assert_eq!(packet.metadata().inner.map(|inner| usize::from(inner.get())), Some(shift));
            // The port does what it always does, and knows of no tunnel.
            complete(&mut packet);
            let bytes = bytes_of(&packet);
            assert_eq!(bytes[shift..], complete_inner);
            let outer = SlicedPacket::from_ethernet(&bytes).unwrap();
            let Some(TransportSlice::Udp(udp)) = outer.transport else { panic!("no UDP") };
            let header = udp.to_header();
            let expected = match outer.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    let (source, destination) = (ip.header().source(), ip.header().destination());
                    header.calc_checksum_ipv4_raw(source, destination, udp.payload()).unwrap()
                }
                NetSlice::Ipv6(ip) => {
                    let (source, destination) = (ip.header().source(), ip.header().destination());
                    header.calc_checksum_ipv6_raw(source, destination, udp.payload()).unwrap()
                }
                NetSlice::Arp(_) => panic!("no IP"),
            };
            assert_eq!(header.checksum, if encapsulation.checksum { expected } else { 0 }, "{encapsulation:?}");
        }
    }
}

#[test]
fn requests_for_cutting_pass_through() {
    let encapsulation = Encapsulation::new(TunnelKind::Geneve, 9, v6(), HERE, THERE);
    let mut frame = tcp(0, 3000);
    let request = make_partial(&mut frame);
    let mut packet = packet(&frame);
    let segmentation = Segmentation { kind: SegmentationKind::TcpV4, size: 1000, header_len: 54, ecn: false };
    packet.metadata_mut().checksum = request;
    packet.metadata_mut().segmentation = Some(segmentation);
    let before = *packet.metadata();
    encapsulate(&mut packet, &encapsulation.template().unwrap(), 1).unwrap();
    assert_eq!(packet.metadata().segmentation, Some(Segmentation { header_len: 54 + 70, ..segmentation }));
    let headers = headers_of(&packet);
    assert_eq!(decapsulate(&mut packet, &headers, &terminations(&encapsulation)), Ok(Some(ARRIVAL)));
    assert_eq!((bytes_of(&packet), *packet.metadata()), (frame, before));
}

#[test]
fn requests_that_contradict_the_frame_are_refused_and_nothing_changes() {
    let template = Encapsulation::new(TunnelKind::Vxlan, 9, v6(), HERE, THERE).template().unwrap();
    let large = Segmentation { kind: SegmentationKind::TcpV4, size: 10, header_len: 0, ecn: false };
    let bad = [
        (Checksum::Partial { start: 200, offset: 16 }, None),
        (Checksum::Partial { start: 34, offset: 400 }, None),
        (Checksum::Partial { start: 34, offset: 15 }, None),
        (Checksum::Partial { start: u16::MAX, offset: u16::MAX }, None),
        (Checksum::Unknown, Some(large)),
        (Checksum::Partial { start: 150, offset: 2 }, Some(large)),
    ];
    for (checksum, segmentation) in bad {
        let frame = tcp(0, 100);
        let mut packet = packet(&frame);
        packet.metadata_mut().checksum = checksum;
        packet.metadata_mut().segmentation = segmentation;
        let before = *packet.metadata();
        assert_eq!(encapsulate(&mut packet, &template, 1), Err(Reason::BadRequest), "{checksum:?}");
        assert_eq!((bytes_of(&packet), *packet.metadata()), (frame, before));
    }
    let mut runt = packet(&[0; 13]);
    assert_eq!(encapsulate(&mut runt, &template, 1), Err(Reason::Runt));
    let mut crowded = packet(&tcp(0, 1));
    let used = crowded.headroom() - template.headers().len() + 1;
    crowded.prepend(used).unwrap();
    assert_eq!(encapsulate(&mut crowded, &template, 1), Err(Reason::NoHeadroom));
}

#[test]
fn a_fresh_buffer_has_room_for_everything_in_front() {
    // The longest outer headers, a tag that is put back, and the longest header of a virtio device.
    const { assert!(hugemem::HEADROOM >= LONGEST + 4 + 20) };
    let template = Encapsulation { vlan: Some(1), ..Encapsulation::new(TunnelKind::Geneve, 9, v6(), HERE, THERE) };
    assert_eq!(template.template().unwrap().headers().len(), LONGEST);
}
