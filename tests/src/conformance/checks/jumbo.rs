//! Frames larger than a buffer, and larger than is allowed.

use anyhow::{Result, ensure};
use drivers::nic::{DropReason, Nic};

use super::super::bench::{Bench, Plan, STRANGER, same_frames};
use super::super::frame::experiment;
use super::super::{Outcome, Rig};

/// Ethernet header and two tags, which the MTU does not count.
const AROUND: usize = 14 + 8;

fn jumbo(mtu: u16) -> Plan {
    Plan::with(|plan| plan.config.mtu = Some(mtu))
}

/// Frames over several buffers, byte for byte, between small ones.
pub(super) fn frames<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mtu = rig.largest_mtu();
    if mtu <= 2048 {
        return Ok(Outcome::NotOffered);
    }
    let mut bench = Bench::new(rig, &jumbo(mtu))?;
    let largest = usize::from(mtu) + 14;
    ensure!(bench.side(0).nic.mtu() == mtu, "the MTU is {} instead of {mtu}", bench.side(0).nic.mtu());
    let sizes = [60, 1514, 1515, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 64, largest - 1, largest, 60, largest];
    let frames: Vec<_> =
        sizes.into_iter().zip(0..).map(|(len, number)| experiment(STRANGER, STRANGER, number, len)).collect();
    for from in [0, 1] {
        for _ in 0..20 {
            let arrived = bench.deliver_frames(from, &frames)?;
            same_frames(&arrived, &frames)?;
        }
    }
    let (received, _) = bench.side(0).counters();
    ensure!(received.dropped_total() == 0, "{} frames were dropped", received.dropped_total());
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A frame that exceeds what the MTU allows does not get past the sender.
pub(super) fn too_long<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mtu = rig.largest_mtu();
    let mut bench = Bench::new(rig, &jumbo(mtu))?;
    let limit = usize::from(mtu) + AROUND;
    let fitting = experiment(STRANGER, STRANGER, 1, usize::from(mtu) + 14);
    let frames =
        [experiment(STRANGER, STRANGER, 2, limit + 1), fitting.clone(), experiment(STRANGER, STRANGER, 3, 12_000)];
    let arrived = bench.deliver_frames(0, &frames)?;
    same_frames(&arrived, &[fitting])?;
    let (_, sent) = bench.side(0).counters();
    ensure!(
        sent.dropped(DropReason::TooLong) == 2,
        "{} drops count as too long instead of 2",
        sent.dropped(DropReason::TooLong)
    );
    ensure!(sent.dropped_total() == 2, "{} drops are counted", sent.dropped_total());
    bench.close()?;
    Ok(Outcome::Passed)
}

/// A receiver with a smaller MTU than the sender drops what is too long for it, and one of its counters says so.
pub(super) fn too_long_for_receiver<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mtu = rig.largest_mtu();
    let mut bench = Bench::with(rig, jumbo(mtu), Plan::default())?;
    let small = experiment(STRANGER, STRANGER, 1, 1514);
    let large = [1523, 2048, 4096, usize::from(mtu) + 14].map(|len| experiment(STRANGER, STRANGER, 2, len));
    let frames = [std::slice::from_ref(&small), &large, std::slice::from_ref(&small)].concat();
    let arrived = bench.deliver_frames(0, &frames)?;
    if arrived.len() == frames.len() {
        // It takes whatever fits into its buffers, as some cards do.
        same_frames(&arrived, &frames)?;
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    same_frames(&arrived, &[small.clone(), small])?;
    let (received, _) = bench.side(1).counters();
    let by_card = ["rx_oversize_errors", "rx_length_errors", "rx_long_length_errors"];
    let counted = by_card.iter().filter_map(|name| bench.side(1).statistic(name)).max().unwrap_or(0);
    let counted = counted.max(received.dropped_total());
    ensure!(counted == 4, "{counted} frames count as too long instead of 4");
    bench.close()?;
    Ok(Outcome::Passed)
}
