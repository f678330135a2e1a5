//! One round of an engine over all its lanes.
//!
//! Every lane is polled once a round, in turn, for a bounded burst: no receive queue can take more than its share. What it gave waits in the
//! lane, in front of its destination, and nothing more is received from it until that is gone.
//!
//! As long as a round is short there is nothing to schedule, and each burst is delivered at once. When rounds grow long they fall into two
//! halves: first all lanes are polled; then, time and again, the destination is picked whose port has used least of the processor
//! lately, and gets a slice of what waits for it, until nothing can be delivered any more or it is time to poll again. So a port that is
//! expensive to serve delays its own packets and nobody else's.

use std::time::Duration;

use super::roster::{Account, Pending, Roster};
use super::waiting::Delivery;
use crate::clock::CycleClock;
use crate::config::{EngineConfig, Scheduler};

/// How long one slice should take.
const SLICE: Duration = Duration::from_micros(20);
/// After what time of delivering queues are polled again, and how long a round may be without being scheduled.
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
    let began = *now;
    let round = if roster.long { scheduled(roster, now, pace) } else { straight(roster, now, pace) };
    // It has to be well below the limit to count as short again.
    let limit = if roster.long { pace.budget / 2 } else { pace.budget };
    roster.long = now.wrapping_sub(began) >= limit;
    round
}

/// Delivers each burst as soon as it was received.
#[inline]
fn straight(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { lanes, senders, .. } = roster;
    let mut round = Round { moved: false, waiting: false };
    for lane in lanes {
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        if !lane.poll(sender, now).1 {
            continue;
        }
        loop {
            match lane.deliver(sender, now, pace.hold, pace.slice).1 {
                Delivery::Done => round.moved = true,
                Delivery::More => {
                    round.moved = true;
                    if !pace.least_cpu {
                        continue;
                    }
                }
                Delivery::Blocked { moved } => {
                    round.moved |= moved;
                    round.waiting = true;
                }
            }
            break;
        }
    }
    round
}

/// Polls all lanes, then delivers to whom has used least.
#[inline(never)]
fn scheduled(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { lanes, senders, accounts, pending, .. } = roster;
    pending.clear();
    for (place, lane) in lanes.iter_mut().enumerate() {
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        let (spent, waits) = lane.poll(sender, now);
        charge(accounts, lane.accounts[0], spent);
        if waits {
            pending.push(Pending { lane: place, account: lane.accounts[1], delivered: lane.waiting.delivered });
        }
    }

    let began = *now;
    let mut round = Round { moved: false, waiting: false };
    while !pending.is_empty() {
        let next = pending.swap_remove(least(pending, accounts));
        let Some(lane) = lanes.get_mut(next.lane) else { continue };
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        let (spent, delivery) = lane.deliver(sender, now, pace.hold, pace.slice);
        charge(accounts, lane.accounts[1], spent);
        match delivery {
            Delivery::Done => round.moved = true,
            Delivery::More => {
                round.moved = true;
                // There is room: it was just there.
                pending.push(Pending { delivered: lane.waiting.delivered, ..next });
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
fn least(pending: &[Pending], accounts: &[Account]) -> usize {
    let mut choice = 0;
    let mut lowest = (u64::MAX, u64::MAX);
    for (place, candidate) in pending.iter().enumerate() {
        let used = accounts.get(candidate.account).map_or(0, |account| account.used);
        if used < lowest.0 || (used == lowest.0 && candidate.delivered < lowest.1) {
            lowest = (used, candidate.delivered);
            choice = place;
        }
    }
    choice
}

#[cfg(test)]
#[path = "round_tests.rs"]
mod tests;
