//! A device that fails.

use anyhow::{Result, anyhow, ensure};
use dataplane::port::RingChoice;
use lab::vm::Vm;
use models::ioat::{Fault, Planned, When};

use crate::order::{MIXED, begin, pass};
use crate::scene::{Scene, wait};

/// Copies of a batch, each of which fails once.
const POSITIONS: u64 = 24;

/// One error, at each position of a batch.
pub(crate) fn each_position() -> Result<()> {
    let errors =
        [Fault::ErrorRead, Fault::ErrorWrite, Fault::CopyPartial, Fault::ErrorLength, Fault::ErrorSourceAddress];
    for ring in [RingChoice::Split, RingChoice::Packed] {
        let mut scene = Scene::set(1, false)?;
        let mut machines = scene.pair(ring)?;
        begin(10, &mut machines)?;
        for position in 0..POSITIONS {
            for error in errors {
                scene.bay.set(&[Planned::new(error, When::Once(position))]);
                pass(10, MIXED, 150, 96, &mut machines)?;
            }
        }
        let failed = scene.counted("vm1", "vm_dma_failed_copies")?;
        let struck = POSITIONS * errors.len() as u64;
        ensure!(failed >= struck / 2, "{failed} copies failed, and {struck} errors were to strike");
        scene.bay.set(&[]);
        pass(11, MIXED, 20_000, 128, &mut machines)?;
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}

/// Halts, hangs and resets that nobody asked for.
pub(crate) fn halting() -> Result<()> {
    let faults = [Fault::Halt, Fault::HaltPartial, Fault::HaltSilent, Fault::Hang, Fault::ResetSpontaneous];
    for ring in [RingChoice::Split, RingChoice::Packed] {
        let mut scene = Scene::set(1, false)?;
        let mut machines = scene.pair(ring)?;
        begin(12, &mut machines)?;
        for (seed, fault) in (1..).zip(faults) {
            // One of 256 is a few dozen; more would only be the CPU's copies.
            scene.bay.set(&[Planned::new(fault, When::Random { seed, chance: 1 })]);
            pass(12, MIXED, 12_000, 128, &mut machines)?;
        }
        ensure!(scene.counted("vm1", "vm_dma_failed_copies")? > 0, "nothing failed");
        scene.bay.set(&[]);
        scene.until_it_works()?;
        let before = scene.counted("vm1", "vm_dma_copies")?;
        pass(13, MIXED, 20_000, 128, &mut machines)?;
        let after = scene.counted("vm1", "vm_dma_copies")?;
        ensure!(after > before, "the device is not used again");
        machines.into_iter().try_for_each(Vm::detach)?;
        scene.end()?;
    }
    Ok(())
}

/// It is pulled out at random moments under load, and another one is there a moment later.
pub(crate) fn vanishing() -> Result<()> {
    let mut scene = Scene::set(1, false)?;
    let mut machines = scene.pair(RingChoice::Packed)?;
    begin(14, &mut machines)?;
    for round in 1..=6 {
        scene.until_it_works()?;
        let bay = &scene.bay;
        std::thread::scope(|scope| {
            let puller = scope.spawn(move || {
                let before = bay.copies();
                // At a moment when it is used.
                let used = wait("copies", || bay.copies() > before + 97 * round);
                bay.pull();
                used
            });
            pass(14, MIXED, 40_000, 128, &mut machines)?;
            puller.join().map_err(|_| anyhow!("who pulls the device out panicked"))?
        })?;
        // The next copy finds that it is gone.
        let scene = &scene;
        let machines = &mut machines;
        wait("the loss to be seen", || {
            pass(15, MIXED, 50, 32, machines).is_ok() && scene.owner("dma_failures") >= round
        })?;
    }
    scene.until_it_works()?;
    wait("another start", || scene.owner("dma_restarts") >= 6)?;
    let before = scene.counted("vm1", "vm_dma_copies")?;
    pass(16, MIXED, 20_000, 128, &mut machines)?;
    ensure!(scene.counted("vm1", "vm_dma_copies")? > before, "the device is not used again");
    machines.into_iter().try_for_each(Vm::detach)?;
    scene.end()
}
