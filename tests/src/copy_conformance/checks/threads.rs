//! Engines on threads of their own, while their device goes on being looked after.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use drivers::copy_engine::CopyDevice;

use super::super::bench::Bench;
use super::super::rig::{Plan, Rig};
use crate::conformance::Outcome;

/// Longest job here.
const LONGEST: usize = 8 << 10;

/// Memory is mapped and unmapped while copies in other memory run, and can be used in between.
pub(super) fn memory_comes_and_goes<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let jobs = rig.expected().jobs / 10;
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let guests = [bench.rig.memory(64 << 10)?, bench.rig.memory(64 << 10)?];
    let (mut engine, interrupt) = bench.engines.pop().context("no engine")?;
    let running = AtomicUsize::new(1);
    let (maps, ran) = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let ran = user.run(&mut engine, jobs, LONGEST);
            running.store(0, Ordering::Release);
            ran
        });
        let mut maps = 0;
        // At least some rounds, for a device may be done before the first one.
        while maps < 5 || running.load(Ordering::Acquire) > 0 {
            for region in &guests {
                if let Err(error) = bench.device.map(region).and_then(|()| bench.device.unmap(region)) {
                    // The worker ends by itself.
                    return (Err(anyhow!(error)), worker.join());
                }
            }
            maps += 1;
        }
        (Ok(maps), worker.join())
    });
    let maps: u32 = maps?;
    ran.map_err(|_| anyhow!("the engine's thread panicked"))?
        .with_context(|| format!("after {maps} rounds of maps"))?;
    for _ in 0..3 {
        let mut another = bench.user()?;
        another.run(&mut engine, 30, LONGEST)?;
        another.check_all()?;
        for region in &another.regions {
            bench.device.unmap(region)?;
        }
    }
    user.run(&mut engine, 30, LONGEST)?;
    bench.engines.push((engine, interrupt));
    drop(guests);
    bench.close([user])
}

/// Every engine of the device has a thread and copies in memory of its own.
pub(super) fn all_engines<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let expected = rig.expected();
    let (engines, jobs) = (expected.engines, expected.jobs / 10);
    if engines < 2 {
        return Ok(Outcome::NotOffered);
    }
    let mut bench = Bench::with(rig, &Plan { engines, ..Plan::default() })?;
    let mut workers = Vec::new();
    for started in std::mem::take(&mut bench.engines) {
        workers.push((started, bench.user()?));
    }
    for _ in 0..2 {
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                workers.iter_mut().map(|((engine, _), user)| scope.spawn(|| user.run(engine, jobs, LONGEST))).collect();
            threads.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        for (number, result) in results.into_iter().enumerate() {
            result.map_err(|_| anyhow!("a thread panicked"))?.with_context(|| format!("engine {number}"))?;
        }
        bench.device.check()?;
        // Once more after a restart, with the engines of the others.
        let (started, users): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
        let mut back = Vec::new();
        bench.device.stop(started.into_iter().map(|(engine, _)| engine).collect(), &mut back)?;
        ensure!(back.is_empty(), "{} jobs were still there", back.len());
        workers = bench.device.start()?.into_iter().zip(users.into_iter().rev()).collect();
        ensure!(workers.len() == usize::from(engines), "{} engines started again", workers.len());
    }
    let (started, users): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    bench.engines = started;
    bench.close(users)
}
