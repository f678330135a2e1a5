#![allow(clippy::unwrap_used, reason = "tests")]
use super::super::tests::frames::{Recipe, UDP};
use super::*;

const TYPES: TagTypes = TagTypes { tag: 0x8100, outer: None };

#[test]
fn headers_are_found_behind_tags_and_options() {
    let parsed = Parsed::new(&Recipe { tag: Some(0x6064), tcp: true, ..UDP }.build(), TYPES);
    assert_eq!((parsed.kind, parsed.tag), (Kind::IPV4 | Kind::TCP, Some((0x6064, 12))));
    assert_eq!((parsed.network, parsed.transport, parsed.end), (18, 38, 158));
    let mut frame = UDP.build();
    frame[14] = 0x46;
    frame.splice(34..34, [1, 1, 1, 0]);
    frame[16..18].copy_from_slice(&132_u16.to_be_bytes());
    let parsed = Parsed::new(&frame, TYPES);
    assert_eq!((parsed.kind, parsed.transport), (Kind::IPV4 | Kind::IPV4_LONG | Kind::UDP, 38));
    let double = TagTypes { outer: Some(0x88a8), ..TYPES };
    let mut frame = Recipe { tag: Some(5), ..UDP }.build();
    frame.splice(12..12, [0x88, 0xa8, 0, 9]);
    let parsed = Parsed::new(&frame, double);
    assert_eq!((parsed.outer, parsed.tag, parsed.kind), (true, Some((5, 16)), Kind::IPV4 | Kind::UDP));
    assert_eq!(Parsed::new(&frame, TYPES).kind, Kind::empty());
}

#[test]
fn ipv6_extension_headers_are_followed_and_fragments_end_there() {
    let plain = Recipe { version6: true, ..UDP }.build();
    assert_eq!(Parsed::new(&plain, TYPES).kind, Kind::IPV6 | Kind::UDP);
    let with = |kind: u8, header: [u8; 8]| {
        let mut frame = plain.clone();
        frame[20] = kind;
        frame.splice(54..54, header);
        let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        Parsed::new(&frame, TYPES)
    };
    let options = with(0, [17, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!((options.kind, options.transport), (Kind::IPV6 | Kind::IPV6_LONG | Kind::UDP, 62));
    let fragment = with(44, [17, 0, 0, 1, 0, 0, 0, 1]);
    assert!(fragment.fragment && !fragment.later_fragment);
    assert_eq!(fragment.kind, Kind::IPV6 | Kind::IPV6_LONG);
    assert!(with(44, [17, 0, 0, 8, 0, 0, 0, 1]).later_fragment);
    // A route with stops left, whose checksum covers another destination.
    assert_eq!(with(43, [17, 0, 0, 1, 0, 0, 0, 0]).kind, Kind::IPV6 | Kind::IPV6_LONG);
}

#[test]
fn no_frame_makes_it_look_outside() {
    let mut random = crate::Random::new(3);
    let seeds = [UDP.build(), Recipe { version6: true, tcp: true, tag: Some(1), ..UDP }.build()];
    let types = TagTypes { outer: Some(0x88a8), ..TYPES };
    for round in 0..20_000_usize {
        let mut frame = seeds[round % 2].clone();
        for _ in 0..4 {
            let at = usize::try_from(random.below(80)).unwrap();
            frame[at] = random.bits().to_le_bytes()[0];
        }
        frame.truncate(usize::try_from(random.below(frame.len() as u64 + 1)).unwrap());
        let parsed = Parsed::new(&frame, types);
        assert!(parsed.end <= frame.len());
        if parsed.kind.intersects(Kind::TCP | Kind::UDP) {
            assert!(parsed.segment(&frame).unwrap().len() >= 8);
            assert!(parsed.addresses(&frame).is_some());
        }
    }
}
