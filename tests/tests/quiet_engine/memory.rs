//! The memory that an engine's thread takes and gives back, with the forwarder in this process.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::allocations::calls_of;
use crate::calls::{ENOUGH, TIME, engine};
use crate::scene::{Load, Scene};

/// So long it may still get used to its work.
const WARM: Duration = Duration::from_millis(500);

/// A thread that takes memory is seen to, and the engine has when it began.
pub(crate) fn seen() -> Result<()> {
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let before = calls_of(own).context("this thread never took memory")?;
    drop(std::hint::black_box(vec![1_u8; 100]));
    let after = calls_of(own).context("this thread never took memory")?;
    ensure!(after == before + 2, "taking memory once and giving it back was counted as {}", after - before);
    let scene = Scene::inside(Load::Wired)?;
    let count = calls_of(engine(std::process::id())?);
    ensure!(count.is_some_and(|count| count > 0), "the engine took nothing when it began: {count:?}");
    scene.close()
}

pub(crate) fn none(load: Load) -> Result<()> {
    let mut scene = Scene::inside(load)?;
    let thread = engine(std::process::id())?;
    scene.talk(WARM)?;
    let (count, passed) = (calls_of(thread), scene.passed());
    scene.talk(TIME)?;
    let (after, passed) = (calls_of(thread), scene.passed() - passed);
    println!("  {passed} datagrams, {count:?} calls of the allocator before and {after:?} after");
    ensure!(passed > ENOUGH, "only {passed} datagrams passed: the engine was not loaded");
    ensure!(
        count == after,
        "while {passed} datagrams passed the engine called the allocator: {count:?}, then {after:?}"
    );
    scene.close()
}
