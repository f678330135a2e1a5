#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use hugemem::{Iova, PacketPool, Region};
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

fn pool() -> PacketPool {
    Region::on_heap(1 << 20, Iova::new(0)).unwrap().packets(40, 2048).unwrap()
}

/// A frame of `len` zeros whose TCP header at byte 34 is 20 bytes long.
fn tcp_frame(pool: &mut PacketPool, len: usize) -> Packet {
    let mut bytes = vec![0; len];
    if let Some(data_offset) = bytes.get_mut(46) {
        *data_offset = 5 << 4;
    }
    let mut packets = bytes.chunks(2048).map(|piece| {
        let mut packet = pool.take().unwrap();
        packet.write(piece).unwrap();
        packet
    });
    let mut head = packets.next().unwrap();
    packets.for_each(|tail| head.append(tail).unwrap());
    head
}

fn raw(flags: u8, gso_type: u8, size: u16, start: u16, offset: u16, buffers: u16) -> Vec<u8> {
    let mut bytes = vec![flags, gso_type, 0xff, 0xff];
    for word in [size, start, offset, buffers] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn partial() -> Metadata {
    Metadata { checksum: Checksum::Partial { start: 34, offset: 16 }, ..Metadata::default() }
}

fn tso(kind: SegmentationKind, ecn: bool) -> Metadata {
    Metadata { segmentation: Some(Segmentation { kind, size: 1448, header_len: 54, ecn }), ..partial() }
}

fn received(pool: &mut PacketPool, header: &[u8], len: usize, features: Features) -> Option<Metadata> {
    let frame = tcp_frame(pool, len);
    Header::read(header, features.contains(Features::HASH_REPORT)).unwrap().metadata(&frame, features)
}

#[test]
fn received_headers_become_metadata_when_they_fit_the_frame() {
    let mut pool = pool();
    let all = Features::all() - Features::HASH_REPORT;
    let segmented = |kind, ecn| Some(tso(kind, ecn));
    let table = [
        (raw(0, 0, 0, 0, 0, 1), 60, Some(Metadata::default())),
        (raw(DATA_VALID, 0, 0, 0, 0, 1), 60, Some(Metadata { checksum: Checksum::Verified, ..Metadata::default() })),
        (raw(NEEDS_CSUM, 0, 0, 34, 16, 1), 60, Some(partial())),
        (raw(NEEDS_CSUM, 0, 0, 34, 16, 1), 52, Some(partial())),
        (raw(NEEDS_CSUM, 0, 0, 34, 16, 1), 51, None),
        (raw(NEEDS_CSUM, 0, 0, u16::MAX, u16::MAX, 1), 60, None),
        (raw(NEEDS_CSUM, 1, 1448, 34, 16, 1), 9000, segmented(SegmentationKind::TcpV4, false)),
        (raw(NEEDS_CSUM, 0x81, 1448, 34, 16, 1), 9000, segmented(SegmentationKind::TcpV4, true)),
        (raw(NEEDS_CSUM, 4, 1448, 34, 16, 1), 9000, segmented(SegmentationKind::TcpV6, false)),
        (raw(NEEDS_CSUM, 1, 0, 34, 16, 1), 9000, None),
        (raw(0, 1, 1448, 34, 16, 1), 9000, None),
        (raw(NEEDS_CSUM, 1, 1448, 34, 6, 1), 9000, None),
        (raw(NEEDS_CSUM, 1, 1448, 34, 16, 1), 54, None),
        (raw(NEEDS_CSUM, 1, 1448, 40, 16, 1), 9000, None),
        (raw(NEEDS_CSUM, 0x80, 1448, 34, 16, 1), 9000, None),
        (raw(NEEDS_CSUM, 3, 1448, 34, 6, 1), 9000, None),
        (raw(NEEDS_CSUM, 0x85, 1448, 34, 6, 1), 9000, None),
        (raw(NEEDS_CSUM, 0x7f, 1448, 34, 16, 1), 9000, None),
    ];
    for (header, len, expected) in table {
        assert_eq!(received(&mut pool, &header, len, all), expected, "{header:?} {len}");
    }
    let udp = received(&mut pool, &raw(NEEDS_CSUM, 5, 1000, 34, 6, 1), 5000, all).unwrap();
    let expected = Segmentation { kind: SegmentationKind::Udp, size: 1000, header_len: 42, ecn: false };
    assert_eq!(udp.segmentation, Some(expected));
}

#[test]
fn what_was_not_negotiated_is_not_believed() {
    let mut pool = pool();
    let none = Features::VERSION_1;
    assert_eq!(received(&mut pool, &raw(NEEDS_CSUM, 0, 0, 34, 16, 1), 60, none), None);
    assert_eq!(received(&mut pool, &raw(DATA_VALID, 0, 0, 0, 0, 1), 60, none), Some(Metadata::default()));
    let only_checksum = Features::GUEST_CSUM;
    assert_eq!(received(&mut pool, &raw(NEEDS_CSUM, 1, 1448, 34, 16, 1), 9000, only_checksum), None);
}

#[test]
fn a_reported_hash_reaches_the_metadata() {
    let mut pool = pool();
    let mut header = raw(0, 0, 0, 0, 0, 1);
    header.extend_from_slice(&[0x78, 0x56, 0x34, 0x12, 2, 0, 0, 0]);
    let seen = received(&mut pool, &header, 60, Features::HASH_REPORT).unwrap();
    assert_eq!(seen.hash, Some(0x1234_5678));
    header[16] = 0;
    assert_eq!(received(&mut pool, &header, 60, Features::HASH_REPORT).unwrap().hash, None);
    assert_eq!(Header::read(&header[..19], true), None);
    assert_eq!(Header::read(&header[..11], false), None);
}

#[test]
fn sent_headers_say_what_the_metadata_says() {
    let mut pool = pool();
    let sender = Sender { features: Features::all() - Features::HASH_REPORT, longest: 1518 };
    let table = [
        (Metadata::default(), 60, Ok(raw(0, 0, 0, 0, 0, 0))),
        (partial(), 60, Ok(raw(NEEDS_CSUM, 0, 0, 34, 16, 0))),
        (tso(SegmentationKind::TcpV4, false), 9000, Ok(raw(NEEDS_CSUM, 1, 1448, 34, 16, 0))),
        (tso(SegmentationKind::TcpV6, true), 9000, Ok(raw(NEEDS_CSUM, 0x84, 1448, 34, 16, 0))),
        (Metadata::default(), 13, Err(DropReason::BadLength)),
        (Metadata::default(), 1519, Err(DropReason::TooLong)),
        (partial(), 1519, Err(DropReason::TooLong)),
        (partial(), 51, Err(DropReason::BadHeader)),
        (tso(SegmentationKind::TcpV4, false), 54, Err(DropReason::BadHeader)),
        (
            Metadata { checksum: Checksum::Unknown, ..tso(SegmentationKind::TcpV4, false) },
            9000,
            Err(DropReason::BadHeader),
        ),
        (tso(SegmentationKind::Udp, false), 9000, Err(DropReason::BadHeader)),
        (Metadata { vlan: Some(5), ..Metadata::default() }, 60, Err(DropReason::NoOffload)),
    ];
    for (metadata, len, expected) in table {
        let mut packet = tcp_frame(&mut pool, len);
        *packet.metadata_mut() = metadata;
        let result = sender.prepare(&mut packet);
        let written = result.map(|()| {
            let mut header = packet.bytes()[..PLAIN].to_vec();
            // `hdr_len` is a hint on receive and exact on transmit.
            let exact: u16 = if metadata.segmentation.is_some() { 54 } else { 0 };
            assert_eq!(header[2..4], exact.to_le_bytes());
            header[2..4].fill(0xff);
            assert_eq!(packet.len(), len + PLAIN);
            header
        });
        assert_eq!(written, expected, "{metadata:?} {len}");
    }
}

#[test]
fn an_offload_that_the_device_lacks_is_done_here_or_refused() {
    let mut pool = pool();
    let bare = Sender { features: Features::VERSION_1, longest: 1518 };
    let mut packet = tcp_frame(&mut pool, 60);
    *packet.metadata_mut() = partial();
    bare.prepare(&mut packet).unwrap();
    assert_eq!(packet.bytes()[..PLAIN], [0; PLAIN]);
    // Only the data offset is not zero in the summed part.
    assert_eq!(packet.bytes()[PLAIN + 50..PLAIN + 52], (!0x5000_u16).to_be_bytes());
    let mut packet = tcp_frame(&mut pool, 9000);
    *packet.metadata_mut() = tso(SegmentationKind::TcpV4, false);
    assert_eq!(bare.prepare(&mut packet), Err(DropReason::NoOffload));
    let no_ecn = Sender { features: Features::CSUM | Features::HOST_TSO4, longest: 1518 };
    *packet.metadata_mut() = tso(SegmentationKind::TcpV4, true);
    assert_eq!(no_ecn.prepare(&mut packet), Err(DropReason::NoOffload));
}

#[test]
fn a_frame_without_headroom_is_refused() {
    let mut pool = pool();
    let sender = Sender { features: Features::HASH_REPORT, longest: 1518 };
    let mut packet = tcp_frame(&mut pool, 60);
    packet.prepend(packet.headroom() - 19).unwrap();
    packet.truncate(60);
    assert_eq!(sender.prepare(&mut packet), Err(DropReason::NoHeadroom));
    assert!(packet.trim_front(1));
    assert_eq!(sender.prepare(&mut packet), Ok(()));
    assert_eq!(packet.bytes()[..WITH_HASH], [0; WITH_HASH]);
}

proptest! {
    /// Whatever a device writes: metadata that comes out lies inside the frame, and can be sent on.
    #[test]
    fn any_header_is_refused_or_fits_the_frame(
        bytes in prop::array::uniform20(any::<u8>()),
        small in any::<bool>(),
        len in 14_usize..4000,
    ) {
        let mut bytes = bytes;
        if small {
            // Values near the frame's own, so that many are accepted.
            bytes[1] &= 0x85;
            bytes[7] = 0;
            bytes[8..10].copy_from_slice(&[16, 0]);
        }
        let mut pool = pool();
        let mut frame = tcp_frame(&mut pool, len);
        let features = Features::all();
        if let Some(metadata) = Header::read(&bytes, true).unwrap().metadata(&frame, features) {
            if let Checksum::Partial { start, offset } = metadata.checksum {
                prop_assert!(usize::from(start) + usize::from(offset) + 2 <= len);
            }
            if let Some(segmentation) = metadata.segmentation {
                prop_assert!(segmentation.size > 0 && usize::from(segmentation.header_len) < len);
            }
            *frame.metadata_mut() = metadata;
            let sender = Sender { features, longest: LONGEST };
            prop_assert_eq!(sender.prepare(&mut frame), Ok(()));
        }
    }
}
