//! In which order, when, and how many.

use std::time::Duration;

use anyhow::{Result, ensure};
use drivers::copy_engine::{CopyDone, CopyEngine, CopyJob, CopyOutcome};

use super::super::bench::Bench;
use super::super::rig::{Plan, Rig};
use crate::conformance::Outcome;
use crate::conformance::patience::Wait;

/// Longer than any device needs for a small copy.
const A_WHILE: Duration = Duration::from_millis(20);

/// A long series of all lengths, with as much underway as the engine takes.
pub(super) fn many<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let jobs = rig.expected().jobs;
    let mut bench = Bench::with(rig, &Plan { depth: 128, ..Plan::default() })?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?.min(16 << 10);
    let engine = bench.engine()?;
    user.run(engine, jobs, longest)?;
    ensure!(user.copied == jobs as u64, "{} of {jobs} jobs were copied", user.copied);
    bench.close([user])
}

/// What was pushed waits for the word.
pub(super) fn nothing_before_submit<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let engine = bench.engine()?;
    for _ in 0..3 {
        for length in [0, 64, 1500, 8000] {
            ensure!(user.push(engine, [1, 2], length)?, "a job was refused");
        }
        std::thread::sleep(A_WHILE);
        ensure!(user.look(engine)? == 0, "a job came back that was not submitted");
        user.is_untouched()?;
        user.finish(engine)?;
    }
    ensure!(user.copied == 12, "{} of 12 jobs were copied", user.copied);
    bench.close([user])
}

/// An engine takes what it has room for, hands everything else back as it was, and has the same room again when all is done.
pub(super) fn full<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let engine = bench.engine()?;
    let room = engine.room();
    ensure!(room > 0, "an engine with nothing to do has no room");
    for is_submitted in [false, true, false] {
        let mut taken = 0;
        while user.push(engine, [0, 0], 100)? {
            taken += 1;
            ensure!(taken <= room, "more than the {room} jobs were taken that there was room for");
            if is_submitted {
                engine.submit();
            }
        }
        ensure!(taken == room && engine.room() == 0, "{taken} jobs were taken with room for {room}");
        // No room even when all of them are done, until they are taken back.
        engine.submit();
        std::thread::sleep(A_WHILE);
        ensure!(!user.push(engine, [0, 0], 100)?, "a job was taken without room");
        user.finish(engine)?;
        let again = engine.room();
        ensure!(again == room, "there is room for {again} jobs after the first {room}");
    }
    // A longer job takes the room of several.
    let unit = engine.unit() as usize;
    if 4 * unit <= user.longest() {
        ensure!(user.push(engine, [0, 0], 2 * unit + 1)?, "a job of three pieces was refused");
        let taken = room - engine.room();
        ensure!(taken == 3, "a job of three pieces takes the room of {taken}");
        user.finish(engine)?;
    }
    bench.close([user])
}

/// The engine makes nothing of tokens: they may be the same, or anything.
pub(super) fn tokens<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let user = bench.user()?;
    let (from, to) = (user.source(0)?, user.source(4096)?);
    let engine = bench.engine()?;
    let tokens = [u64::MAX, 0, 7, 7, 7, 1 << 63, 0, u64::MAX];
    for token in tokens {
        let taken = CopyJob::new(from, to, 8, token).is_some_and(|job| engine.push(job).is_ok());
        ensure!(taken, "a job was refused");
    }
    engine.submit();
    let (mut done, mut wait) = (Vec::with_capacity(tokens.len()), Wait::new());
    while done.len() < tokens.len() {
        if engine.complete(&mut done) == 0 {
            wait.idle(|| format!("{} of {} jobs came back", done.len(), tokens.len()))?;
        }
    }
    let expected = tokens.map(|token| CopyDone { token, outcome: CopyOutcome::Copied });
    ensure!(done == expected, "{done:?}");
    bench.close([user])
}
