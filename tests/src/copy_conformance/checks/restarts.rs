//! Stopping with work underway, and starting again.

use std::time::Duration;

use anyhow::{Result, ensure};
use drivers::copy_engine::{CopyDevice, CopyEngine};

use super::super::bench::Bench;
use super::super::rig::Rig;
use crate::conformance::Outcome;

/// Long enough for an engine that did not stop to show.
const A_WHILE: Duration = Duration::from_millis(5);

/// All jobs come back, done or failed; nothing is written to those that failed; and the device works again.
pub(super) fn under_load<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?;
    for round in 0..6 {
        let engine = bench.engine()?;
        for number in 0..20 {
            user.push_any(engine, longest)?;
            // Some of them are submitted, in some rounds nothing or everything.
            if number == 4 * round {
                engine.submit();
            }
        }
        if round % 2 == 1 {
            user.look(engine)?;
        }
        let (underway, before) = (user.underway() as u64, user.copied + user.failed.len() as u64);
        bench.stop(&mut user)?;
        let came = user.copied + user.failed.len() as u64 - before;
        ensure!(user.underway() == 0, "{} jobs are still underway on a device that was stopped", user.underway());
        ensure!(came == underway, "{came} jobs came back of {underway}");
        std::thread::sleep(A_WHILE);
        user.check_all()?;
        bench.start()?;
        user.run(bench.engine()?, 20, longest)?;
    }
    bench.close([user])
}

/// A device that was closed is opened by the next one as if nothing had been.
pub(super) fn opened_again<R: Rig>(rig: &mut R) -> Result<Outcome> {
    for _ in 0..3 {
        let mut bench = Bench::new(rig)?;
        let mut user = bench.user()?;
        let longest = bench.longest(&user)?;
        user.run(bench.engine()?, 50, longest)?;
        // A start without a stop is refused, and harms nobody.
        ensure!(bench.device.start().is_err(), "it starts twice");
        user.run(bench.engine()?, 50, longest)?;
        bench.close([user])?;
    }
    Ok(Outcome::Passed)
}
