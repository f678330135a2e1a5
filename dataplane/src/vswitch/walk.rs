//! Flows that may not be true any more are looked at again, one by one, while all others stay as they are.

use std::collections::VecDeque;

use super::state::State;
use crate::flow::{Action, Fate, Flow, FlowIndex, FlowState, Output};
use crate::network::Stale;

/// Indices that one flow's turn may skip.
const SKIPPED: u32 = 8;

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
        let now = self.now();
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
            let fate = self.brain.fate(&flow.key, &flow.action, &active.stale, now);
            if fate != Fate::Stay && flow.state != FlowState::Active {
                active.later.push_back(index);
                continue;
            }
            match fate {
                Fate::Stay => {}
                Fate::Go => {
                    self.writer.remove(index);
                }
                Fate::Become(action) => self.become_another(index, &action),
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

    /// Gives an active flow another action. It goes when there is no room for that.
    pub(super) fn become_another(&mut self, index: FlowIndex, action: &Action) {
        // Engines have to know the set first.
        let waits = matches!(action.output, Output::Replicate(_));
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
