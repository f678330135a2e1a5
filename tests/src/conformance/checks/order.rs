//! Frames arrive whole and in order.

use anyhow::{Result, ensure};
use drivers::nic::{DropReason, RxQueue, TxQueue};
use hugemem::{Batch, Checksum, Segmentation, SegmentationKind};

use super::super::bench::{Bench, Plan, STRANGER, same_frames};
use super::super::frame::{Flow, Transport, experiment, low16};
use super::super::patience::Wait;
use super::super::{Outcome, Rig};
use crate::frames::{Check, Series};

/// Bursts of all kinds, none beyond half a ring.
const BURSTS: [usize; 12] = [1, 2, 3, 32, 7, 64, 128, 1, 33, 127, 64, 16];

/// Numbered frames of 60 to 1514 bytes, several flows, both ways at once, with no more underway than fit into the receiver's ring.
pub(super) fn both_ways<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let frames = rig.frames();
    let mut bench = Bench::new(rig, &Plan::default())?;
    let mut ways = [Way::new(frames, 7, 1), Way::new(frames, 3, 2)];
    let mut wait = Wait::new();
    while ways.iter().any(|way| !way.is_done()) {
        let mut moved = 0;
        for (from, way) in ways.iter_mut().enumerate() {
            moved += way.send(&mut bench, from)?;
            moved += way.receive(&mut bench, 1 - from)?;
        }
        if moved > 0 {
            wait.progress();
        } else {
            wait.idle(|| {
                format!("frames are lost: {} and {} of {frames} arrived", ways[0].arrived(), ways[1].arrived())
            })?;
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// One direction.
struct Way {
    series: Series,
    check: Check,
    sent: u64,
    bursts: std::iter::Cycle<std::array::IntoIter<usize, 12>>,
    sending: Batch,
    receiving: Batch,
    frame: Vec<u8>,
}

impl Way {
    fn new(count: u64, flows: u64, run: u32) -> Self {
        let series = Series { count, flows, window: 128, run };
        Self {
            series,
            check: Check::new(series),
            sent: 0,
            bursts: BURSTS.into_iter().cycle(),
            sending: Batch::new(128),
            receiving: Batch::new(128),
            frame: Vec::new(),
        }
    }

    fn arrived(&self) -> u64 {
        self.check.received
    }

    fn is_done(&self) -> bool {
        self.arrived() == self.series.count
    }

    fn send<R: Rig>(&mut self, bench: &mut Bench<'_, R>, from: usize) -> Result<usize> {
        let side = bench.side(from);
        if self.sending.is_empty() {
            let underway = usize::try_from(self.sent - self.arrived())?;
            let burst = self.bursts.next().unwrap_or(1).min(128 - underway);
            for _ in 0..burst {
                if self.sent == self.series.count {
                    break;
                }
                self.series.frame(self.sent, &mut self.frame);
                let packet = side.packet(&self.frame)?;
                ensure!(self.sending.push(packet).is_ok(), "a burst is larger than a batch");
                self.sent += 1;
            }
        }
        let tx = &mut side.queues[0].tx;
        let taken = tx.transmit(&mut self.sending);
        if taken == 0 {
            tx.reclaim();
        }
        Ok(taken)
    }

    fn receive<R: Rig>(&mut self, bench: &mut Bench<'_, R>, at: usize) -> Result<usize> {
        let count = bench.side(at).queues[0].rx.receive(&mut self.receiving);
        ensure!(count == self.receiving.len(), "{count} frames received, {} in the batch", self.receiving.len());
        for packet in &self.receiving {
            self.frame.resize(packet.len(), 0);
            packet.copy_to(0, &mut self.frame);
            ensure!(self.check.accept(&self.frame)?, "a frame arrived that nobody sent");
        }
        self.receiving.clear();
        Ok(count)
    }
}

/// Frames below Ethernet's 60 bytes arrive as they were, or filled up with zeroes.
pub(super) fn short_frames<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let frames: Vec<_> =
        (14..60_u32).map(|len| experiment(STRANGER, STRANGER, len, usize::try_from(len).unwrap_or(60))).collect();
    let frames: Vec<_> =
        frames.into_iter().zip(14..).map(|(frame, len)| frame[..len.min(frame.len())].to_vec()).collect();
    for from in [0, 1] {
        let arrived = bench.deliver_frames(from, &frames)?;
        ensure!(arrived.len() == frames.len(), "{} of {} frames arrived", arrived.len(), frames.len());
        for (arrived, sent) in arrived.iter().zip(&frames) {
            let (same, rest) = arrived.bytes.split_at(sent.len().min(arrived.bytes.len()));
            ensure!(same == sent, "a frame of {} bytes changed", sent.len());
            ensure!(arrived.bytes.len() <= 60, "a frame of {} bytes grew to {}", sent.len(), arrived.bytes.len());
            ensure!(rest.iter().all(|byte| *byte == 0), "a frame of {} bytes was filled up with something", sent.len());
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Packets in several buffers of all kinds of sizes.
pub(super) fn chained<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let shapes: [&[usize]; 7] = [
        &[14, 2048],
        &[64, 64, 2048],
        &[1000, 1, 2048],
        &[15, 1, 1, 1, 1, 2048],
        &[100; 16],
        &[54, 1460, 2048],
        &[333, 2048],
    ];
    for from in [0, 1] {
        let mut frames = Vec::new();
        let mut packets = Vec::new();
        for (number, len) in (0_u32..).zip([60, 61, 64, 100, 555, 1513, 1514]) {
            for shape in shapes {
                let frame = experiment(STRANGER, STRANGER, number, len);
                packets.push(bench.side(from).packet_in_pieces(&frame, shape.iter().copied())?);
                frames.push(frame);
            }
        }
        let arrived = bench.deliver(from, packets)?;
        same_frames(&arrived, &frames)?;
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// What no card can send is dropped under a name, and what stands behind it in the batch is sent.
pub(super) fn unsendable<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let good = experiment(STRANGER, STRANGER, 1, 100);
    let side = bench.side(0);
    let mut packets = vec![side.packet(&good)?];
    // No whole Ethernet header.
    packets.push(side.packet(&good[..13])?);
    packets.push(side.packet(&good)?);
    // A checksum beyond the end.
    let mut packet = side.packet(&good)?;
    packet.metadata_mut().checksum = Checksum::Partial { start: 99, offset: 16 };
    packets.push(packet);
    // Segments of no bytes.
    let mut large = Flow::numbered(1, false, Transport::Tcp).frame(STRANGER, STRANGER, &[1; 3000]);
    let layout = super::super::frame::Layout::of(&large);
    let checksum = layout.map(|layout| layout.make_partial(&mut large)).unwrap_or_default();
    let mut packet = side.packet(&large)?;
    packet.metadata_mut().checksum = checksum;
    packet.metadata_mut().segmentation =
        Some(Segmentation { kind: SegmentationKind::TcpV4, size: 0, header_len: 54, ecn: false });
    packets.push(packet);
    packets.push(side.packet(&good)?);
    let arrived = bench.deliver(0, packets)?;
    same_frames(&arrived, &[good.clone(), good.clone(), good])?;
    let (_, sent) = bench.side(0).counters();
    // The three good ones, and the one that ends the delivery.
    ensure!(sent.packets == 4, "{} packets count as sent instead of 4", sent.packets);
    ensure!(sent.dropped_total() == 3, "{} drops are counted instead of 3", sent.dropped_total());
    let named = [DropReason::BadLength, DropReason::BadHeader, DropReason::NoOffload];
    let known: u64 = named.iter().map(|reason| sent.dropped(*reason)).sum();
    ensure!(known == 3, "the drops have other names than bad_length, bad_header and no_offload");
    ensure!(sent.dropped(DropReason::BadLength) == 1, "the frame without a whole header is no bad_length");
    ensure!(sent.bytes == 300 + u64::from(low16(77)), "{} bytes count as sent", sent.bytes);
    bench.close()?;
    Ok(Outcome::Passed)
}
