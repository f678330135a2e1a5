//! What happens by itself as time goes by: flows, stations and connections that nobody uses are forgotten, next hops are asked for.

use std::time::Duration;

use super::state::State;
use crate::flow::{Flow, FlowIndex, FlowState};
use crate::network::connection::SHORTEST_PATIENCE;

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// Flows that were not used for so long are forgotten.
const IDLE: Duration = Duration::from_secs(30);
/// Longest that a pass over all flows takes.
const PASS: Duration = Duration::from_secs(4);
/// Least flows to be looked at in a tick.
const LEAST: u32 = 1024;
/// Of so many places of a table that cannot grow, one is to be free.
const FREE: u64 = 32;
/// Flows that make room in a tick.
const EVICTIONS: u32 = 1024;

// A connection that is forgotten has no flows: they were forgotten before, or their packets were told of.
const _: () = assert!(IDLE.as_secs() + 2 * PASS.as_secs() < SHORTEST_PATIENCE.as_secs());

/// How far ageing is.
#[derive(Debug)]
pub(super) struct Ageing {
    /// Time of the next tick.
    due: Duration,
    /// How long a pass over all flows takes.
    pass: Duration,
    idle: Duration,
    /// The flow that is looked at next, and flows to be looked at before the next tick.
    cursor: u32,
    left: u32,
    /// Cycles at which this pass and the one before began.
    began: u64,
    before: u64,
    /// Flows got other indices in this pass, so that it has not seen all of them.
    disturbed: bool,
}

impl Default for Ageing {
    fn default() -> Self {
        Self { due: Duration::ZERO, pass: PASS, idle: IDLE, cursor: 0, left: 0, began: 0, before: 0, disturbed: false }
    }
}

impl Ageing {
    /// How long it is till the next tick.
    pub(super) fn until_tick(&self, now: Duration) -> Duration {
        if self.left > 0 { Duration::ZERO } else { self.due.saturating_sub(now) }
    }

    /// Flows got other indices.
    pub(super) fn disturb(&mut self) {
        self.disturbed = true;
    }

    /// Flows are forgotten when they were not used for so long, for tests.
    #[cfg(test)]
    pub(super) fn set_idle(&mut self, idle: Duration, pass: Duration) {
        (self.idle, self.pass) = (idle, pass);
    }
}

impl State {
    /// A network that forgets stations soon has to hear of their packets more often.
    pub(super) fn configure_ageing(&mut self) {
        let shortest = self.brain.topology().networks.values().map(|network| network.ageing).min();
        self.ageing.pass = shortest.map_or(PASS, |shortest| PASS.min(shortest / 3)).max(TICK);
    }

    /// Does what is to be done several times a second, when it is time.
    pub(super) fn tick(&mut self) {
        let now = self.now();
        if now < self.ageing.due {
            return;
        }
        self.ageing.due = now + TICK;
        let stale = self.brain.forget_stations(now);
        self.walk.add(stale);
        // Their flows are forgotten already.
        let _ = self.brain.forget_connections(now);
        self.ask_underlay();
        self.drop_expired();
        self.make_room();
        self.divide_limits();
        self.writer.collect();
        let ticks = u32::try_from(self.ageing.pass.as_millis() / TICK.as_millis()).unwrap_or(1).max(1);
        let bound = self.writer.bound();
        // What was not done in time is not added up: the machine is busy with other things.
        self.ageing.left = (bound / ticks).max(LEAST).min(bound);
    }

    /// Looks at flows, no more than `budget`: tells the brain of those that are used, and takes out the others. Whether there is more to look at.
    pub(super) fn step_ageing(&mut self, budget: u32) -> bool {
        let count = budget.min(self.ageing.left);
        if count == 0 {
            return false;
        }
        self.ageing.left -= count;
        let (time, cycles) = (self.now(), self.cycles());
        let clock = self.options.clock;
        let idle = clock.cycles_in(self.ageing.idle);
        let first = self.ageing.cursor;
        let end = first.saturating_add(count);
        let before = self.ageing.before;
        let mut gone: Vec<FlowIndex> = Vec::new();
        let Self { writer, brain, .. } = self;
        let mut look = |index: FlowIndex, flow: &Flow| {
            let silent = cycles.saturating_sub(flow.counts.last_seen);
            if silent >= idle && flow.state == FlowState::Active {
                gone.push(index);
                return;
            }
            brain.mark(&flow.key, &flow.action);
            if flow.counts.packets > 0 && flow.counts.last_seen >= before {
                let ago = Duration::from_nanos(clock.nanoseconds(silent));
                brain.seen(&flow.key, time.saturating_sub(ago));
            }
        };
        writer.flows_in(first..end).for_each(|(index, flow)| look(index, &flow));
        for index in gone {
            self.counters.expired += u64::from(self.writer.remove(index).is_some());
        }
        self.ageing.cursor = end;
        if end >= self.writer.bound() {
            self.ageing.cursor = 0;
            self.ageing.before = self.ageing.began;
            self.ageing.began = cycles;
            self.end_pass();
        }
        self.ageing.left > 0
    }

    /// All flows were looked at: what is for others can go.
    fn end_pass(&mut self) {
        // A change has decided on flows that are in no table yet.
        if std::mem::take(&mut self.ageing.disturbed) || self.is_changing() {
            return;
        }
        let (given_up, stale) = self.brain.sweep();
        self.walk.add(stale);
        if given_up {
            self.publish();
        }
    }

    /// Keeps some places free in a table that cannot grow: those of flows that are used least.
    fn make_room(&mut self) {
        let usage = self.writer.usage();
        let used = u64::from(usage.flows) + u64::from(usage.waiting);
        let most = u64::from(usage.capacity);
        if usage.capacity < self.options.flows || used + most / FREE <= most {
            return;
        }
        let wanted = u32::try_from(used + most / FREE - most).unwrap_or(u32::MAX).min(EVICTIONS);
        for _ in 0..wanted {
            if self.writer.evict(None).is_none() {
                return;
            }
            self.counters.evicted += 1;
        }
    }
}
