//! Large packets are cut on the way out as software would cut them.

use anyhow::{Context, Result, ensure};
use drivers::nic::{DropReason, Nic, Offloads};
use hugemem::{Packet, Segmentation, SegmentationKind};

use super::super::bench::{Bench, Plan, STRANGER, same_frames};
use super::super::frame::{Flow, Layout, Transport, pattern, tagged};
use super::super::segment::segments;
use super::super::{Outcome, Rig};

/// TCP's congestion window reduced.
const CWR: u8 = 0x80;

pub(super) fn tcp_v4<R: Rig>(rig: &mut R) -> Result<Outcome> {
    cut(rig, Offloads::TSO4, SegmentationKind::TcpV4, &[Flow::numbered(1, false, Transport::Tcp)], 0)
}

pub(super) fn tcp_v6<R: Rig>(rig: &mut R) -> Result<Outcome> {
    cut(rig, Offloads::TSO6, SegmentationKind::TcpV6, &[Flow::numbered(1, true, Transport::Tcp)], 0)
}

pub(super) fn congestion<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let flow = [Flow::numbered(1, false, Transport::Tcp)];
    cut(rig, Offloads::TSO4 | Offloads::TSO_ECN, SegmentationKind::TcpV4, &flow, CWR)
}

pub(super) fn udp<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let flows = [false, true].map(|v6| Flow::numbered(1, v6, Transport::Udp));
    cut(rig, Offloads::USO, SegmentationKind::Udp, &flows, 0)
}

/// The frame as a packet that is to be cut.
fn large<R: Rig>(
    bench: &mut Bench<'_, R>,
    frame: &[u8],
    pieces: &[usize],
    segmentation: Segmentation,
) -> Result<Packet> {
    let mut bytes = frame.to_vec();
    let checksum = Layout::of(&bytes).context("the suite's own frame")?.make_partial(&mut bytes);
    let sizes = pieces.iter().copied().chain(std::iter::repeat(2048));
    let mut packet = bench.side(0).packet_in_pieces(&bytes, sizes)?;
    packet.metadata_mut().checksum = checksum;
    packet.metadata_mut().segmentation = Some(segmentation);
    Ok(packet)
}

fn cut<R: Rig>(rig: &mut R, needed: Offloads, kind: SegmentationKind, flows: &[Flow], flags: u8) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    if !bench.side(0).nic.offloads().contains(needed) {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    // Payload bytes, and bytes of each segment: one whole segment, just more, many, few bytes left over, small ones.
    let shapes = [
        (1428, 1428),
        (1429, 1428),
        (2856, 1428),
        (3000, 1400),
        (9000, 536),
        (40_000, 1426),
        (64_000, 1400),
        (500, 100),
    ];
    for flow in flows {
        for (payload, size) in shapes {
            // Headers alone, headers with some payload, everything in a row.
            for pieces in [&[54_usize][..], &[100], &[]] {
                for tag in [None, Some(99)] {
                    let mut frame = flow.frame(STRANGER, STRANGER, &pattern(size.into(), payload));
                    let layout = Layout::of(&frame).context("the suite's own frame")?;
                    if flow.transport == Transport::Tcp {
                        frame[layout.transport + 13] |= flags;
                        // FIN, which only the last segment may carry.
                        frame[layout.transport + 13] |= 1;
                    }
                    let frame = tag.map_or_else(|| frame.clone(), |tag| tagged(&frame, tag));
                    let layout = Layout::of(&frame).context("the suite's own frame")?;
                    let header_len = layout.transport + layout.transport_header(&frame);
                    let segmentation =
                        Segmentation { kind, size, header_len: u16::try_from(header_len)?, ecn: flags & CWR != 0 };
                    // The headers are in one buffer.
                    let pieces: Vec<usize> = pieces.iter().map(|piece| *piece.max(&header_len)).collect();
                    let packet = large(&mut bench, &frame, &pieces, segmentation)?;
                    let arrived = bench.deliver(0, vec![packet])?;
                    same_frames(&arrived, &segments(&frame, size)?).with_context(|| {
                        format!(
                            "{payload} bytes in segments of {size}, buffers of {pieces:?}, tag {tag:?}, {:?}",
                            flow.ends
                        )
                    })?;
                }
            }
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A driver that was opened without the offload refuses what it would have to cut, under a name.
pub(super) fn not_asked_for<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let cutting = Offloads::TSO4 | Offloads::TSO6 | Offloads::USO | Offloads::TSO_ECN;
    let plan = Plan::with(|plan| plan.config.offloads -= cutting);
    let mut bench = Bench::new(rig, &plan)?;
    ensure!(!bench.side(0).nic.offloads().intersects(cutting), "offloads are on that were not asked for");
    let frame = Flow::numbered(1, false, Transport::Tcp).frame(STRANGER, STRANGER, &pattern(1, 3000));
    let segmentation = Segmentation { kind: SegmentationKind::TcpV4, size: 1400, header_len: 54, ecn: false };
    let packet = large(&mut bench, &frame, &[], segmentation)?;
    ensure!(bench.deliver(0, vec![packet])?.is_empty(), "a packet was sent that nobody could cut");
    let (_, sent) = bench.side(0).counters();
    ensure!(sent.dropped(DropReason::NoOffload) == 1 && sent.dropped_total() == 1, "it is not counted: {sent:?}");
    bench.close()?;
    Ok(Outcome::Passed)
}
