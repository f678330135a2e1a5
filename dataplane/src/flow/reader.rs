//! An engine's side of the flow table.

use std::fmt;
use std::sync::Arc;

use super::action::{Action, FlowState};
use super::grace::Readers;
use super::packed::PackedAction;
use super::probe::{MOST_TOGETHER, Probe};
use super::table::Table;
use super::{FlowIndex, FlowKey};

/// What a reader's look-ups came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lookups {
    /// Keys found as 3-tuple.
    pub wide: u64,
    /// Keys found as 5-tuple.
    pub narrow: u64,
    /// Keys not found.
    pub missed: u64,
}

/// One engine's access to the table. Look-ups take no lock, wait for nobody and allocate nothing.
///
/// Indices that a look-up gave hold until [`Reader::quiesce`], [`Reader::sleep`] or [`Reader::swap`]; afterwards the same index may be another flow.
/// An engine that looks nothing up for a while sleeps, so that the writer need not wait for it.
pub struct Reader {
    table: Arc<Table>,
    readers: Arc<Readers>,
    number: usize,
    lookups: Lookups,
    probe: Box<Probe>,
}

impl Reader {
    /// A reader that is awake.
    pub(super) fn new(table: Arc<Table>, readers: Arc<Readers>, number: usize) -> Self {
        readers.wake(number);
        Self { table, readers, number, lookups: Lookups::default(), probe: Box::default() }
    }

    /// Its number among the readers, from 0.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number
    }

    /// Looks for each key: first for its wide form, as long as any flow is wide, then for the key itself. `found` gets the flow's index, or `None`, in
    /// the place of each key; keys beyond the length of `found` are not looked at.
    #[inline]
    pub fn lookup(&mut self, keys: &[FlowKey], found: &mut [Option<FlowIndex>]) {
        let Self { table, number, lookups, probe, .. } = self;
        for (keys, found) in keys.chunks(MOST_TOGETHER).zip(found.chunks_mut(MOST_TOGETHER)) {
            let count = keys.len().min(found.len());
            let keys = keys.get(..count).unwrap_or_default();
            let mut left = count as u64;
            probe.begin(keys);
            if table.has_wide() {
                let got = probe.wide(table, *number, keys, found);
                lookups.wide += got;
                left -= got;
            }
            if left > 0 {
                let got = probe.narrow(table, *number, keys, found);
                lookups.narrow += got;
                left -= got;
            }
            lookups.missed += left;
            probe.end(found);
        }
    }

    /// What is done with the packets of a flow.
    #[must_use]
    #[inline]
    pub fn action(&self, index: FlowIndex) -> Action {
        let segment = self.table.segment(index);
        segment.map_or(Action::to(super::Output::Up), |segment| segment.action(index))
    }

    /// What is done with the packets of a flow, and whether they may pass.
    #[must_use]
    #[inline(always)]
    pub(crate) fn decision(&self, index: FlowIndex) -> (PackedAction, FlowState) {
        self.table.segment(index).map_or((PackedAction::UP, FlowState::Active), |segment| segment.decision(index))
    }

    /// Whether packets of a flow may pass.
    #[must_use]
    #[inline]
    pub fn state(&self, index: FlowIndex) -> FlowState {
        self.table.segment(index).map_or(FlowState::Active, |segment| segment.state(index))
    }

    /// The key of a flow.
    #[must_use]
    pub fn key(&self, index: FlowIndex) -> Option<FlowKey> {
        self.table.segment(index).map(|segment| segment.key(index))
    }

    /// From now on packets of the flow that come to this reader's engine may pass.
    #[inline]
    pub fn activate(&self, index: FlowIndex) {
        if let Some(segment) = self.table.segment(index) {
            segment.activate(index, self.number);
        }
    }

    /// Counts packets of a flow and their bytes, the last of which came at `now`.
    #[inline]
    pub fn count(&mut self, index: FlowIndex, packets: u64, bytes: u64, now: u64) {
        if let Some(segment) = self.table.segment(index) {
            segment.count(self.number, index, packets, bytes, now);
        }
    }

    /// The engine holds no index any more. To be called once a round.
    #[inline]
    pub fn quiesce(&mut self) {
        self.readers.quiesce(self.number);
    }

    /// The engine holds no index any more and will not look anything up before [`Reader::wake`].
    pub fn sleep(&mut self) {
        self.readers.sleep(self.number);
    }

    /// The engine looks things up again.
    pub fn wake(&mut self) {
        self.readers.wake(self.number);
    }

    /// Takes `table`, and gives the one that it had, which goes back to control. The engine holds no index meanwhile.
    #[must_use]
    pub fn swap(&mut self, table: Arc<Table>) -> Arc<Table> {
        std::mem::replace(&mut self.table, table)
    }

    /// What the look-ups came to.
    #[must_use]
    pub fn lookups(&self) -> Lookups {
        self.lookups
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.sleep(self.number);
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("number", &self.number).field("lookups", &self.lookups).finish_non_exhaustive()
    }
}
