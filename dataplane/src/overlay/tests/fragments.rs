//! Packets that are cut because they may be.

use etherparse::{Ipv4Header, Ipv4HeaderSlice};
use hugemem::Checksum;

use super::*;
use crate::overlay::fragment::{fragments, is_allowed};

/// A datagram over IPv4 that may be fragmented, behind these options.
fn datagram(options: &[u8], len: usize) -> Vec<u8> {
    let mut ip = Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
    ip.identification = 77;
    ip.dont_fragment = false;
    ip.options = options.try_into().unwrap();
    let builder = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 8], [2, 0, 0, 0, 0, 9]);
    let builder = builder.ip(etherparse::IpHeaders::Ipv4(ip, Default::default())).udp(1000, 53);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &payload(len)).unwrap();
    bytes
}

fn cut(packet: &Packet, longest: usize) -> Option<Vec<Vec<u8>>> {
    let made = fragments(packet, &headers_of(packet), longest, &mut pool(64, 2048))?;
    Some(made.iter().map(bytes_of).collect())
}

/// What the receiver makes of them: the header of the first, and the payload.
fn together(frames: &[Vec<u8>], longest: usize) -> (Ipv4Header, Vec<u8>) {
    let mut payload = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        assert!(frame.len() <= longest, "{} bytes", frame.len());
        let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(usize::from(header.total_len), frame.len() - 14);
        assert_eq!(usize::from(header.fragment_offset.value()) * 8, payload.len());
        assert_eq!((header.more_fragments, header.identification), (number + 1 < frames.len(), 77));
        payload.extend(&frame[14 + header.header_len()..]);
    }
    (Ipv4HeaderSlice::from_slice(&frames[0][14..]).unwrap().to_header(), payload)
}

#[test]
fn fragments_are_the_packet_when_put_together() {
    for (len, longest) in [(1472, 1464), (1500, 100), (4000, 1464), (20, 42)] {
        let whole = datagram(&[], len);
        let frames = cut(&foreign(&whole, 128), longest).unwrap();
        assert_eq!(frames.len(), (len + 8).div_ceil((longest - 34) & !7));
        let (header, bytes) = together(&frames, longest);
        assert!((header.source, header.time_to_live) == ([10, 0, 0, 1], 64) && bytes == whole[34..]);
    }
}

#[test]
fn a_partial_checksum_is_right_in_the_first_fragment() {
    let whole = datagram(&[], 3000);
    let mut partial = packet(&whole);
    let sum = crate::checksum::fold(crate::checksum::pseudo_header(&whole[26..34], 17, 3008));
    partial.bytes_mut()[40..42].copy_from_slice(&sum.to_ne_bytes());
    partial.metadata_mut().checksum = Checksum::Partial { start: 34, offset: 6 };
    let (_, bytes) = together(&cut(&partial, 1464).unwrap(), 1464);
    assert_eq!(bytes, whole[34..]);
}

#[test]
fn only_options_that_are_to_be_copied_are() {
    // Record route, which only the first has; then router alert, which all have (RFC 2113).
    let options = [7, 3, 4, 0x94, 4, 0, 0, 0];
    let frames = cut(&packet(&datagram(&options, 2000)), 1464).unwrap();
    assert_eq!(frames[0][34..42], options);
    assert_eq!(frames[1][34..42], [1, 1, 1, 0x94, 4, 0, 0, 0]);
    together(&frames, 1464);
    // One whose length makes no sense ends what is looked at.
    let frames = cut(&packet(&datagram(&[1, 7, 0, 0], 2000)), 1464).unwrap();
    assert_eq!(frames[1][34..38], [1, 7, 0, 0]);
}

#[test]
fn a_fragment_is_cut_once_more() {
    let mut middle = datagram(&[], 2000);
    middle[20..22].copy_from_slice(&(0x2000_u16 | 100).to_be_bytes());
    let header = Ipv4HeaderSlice::from_slice(&middle[14..34]).unwrap().to_header();
    middle[24..26].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    let frames = cut(&packet(&middle), 1464).unwrap();
    let words: Vec<[u8; 2]> = frames.iter().map(|frame| [frame[20], frame[21]]).collect();
    assert_eq!(words, [(0x2000_u16 | 100).to_be_bytes(), (0x2000_u16 | (100 + 1424 / 8)).to_be_bytes()]);
    // Beyond what can be said.
    middle[20..22].copy_from_slice(&8190_u16.to_be_bytes());
    assert!(cut(&packet(&middle), 1464).is_none());
}

#[test]
fn others_are_left_alone() {
    let good = datagram(&[], 2000);
    let allowed = |frame: &[u8]| is_allowed(&packet(frame), &headers_of(&packet(frame)));
    assert!(allowed(&good));
    assert!(!allowed(&tcp(0, 2000)), "forbidden");
    assert!(!allowed(&udp6(0, 2000)), "never");
    assert!(cut(&packet(&tcp(0, 2000)), 1464).is_none());
    assert!(cut(&packet(&good), 41).is_none(), "no room for eight bytes");
    assert!(fragments(&packet(&good), &headers_of(&packet(&good)), 1464, &mut pool(1, 2048)).is_none(), "two buffers");
}
