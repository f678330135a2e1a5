//! Control's side of the flow table.

mod ageing;
mod change;
mod records;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use hugemem::MemoryError;

use super::action::{Action, FlowState};
use super::grace::Readers;
use super::hash::KeyedHash;
use super::reader::Reader;
use super::segment::{Counts, SEGMENT, Segment, bytes_per_flow};
use super::table::{Table, bucket_bytes};
use super::{FlowIndex, FlowKey};
use change::Building;
use records::Records;

pub use change::{Change, Fate, Progress};

/// Why a flow was not taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// A flow of this key is there already.
    #[error("the flow is there already")]
    Exists(FlowIndex),
    /// The owner has as many flows as its quota allows: evict one of its own, or raise the quota.
    #[error("slice {owner} has reached its quota of {quota} flows")]
    Quota {
        /// The flow's owner.
        owner: u16,
        /// Flows that it may have.
        quota: u32,
    },
    /// The table is full, or all indices that are free may still be held by readers.
    #[error("the flow table is full: {used} of {capacity} flows; let it grow, or let flows expire sooner")]
    Full {
        /// Flows in the table, those that wait for readers included.
        used: u32,
        /// Flows that it is made for.
        capacity: u32,
    },
}

/// A table could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// No memory for it.
    #[error("no memory for a flow table: {0}")]
    Memory(#[from] MemoryError),
    /// No secret words for the hash.
    #[error("the kernel gave no random numbers for the flow table's hash: {0}")]
    Random(#[from] io::Error),
    /// A table cannot be for so many flows.
    #[error("a flow table holds between 1 and 16777216 flows, not {0}")]
    Capacity(u32),
    /// More engines than a pending flow can be held by.
    #[error("a flow table serves at most {MOST_ENGINES} engines, not {0}")]
    Engines(usize),
    /// A change is being built already.
    #[error("the flow table is being changed already; finish that first")]
    Busy,
    /// The new table has no room for the flows, however they were laid out: try again, with other secret words, or with a greater capacity.
    #[error("a flow table made for {0} flows had no room for one more; try again or make it larger")]
    Crowded(u32),
    /// The change is not built yet.
    #[error("the change of the flow table is not built yet; step until it is ready")]
    NotReady,
}

/// Most flows of a table.
pub const MOST_FLOWS: u32 = 1 << 24;

/// Most readers of a table: each has a bit in the state of a flow.
const MOST_ENGINES: usize = 64;

/// A flow as control sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flow {
    /// Its key.
    pub key: FlowKey,
    /// What is done with its packets.
    pub action: Action,
    /// Whether these may pass.
    pub state: FlowState,
    /// Its packets so far. Before the first, `last_seen` is when the flow was inserted.
    pub counts: Counts,
    /// When it was inserted.
    pub created: u64,
}

/// How full a table is, and what it takes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Usage {
    /// Flows that can be found.
    pub flows: u32,
    /// Indices that wait till all readers have let go of them.
    pub waiting: u32,
    /// Flows that the table is made for.
    pub capacity: u32,
    /// Bytes of memory in all, readers' counts and control's records included.
    pub bytes: usize,
}

/// An index that readers may still hold.
struct Parked {
    index: FlowIndex,
    /// The generation that all have to see.
    generation: u64,
}

/// The one writer of a flow table.
///
/// None of its calls waits for readers. Work is bounded in each but [`Writer::new`]; those that go over the table take a budget.
pub struct Writer {
    pub(super) table: Arc<Table>,
    readers: Arc<Readers>,
    /// Readers that count.
    engines: usize,
    records: Records,
    /// Free indices that were used before, and the first that never was.
    free: Vec<FlowIndex>,
    fresh: u32,
    parked: VecDeque<Parked>,
    /// Tables that readers may still look at.
    retired: Vec<Arc<Table>>,
    building: Option<Building>,
    /// Where expiry goes on.
    hand: u32,
}

impl Writer {
    /// An empty table for `capacity` flows, its writer, and a reader for each of `engines` engines.
    ///
    /// # Errors
    /// When there is no memory or no randomness, or the capacity cannot be.
    pub fn new(capacity: u32, engines: usize) -> Result<(Self, Vec<Reader>), TableError> {
        Self::with_hash(capacity, engines, KeyedHash::random()?)
    }

    /// As [`Writer::new`], with `onlookers` further readers, the last ones, that count nothing.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn with_onlookers(capacity: u32, engines: usize, onlookers: usize) -> Result<(Self, Vec<Reader>), TableError> {
        Self::make(capacity, engines, onlookers, KeyedHash::random()?)
    }

    /// As [`Writer::new`], with a given hash, for results that have to repeat.
    ///
    /// # Errors
    /// As [`Writer::new`].
    pub fn with_hash(capacity: u32, engines: usize, hash: KeyedHash) -> Result<(Self, Vec<Reader>), TableError> {
        Self::make(capacity, engines, 0, hash)
    }

    fn make(
        capacity: u32,
        engines: usize,
        onlookers: usize,
        hash: KeyedHash,
    ) -> Result<(Self, Vec<Reader>), TableError> {
        if !(1..=MOST_FLOWS).contains(&capacity) {
            return Err(TableError::Capacity(capacity));
        }
        if engines > MOST_ENGINES {
            return Err(TableError::Engines(engines));
        }
        let segments = (0..segments_for(capacity)).map(|_| Segment::new(engines).map(Arc::new));
        let table = Arc::new(Table::new(capacity, hash, segments.collect::<Result<_, _>>()?)?);
        let count = engines + onlookers;
        let readers = Readers::new(count);
        let handed = (0..count).map(|number| Reader::new(table.clone(), readers.clone(), number)).collect();
        let writer = Self {
            table,
            readers,
            engines,
            records: Records::default(),
            free: Vec::new(),
            fresh: 0,
            parked: VecDeque::new(),
            retired: Vec::new(),
            building: None,
            hand: 0,
        };
        Ok((writer, handed))
    }

    /// The flow of this key, exactly as given (a narrow key does not find a wide flow).
    #[must_use]
    pub fn find(&self, key: &FlowKey) -> Option<FlowIndex> {
        self.table.find(key, self.table.home(self.table.hash(key)))
    }

    /// The flow that a look-up of `key` finds: a wide one, or its own.
    #[must_use]
    pub fn lookup(&self, key: &FlowKey) -> Option<FlowIndex> {
        self.find(&key.wide()).or_else(|| self.find(key))
    }

    /// Takes in a flow. Readers find it from now on.
    ///
    /// # Errors
    /// When it is there already, the owner's quota is used up, or there is no room.
    pub fn insert(&mut self, key: &FlowKey, action: &Action, state: FlowState, now: u64) -> Result<FlowIndex, Refused> {
        self.insert_with(key, action, state, now, |_| {})
    }

    /// As [`Writer::insert`], and calls `ready` with the flow's index before any reader can find it: for what lies beside the table at the same index.
    ///
    /// # Errors
    /// As [`Writer::insert`]. `ready` may have been called even so.
    pub fn insert_with(
        &mut self,
        key: &FlowKey,
        action: &Action,
        state: FlowState,
        now: u64,
        ready: impl FnOnce(FlowIndex),
    ) -> Result<FlowIndex, Refused> {
        if let Some(index) = self.find(key) {
            return Err(Refused::Exists(index));
        }
        self.records.allowed(action.owner)?;
        let index = self.prepare(key, action, state).ok_or_else(|| self.full())?;
        ready(index);
        if self.table.publish(index, key).is_err() {
            self.free.push(index);
            return Err(self.full());
        }
        self.records.insert(index, action.owner, now, self.counted(index));
        if let Some(building) = &mut self.building {
            building.inserted(index, key);
        }
        Ok(index)
    }

    /// An entry that nobody can find yet.
    fn prepare(&mut self, key: &FlowKey, action: &Action, state: FlowState) -> Option<FlowIndex> {
        let index = self.take_index()?;
        self.table.segment(index)?.fill(index, key, action, state);
        Some(index)
    }

    fn take_index(&mut self) -> Option<FlowIndex> {
        if let Some(index) = self.free.pop() {
            return Some(index);
        }
        if self.fresh < self.table.capacity() {
            self.fresh += 1;
            return Some(FlowIndex(self.fresh - 1));
        }
        self.collect();
        self.free.pop()
    }

    fn full(&self) -> Refused {
        let used = self.records.len() + u32::try_from(self.parked.len()).unwrap_or(u32::MAX);
        Refused::Full { used, capacity: self.table.capacity() }
    }

    /// Everything that was ever counted at an index.
    fn counted(&self, index: FlowIndex) -> Counts {
        self.table.segment(index).map_or(Counts::default(), |segment| segment.counts(index))
    }

    /// Takes a flow out, and says what it was. `None` when there is no such flow.
    ///
    /// Packets that an engine holds for a pending flow ([`FlowState::Pending`]) belong to whoever made it pending, who should let it become active first:
    /// expiry and eviction leave pending flows alone.
    pub fn remove(&mut self, index: FlowIndex) -> Option<Flow> {
        let flow = self.get(index)?;
        self.table.withdraw(index, &flow.key);
        self.records.remove(index);
        if let Some(successor) = self.building.as_mut().and_then(|building| building.removed(index, &flow.key)) {
            // Nobody has seen the table that it is in.
            self.free.push(successor);
        }
        self.park(index);
        Some(flow)
    }

    /// Gives a flow another action, from one packet to the next. The flow gets another index, which this returns; its counts go on.
    ///
    /// # Errors
    /// When the owner changes and the new one's quota is used up, or there is no free index.
    pub fn replace(
        &mut self,
        index: FlowIndex,
        action: &Action,
        state: FlowState,
    ) -> Result<Option<FlowIndex>, Refused> {
        let Some(flow) = self.get(index) else {
            return Ok(None);
        };
        if flow.action.owner != action.owner {
            self.records.allowed(action.owner)?;
        }
        let new = self.prepare(&flow.key, action, state).ok_or_else(|| self.full())?;
        self.table.exchange(index, new, &flow.key);
        self.records.replace(index, new, action.owner, self.counted(index), self.counted(new));
        if let Some(building) = &mut self.building {
            if let Some(successor) = building.removed(index, &flow.key) {
                self.free.push(successor);
            }
            building.inserted(new, &flow.key);
        }
        self.park(index);
        Ok(Some(new))
    }

    /// From now on packets of the flow may pass, in all engines.
    pub fn activate(&mut self, index: FlowIndex) {
        if let Some(segment) = self.table.segment(index) {
            segment.set_state(index, FlowState::Active);
        }
    }

    /// From now on packets of the flow that come to reader `number` may pass: for a reader that has ended.
    pub fn activate_for(&mut self, index: FlowIndex, number: usize) {
        if let Some(segment) = self.table.segment(index) {
            segment.activate(index, number);
        }
    }

    /// What is known of a flow; `None` when there is none of this index.
    #[must_use]
    pub fn get(&self, index: FlowIndex) -> Option<Flow> {
        let (created, counts) = self.records.get(index, || self.counted(index))?;
        let segment = self.table.segment(index)?;
        Some(Flow {
            key: segment.key(index),
            action: segment.action(index),
            state: segment.state(index),
            counts,
            created,
        })
    }

    /// All flows, in the order of their indices, from `first` on.
    pub fn flows(&self, first: u32) -> impl Iterator<Item = (FlowIndex, Flow)> {
        self.flows_in(first..u32::MAX)
    }

    /// Those of them whose indices are in a range.
    pub fn flows_in(&self, range: Range<u32>) -> impl Iterator<Item = (FlowIndex, Flow)> {
        let Range { start, end } = range;
        (start..end.min(self.fresh)).map(FlowIndex).filter_map(|index| Some((index, self.get(index)?)))
    }

    /// All flows have indices below this.
    #[must_use]
    pub fn bound(&self) -> u32 {
        self.fresh
    }

    /// Flows in the table.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.records.len()
    }

    /// There are no flows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A change is being built: [`Writer::begin`] was called, and neither [`Writer::commit`] nor [`Writer::abandon`].
    #[must_use]
    pub fn is_changing(&self) -> bool {
        self.building.is_some()
    }

    /// Flows that `owner` has.
    #[must_use]
    pub fn owned(&self, owner: u16) -> u32 {
        self.records.owned(owner)
    }

    /// Lets `owner` have so many flows from now on; those that it has stay. `None`: as many as there is room for.
    pub fn set_quota(&mut self, owner: u16, quota: Option<u32>) {
        self.records.set_quota(owner, quota);
    }

    /// How full the table is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let capacity = self.table.capacity();
        let segments = self.table.segments().len() * SEGMENT * bytes_per_flow(self.engines);
        let parked = self.parked.capacity() * size_of::<Parked>() + self.free.capacity() * size_of::<FlowIndex>();
        Usage {
            flows: self.len(),
            waiting: u32::try_from(self.parked.len()).unwrap_or(u32::MAX),
            capacity,
            bytes: segments + bucket_bytes(capacity) + parked + self.records.bytes(),
        }
    }

    /// Keeps an index from being used again till every reader has let go of it.
    fn park(&mut self, index: FlowIndex) {
        let generation = self.readers.begin();
        self.parked.push_back(Parked { index, generation });
    }

    /// Takes back the indices that no reader can hold any more, and frees tables that came back from all engines. It happens by itself when
    /// indices run out; called now and then it keeps memory small.
    pub fn collect(&mut self) {
        self.retired.retain_mut(|table| Arc::get_mut(table).is_none());
        // Whoever looks at an old table can still find what was taken out of the new one.
        if !self.retired.is_empty() {
            return;
        }
        let passed = self.readers.passed();
        while let Some(parked) = self.parked.pop_front_if(|parked| parked.generation <= passed) {
            self.free.push(parked.index);
        }
    }
}

fn segments_for(capacity: u32) -> usize {
    (capacity as usize).div_ceil(SEGMENT)
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
