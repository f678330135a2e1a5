//! The engine's loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rtrb::Consumer;
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::command::{Command, Desk};
use super::idle::Idle;
use super::roster::Roster;
use super::round::{Pace, deliver_waiting, round};
use super::source::Source;
use super::switching::{Exits, reclaim};
use super::{DRAIN_LIMIT, Finished, Signals, Work};
use crate::clock::{CycleClock, cycles};
use crate::config::Poll;

/// Rounds without work after which an adaptive engine rests.
const SPIN_ROUNDS: u32 = 500;
/// How often counters are published, accounts fade and control is listened to.
const INTERVAL: Duration = Duration::from_millis(1);

/// What the thread leaves behind.
pub(super) struct Ended {
    pub(super) finished: Finished,
    /// Commands that came too late.
    pub(super) commands: Option<Consumer<Command>>,
}

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
pub(super) fn run(mut work: Work, mut desk: Desk, signals: &Signals) -> Ended {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        serve(&mut work, &mut desk, signals);
        drain(&mut work.roster, work.clock)
    }));
    let (panic, unfinished) = match worked {
        Ok(drained) => (None, !drained),
        Err(payload) => {
            // The queue that panicked may do so again; then its last counters are missing, nothing else.
            let _ = catch_unwind(AssertUnwindSafe(|| settle(&mut work.roster)));
            signals.failed.store(true, Ordering::Release);
            let said = payload.downcast_ref::<&str>().copied();
            let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            (Some(said.unwrap_or("unknown panic").into()), true)
        }
    };
    let mut finished = Finished { panic, unfinished, ..Finished::default() };
    work.roster.give_back(&mut finished);
    Ended { finished, commands: Some(desk.into_commands()) }
}

fn serve(work: &mut Work, desk: &mut Desk, signals: &Signals) {
    let Work { config, clock, roster, .. } = work;
    let pace = Pace::new(config, *clock);
    let interval = clock.cycles_in(INTERVAL).max(1);
    desk.set_limit(clock.cycles_in(DRAIN_LIMIT));
    let adaptive = config.poll == Poll::Adaptive;
    if let Some(switching) = &mut roster.switching {
        switching.begin();
    }
    let mut idle = Idle::new();
    let mut now = cycles();
    let mut looked = now;
    let mut empty_rounds = 0_u32;
    while !signals.stop.load(Ordering::Acquire) {
        let done = round(roster, &mut now, &pace);
        let since = now.wrapping_sub(looked);
        if since >= interval {
            looked = now;
            roster.fade(since / interval);
            if roster.switching.is_some() {
                // Whoever got packets and gets no more is looked after all the same.
                reclaim(&mut roster.senders);
            }
            roster.publish();
            desk.work(roster, now);
        }
        if done.moved {
            if empty_rounds >= SPIN_ROUNDS {
                idle.busy();
            }
            empty_rounds = 0;
            continue;
        }
        empty_rounds = empty_rounds.saturating_add(1);
        std::hint::spin_loop();
        if desk.is_busy() {
            // Lanes that leave and are empty do not move the clock on, and control waits for them.
            now = cycles();
        }
        // Without lanes there is nothing to poll, and nothing that moves the clock on.
        if (adaptive && empty_rounds >= SPIN_ROUNDS) || (roster.lanes.is_empty() && roster.switching.is_none()) {
            roster.publish();
            let called = || signals.stop.load(Ordering::Acquire) || desk.has_commands();
            idle.rest(&signals.watch, roster, done.waiting || desk.is_busy(), called);
            now = cycles();
            desk.work(roster, now);
        }
    }
}

/// Sends what was received and lets the transmit queues finish, for at most [`DRAIN_LIMIT`]. `false` when time ran out.
fn drain(roster: &mut Roster, clock: CycleClock) -> bool {
    let start = cycles();
    let limit = clock.cycles_in(DRAIN_LIMIT);
    let mut now = start;
    let drained = loop {
        let Roster { lanes, senders, inputs, outlets, switching, waiting, .. } = &mut *roster;
        let mut left = false;
        for lane in lanes {
            let Some(sender) = senders.get_mut(lane.sender) else { continue };
            if !lane.waiting.is_empty() {
                lane.waiting.deliver(sender, &mut now, u64::MAX, u64::MAX);
                left |= !lane.waiting.is_empty();
            }
        }
        if let Some(switching) = switching {
            let mut exits = Exits { outlets, senders, waiting };
            left |= switching.wind_up(&mut exits, &mut now);
        }
        for input in inputs {
            left |= input.source.is_underway();
        }
        deliver_waiting(outlets, senders, waiting, |waiting, sender| {
            waiting.deliver(sender, &mut now, u64::MAX, u64::MAX).1.into()
        });
        left |= !waiting.is_empty();
        for sender in senders {
            left |= sender.reclaim();
        }
        roster.copy();
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
    settle(roster);
    drained
}

/// Drops what could not be sent and publishes the last counters.
fn settle(roster: &mut Roster) {
    if let Some(switching) = &mut roster.switching {
        switching.end();
    }
    roster.drop_waiting(false);
    // A VM's descriptors go back with the buffers that came home just now.
    roster.sources_mut().for_each(Source::rest);
    roster.publish();
}
