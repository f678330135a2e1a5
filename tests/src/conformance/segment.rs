//! Segmentation in software, by the book: what a card that cuts large packets has to put on the wire.

use anyhow::{Context, Result, ensure};

use super::frame::{Layout, Transport, low16};

/// TCP flags.
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Cuts a large frame into frames with `size` bytes of payload each. IPv4 identifications count up, the TCP sequence number moves on,
/// FIN and PSH stay on the last segment only and CWR on the first, and all lengths and checksums are right.
///
/// # Errors
/// The frame has no TCP or UDP.
pub fn segments(frame: &[u8], size: u16) -> Result<Vec<Vec<u8>>> {
    ensure!(size > 0, "segments of no bytes");
    let layout = Layout::of(frame).context("neither TCP nor UDP")?;
    let (headers, payload) = frame.split_at(layout.transport + layout.transport_header(frame));
    let last = payload.len().div_ceil(usize::from(size)).saturating_sub(1);
    let pieces = payload.chunks(usize::from(size)).enumerate();
    Ok(pieces.map(|(index, piece)| segment(layout, headers, piece, index * usize::from(size), index, last)).collect())
}

fn segment(layout: Layout, headers: &[u8], piece: &[u8], offset: usize, index: usize, last: usize) -> Vec<u8> {
    let mut frame = [headers, piece].concat();
    let internet = layout.internet;
    if layout.v6 {
        let len = low16(frame.len() - internet - 40);
        frame[internet + 4..internet + 6].copy_from_slice(&len.to_be_bytes());
    } else {
        let len = low16(frame.len() - internet);
        frame[internet + 2..internet + 4].copy_from_slice(&len.to_be_bytes());
        let identification =
            u16::from_be_bytes([headers[internet + 4], headers[internet + 5]]).wrapping_add(low16(index));
        frame[internet + 4..internet + 6].copy_from_slice(&identification.to_be_bytes());
        layout.complete_internet(&mut frame);
    }
    let transport = layout.transport;
    match layout.protocol {
        Transport::Tcp => {
            let first =
                headers[transport + 4..transport + 8].iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
            let sequence = first.wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX));
            frame[transport + 4..transport + 8].copy_from_slice(&sequence.to_be_bytes());
            let flags = &mut frame[transport + 13];
            if index != last {
                *flags &= !(FIN | PSH);
            }
            if index != 0 {
                *flags &= !CWR;
            }
        }
        Transport::Udp => {
            let len = low16(frame.len() - transport);
            frame[transport + 4..transport + 6].copy_from_slice(&len.to_be_bytes());
        }
    }
    layout.complete_transport(&mut frame);
    frame
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::frame::{Flow, KINDS, pattern};
    use super::*;

    #[test]
    fn pieces_are_whole_frames_that_make_up_the_payload() {
        for (v6, transport) in KINDS {
            let payload = pattern(1, 4000);
            let frame = Flow::numbered(1, v6, transport).frame([2; 6], [4; 6], &payload);
            let pieces = segments(&frame, 1448).unwrap();
            let layout = Layout::of(&frame).unwrap();
            let start = layout.transport + layout.transport_header(&frame);
            assert_eq!(pieces.iter().map(|piece| piece.len() - start).collect::<Vec<_>>(), [1448, 1448, 1104]);
            assert_eq!(pieces.iter().flat_map(|piece| piece[start..].to_vec()).collect::<Vec<_>>(), payload);
            assert!(pieces.iter().all(|piece| Layout::of(piece).unwrap().is_right(piece)));
        }
    }

    #[test]
    fn sequence_flags_and_identification_move_on() {
        let frame = Flow::numbered(1, false, Transport::Tcp).frame([2; 6], [4; 6], &[7; 250]);
        let mut frame = frame;
        frame[47] |= FIN | CWR;
        let pieces = segments(&frame, 100).unwrap();
        let column = |at: usize| pieces.iter().map(|piece| piece[at]).collect::<Vec<_>>();
        assert_eq!(column(47), [0x90, 0x10, 0x19]);
        // 0x01020304 and 100 bytes further each time.
        assert_eq!((column(40), column(41)), (vec![3, 3, 3], vec![4, 104, 204]));
        // 0xfffe counts over its end.
        assert_eq!((column(18), column(19)), (vec![0xff, 0xff, 0], vec![0xfe, 0xff, 0]));
        assert_eq!(column(17), [140, 140, 90]);
    }

    #[test]
    fn a_small_frame_stays_as_it_is() {
        let frame = Flow::numbered(1, true, Transport::Tcp).frame([2; 6], [4; 6], &[7; 100]);
        assert_eq!(segments(&frame, 100).unwrap(), [frame]);
    }
}
