//! VLAN tags.

use anyhow::{Context, Result, ensure};
use drivers::nic::{Nic, NicError, Offloads, ReceiveFilter};
use hugemem::{Segmentation, SegmentationKind};

use super::super::bench::{Bench, Plan, STRANGER, same_frames};
use super::super::frame::{Flow, Layout, Transport, experiment, pattern, tagged};
use super::super::segment::segments;
use super::super::{Outcome, Rig};

/// Tags of all kinds: priority only, all bits, drop eligible, ordinary.
const TAGS: [u16; 6] = [0x0001, 0x0fff, 0xe000, 0x1064, 0xffff, 0x0064];

/// Tagged frames, once and twice, arrive as they are, also when they are as long as they may be.
pub(super) fn pass<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let mut frames = Vec::new();
    for (number, tag) in (0..).zip(TAGS) {
        for len in [60, 1000, 1514] {
            let frame = experiment(STRANGER, STRANGER, number, len);
            frames.extend([tagged(&frame, tag), tagged(&tagged(&frame, tag), 7)]);
        }
    }
    for from in [0, 1] {
        let arrived = bench.deliver_frames(from, &frames)?;
        same_frames(&arrived, &frames)?;
        ensure!(arrived.iter().all(|frame| frame.metadata.vlan.is_none()), "a tag was taken out that was not to be");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A tag in the metadata arrives in the frame.
pub(super) fn insert<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    if !bench.side(0).nic.offloads().contains(Offloads::VLAN_INSERT) {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let mut expected = Vec::new();
    let mut packets = Vec::new();
    for (number, tag) in (0..).zip(TAGS) {
        for (len, tag) in [(60, Some(tag)), (61, None), (1514, Some(tag)), (60, Some(tag))] {
            let frame = experiment(STRANGER, STRANGER, number, len);
            let mut packet = bench.side(0).packet(&frame)?;
            packet.metadata_mut().vlan = tag;
            packets.push(packet);
            expected.push(tag.map_or_else(|| frame.clone(), |tag| tagged(&frame, tag)));
        }
    }
    let arrived = bench.deliver(0, packets)?;
    same_frames(&arrived, &expected)?;
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Tags together with checksums and cutting.
pub(super) fn insert_with_offloads<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let needed = Offloads::VLAN_INSERT | Offloads::TX_CHECKSUM | Offloads::TSO4;
    if !bench.side(0).nic.offloads().contains(needed) {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let flow = Flow::numbered(1, false, Transport::Tcp);
    let mut expected = Vec::new();
    let mut packets = Vec::new();
    for (number, tag) in (0..).zip([Some(5), None, Some(5), Some(6), Some(6), None]) {
        for (payload, size) in [(1000, None), (5000, Some(1400)), (3000, Some(1000))] {
            let frame = flow.frame(STRANGER, STRANGER, &pattern(number, payload));
            let mut bytes = frame.clone();
            let checksum = Layout::of(&frame).context("the suite's own frame")?.make_partial(&mut bytes);
            let mut packet = bench.side(0).packet(&bytes)?;
            let metadata = packet.metadata_mut();
            metadata.checksum = checksum;
            metadata.vlan = tag;
            let kind = SegmentationKind::TcpV4;
            metadata.segmentation = size.map(|size| Segmentation { kind, size, header_len: 54, ecn: false });
            packets.push(packet);
            let cut = size.map_or_else(|| Ok(vec![frame.clone()]), |size| segments(&frame, size))?;
            expected.extend(cut.into_iter().map(|frame| tag.map_or_else(|| frame.clone(), |tag| tagged(&frame, tag))));
        }
    }
    let arrived = bench.deliver(0, packets)?;
    same_frames(&arrived, &expected)?;
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A tag in the frame arrives in the metadata, and the frame without it.
pub(super) fn strip<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let receiver = Plan::with(|plan| plan.config.offloads |= Offloads::VLAN_STRIP);
    let mut bench = Bench::with(rig, Plan::default(), receiver)?;
    if !bench.side(1).nic.offloads().contains(Offloads::VLAN_STRIP) {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let (mut frames, mut expected, mut tags) = (Vec::new(), Vec::new(), Vec::new());
    for (number, tag) in (0..).zip(TAGS) {
        for (len, tag) in [(60, Some(tag)), (100, None), (1514, Some(tag))] {
            let frame = experiment(STRANGER, STRANGER, number, len);
            frames.push(tag.map_or_else(|| frame.clone(), |tag| tagged(&frame, tag)));
            expected.push(frame);
            tags.push(tag);
        }
    }
    let arrived = bench.deliver_frames(0, &frames)?;
    same_frames(&arrived, &expected)?;
    let found: Vec<_> = arrived.iter().map(|frame| frame.metadata.vlan).collect();
    ensure!(found == tags, "tags {found:04x?} instead of {tags:04x?}");
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Of tagged frames only those of the chosen VLANs arrive.
pub(super) fn filter<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    for base in [ReceiveFilter::everything(), ReceiveFilter::host()] {
        let mac = if base.promiscuous { STRANGER } else { bench.side(1).mac() };
        for chosen in [Some(vec![100, 0, 4095]), Some(vec![]), Some(vec![31, 32, 63, 64]), None] {
            match bench.side(1).nic.set_filter(&ReceiveFilter { vlans: chosen.clone(), ..base.clone() }) {
                Ok(()) => {}
                Err(NicError::Request { .. }) if chosen.is_some() => {
                    bench.side(1).nic.set_filter(&ReceiveFilter::everything())?;
                    bench.close()?;
                    return Ok(Outcome::NotOffered);
                }
                Err(error) => return Err(error.into()),
            }
            let tags = [0, 1, 31, 32, 33, 63, 64, 99, 100, 101, 2048, 4094, 4095];
            let plain = experiment(mac, STRANGER, 1, 100);
            let mut frames = vec![plain.clone()];
            frames.extend(tags.map(|tag| tagged(&plain, 0x2000 | tag)));
            let passes = |tag: &u16| chosen.as_ref().is_none_or(|chosen| chosen.contains(tag));
            let mut expected = vec![plain.clone()];
            expected.extend(tags.iter().filter(|tag| passes(tag)).map(|tag| tagged(&plain, 0x2000 | tag)));
            let arrived = bench.deliver_frames(0, &frames)?;
            same_frames(&arrived, &expected).with_context(|| format!("with the VLANs {chosen:?}"))?;
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}
