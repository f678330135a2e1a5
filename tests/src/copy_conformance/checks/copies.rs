//! What is copied: every length, every alignment, wherever it lies.

use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine, CopyJob, CopyOutcome};
use hugemem::{DmaArray, Iova};

use super::super::bench::Bench;
use super::super::rig::Rig;
use crate::conformance::Outcome;
use crate::conformance::patience::Wait;

/// The most memory that a job of the longest length is tried with.
const LARGE: usize = 64 << 20;

/// Lengths around all that could matter to an engine, each at many alignments of source and target.
pub(super) fn lengths<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?;
    let engine = bench.engine()?;
    let unit = engine.unit() as usize;
    let small =
        [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 60, 63, 64, 65, 127, 128, 129, 512, 1514, 4095, 4096, 4097, 9018];
    let large = [unit - 1, unit, unit + 1, 2 * unit - 1, 2 * unit, 3 * unit + 17, longest];
    let mut jobs = 0;
    for (length, alignments) in small.iter().map(|length| (*length, 16)).chain(large.iter().map(|length| (*length, 4)))
    {
        if length > longest {
            continue;
        }
        for alignment in 0..alignments {
            let alignments = [alignment * 64 / alignments, alignment * 29 % 64];
            if !user.push(engine, alignments, length)? {
                user.finish(engine)?;
                ensure!(
                    user.push(engine, alignments, length)?,
                    "a job of {length} bytes is refused with none underway"
                );
            }
            jobs += 1;
        }
    }
    user.finish(engine)?;
    ensure!(user.copied == jobs, "{} of {jobs} jobs were copied", user.copied);
    bench.close([user])
}

/// Sources and targets that begin close to the end of a page and go on in the next ones.
pub(super) fn pages<R: Rig>(rig: &mut R) -> Result<Outcome> {
    const PAGE: usize = 4096;
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let engine = bench.engine()?;
    let mut jobs = 0;
    for before in [1, 2, 63, 64, 65, 1500] {
        for [source, target] in [[PAGE - before, PAGE], [PAGE, PAGE - before], [3 * PAGE - before, 2 * PAGE - before]] {
            for length in [before, before + 1, 2 * before, PAGE + before, 2 * PAGE + 1] {
                ensure!(user.push_between(engine, source, target, length)?, "a job is refused with none underway");
                user.finish(engine)?;
                jobs += 1;
            }
        }
    }
    ensure!(user.copied == jobs, "{} of {jobs} jobs were copied", user.copied);
    bench.close([user])
}

/// A job whose target, and one whose source, begins in one region and ends in the next one.
pub(super) fn neighbours<R: Rig>(rig: &mut R) -> Result<Outcome> {
    // Regions of this size follow each other on every bus.
    const BYTES: usize = 2 << 20;
    /// As much of each region is looked at.
    const WINDOW: usize = 32 << 10;
    let mut bench = Bench::new(rig)?;
    let mut arrays = Vec::new();
    for _ in 0..3 {
        let region = bench.rig.memory(BYTES)?;
        bench.device.map(&region)?;
        arrays.push(region.array::<AtomicU8>(BYTES, 4096)?);
    }
    let [third, first, second] = [&arrays[0], &arrays[1], &arrays[2]];
    let (end, next) = (first.iova().checked_add(BYTES as u64), second.iova());
    ensure!(end == Some(next), "the rig's regions are no neighbours: {end:?} and {next:?}");
    let engine = bench.engine()?;
    for (before, length) in [(1, 2), (64, 128), (4999, 5000), (100, 15_000), (14_999, 15_000)] {
        let pattern = |at: usize| u8::try_from((at * 7 + before) % 251).unwrap_or(0);
        let windows = [&third[..WINDOW], &first[BYTES - WINDOW..], &second[..WINDOW]];
        windows.into_iter().flatten().for_each(|byte| byte.store(0xff, Ordering::Relaxed));
        third.iter().take(length).enumerate().for_each(|(at, byte)| byte.store(pattern(at), Ordering::Relaxed));
        let address = |array: &DmaArray<AtomicU8>, at| array.iova_of(at).context("outside of the array");
        let middle = address(first, BYTES - before)?;
        copy(engine, address(third, 0)?, middle, length)?;
        copy(engine, middle, address(third, WINDOW / 2)?, length)?;
        // Out, and home again.
        let out = first.iter().skip(BYTES - before).chain(second.iter()).take(length + 1);
        let home = third.iter().skip(WINDOW / 2).take(length + 1);
        for bytes in [&mut out.into_iter() as &mut dyn Iterator<Item = &AtomicU8>, &mut home.into_iter()] {
            for (at, byte) in bytes.enumerate() {
                let (is, expected) = (byte.load(Ordering::Relaxed), if at < length { pattern(at) } else { 0xff });
                ensure!(is == expected, "{length} bytes, {before} of them before the border: byte {at} is {is:#x}");
            }
        }
        ensure!(first[BYTES - before - 1].load(Ordering::Relaxed) == 0xff, "the byte in front was written");
    }
    drop(arrays);
    bench.close([])
}

/// Copies once.
pub(super) fn copy(engine: &mut impl CopyEngine, source: Iova, target: Iova, length: usize) -> Result<()> {
    let job = CopyJob::new(source, target, u32::try_from(length)?, 1).context("the job leaves the address space")?;
    ensure!(engine.push(job).is_ok(), "a job is refused with none underway");
    engine.submit();
    let (mut done, mut wait) = (Vec::with_capacity(1), Wait::new());
    while engine.complete(&mut done) == 0 {
        wait.idle(|| format!("a job does not come back ({:?})", engine.state()))?;
    }
    ensure!(done == [CopyDone { token: 1, outcome: CopyOutcome::Copied }], "{done:?}");
    Ok(())
}

/// A job of the longest length, and one that is a byte longer.
pub(super) fn longest<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let longest = bench.engine()?.longest() as usize;
    if longest > LARGE {
        bench.close([])?;
        return Ok(Outcome::NotOffered);
    }
    let mut user = bench.user_of(longest + 4096)?;
    let engine = bench.engine()?;
    for _ in 0..2 {
        ensure!(!user.push(engine, [0, 0], longest + 1)?, "a job of more than {longest} bytes was taken");
        ensure!(user.push(engine, [5, 9], longest)?, "a job of {longest} bytes was refused");
        user.finish(engine)?;
        ensure!(user.push(engine, [0, 0], 100)?, "the next job was refused");
        user.finish(engine)?;
    }
    ensure!((user.copied, user.failed.len()) == (4, 0), "{} jobs were copied, {:?} failed", user.copied, user.failed);
    bench.close([user])
}
