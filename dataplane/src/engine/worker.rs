//! The engine's loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use drivers::nic::DropReason;
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::idle::Idle;
use super::lane::{Lane, Outcome, Sender};
use super::{DRAIN_LIMIT, Engine, Finished, Signals};
use crate::clock::cycles;
use crate::config::Poll;
use crate::stats::PortCells;

/// Rounds without work after which an adaptive engine rests.
const SPIN_ROUNDS: u32 = 500;
/// How often counters are published.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(1);

/// Binds the calling thread to `core`.
pub(super) fn pin(core: usize) -> Result<(), Errno> {
    if core >= CpuSet::MAX_CPU {
        return Err(Errno::INVAL);
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

/// Works until control says stop, then drains. A panic ends the engine, not the process: its queues are given back as
/// they are, and stopping the devices makes these safe.
pub(super) fn run(mut engine: Engine, mut idle: Idle, signals: &Signals) -> Finished {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        work(&mut engine, &mut idle, signals);
        drain(&mut engine)
    }));
    match worked {
        Ok(drained) => engine.finish(None, !drained),
        Err(payload) => {
            // The queue that panicked may do so again; then its last counters are missing, nothing else.
            let _ = catch_unwind(AssertUnwindSafe(|| settle(&mut engine)));
            signals.failed.store(true, Ordering::Release);
            let said = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let said = said.or_else(|| payload.downcast_ref::<String>().cloned());
            engine.finish(Some(said.unwrap_or_else(|| "unknown panic".to_owned())), true)
        }
    }
}

fn work(engine: &mut Engine, idle: &mut Idle, signals: &Signals) {
    let hold = engine.clock.cycles_in(engine.config.hold);
    let interval = engine.clock.cycles_in(PUBLISH_INTERVAL);
    let adaptive = engine.config.poll == Poll::Adaptive;
    let (lanes, senders, cells) = (&mut engine.lanes[..], &mut engine.senders[..], &*engine.cells);
    let mut now = cycles();
    let mut published = now;
    let mut empty_rounds = 0_u32;
    while !signals.stop.load(Ordering::Acquire) {
        let mut moved = false;
        let mut waiting = false;
        for lane in lanes.iter_mut() {
            let Some(sender) = senders.get_mut(lane.sender()) else { continue };
            match lane.forward(sender, &mut now, hold) {
                Outcome::Moved => moved = true,
                Outcome::Waiting => waiting = true,
                Outcome::Empty => {}
            }
        }
        if now.wrapping_sub(published) >= interval {
            published = now;
            publish(lanes, senders, cells);
        }
        if moved {
            if empty_rounds >= SPIN_ROUNDS {
                idle.busy();
            }
            empty_rounds = 0;
            continue;
        }
        empty_rounds = empty_rounds.saturating_add(1);
        std::hint::spin_loop();
        if adaptive && empty_rounds >= SPIN_ROUNDS {
            publish(lanes, senders, cells);
            idle.rest(lanes, senders, waiting);
            now = cycles();
        }
    }
}

/// Sends what was received and lets the transmit queues finish, for at most [`DRAIN_LIMIT`]. `false` when time ran out.
fn drain(engine: &mut Engine) -> bool {
    let start = cycles();
    let limit = engine.clock.cycles_in(DRAIN_LIMIT);
    let mut now = start;
    let drained = loop {
        let mut left = false;
        for lane in &mut engine.lanes {
            let Some(sender) = engine.senders.get_mut(lane.sender()) else { continue };
            left |= !lane.flush(sender, &mut now);
        }
        for sender in &mut engine.senders {
            left |= sender.reclaim();
        }
        now = cycles();
        if !left {
            break true;
        }
        if now.wrapping_sub(start) >= limit {
            break false;
        }
        // A device model may need this core to finish.
        std::thread::yield_now();
    };
    settle(engine);
    drained
}

/// Drops what could not be sent and publishes the last counters.
fn settle(engine: &mut Engine) {
    for lane in &mut engine.lanes {
        if let Some(sender) = engine.senders.get_mut(lane.sender()) {
            lane.drop_waiting(sender, DropReason::Stopped);
        }
    }
    publish(&engine.lanes, &engine.senders, &engine.cells);
}

fn publish(lanes: &[Lane], senders: &[Sender], cells: &[PortCells]) {
    for lane in lanes {
        lane.publish(cells);
    }
    for sender in senders {
        sender.publish(cells);
    }
}
