//! An engine's side of the flow table.

use std::fmt;
use std::sync::Arc;

use super::action::{Action, FlowState};
use super::bucket;
use super::grace::Readers;
use super::packed::PackedAction;
use super::table::{Home, Table};
use super::{FlowIndex, FlowKey};

/// Keys that go through the stages of a look-up together.
const GROUP: usize = 32;

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
}

impl Reader {
    /// A reader that is awake.
    pub(super) fn new(table: Arc<Table>, readers: Arc<Readers>, number: usize) -> Self {
        readers.wake(number);
        Self { table, readers, number, lookups: Lookups::default() }
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
        let wide = self.table.has_wide();
        for (keys, found) in keys.chunks(GROUP).zip(found.chunks_mut(GROUP)) {
            found.fill(None);
            let count = keys.len().min(found.len());
            let mut left = count;
            if wide {
                let mut wide_keys = [FlowKey([0; 8]); GROUP];
                for (wide, key) in wide_keys.iter_mut().zip(keys) {
                    *wide = key.wide();
                }
                let got = self.probe(wide_keys.get(..count).unwrap_or_default(), found);
                self.lookups.wide += got as u64;
                left -= got;
            }
            if left > 0 {
                let got = self.probe(keys, found);
                self.lookups.narrow += got as u64;
                left -= got;
            }
            self.lookups.missed += left as u64;
        }
    }

    /// Looks for the keys of one group that are not found yet; returns how many it found.
    #[inline]
    fn probe(&self, keys: &[FlowKey], found: &mut [Option<FlowIndex>]) -> usize {
        let table = &*self.table;
        let moves = table.moves();
        let mut homes = [Home { first: 0, second: 0, tag: 0 }; GROUP];
        for ((home, key), found) in homes.iter_mut().zip(keys).zip(&*found) {
            if found.is_none() {
                *home = table.home(table.hash(key));
                table.prefetch_bucket(home.first);
            }
        }
        // The first flow whose tag matches is nearly always the one. Keys that may lie elsewhere are searched for at the end.
        let mut candidates = [None; GROUP];
        let mut search = 0_u32;
        let mut tried = 0_u32;
        for (place, ((home, candidate), found)) in
            homes.iter().zip(&mut candidates).zip(&*found).take(keys.len()).enumerate()
        {
            if found.is_some() {
                continue;
            }
            tried |= 1 << place;
            let bucket = table.bucket(home.first);
            if let Some(matching) = bucket::matches(bucket, home.tag).next() {
                let index = bucket::index(bucket, matching);
                if let Some(segment) = table.segment(index) {
                    segment.prefetch(index, self.number);
                }
                *candidate = Some(index);
            } else if bucket::has_elsewhere(bucket) {
                table.prefetch_bucket(home.second);
                search |= 1 << place;
            }
        }
        // What was moved meanwhile may have been missed.
        if table.moves() != moves {
            search = tried;
        }
        let mut count = 0;
        for (place, (((home, key), candidate), found)) in
            homes.iter().zip(keys).zip(&candidates).zip(found.iter_mut()).enumerate()
        {
            if tried & 1 << place == 0 {
                continue;
            }
            *found = match candidate {
                Some(index) if table.has(*index, key) => Some(*index),
                None if search & 1 << place == 0 => None,
                _ => table.find(key, *home),
            };
            count += usize::from(found.is_some());
        }
        count
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
