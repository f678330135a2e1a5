//! Flows that may not be true any more are looked at again, one by one, while all others stay as they are.

use std::collections::VecDeque;

use super::state::State;
use crate::flow::{Action, Fate, Flow, FlowIndex, FlowKey, FlowState, Output};
use crate::network::Stale;
use crate::network::config::Mac;

/// Indices that one flow's turn may skip.
const SKIPPED: u32 = 8;

/// Pending flows that are remembered one by one. What is more than that is walked for.
const MOST_AMENDS: usize = 4096;

/// What is to be looked at again.
#[derive(Default)]
pub(super) struct Walk {
    pending: Stale,
    /// Walks that were asked for; those asked for together are one.
    requested: u64,
    finished: u64,
    active: Option<Active>,
}

/// A walk over all flows.
struct Active {
    stale: Stale,
    number: u64,
    /// Flows below this are done,
    cursor: u32,
    /// but for these, which were pending.
    later: VecDeque<FlowIndex>,
}

impl Walk {
    /// These are to be looked at.
    pub(super) fn add(&mut self, stale: Stale) {
        if !stale.is_empty() {
            self.add_always(stale);
        }
    }

    /// The same; gives the number of the walk after which it is done.
    pub(super) fn add_always(&mut self, stale: Stale) -> u64 {
        self.pending.merge(stale);
        self.requested += 1;
        self.requested
    }

    /// All walks up to this number are through.
    pub(super) fn finished(&self) -> u64 {
        self.finished
    }

    /// None is underway.
    pub(super) fn rests(&self) -> bool {
        self.active.is_none()
    }

    /// Takes over what is to be looked at: somebody else looks at it.
    pub(super) fn take(&mut self) -> (Stale, u64) {
        (std::mem::take(&mut self.pending), self.requested)
    }

    /// Somebody else is through with what [`Walk::take`] gave.
    pub(super) fn finish(&mut self, number: u64) {
        self.finished = self.finished.max(number);
    }
}

impl State {
    /// Goes on with the walk, or begins one. Looks at no more than `budget` flows; whether there was anything to do.
    pub(super) fn step_walk(&mut self, budget: u32) -> bool {
        let Some(mut active) = self.walk.active.take().or_else(|| self.begin_walk()) else { return false };
        let bound = self.writer.bound();
        let most = active.cursor.saturating_add(budget.saturating_mul(SKIPPED)).min(bound);
        let mut flows: Vec<(FlowIndex, Flow)> = Vec::new();
        if active.cursor < bound {
            flows.extend(self.writer.flows_in(active.cursor..most).take(budget as usize));
            let full = flows.len() == budget as usize;
            active.cursor = flows.last().filter(|_| full).map_or(most, |(index, _)| index.number() + 1);
        } else {
            let later = active.later.drain(..active.later.len().min(budget as usize));
            flows.extend(later.filter_map(|index| Some((index, self.writer.get(index)?))));
        }
        for (index, flow) in flows {
            if !self.look_again(index, &flow, &active.stale) {
                active.later.push_back(index);
            }
        }
        if active.cursor >= self.writer.bound() && active.later.is_empty() {
            self.walk.finish(active.number);
        } else {
            self.walk.active = Some(active);
        }
        true
    }

    fn begin_walk(&mut self) -> Option<Active> {
        if self.walk.finished == self.walk.requested || self.is_changing() {
            return None;
        }
        let (stale, number) = self.walk.take();
        if stale.is_empty() || self.writer.is_empty() {
            self.walk.finish(number);
            return None;
        }
        Some(Active { stale, number, cursor: 0, later: VecDeque::new() })
    }

    /// Decides anew on a flow that may not be true any more. `false` when it is pending, and has to wait.
    fn look_again(&mut self, index: FlowIndex, flow: &Flow, stale: &Stale) -> bool {
        let fate = self.brain.fate(&flow.key, &flow.action, stale, self.now());
        if fate != Fate::Stay && flow.state != FlowState::Active {
            return false;
        }
        match fate {
            Fate::Stay => {}
            Fate::Go => {
                self.writer.remove(index);
            }
            Fate::Become(action) => self.become_another(index, &action),
        }
        true
    }

    /// Decides anew on the flows that were pending when they should have changed, if they are active now.
    pub(super) fn make_amends(&mut self) {
        std::mem::take(&mut self.amends).into_iter().for_each(|key| self.amend(key));
    }

    /// Decides anew on the flow of a key, now or as soon as it is active. Nothing if there is no such flow.
    pub(super) fn amend(&mut self, key: FlowKey) {
        let found = self.writer.find(&key);
        let Some((index, flow)) = found.and_then(|index| Some((index, self.writer.get(index)?))) else { return };
        let networks = self.brain.network_of(&key).into_iter().collect();
        let stations = [key.source_mac(), key.destination_mac()].map(|mac| Mac(mac.0)).into();
        let stale = Stale { networks, stations };
        if self.look_again(index, &flow, &stale) {
            return;
        }
        if self.amends.len() < MOST_AMENDS {
            self.amends.push(key);
        } else {
            self.walk.add(stale);
        }
    }

    /// Gives an active flow another action. It goes when there is no room for that.
    pub(super) fn become_another(&mut self, index: FlowIndex, action: &Action) {
        // Engines have to know the set or the tunnel first.
        let waits = matches!(action.output, Output::Replicate(_) | Output::Tunnel(_));
        if !self.is_in_layout(action.output) {
            self.publish();
        }
        let mask = if waits { self.engines.mask() } else { 0 };
        let state = if mask == 0 { FlowState::Active } else { FlowState::Pending(mask) };
        match self.writer.replace(index, action, state) {
            Ok(Some(new)) => self.activate(new, mask),
            Ok(None) => {}
            Err(_) => {
                self.writer.remove(index);
            }
        }
    }
}
