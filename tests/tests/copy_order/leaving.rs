//! Machines that go while copies are in flight.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use dataplane::port::RingChoice;
use lab::hostile::{Format, Machine, Setup};
use lab::vm::{Series, Vm};
use models::ioat::{Fault, Planned, When};

use crate::order::{MIXED, begin, pass};
use crate::scene::{Scene, wait};

/// How often machines go.
const ROUNDS: u64 = 24;

/// Sender or receiver detaches in the middle of frames, and comes back.
pub(crate) fn detaching() -> Result<()> {
    let mut scene = Scene::set(1, false)?;
    for round in 0..ROUNDS {
        let ring = if round % 2 == 0 { RingChoice::Split } else { RingChoice::Packed };
        let mut machines = scene.pair(ring)?;
        begin(20, &mut machines)?;
        // So that copies are in flight for longer.
        scene.bay.set(&[Planned::new(Fault::CompleteLate, When::Random { seed: round + 1, chance: 200 })]);
        let [mut from, to] = machines;
        let series = Series { id: 21, content: MIXED };
        let mut frame = Vec::new();
        for number in 0..100 + 13 * round {
            let metadata = series.write(number, 0, &mut frame);
            from.stage(0, &frame, metadata)?;
            from.flush();
        }
        let (first, second) = if round % 4 < 2 { (from, to) } else { (to, from) };
        first.detach()?;
        second.detach()?;
        scene.bay.set(&[]);
        let bay = &scene.bay;
        // What is left is the device's own memory.
        wait("the machines' memory to be let go", || bay.mapped() == 1)?;
    }
    let mut machines = scene.pair(RingChoice::Packed)?;
    begin(22, &mut machines)?;
    pass(22, MIXED, 20_000, 128, &mut machines)?;
    ensure!(scene.counted("vm1", "vm_leaked_mappings")? == 0, "memory was left behind");
    machines.into_iter().try_for_each(Vm::detach)?;
    scene.end()
}

/// Sender or receiver has its memory cut off in the middle of frames. Others do not notice.
pub(crate) fn truncating() -> Result<()> {
    let scene = Scene::set(2, true)?;
    let mut bystanders = scene.pair(RingChoice::Split)?;
    begin(23, &mut bystanders)?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (scene, done) = (&scene, &done);
        let watching = scope.spawn(move || {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) || number < 3 {
                pass(24, MIXED, 5_000, 96, &mut bystanders)?;
                number += 1;
            }
            bystanders.into_iter().try_for_each(Vm::detach)
        });
        let cut = (0..ROUNDS).try_for_each(|round| cut(scene, round));
        done.store(true, Ordering::Relaxed);
        watching.join().map_err(|_| anyhow!("a bystander panicked"))??;
        cut
    })?;
    scene.end()
}

/// Two machines under load, one of which loses its memory.
fn cut(scene: &Scene, round: u64) -> Result<()> {
    let format = if round.is_multiple_of(2) { Format::Split } else { Format::Packed };
    let attach = |number| Machine::attach(&scene.socket(number), Setup::new(format));
    let mut machines = [attach(2)?, attach(3)?];
    for _ in 0..40 + 7 * round {
        machines.iter_mut().for_each(Machine::turn);
        std::thread::sleep(Duration::from_micros(100));
    }
    // Nobody here looks at that memory any more.
    let place = usize::from(round % 4 >= 2);
    if let Some(machine) = machines.get(place) {
        machine.memory.cut(0)?;
    }
    if let Some(other) = machines.get_mut(1 - place) {
        for _ in 0..20 {
            other.turn();
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}
