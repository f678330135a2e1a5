//! Devices that go away, and drivers that do.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use drivers::copy_engine::{CopyDevice, CopyEngine, EngineState};

use super::super::bench::Bench;
use super::super::rig::Rig;
use super::super::user::User;
use crate::conformance::Outcome;
use crate::conformance::patience::Wait;

/// Long enough for an engine that did not stop to show.
const A_WHILE: Duration = Duration::from_millis(5);

/// A device with a user who has work underway.
fn busy<R: Rig>(rig: &mut R) -> Result<(Bench<'_, R>, User)> {
    let mut bench = Bench::new(rig)?;
    let mut user = bench.user()?;
    let longest = bench.longest(&user)?;
    let engine = bench.engine()?;
    user.run(engine, 50, longest)?;
    push_some(&mut user, engine, longest)?;
    Ok((bench, user))
}

fn push_some(user: &mut User, engine: &mut impl CopyEngine, longest: usize) -> Result<()> {
    for _ in 0..10 {
        user.push_any(engine, longest)?;
    }
    engine.submit();
    Ok(())
}

/// Nobody has the engine any more: its device stops, and cannot start without it.
pub(super) fn dropped_engine<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let (mut bench, mut user) = busy(rig)?;
    bench.engines.clear();
    let name = bench.device.name().to_owned();
    bench.device.stop(Vec::new(), &mut Vec::new())?;
    user.redo_all();
    std::thread::sleep(A_WHILE);
    user.check_redone()?;
    match bench.device.start() {
        Ok(_) => bail!("it starts without its engine"),
        Err(error) => ensure!(error.to_string().contains(&name), "the error does not name {name}: {error}"),
    }
    bench.end([user], |_| false)
}

/// The device is dropped and its engine is still there, and the other way round: neither harms anybody.
pub(super) fn dropped_while_copying<R: Rig>(rig: &mut R) -> Result<Outcome> {
    for engine_first in [true, false] {
        let (bench, mut user) = busy(rig)?;
        let Bench { device, engines, rig, .. } = bench;
        if engine_first {
            drop(engines);
            drop(device);
        } else {
            drop(device);
            for (mut engine, _) in engines {
                for _ in 0..20 {
                    user.push_any(&mut engine, 1000)?;
                    engine.submit();
                    user.look(&mut engine)?;
                    engine.arm();
                }
            }
        }
        // Whatever was underway is nobody's now.
        user.redo_all();
        std::thread::sleep(A_WHILE);
        user.check_all()?;
        let complaints = rig.complaints()?;
        ensure!(complaints.is_empty(), "the device complains: {}", complaints.join("; "));
        drop(user);
        let leftovers = rig.leftovers()?;
        ensure!(leftovers.is_empty(), "left behind: {}", leftovers.join("; "));
    }
    Ok(Outcome::Passed)
}

/// Somebody pulls the device out: that is noticed and told, and all jobs come home, for the bus takes all memory away from what is not there.
pub(super) fn removed<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let (mut bench, mut user) = busy(rig)?;
    if !bench.rig.remove()? {
        user.finish(bench.engine()?)?;
        bench.close([user])?;
        return Ok(Outcome::NotOffered);
    }
    breaks(bench.engine()?, &mut user)?;
    bench.ailment()?;
    ensure!(bench.stop(&mut user).is_err(), "a device that is not there was stopped");
    ensure!(user.underway() == 0, "{} jobs did not come home", user.underway());
    ensure!(bench.start().is_err(), "a device that is not there was started");
    bench.end([user], |_| false)
}

/// The engine breaks although its user goes on and on.
fn breaks(engine: &mut impl CopyEngine, user: &mut User) -> Result<()> {
    let mut wait = Wait::new();
    while engine.state() != EngineState::Broken {
        user.push_any(engine, 2000)?;
        engine.submit();
        user.look(engine)?;
        wait.idle(|| "nobody noticed that the device is gone".to_owned())?;
    }
    ensure!(engine.room() == 0 && !user.push(engine, [0, 0], 100)?, "a broken engine takes a job");
    Ok(())
}

/// Whoever plays the device does not answer any more. That is noticed and told in time; which jobs come home is up to the bus: what shares memory still reaches it.
pub(super) fn silent<R: Rig>(rig: &mut R) -> Result<Outcome> {
    let (mut bench, mut user) = busy(rig)?;
    if !bench.rig.silence(true)? {
        user.finish(bench.engine()?)?;
        bench.close([user])?;
        return Ok(Outcome::NotOffered);
    }
    let found = bench.engine().and_then(|engine| breaks(engine, &mut user)).and_then(|()| bench.ailment());
    let stopped = bench.stop(&mut user);
    bench.rig.silence(false)?;
    found?;
    ensure!(stopped.is_err(), "a device that does not answer was stopped");
    // It went on, and may still write to what did not come home, and to nothing else.
    std::thread::sleep(A_WHILE);
    user.check_redone()?;
    println!("    {} jobs did not come home", user.underway());
    let Bench { rig, device, engines, .. } = bench;
    drop((device, engines, user));
    let complaints = rig.complaints()?;
    ensure!(complaints.is_empty(), "the device complains: {}", complaints.join("; "));
    Ok(Outcome::Passed)
}

/// Copies until somebody pulls the device out, and looks whether that is noticed and told. `say` hears when copies run, and what the driver said in the end; it
/// is told before the device is closed, which can take an operating system minutes.
///
/// # Errors
/// Nobody pulled it out, or it was not noticed.
pub fn await_removal<R: Rig>(rig: &mut R, say: impl Fn(&str)) -> Result<()> {
    let (mut bench, mut user) = busy(rig)?;
    say("copies run");
    let noticed = (|| {
        breaks(bench.engine()?, &mut user)?;
        let ailment = bench.ailment()?;
        user.check_redone()?;
        Ok::<_, anyhow::Error>(ailment)
    })();
    say(&match &noticed {
        Ok(ailment) => format!("noticed: {ailment}"),
        Err(error) => format!("not noticed: {error:#}"),
    });
    noticed.map(drop).context("pulled out")
}
