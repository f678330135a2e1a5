//! Memory that is not mapped.

use anyhow::{Context, Result, ensure};
use drivers::copy_engine::{CopyDevice, CopyFailure};

use super::super::bench::Bench;
use super::super::rig::Rig;
use super::copies::copy;
use crate::conformance::Outcome;

/// Jobs that are underway together.
const BATCH: usize = 8;
/// Bytes that are mapped for a while.
const BYTES: u64 = 64 << 10;

/// See [`stray`].
pub(super) fn sources<R: Rig>(rig: &mut R) -> Result<Outcome> {
    stray(rig, true, CopyFailure::Source)
}

/// See [`stray`].
pub(super) fn targets<R: Rig>(rig: &mut R) -> Result<Outcome> {
    stray(rig, false, CopyFailure::Target)
}

/// One job of a batch, at each position, has an end in memory that was mapped and is not any more: it fails and says why, and all others are done.
fn stray<R: Rig>(rig: &mut R, is_source: bool, expected: CopyFailure) -> Result<Outcome> {
    let fails_alone = rig.expected().fails_alone;
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?;
    let gone = bench.rig.memory(usize::try_from(BYTES)?)?;
    let start = gone.iova();
    bench.device.map(&gone)?;
    let page = |number: u64| start.checked_add(number * 4096).context("outside of the address space");
    // It is used first: nothing may keep a way there open.
    copy(bench.engine()?, page(0)?, page(1)?, 100)?;
    bench.device.unmap(&gone)?;
    let mut named = 0;
    for position in 0..BATCH {
        let engine = bench.engine()?;
        let mut token = None;
        for number in 0..BATCH {
            if number == position {
                token = Some(user.push_stray(engine, page(2)?, is_source)?);
            } else {
                ensure!(user.push_any(engine, 2000)?, "a job was refused");
            }
        }
        user.finish(engine)?;
        let failed: Vec<_> = user.failed.drain(..).collect();
        let its = |(failed, failure): &(u64, CopyFailure)| Some(*failed) == token && *failure == expected;
        let others = failed.iter().filter(|failure| !its(failure)).count();
        let unproven = failed.iter().filter(|(_, failure)| *failure == CopyFailure::Unproven).count();
        let is_right = if fails_alone { others == 0 && failed.len() == 1 } else { others == unproven };
        ensure!(is_right, "position {position}, job {token:?}: {failed:?} failed");
        named += failed.len() - others;
        user.check_redone()?;
        bench.device.check()?;
    }
    ensure!(named >= BATCH / 2, "{named} of {BATCH} jobs were given their reason");
    if !fails_alone {
        // The last word about what was done before comes now.
        user.push(bench.engine()?, [0, 0], 100)?;
        user.finish(bench.engine()?)?;
        user.failed.clear();
        user.check_redone()?;
    }
    user.run(bench.engine()?, 50, longest)?;
    let engines = bench.engines.drain(..).map(|(engine, _)| engine).collect();
    bench.device.stop(engines, &mut Vec::new())?;
    drop(gone);
    // "... at IOVA 0x12345000"
    let is_there = |complaint: &str| {
        let hex =
            complaint.split("IOVA 0x").nth(1).map(|rest| rest.trim_end_matches(|end: char| !end.is_ascii_hexdigit()));
        let address = hex.and_then(|hex| u64::from_str_radix(hex, 16).ok());
        address.is_some_and(|address| (start.raw()..start.raw() + BYTES).contains(&address))
    };
    bench.end([user], is_there)
}
