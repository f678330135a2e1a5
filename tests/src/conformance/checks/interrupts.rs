//! Sleeping until something comes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use drivers::bus::Interrupt;
use drivers::nic::{RxQueue, TxQueue};
use hugemem::Batch;

use super::super::bench::{Bench, Plan, STRANGER};
use super::super::frame::experiment;
use super::super::patience::{PATIENCE, Wait};
use super::super::{Outcome, Rig};

/// Times that the receiver goes to sleep.
const ROUNDS: u64 = 1000;

fn with_interrupts() -> Plan {
    Plan::with(|plan| plan.config.interrupts = true)
}

/// A frame comes at any time around the moment in which the receiver falls asleep, and wakes it each time.
pub(super) fn no_lost_wake_up<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), with_interrupts())?;
    let Some(mut interrupt) = bench.side(1).queues[0].interrupt.take() else {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    };
    let frame = experiment(STRANGER, STRANGER, 1, 64);
    let [first, second] = &mut bench.sides;
    let (tx, sources) = (&mut first.queues[0].tx, &mut first.sources);
    let rx = &mut second.queues[0].rx;
    let (seen, stopped) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| -> Result<()> {
            let mut batch = Batch::new(1);
            for round in 0..ROUNDS {
                while seen.load(Ordering::Acquire) < round {
                    if stopped.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                // Anything from at once to long after the receiver fell asleep.
                let delay = round.wrapping_mul(0x9e37_79b9) >> 7 & 0x7f;
                match round % 4 {
                    0 => {}
                    1 => (0..delay * 20).for_each(|_| std::hint::spin_loop()),
                    2 => std::thread::yield_now(),
                    _ => std::thread::sleep(Duration::from_micros(delay)),
                }
                let mut packet = sources.take().context("sent packets do not come back")?;
                packet.write(&frame)?;
                batch.push(packet).map_err(|_| anyhow!("the batch is full"))?;
                while tx.transmit(&mut batch) == 0 {
                    std::thread::yield_now();
                }
                tx.reclaim();
            }
            Ok(())
        });
        let received = (|| -> Result<()> {
            let mut batch = Batch::new(32);
            let mut wait = Wait::new();
            while seen.load(Ordering::Relaxed) < ROUNDS {
                let round = seen.load(Ordering::Relaxed);
                if rx.receive(&mut batch) > 0 {
                    seen.fetch_add(batch.len() as u64, Ordering::Release);
                    batch.clear();
                    wait.progress();
                    continue;
                }
                if !rx.arm() {
                    wait.idle(|| format!("round {round}: the queue says that packets wait and has none"))?;
                    continue;
                }
                let woken = interrupt.wait(PATIENCE)?;
                rx.disarm();
                if !woken {
                    let waiting = rx.receive(&mut batch);
                    bail!("round {round}: no wake-up in {} s, {waiting} frames wait", PATIENCE.as_secs());
                }
            }
            Ok(())
        })();
        stopped.store(true, Ordering::Relaxed);
        let sent = sending.join().map_err(|_| anyhow!("the sending thread panicked"))?;
        received.and(sent)
    })?;
    second.queues[0].interrupt = Some(interrupt);
    bench.close()?;
    Ok(Outcome::Passed)
}

/// As long as the queue is not armed it stays quiet.
pub(super) fn quiet_while_polling<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, Plan::default(), with_interrupts())?;
    let Some(mut interrupt) = bench.side(1).queues[0].interrupt.take() else {
        bench.close()?;
        return Ok(Outcome::NotOffered);
    };
    while interrupt.wait(Duration::ZERO)? {}
    let frame = experiment(STRANGER, STRANGER, 1, 64);
    let mut count = 0;
    for _ in 0..100 {
        ensure!(bench.deliver_frames(0, std::slice::from_ref(&frame))?.len() == 1, "the frame did not arrive");
        while interrupt.wait(Duration::ZERO)? {
            count += 1;
        }
    }
    // A ring that suppresses by index may let one slip through each time the index comes round.
    ensure!(count <= 2, "{count} interrupts in 100 rounds of polling");
    bench.side(1).queues[0].interrupt = Some(interrupt);
    bench.close()?;
    Ok(Outcome::Passed)
}
