//! Sleeping until something is done.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use drivers::bus::Interrupt;
use drivers::copy_engine::CopyEngine;

use super::super::bench::Bench;
use super::super::rig::{Plan, Rig};
use crate::conformance::Outcome;
use crate::conformance::patience::{PATIENCE, Wait};

/// Times that the caller has to be put to sleep and woken.
const NAPS: u32 = 20;

/// An engine that was armed wakes its owner, each time; one that has something to tell does not let it sleep.
pub(super) fn woken<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::with(rig, &Plan { interrupts: true, ..Plan::default() })?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?;
    let (mut engine, interrupt) = bench.engines.pop().context("no engine")?;
    let Some(mut interrupt) = interrupt else {
        ensure!(!engine.arm(), "an engine without an interrupt was armed");
        bench.engines.push((engine, None));
        bench.close([user])?;
        return Ok(Outcome::NotOffered);
    };
    let (mut naps, mut round) = (0, 0_u64);
    let deadline = Instant::now() + PATIENCE;
    // A quick engine is mostly done before anybody falls asleep.
    while naps < NAPS {
        ensure!(Instant::now() < deadline, "{naps} times asleep in {round} rounds");
        round += 1;
        ensure!(user.push(&mut engine, [0, 0], longest)?, "a job was refused");
        engine.submit();
        if engine.arm() {
            let woken = interrupt.wait(PATIENCE)?;
            ensure!(woken, "round {round}: no wake-up after {naps} in order ({:?})", engine.state());
            naps += 1;
            let mut wait = Wait::new();
            // The interrupt may have been quicker than what it tells of.
            while user.look(&mut engine)? == 0 {
                wait.idle(|| "an interrupt, and nothing is done".to_owned())?;
            }
        } else {
            user.finish(&mut engine)?;
        }
        ensure!(user.underway() == 0, "a job is left");
    }
    // Something is done and nobody looked.
    ensure!(user.push(&mut engine, [0, 0], 100)?, "a job was refused");
    engine.submit();
    let mut wait = Wait::new();
    while engine.arm() {
        wait.idle(|| "an engine that is done lets its owner sleep".to_owned())?;
    }
    user.finish(&mut engine)?;
    bench.engines.push((engine, Some(interrupt)));
    bench.close([user])
}
