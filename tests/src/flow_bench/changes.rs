//! Flows and tables that come and go, beside an engine that looks flows up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dataplane::clock::{CycleClock, cycles};
use dataplane::flow::{Action, Fate, FlowState, Output, Progress, Reader, Table, Writer};

use super::engine::{BATCH, Engine, Lookup, key, pin};
use super::{CORES, NEW_FLOWS, SWAPS};

/// What swaps of tables did to the engine.
#[derive(Debug)]
pub(super) struct Swaps {
    pub(super) count: usize,
    /// Longest time that taking a table took.
    pub(super) longest_take_us: f64,
    /// Longest batch with a swap before it, look-ups included.
    pub(super) longest_batch_us: f64,
    /// A batch without a swap.
    pub(super) median_batch_us: f64,
    /// Look-ups that found nothing: each flow was there all the time.
    pub(super) lost: u64,
    /// How long control took to build a table.
    pub(super) build_ms: f64,
}

/// Flows a second that one thread takes in and takes out again with nobody looking.
pub(super) fn inserts(writer: &mut Writer, reader: &mut Reader, flows: u32) -> Result<f64> {
    const COUNT: u32 = 100_000;
    let start = Instant::now();
    for number in flows..flows + COUNT {
        writer.insert(&key(number), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
    }
    let rate = f64::from(COUNT) / start.elapsed().as_secs_f64();
    for number in flows..flows + COUNT {
        let index = writer.find(&key(number)).context("a flow is gone")?;
        writer.remove(index);
    }
    reader.quiesce();
    writer.collect();
    Ok(rate)
}

/// Look-ups while another thread takes in [`NEW_FLOWS`] a second, and takes out as many.
pub(super) fn beside_inserts(writer: &mut Writer, mut engine: Engine, clock: CycleClock) -> Result<(Lookup, Engine)> {
    let end = AtomicBool::new(false);
    let (lookup, engine, inserted, seconds) = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            let _ = pin(CORES[0]);
            let lookup = engine.lookup(clock);
            end.store(true, Ordering::Release);
            (lookup, engine)
        });
        pin(CORES[1])?;
        let start = Instant::now();
        let mut inserted = 0_u32;
        while !end.load(Ordering::Acquire) {
            let due = u32::try_from(start.elapsed().as_micros() * u128::from(NEW_FLOWS) / 1_000_000)?;
            while inserted < due {
                let new = 10_000_000 + inserted;
                writer.insert(&key(new), &Action::to(Output::Port(1)), FlowState::Active, 0)?;
                if let Some(index) = new.checked_sub(1_000).and_then(|old| writer.find(&key(old))) {
                    writer.remove(index);
                }
                inserted += 1;
            }
            thread::sleep(Duration::from_micros(200));
        }
        let (lookup, engine) = measuring.join().map_err(|_| anyhow!("the engine's thread failed"))?;
        anyhow::Ok((lookup, engine, inserted, start.elapsed().as_secs_f64()))
    })?;
    let rate = f64::from(inserted) / seconds;
    ensure!(rate > f64::from(NEW_FLOWS) * 0.95, "only {rate:.0} new flows a second were taken in");
    Ok((lookup, engine))
}

/// Tables that control builds and the engine takes while it looks up.
pub(super) fn swaps(writer: &mut Writer, mut engine: Engine, clock: CycleClock) -> Result<Swaps> {
    let (send, tables) = mpsc::channel::<Arc<Table>>();
    let (give_back, back) = mpsc::channel();
    let (lost, takes, mut after, mut without, build) = thread::scope(|scope| {
        let engine = scope.spawn(move || {
            let _ = pin(CORES[0]);
            engine.lost = 0;
            let (mut takes, mut after, mut without) = (Vec::new(), Vec::new(), Vec::new());
            loop {
                match tables.try_recv() {
                    Ok(table) => {
                        let before = cycles();
                        let old = engine.reader.swap(table);
                        takes.push(cycles().saturating_sub(before));
                        let _ = give_back.send(old);
                        after.push(engine.batch(BATCH, true));
                    }
                    Err(mpsc::TryRecvError::Empty) => {
                        let took = engine.batch(BATCH, true);
                        if without.len() < 1_000_000 {
                            without.push(took);
                        }
                    }
                    Err(mpsc::TryRecvError::Disconnected) => return (engine.lost, takes, after, without),
                }
            }
        });
        pin(CORES[1])?;
        let mut build = Duration::ZERO;
        for _ in 0..SWAPS {
            let start = Instant::now();
            writer.begin(0)?;
            while writer.step(1_000, |_, _| Fate::Stay)? == Progress::Building {}
            let change = writer.commit()?;
            build += start.elapsed();
            send.send(change.table).map_err(|_| anyhow!("the engine's thread failed"))?;
            drop(back.recv().context("the engine's thread failed")?);
            writer.collect();
        }
        drop(send);
        let (lost, takes, after, without) = engine.join().map_err(|_| anyhow!("the engine's thread failed"))?;
        anyhow::Ok((lost, takes, after, without, build))
    })?;
    let microseconds = |cycles: u64| clock.nanoseconds(cycles) as f64 / 1e3;
    after.sort_unstable();
    without.sort_unstable();
    Ok(Swaps {
        count: takes.len(),
        longest_take_us: microseconds(takes.iter().copied().max().unwrap_or(0)),
        longest_batch_us: microseconds(after.last().copied().unwrap_or(0)),
        median_batch_us: microseconds(without.get(without.len() / 2).copied().unwrap_or(0)),
        lost,
        build_ms: build.as_secs_f64() * 1e3 / SWAPS as f64,
    })
}
