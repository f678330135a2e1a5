//! One round of an engine, in two halves: take in what the receive queues have, then deliver it.
//!
//! The first half polls every lane once, in turn, for a bounded burst: no receive queue can take more than its share. What it gave waits in
//! the lane, in front of its destination, and nothing more is received from it until that is gone.
//!
//! The second half picks, time and again, the destination whose port has used least of the processor lately, and gives it a slice of what
//! waits for it. It ends when nothing can be delivered any more or after a while, so that polling goes on. So a port that is expensive to
//! serve delays its own packets and nobody else's.

use std::time::Duration;

use super::lane::{Delivery, Lane};
use super::roster::{Account, Roster};
use crate::clock::CycleClock;
use crate::config::{EngineConfig, Scheduler};

/// How long one slice should take.
const SLICE: Duration = Duration::from_micros(20);
/// After what time of delivering queues are polled again.
const BUDGET: Duration = Duration::from_micros(50);

/// The limits of a round, in cycles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long packets may wait for room.
    hold: u64,
    slice: u64,
    budget: u64,
    least_cpu: bool,
}

impl Pace {
    pub(super) fn new(config: &EngineConfig, clock: CycleClock) -> Self {
        let hold = clock.cycles_in(config.hold);
        match config.scheduler {
            Scheduler::LeastCpu => {
                Self { hold, slice: clock.cycles_in(SLICE), budget: clock.cycles_in(BUDGET), least_cpu: true }
            }
            Scheduler::Off => Self { hold, slice: u64::MAX, budget: u64::MAX, least_cpu: false },
        }
    }
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Packets moved.
    pub(super) moved: bool,
    /// Packets wait for room.
    pub(super) waiting: bool,
}

/// Polls and delivers once. `now` is the cycle counter and is moved on.
#[inline]
pub(super) fn round(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { lanes, senders, accounts, pending } = roster;
    pending.clear();
    for (place, lane) in lanes.iter_mut().enumerate() {
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        let (spent, waits) = lane.poll(sender, now);
        charge(accounts, lane.accounts[0], spent);
        if waits {
            pending.push(place);
        }
    }

    let began = *now;
    let mut round = Round { moved: false, waiting: false };
    while !pending.is_empty() {
        let choice = if pace.least_cpu && pending.len() > 1 { least(pending, lanes, accounts) } else { 0 };
        let place = pending.remove(choice);
        let Some(lane) = lanes.get_mut(place) else { continue };
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        let (spent, delivery) = lane.deliver(sender, now, pace.hold, pace.slice);
        charge(accounts, lane.accounts[1], spent);
        match delivery {
            Delivery::Done => round.moved = true,
            Delivery::More => {
                round.moved = true;
                // There is room: it was just there.
                pending.push(place);
            }
            Delivery::Blocked { moved } => {
                round.moved |= moved;
                round.waiting = true;
            }
        }
        if now.wrapping_sub(began) >= pace.budget {
            break;
        }
    }
    round
}

#[inline]
fn charge(accounts: &mut [Account], account: usize, spent: u64) {
    if let Some(account) = accounts.get_mut(account) {
        account.used = account.used.wrapping_add(spent);
    }
}

/// Which of the `pending` lanes is next: one whose destination has used least, and of several the one that waits longest.
#[inline]
fn least(pending: &[usize], lanes: &[Lane], accounts: &[Account]) -> usize {
    let key = |place: &usize| {
        let lane = lanes.get(*place)?;
        Some((accounts.get(lane.accounts[1])?.used, lane.delivered))
    };
    pending.iter().map(key).enumerate().min_by_key(|(_, key)| *key).map_or(0, |(choice, _)| choice)
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
