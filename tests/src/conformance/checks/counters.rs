//! What was counted is what happened.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use drivers::nic::Nic;

use super::super::bench::{Bench, Plan, STRANGER};
use super::super::frame::experiment;
use super::super::{Outcome, Rig};

/// Sends `count` frames from each side; returns their bytes, with those of the frames that end deliveries.
fn pass<R: Rig>(bench: &mut Bench<'_, R>, count: u32) -> Result<(u64, u64)> {
    let mut bytes = 0;
    for from in [0, 1] {
        let frames: Vec<_> = (0..count)
            .map(|number| experiment(STRANGER, STRANGER, number, 60 + (number as usize * 97) % 1455))
            .collect();
        for chunk in frames.chunks(100) {
            let arrived = bench.deliver_frames(from, chunk)?;
            ensure!(arrived.len() == chunk.len(), "{} of {} frames arrived", arrived.len(), chunk.len());
        }
        bytes = frames.iter().map(|frame| frame.len() as u64).sum();
    }
    let endings = u64::from(count.div_ceil(100));
    Ok((u64::from(count) + endings, bytes + endings * 77))
}

/// The queues' counters, packets and bytes, on both sides, and over a restart.
pub(super) fn exact<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let (packets, bytes) = pass(&mut bench, 500)?;
    for rounds in [1, 2] {
        for number in [0, 1] {
            let side = bench.side(number);
            let (received, sent) = side.counters();
            for (counters, what) in [(received, "received"), (sent, "sent")] {
                ensure!(
                    counters.packets == rounds * packets,
                    "side {number}: {} packets count as {what}, not {}",
                    counters.packets,
                    rounds * packets
                );
                ensure!(
                    counters.bytes == rounds * bytes,
                    "side {number}: {} bytes count as {what}, not {}",
                    counters.bytes,
                    rounds * bytes
                );
                ensure!(
                    counters.dropped_total() == 0,
                    "side {number}: {} drops of {what} packets",
                    counters.dropped_total()
                );
            }
        }
        if rounds == 1 {
            for number in [0, 1] {
                bench.side(number).stop()?;
            }
            for number in [0, 1] {
                bench.side(number).start()?;
            }
            bench.await_link(true)?;
            pass(&mut bench, 500)?;
        }
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// The card's own counters agree with the queues', also over a restart.
pub(super) fn statistics<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    if bench.side(0).nic.statistics().is_empty() {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let values = |bench: &mut Bench<'_, R>, number: usize| -> Result<[u64; 4]> {
        let side = bench.side(number);
        let value = |name: &str| side.statistic(name);
        let mut value = value;
        let mut all = [0; 4];
        for (place, name) in
            all.iter_mut().zip(["rx_good_packets", "tx_good_packets", "rx_good_bytes", "tx_good_bytes"])
        {
            *place = value(name).with_context(|| format!("there is no {name}"))?;
        }
        Ok(all)
    };
    let before = [values(&mut bench, 0)?, values(&mut bench, 1)?];
    let (packets, bytes) = pass(&mut bench, 400)?;
    for number in [0, 1] {
        bench.side(number).stop()?;
        bench.side(number).start()?;
    }
    bench.await_link(true)?;
    let (more_packets, more_bytes) = pass(&mut bench, 400)?;
    let (packets, bytes) = (packets + more_packets, bytes + more_bytes);
    for number in [0, 1] {
        let after = values(&mut bench, number)?;
        let [rx_packets, tx_packets, rx_bytes, tx_bytes] = std::array::from_fn(|at| after[at] - before[number][at]);
        ensure!(
            (rx_packets, tx_packets) == (packets, packets),
            "side {number} says {rx_packets} received and {tx_packets} sent, not {packets}"
        );
        // With or without the frame check sequence, which is on the wire: one of both, for all.
        let lawful = [bytes, bytes + 4 * packets];
        ensure!(
            lawful.contains(&rx_bytes) && rx_bytes == tx_bytes,
            "side {number} says {rx_bytes} bytes received and {tx_bytes} sent, not {bytes}"
        );
        ensure!(bench.side(number).missed() == 0, "side {number} missed frames");
        let errors: Vec<_> = bench
            .side(number)
            .nic
            .statistics()
            .into_iter()
            .filter(|(name, value)| name.contains("error") && *value > 0)
            .collect();
        ensure!(errors.is_empty(), "side {number} counts {errors:?}");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// The same names in the same order each time, each once, and values that only grow.
pub(super) fn names<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig, &Plan::default())?;
    let first = bench.side(0).nic.statistics();
    if first.is_empty() {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    }
    let plain =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    for (name, _) in &first {
        ensure!(plain(name), "the name {name:?} has more than lower-case letters, digits and underscores");
    }
    let distinct: BTreeSet<_> = first.iter().map(|(name, _)| name).collect();
    ensure!(distinct.len() == first.len(), "a name appears twice among {first:?}");
    pass(&mut bench, 50)?;
    bench.side(0).stop()?;
    let stopped = bench.side(0).nic.statistics();
    bench.side(0).start()?;
    bench.await_link(true)?;
    let last = bench.side(0).nic.statistics();
    for (earlier, later) in [(&first, &stopped), (&stopped, &last)] {
        ensure!(earlier.iter().map(|(name, _)| name).eq(later.iter().map(|(name, _)| name)), "the names changed");
        let shrunk = earlier.iter().zip(later).find(|(earlier, later)| later.1 < earlier.1);
        ensure!(shrunk.is_none(), "a counter went back: {shrunk:?}");
    }
    bench.close()?;
    Ok(Outcome::Passed)
}
