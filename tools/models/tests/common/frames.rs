//! Frames, and a look at packets that came from a device.

use hugemem::{Checksum, Packet};

use super::ROOM;

/// The bytes of a received packet, checked for what no device may bring about.
pub(crate) fn look_at(packet: &Packet) -> Vec<u8> {
    let mut bytes = vec![0; packet.len()];
    assert_eq!(packet.copy_to(0, &mut bytes), bytes.len());
    assert!(
        packet.segments().all(|segment| segment.len() <= ROOM + hugemem::HEADROOM),
        "a segment longer than its buffer"
    );
    if let Checksum::Partial { start, offset } = packet.metadata().checksum {
        assert!(usize::from(start) + usize::from(offset) + 2 <= packet.len(), "a checksum beyond the packet");
    }
    if let Some(segmentation) = packet.metadata().segmentation {
        assert_ne!(segmentation.size, 0, "segments of no bytes");
    }
    bytes
}

/// Frame `number` of a stream: its length and bytes follow from the number.
pub(crate) fn frame(number: usize, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| u8::try_from((at * 7 + number * 13) % 256).unwrap()).collect();
    bytes[..6].copy_from_slice(&[0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    bytes[12..14].copy_from_slice(&[0x88, 0xb5]);
    bytes
}
