//! One round of an engine over all its queues.
//!
//! Every receive queue is polled once a round, in turn, for a bounded burst: none can take more than its share. What a lane gave waits in the
//! lane, in front of its destination, and nothing more is received from it until that is gone. What an input gave is switched, and waits in front of its outlets.
//!
//! As long as a round is short there is nothing to schedule, and each burst is delivered at once. When rounds grow long they fall into two
//! halves: first everything is polled; then, time and again, the destination is picked whose port has used least of the processor
//! lately, and gets a slice of what waits for it, until nothing can be delivered any more or it is time to poll again. So a port that is
//! expensive to serve delays its own packets and nobody else's.

use std::ops::BitOrAssign;
use std::time::Duration;

use hugemem::Batch;

use super::outlet::{Outlet, To};
use super::roster::{Account, At, Pending, Roster};
use super::sender::Sender;
use super::switching::{Exits, Leave};
use super::waiting::{Delivery, Waiting};
use crate::clock::{CycleClock, cycles};
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

/// What a round, or a part of it, came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Round {
    /// Packets moved.
    pub(super) moved: bool,
    /// Packets wait for room.
    pub(super) waiting: bool,
}

impl From<Delivery> for Round {
    #[inline]
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Done | Delivery::More => Self { moved: true, waiting: false },
            Delivery::Blocked { moved } => Self { moved, waiting: true },
        }
    }
}

impl BitOrAssign for Round {
    #[inline]
    fn bitor_assign(&mut self, other: Self) {
        self.moved |= other.moved;
        self.waiting |= other.waiting;
    }
}

impl Pace {
    /// Sends what waits: a slice of it, or, when nothing is scheduled, all that there is room for.
    #[inline(always)]
    fn deliver(&self, waiting: &mut Waiting, sender: &mut Sender, now: &mut u64, hold: u64) -> Round {
        let mut round = Round::default();
        loop {
            let delivery = waiting.deliver(sender, now, hold, self.slice).1;
            round |= delivery.into();
            if delivery != Delivery::More || self.least_cpu {
                return round;
            }
        }
    }

    /// Sends packets that just came, and in front of which nothing waits. What there is no room for waits.
    #[inline(always)]
    pub(super) fn send(&self, waiting: &mut Waiting, batch: &mut Batch, sender: &mut Sender, now: &mut u64) -> Round {
        waiting.send_straight(batch, sender, now, self.slice);
        if batch.is_empty() {
            return Round { moved: true, waiting: false };
        }
        waiting.append(batch, sender);
        self.deliver(waiting, sender, now, self.outlet_hold())
    }

    /// How long packets are found waiting in front of an outlet before they are dropped. They come at any time, and have waited twice as long at most.
    #[inline]
    fn outlet_hold(&self) -> u64 {
        self.hold / 2
    }
}

/// Polls and delivers once. `now` is the cycle counter and is moved on.
#[inline]
pub(super) fn round(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let began = *now;
    let mut round = if roster.long { scheduled(roster, now, pace) } else { straight(roster, now, pace) };
    if roster.copier.is_some() {
        let (moved, waiting) = roster.copy();
        round |= Round { moved, waiting };
        if moved && roster.lanes.is_empty() {
            *now = cycles();
        }
    }
    // It has to be well below the limit to count as short again.
    let limit = if roster.long { pace.budget / 2 } else { pace.budget };
    roster.long = now.wrapping_sub(began) >= limit;
    round
}

/// Delivers each burst as soon as it was received.
#[inline]
fn straight(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { lanes, senders, .. } = roster;
    let mut round = Round::default();
    for lane in lanes {
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        if lane.poll(sender, now).1 {
            round |= pace.deliver(&mut lane.waiting, sender, now, pace.hold);
        }
    }
    if roster.switching.is_some() {
        round |= straight_switched(roster, now, pace);
    }
    round
}

/// As [`straight`], for switched ports: what waited goes before what comes.
#[inline]
fn straight_switched(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { senders, inputs, outlets, waiting, switching, .. } = roster;
    let Some(switching) = switching else { return Round::default() };
    let mut round = deliver_waiting(outlets, senders, waiting, |waits, sender| {
        pace.deliver(waits, sender, now, pace.outlet_hold())
    });
    if inputs.is_empty() {
        // Nothing else moves it on.
        *now = cycles();
    }
    let mut exits = Exits { outlets, senders, waiting };
    round |= switching.attend(&mut exits, now, Leave::AtOnce(pace));
    for input in inputs {
        round |= switching.poll(input, &mut exits, now, Leave::AtOnce(pace)).1;
    }
    switching.end_round(round.moved, senders);
    round
}

/// Has `deliver` send what waits in front of outlets.
pub(super) fn deliver_waiting(
    outlets: &mut [Outlet],
    senders: &mut [Sender],
    waiting: &mut Vec<usize>,
    mut deliver: impl FnMut(&mut Waiting, &mut Sender) -> Round,
) -> Round {
    let mut round = Round::default();
    waiting.retain(|place| {
        let Some(To::Queue(to)) = outlets.get_mut(*place).map(|outlet| &mut outlet.to) else { return false };
        if let Some(sender) = senders.get_mut(to.sender) {
            round |= deliver(&mut to.waiting, sender);
        }
        to.listed = !to.waiting.is_empty();
        to.listed
    });
    round
}

/// Polls everything, then delivers to whom has used least.
#[inline(never)]
fn scheduled(roster: &mut Roster, now: &mut u64, pace: &Pace) -> Round {
    let Roster { lanes, senders, inputs, outlets, switching, accounts, pending, waiting, .. } = roster;
    let mut round = Round::default();
    pending.clear();
    for (place, lane) in lanes.iter_mut().enumerate() {
        let Some(sender) = senders.get_mut(lane.sender) else { continue };
        let (spent, waits) = lane.poll(sender, now);
        charge(accounts, lane.accounts[0], spent);
        if waits {
            let delivered = lane.waiting.delivered;
            pending.push(Pending { at: At::Lane(place), account: lane.accounts[1], delivered });
        }
    }
    if let Some(switching) = switching {
        if inputs.is_empty() {
            *now = cycles();
        }
        let mut exits = Exits { outlets, senders, waiting };
        round |= switching.attend(&mut exits, now, Leave::InTurn);
        for input in inputs {
            let (spent, did) = switching.poll(input, &mut exits, now, Leave::InTurn);
            charge(accounts, input.account, spent / switching.share(input.from));
            round |= did;
        }
        for place in waiting.iter() {
            if let Some(Outlet { to: To::Queue(to), account, .. }) = outlets.get(*place) {
                let delivered = to.waiting.delivered;
                pending.push(Pending { at: At::Outlet(*place), account: *account, delivered });
            }
        }
    }

    let began = *now;
    while !pending.is_empty() {
        let next = pending.swap_remove(least(pending, accounts));
        let (waits, sender, hold, share) = match next.at {
            At::Lane(place) => {
                let Some(lane) = lanes.get_mut(place) else { continue };
                (&mut lane.waiting, lane.sender, pace.hold, 1)
            }
            At::Outlet(place) => {
                let Some(Outlet { to: To::Queue(to), slot, .. }) = outlets.get_mut(place) else { continue };
                let share = switching.as_ref().map_or(1, |switching| switching.share(*slot));
                (&mut to.waiting, to.sender, pace.outlet_hold(), share)
            }
        };
        let Some(sender) = senders.get_mut(sender) else { continue };
        let (spent, delivery) = waits.deliver(sender, now, hold, pace.slice);
        charge(accounts, next.account, spent / share);
        round |= delivery.into();
        if delivery == Delivery::More {
            // There is room: it was just there.
            pending.push(Pending { delivered: waits.delivered, ..next });
        }
        if now.wrapping_sub(began) >= pace.budget {
            break;
        }
    }
    if let Some(switching) = switching {
        deliver_waiting(outlets, senders, waiting, |_, _| Round::default());
        switching.end_round(round.moved, senders);
    }
    round
}

#[inline]
fn charge(accounts: &mut [Account], account: usize, spent: u64) {
    if let Some(account) = accounts.get_mut(account) {
        account.used = account.used.wrapping_add(spent);
    }
}

/// Which of what is `pending` is next: one whose destination has used least, and of several the one that waits longest.
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
