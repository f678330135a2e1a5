//! Full queues, receivers that stand still, and pools that run dry.

use anyhow::{Context, Result, ensure};
use drivers::nic::{DropReason, RxQueue, TxQueue};
use hugemem::Batch;

use super::super::bench::{Bench, Plan, STRANGER, same_bytes};
use super::super::frame::experiment;
use super::super::patience::Wait;
use super::super::{Outcome, Rig};

fn frames(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| experiment(STRANGER, STRANGER, number, 60 + number as usize % 200)).collect()
}

/// More packets at once than the ring has places: what does not fit stays in the batch, in order, and goes later.
pub(super) fn large_burst<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let sender = Plan::with(|plan| plan.config.ring_size = 64);
    let receiver = Plan::with(|plan| (plan.config.ring_size, plan.buffers) = (512, 1024));
    let mut bench = Bench::with(rig, sender, receiver)?;
    let frames = frames(600);
    let mut batch = Batch::new(frames.len());
    for frame in &frames {
        let packet = bench.side(0).packet(frame)?;
        ensure!(batch.push(packet).is_ok(), "the batch is full");
    }
    let mut arrived: Vec<Vec<u8>> = Vec::new();
    let mut left_over = 0;
    let mut wait = Wait::new();
    while arrived.len() < frames.len() {
        let before = batch.len();
        let taken = bench.side(0).queues[0].tx.transmit(&mut batch);
        ensure!(taken + batch.len() == before, "{before} packets: {taken} were taken, and {} are left", batch.len());
        left_over += usize::from(!batch.is_empty());
        if let Some(first) = batch.as_slice().first() {
            ensure!(first.bytes() == frames[frames.len() - batch.len()], "the packets left are not the last ones");
        }
        bench.side(0).reclaim();
        let came = bench.side(1).receive();
        if taken > 0 || !came.is_empty() {
            wait.progress();
        }
        arrived.extend(came.into_iter().map(|frame| frame.bytes));
        wait.idle(|| format!("{} of 600 frames arrived, {} are in the batch", arrived.len(), batch.len()))?;
    }
    ensure!(left_over > 0, "600 packets went into a ring of 64 at once");
    same_bytes(&arrived, &frames)?;
    ensure!(bench.side(0).counters().1.dropped_total() == 0, "full is not a drop");
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Frames for a receiver that stands still: more than rings and cable hold, where the cable holds frames at all.
const STALLED: u32 = 2000;

/// A receiver stands still while the sender goes on. Every frame arrives in the end, or the receiving card says that it
/// missed it.
pub(super) fn stalled_receiver<R: Rig>(rig: &mut R) -> Result<Outcome> {
    if !rig.is_patient() {
        return Ok(Outcome::NotOffered);
    }
    let plan = Plan::with(|plan| (plan.config.ring_size, plan.sources) = (64, 2048));
    let mut bench = Bench::new(rig, &plan)?;
    let frames = frames(STALLED);
    let mut batch = Batch::new(frames.len());
    for frame in &frames {
        let packet = bench.side(0).packet(frame)?;
        ensure!(batch.push(packet).is_ok(), "the batch is full");
    }
    // Until nothing has moved for a while: the ring, the cable and the other ring are full, or all was sent.
    let (mut idle, mut wait) = (0, Wait::new());
    while idle < 200 && !batch.is_empty() {
        if bench.side(0).queues[0].tx.transmit(&mut batch) > 0 {
            (idle, wait) = (0, Wait::new());
        }
        idle += 1;
        wait.idle(|| "the sender stands still".to_owned())?;
    }
    let mut arrived = Vec::new();
    wait.progress();
    while arrived.len() as u64 + bench.side(1).missed() < frames.len() as u64 {
        let taken = bench.side(0).queues[0].tx.transmit(&mut batch);
        bench.side(0).reclaim();
        let came = bench.side(1).receive();
        if taken > 0 || !came.is_empty() {
            wait.progress();
        }
        arrived.extend(came);
        let missed = bench.side(1).missed();
        wait.idle(|| {
            format!("{} of {STALLED} frames arrived, {missed} were missed, {} not sent", arrived.len(), batch.len())
        })?;
    }
    in_order(&arrived.iter().map(|frame| frame.bytes.clone()).collect::<Vec<_>>(), &frames)?;
    let missed = bench.side(1).missed();
    ensure!(
        arrived.len() as u64 + missed == u64::from(STALLED),
        "{} arrived and {missed} were missed, of {STALLED}",
        arrived.len()
    );
    bench.close()?;
    Ok(Outcome::Passed)
}

/// What arrived is part of what was sent, in the same order.
fn in_order(arrived: &[Vec<u8>], sent: &[Vec<u8>]) -> Result<()> {
    let mut next = 0;
    for (place, frame) in arrived.iter().enumerate() {
        let number = sent.iter().position(|sent| sent == frame);
        let number = number.with_context(|| format!("frame {place} of those that arrived was never sent"))?;
        ensure!(number >= next, "frame {number} arrived in place {place}, after frame {}", next - 1);
        next = number + 1;
    }
    Ok(())
}

/// All buffers are held by whoever received them: the queue stands still, keeps its promises, and goes on when they come home.
pub(super) fn empty_pool<R: Rig>(rig: &mut R) -> Result<Outcome> {
    if !rig.is_patient() {
        return Ok(Outcome::NotOffered);
    }
    const BUFFERS: usize = 96;
    let receiver =
        Plan::with(|plan| (plan.config.ring_size, plan.buffers, plan.config.interrupts) = (64, BUFFERS, true));
    let mut bench = Bench::with(rig, Plan::default(), receiver)?;
    for round in 0..5 {
        let before = bench.side(1).missed();
        let dropped = |bench: &mut Bench<'_, R>| bench.side(1).counters().0.dropped(DropReason::NoBuffer);
        let dropped_before = dropped(&mut bench);
        let mut held = Batch::new(BUFFERS + 1);
        let mut batch = Batch::new(16);
        let mut frames = Vec::new();
        // Nothing is given back until every buffer is held; then frames go on for a while.
        let (mut wait, mut beyond) = (Wait::new(), 0);
        while held.len() < BUFFERS || beyond < 64 {
            if batch.is_empty() {
                let frame = experiment(STRANGER, STRANGER, u32::try_from(frames.len())?, 64);
                let packet = bench.side(0).packet(&frame)?;
                ensure!(batch.push(packet).is_ok(), "the batch is full");
                frames.push(frame);
                beyond += usize::from(held.len() == BUFFERS);
            }
            bench.side(0).queues[0].tx.transmit(&mut batch);
            bench.side(0).reclaim();
            if bench.side(1).queues[0].rx.receive(&mut held) > 0 {
                wait.progress();
            }
            wait.idle(|| format!("round {round}: only {} of {BUFFERS} buffers could be filled", held.len()))?;
        }
        ensure!(held.len() == BUFFERS, "{} packets came out of {BUFFERS} buffers", held.len());
        // A queue with no buffer can get none of the interrupts that it would promise.
        ensure!(!bench.side(1).queues[0].rx.arm(), "round {round}: a queue without buffers was armed");
        let mut seen: Vec<Vec<u8>> = held.iter().map(|packet| packet.bytes().to_vec()).collect();
        held.clear();
        // It goes on: what waited comes, what was dropped is counted.
        let mut wait = Wait::new();
        loop {
            bench.side(0).queues[0].tx.transmit(&mut batch);
            let underway = bench.side(0).reclaim() + batch.len();
            let came = bench.side(1).receive();
            if !came.is_empty() {
                wait.progress();
            }
            seen.extend(came.into_iter().map(|frame| frame.bytes));
            let missed = (bench.side(1).missed() - before).max(dropped(&mut bench) - dropped_before);
            let known = seen.len() as u64 + missed;
            ensure!(known <= frames.len() as u64, "round {round}: {} frames, {known} known", frames.len());
            if underway == 0 && known == frames.len() as u64 {
                break;
            }
            let state = format!("{} of {} frames arrived, {missed} were missed", seen.len(), frames.len());
            wait.idle(|| format!("round {round}: it does not go on with its buffers back: {state}"))?;
        }
        in_order(&seen, &frames).with_context(|| format!("round {round}"))?;
        let arrived = bench.deliver_frames(0, &frames[..10])?;
        ensure!(arrived.len() == 10, "round {round}: {} of 10 frames arrive afterwards", arrived.len());
    }
    bench.close()?;
    Ok(Outcome::Passed)
}
