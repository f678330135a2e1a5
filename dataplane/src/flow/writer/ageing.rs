//! Flows that go: because nobody uses them, or because others need the room.

use super::super::FlowIndex;
use super::super::action::FlowState;
use super::{Flow, Writer};

/// Flows that one eviction looks at.
const MOST_VISITED: usize = 64;

impl Writer {
    /// Takes out the flows that were last seen `idle` or longer before `now`, and tells `gone` each. Looks at no more than `budget` indices,
    /// going on where it stopped the last time; returns how many were taken out. Pending flows stay.
    pub fn expire(&mut self, now: u64, idle: u64, budget: u32, mut gone: impl FnMut(FlowIndex, &Flow)) -> u32 {
        let mut count = 0;
        for _ in 0..budget.min(self.fresh) {
            let index = FlowIndex(self.hand);
            self.hand = if self.hand + 1 < self.fresh { self.hand + 1 } else { 0 };
            let seen = self.records.get(index, || self.counted(index)).map(|(_, counts)| counts.last_seen);
            if seen.is_some_and(|seen| now.saturating_sub(seen) >= idle)
                && !self.is_pending(index)
                && let Some(flow) = self.remove(index)
            {
                count += 1;
                gone(index, &flow);
            }
        }
        count
    }

    /// Takes out one flow to make room: of `owner`, or with `None` of whoever has most. It is one that was not used since eviction
    /// last came by ("second chance"), or of those looked at the one that was used least recently. `None` when the owner has no flows,
    /// or only pending ones were looked at.
    ///
    /// The index becomes free when all readers have let go of it.
    pub fn evict(&mut self, owner: Option<u16>) -> Option<(FlowIndex, Flow)> {
        let owner = owner.or_else(|| self.records.largest_owner())?;
        let mut oldest: Option<(u64, FlowIndex)> = None;
        for _ in 0..MOST_VISITED.min(self.records.owned(owner) as usize) {
            let index = self.records.first_of(owner)?;
            let (_, counts) = self.records.get(index, || self.counted(index))?;
            let seen = counts.last_seen;
            let pending = self.is_pending(index);
            if !pending && seen <= self.records.visited(index) {
                oldest = Some((seen, index));
                break;
            }
            if !pending && oldest.is_none_or(|(least, _)| seen < least) {
                oldest = Some((seen, index));
            }
            self.records.visit(index, seen);
        }
        let (_, index) = oldest?;
        Some((index, self.remove(index)?))
    }

    fn is_pending(&self, index: FlowIndex) -> bool {
        self.table.segment(index).is_some_and(|segment| segment.state(index) != FlowState::Active)
    }
}
