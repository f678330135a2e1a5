//! Order and content, with a device that does what it should.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dataplane::copy::{Copying, Threshold};
use dataplane::port::RingChoice;
use drivers::bus::BusError;
use lab::vm::{Content, Passage, Series, Vm};
use models::ioat::{Fault, Planned, When};
use models::wire::Null;
use models::{card, dsa};

use crate::scene::{Scene, THRESHOLD};

/// Lengths around the threshold, so that copies of both kinds follow each other in every batch.
pub(crate) const MIXED: Content = Content::Plain(60, 1514);
/// Longest time for one passage.
const LIMIT: Duration = Duration::from_secs(30);

const RINGS: [RingChoice; 2] = [RingChoice::Split, RingChoice::Packed];

fn passage(id: u8, content: Content, count: u64, window: u64) -> Passage {
    Passage { series: Series { id, content }, count, limit: LIMIT, window }
}

/// Passes frames and says how many there were.
pub(crate) fn pass(id: u8, content: Content, count: u64, window: u64, machines: &mut [Vm; 2]) -> Result<()> {
    let [from, to] = machines;
    let passage = passage(id, content, count, window);
    let passed = passage.run(from, to)?;
    println!("    {} frames in {:.1} s", passed.count, passed.time.as_secs_f64());
    Ok(())
}

/// Frames are on their way before anything is asked of them.
pub(crate) fn begin(id: u8, machines: &mut [Vm; 2]) -> Result<()> {
    let [from, to] = machines;
    Passage::wait_for_path(Series { id, content: MIXED }, from, to)
}

/// The device did its share, and the CPU did again what failed and nothing else.
fn must_have_copied(scene: &mut Scene, least: u64) -> Result<()> {
    let copies = scene.counted("vm1", "vm_dma_copies")?;
    ensure!(copies >= least, "the device copied {copies} times only, not {least} times");
    let failed = scene.counted("vm1", "vm_dma_failed_copies")?;
    ensure!(failed == 0, "{failed} copies failed");
    ensure!(scene.bay.copies() >= copies, "more copies were counted than the device did");
    Ok(())
}

/// Frames of all lengths, split and packed.
pub(crate) fn mixed() -> Result<()> {
    for ring in RINGS {
        let mut scene = Scene::set(1, false)?;
        let mut machines = scene.pair(ring)?;
        begin(1, &mut machines)?;
        pass(1, MIXED, 900_000, 192, &mut machines)?;
        pass(2, Content::Plain(60, 9014), 60_000, 24, &mut machines)?;
        must_have_copied(&mut scene, 10_000)?;
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}

/// Two pairs of machines at a time, so that one channel serves two queues.
pub(crate) fn both_ways() -> Result<()> {
    for ring in RINGS {
        let mut scene = Scene::set(2, false)?;
        let mut first = scene.pair(ring)?;
        let mut second = [scene.attach(2, ring)?, scene.attach(3, ring)?];
        begin(3, &mut first)?;
        begin(4, &mut second)?;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                second.reverse();
                pass(4, MIXED, 150_000, 128, &mut second)
            });
            pass(3, MIXED, 150_000, 128, &mut first)?;
            other.join().map_err(|_| anyhow::anyhow!("the other pair panicked"))?
        })?;
        must_have_copied(&mut scene, 1000)?;
        first.into_iter().chain(second).try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}

/// Segments of 64 KiB, which take many buffers each.
pub(crate) fn large() -> Result<()> {
    for ring in RINGS {
        let mut scene = Scene::set(1, false)?;
        let mut machines = scene.pair(ring)?;
        begin(5, &mut machines)?;
        pass(5, Content::Large(65_000), 6_000, 4, &mut machines)?;
        must_have_copied(&mut scene, 1000)?;
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}

/// A device of the other kind, which finishes copies in reverse.
pub(crate) fn reversed() -> Result<()> {
    for (ring, chance) in [(RingChoice::Split, 255), (RingChoice::Packed, 64)] {
        let faults = vec![dsa::Planned::new(dsa::Fault::CompleteReverse, When::Random { seed: 5, chance })];
        let config = dsa::Config { queues: 1, faults, ..dsa::Config::default() };
        let (function, device) = card::new(card::Options::named("dsa"), dsa::Dsa::new(config), Null)?;
        let running = device.run()?;
        let mut function = Some(function);
        let copying = Copying::over("dsa".into(), 1, Threshold::Bytes(THRESHOLD), move || {
            let gone = || BusError::Gone { device: "dsa".into(), reason: "it is there once".into() };
            function.take().ok_or_else(gone)
        })?;
        let mut scene = Scene::over(1, false, Arc::default(), copying)?;
        let mut machines = scene.pair(ring)?;
        begin(8, &mut machines)?;
        pass(8, MIXED, 60_000, 128, &mut machines)?;
        pass(9, Content::Plain(60, 9014), 10_000, 24, &mut machines)?;
        ensure!(scene.counted("vm1", "vm_dma_copies")? > 1000, "the device copied next to nothing");
        ensure!(scene.counted("vm1", "vm_dma_failed_copies")? == 0, "copies failed");
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
        let (faults, violations) = (running.control().faults(), running.control().violations());
        ensure!(
            faults.is_empty() && violations.is_empty(),
            "the device did what it may not: {faults:?} {violations:?}"
        );
    }
    Ok(())
}

/// Nothing is lost or overtaken when the device says late, or for many at once, that copies are done.
pub(crate) fn late() -> Result<()> {
    for ring in RINGS {
        let mut scene = Scene::set(1, false)?;
        let mut machines = scene.pair(ring)?;
        begin(6, &mut machines)?;
        for (id, fault) in [(6, Fault::CompleteBurst), (7, Fault::CompleteLate)] {
            scene.bay.set(&[Planned::new(fault, When::Random { seed: 7, chance: 64 })]);
            let started = Instant::now();
            pass(id, MIXED, 60_000, 128, &mut machines)?;
            ensure!(started.elapsed() < 3 * LIMIT, "it took {:?}", started.elapsed());
        }
        must_have_copied(&mut scene, 1000)?;
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}
