//! Opening, starting, stopping, losing the link.

use anyhow::{Result, ensure};
use drivers::nic::{Config, Nic, RxQueue, TxQueue};
use hugemem::Batch;

use super::super::bench::{Bench, Plan, STRANGER, same_frames};
use super::super::frame::experiment;
use super::super::patience::Wait;
use super::super::{Outcome, Rig};

/// The card does in hardware what its rig says, and nothing that was not asked for.
pub(super) fn offloads<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let expected = rig.offloads();
    let bench = Bench::new(rig, &Plan { config: Config::default(), ..Plan::default() })?;
    let found = bench.sides[0].nic.offloads();
    bench.close()?;
    ensure!(found == expected, "it offers {found:?}, and {expected:?} is expected");
    let plan = Plan::with(|plan| plan.config.offloads = drivers::nic::Offloads::empty());
    let bench = Bench::new(rig, &plan)?;
    let found = bench.sides[0].nic.offloads();
    bench.close()?;
    ensure!(found.is_empty(), "asked for nothing it does {found:?}");
    Ok(Outcome::Passed)
}

fn frames(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| experiment(STRANGER, STRANGER, number, 60 + number as usize % 700)).collect()
}

/// Speed, and a link that is pulled and plugged in again.
pub(super) fn link<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let speed = rig.speed();
    let mut bench = Bench::new(rig, &Plan::default())?;
    for side in &mut bench.sides {
        let link = side.nic.link();
        ensure!(link.up && link.speed_mbps == speed, "the link is {link:?}, {speed:?} Mb/s expected");
        ensure!(speed.is_none() || link.full_duplex == Some(true), "the link is {link:?}, full duplex expected");
    }
    let frames = frames(50);
    for _ in 0..3 {
        for side in [0, 1] {
            if !bench.rig.set_link(side, false)? {
                bench.close()?;
                return Ok(Outcome::NotOffered);
            }
        }
        bench.await_link(false)?;
        // A link that is down is no fault of the card.
        for side in &mut bench.sides {
            side.nic.check()?;
        }
        for side in [0, 1] {
            bench.rig.set_link(side, true)?;
        }
        bench.await_link(true)?;
        let arrived = bench.deliver_frames(0, &frames)?;
        same_frames(&arrived, &frames)?;
        let arrived = bench.deliver_frames(1, &frames)?;
        same_frames(&arrived, &frames)?;
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// One card is stopped and started again and again while the other one sends, and then the other.
pub(super) fn restarts<R: Rig>(rig: &mut R) -> Result<Outcome> {
    const ROUNDS: usize = 20;
    // Few more buffers than the ring has: each that a restart lost would soon be missed.
    let plan = Plan::with(|plan| (plan.config.ring_size, plan.buffers) = (128, 160));
    let mut bench = Bench::new(rig, &plan)?;
    let some = frames(64);
    for round in 0..ROUNDS {
        let (restarted, other) = (round % 2, 1 - round % 2);
        let mut batches = [Batch::new(128), Batch::new(128)];
        for (number, batch) in batches.iter_mut().enumerate() {
            for frame in &some {
                let packet = bench.side(number).packet(frame)?;
                ensure!(batch.push(packet).is_ok(), "the batch is full");
            }
            bench.side(number).queues[0].tx.transmit(batch);
        }
        // Somewhere in the middle of it: some frames are underway, some wait to be received.
        for _ in 0..round * 3 {
            std::thread::yield_now();
        }
        if round % 3 == 0 {
            bench.side(restarted).receive();
        }
        bench.side(restarted).stop()?;
        let side = bench.side(restarted);
        drop(batches);
        let (here, all) = (side.sources.available(), side.sources.capacity());
        ensure!(here == all, "round {round}: {} of {all} sent packets did not come home", all - here);
        side.start()?;
        bench.await_link(true)?;
        // What was underway may still come. Then everything has to arrive again, both ways.
        settle(&mut bench, other)?;
        for from in [restarted, other] {
            let arrived = bench.deliver_frames(from, &some)?;
            same_frames(&arrived, &some)?;
        }
        bench.side(other).nic.check()?;
        bench.side(restarted).nic.check()?;
    }
    bench.close()?;
    Ok(Outcome::Passed)
}

/// Waits until nothing is underway any more from this side, and nothing arrives.
fn settle<R: Rig>(bench: &mut Bench<'_, R>, from: usize) -> Result<()> {
    let (mut idle, mut wait) = (0, Wait::new());
    while idle < 150 {
        let underway: usize = bench.sides.iter_mut().map(|side| side.reclaim()).sum();
        let came: usize = bench.sides.iter_mut().map(|side| side.receive().len()).sum();
        if underway > 0 || came > 0 {
            idle = 0;
        }
        if came > 0 {
            wait.progress();
        }
        idle += 1;
        wait.idle(|| format!("{underway} packets stay underway, on side {from}"))?;
    }
    Ok(())
}

/// After the driver is gone the next one can use the card.
pub(super) fn opened_again<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let frames = frames(100);
    for round in 0..3 {
        let plan = Plan::with(|plan| plan.config.ring_size = 64 << round);
        let mut bench = Bench::new(&mut *rig, &plan)?;
        for from in [0, 1] {
            for chunk in frames.chunks(25) {
                let arrived = bench.deliver_frames(from, chunk)?;
                same_frames(&arrived, chunk)?;
            }
        }
        bench.close()?;
    }
    Ok(Outcome::Passed)
}

/// A driver that is dropped in full flight stops its card, which then touches nothing any more.
pub(super) fn dropped_while_running<R: Rig>(rig: &mut R) -> Result<Outcome> {
    for _ in 0..3 {
        let mut bench = Bench::new(&mut *rig, &Plan::default())?;
        for from in [0, 1] {
            let mut batch = Batch::new(64);
            for frame in frames(64) {
                let packet = bench.side(from).packet(&frame)?;
                ensure!(batch.push(packet).is_ok(), "the batch is full");
            }
            bench.side(from).queues[0].tx.transmit(&mut batch);
        }
        let Bench { rig, sides, .. } = bench;
        for side in sides {
            // The handle goes first, as the queues that it did not get back leak what they lent.
            let mut queues = side.queues;
            drop(side.nic);
            let mut batch = Batch::new(64);
            for pair in &mut queues {
                // Whatever they do now, it must end.
                pair.rx.receive(&mut batch);
                pair.tx.reclaim();
            }
        }
        let complaints = rig.complaints()?;
        ensure!(complaints.is_empty(), "the cards complain: {}", complaints.join("; "));
    }
    Ok(Outcome::Passed)
}
