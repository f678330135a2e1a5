//! Changing many flows at once: a second table is built beside the first, a piece at a time, and then takes its place.
//!
//! The second table has buckets of its own and shares the entries. A flow that stays keeps its index. One that gets another action gets a new entry,
//! which only the second table leads to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::action::{Action, FlowState};
use super::super::hash::KeyedHash;
use super::super::segment::Segment;
use super::super::table::Table;
use super::super::{FlowIndex, FlowKey};
use super::{Flow, MOST_FLOWS, TableError, Writer, segments_for};

/// What becomes of a flow when many are changed. A pending flow goes or gets another action when it is active: a change is not ready before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It stays as it is.
    Stay,
    /// It goes; its next packet is a miss.
    Go,
    /// It gets this action; when no index is free for that, it goes.
    Become(Action),
}

/// How far a change is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// More steps are needed.
    Building,
    /// [`Writer::commit`] can be called.
    Ready,
}

/// A change that has happened for control, and happens for each engine when it takes the table.
#[derive(Debug)]
#[must_use = "every engine has to get the table"]
pub struct Change {
    /// The table that every engine has to take ([`Reader::swap`](super::super::Reader::swap)), and to give back what it had.
    pub table: Arc<Table>,
    /// Flows that got another action: their index before and now.
    pub moved: Vec<(FlowIndex, FlowIndex)>,
    /// Flows that are gone.
    pub gone: Vec<FlowIndex>,
}

/// A table that is being built.
pub(super) struct Building {
    capacity: u32,
    segments: Vec<Arc<Segment>>,
    /// Made when all segments are there.
    table: Option<Table>,
    /// Flows below this index are done.
    cursor: u32,
    /// Where flows that get another action will be.
    moved: HashMap<FlowIndex, FlowIndex>,
    gone: HashSet<FlowIndex>,
    /// Flows that are pending, and are to go or to get another action.
    later: HashSet<FlowIndex>,
    /// A flow that came meanwhile had no room in it.
    crowded: bool,
}

/// The cursor when all flows are done: those that come later are taken in at once.
const DONE: u32 = u32::MAX;

impl Building {
    /// A flow was inserted.
    pub(super) fn inserted(&mut self, index: FlowIndex, key: &FlowKey) {
        if index.0 < self.cursor
            && let Some(table) = &self.table
        {
            self.crowded |= table.publish(index, key).is_err();
        }
    }

    /// A flow was removed; gives the entry that would have become of it.
    pub(super) fn removed(&mut self, index: FlowIndex, key: &FlowKey) -> Option<FlowIndex> {
        let successor = self.moved.remove(&index);
        self.gone.remove(&index);
        self.later.remove(&index);
        if let Some(table) = &self.table {
            table.withdraw(successor.unwrap_or(index), key);
        }
        successor
    }
}

impl Writer {
    /// Begins a change of many flows: a table for `capacity` flows (at least as many as now) with new secret words. Until [`Writer::commit`], readers see
    /// nothing of it, and flows come and go as before.
    ///
    /// # Errors
    /// When one is being built already, there is no randomness, or the capacity cannot be.
    pub fn begin(&mut self, capacity: u32) -> Result<(), TableError> {
        if self.building.is_some() {
            return Err(TableError::Busy);
        }
        let capacity = capacity.max(self.table.capacity());
        if capacity > MOST_FLOWS {
            return Err(TableError::Capacity(capacity));
        }
        self.building = Some(Building {
            capacity,
            segments: self.table.segments().to_vec(),
            table: None,
            cursor: 0,
            moved: HashMap::new(),
            gone: HashSet::new(),
            later: HashSet::new(),
            crowded: false,
        });
        Ok(())
    }

    /// Works on the change that was begun: gets a piece of memory, or decides on no more than `budget` flows. `fate` is asked once for each
    /// flow; of those that come while a change is built, it is asked about some, and the others stay.
    ///
    /// # Errors
    /// When there is no memory, no randomness or no room: then the change is over, and nothing has happened.
    pub fn step(
        &mut self,
        budget: u32,
        mut fate: impl FnMut(FlowIndex, &Flow) -> Fate,
    ) -> Result<Progress, TableError> {
        let Some(mut building) = self.building.take() else {
            return Ok(Progress::Ready);
        };
        match self.advance(&mut building, budget, &mut fate) {
            Ok(progress) => {
                self.building = Some(building);
                Ok(progress)
            }
            Err(error) => {
                self.give_up(building);
                Err(error)
            }
        }
    }

    fn advance(
        &mut self,
        building: &mut Building,
        budget: u32,
        fate: &mut impl FnMut(FlowIndex, &Flow) -> Fate,
    ) -> Result<Progress, TableError> {
        if building.segments.len() < segments_for(building.capacity) {
            building.segments.push(Arc::new(Segment::new(self.engines)?));
            return Ok(Progress::Building);
        }
        if building.table.is_none() {
            let segments = building.segments.as_slice().into();
            building.table = Some(Table::new(building.capacity, KeyedHash::random()?, segments)?);
            return Ok(Progress::Building);
        }
        let crowded = TableError::Crowded(building.capacity);
        let mut left = budget;
        while left > 0 && building.cursor < self.fresh {
            let index = FlowIndex(building.cursor);
            building.cursor += 1;
            left -= 1;
            if !self.decide(building, index, fate) {
                return Err(crowded);
            }
        }
        if building.cursor >= self.fresh {
            building.cursor = DONE;
            let waited: Vec<_> = building.later.iter().copied().take(left as usize).collect();
            for index in waited {
                building.later.remove(&index);
                if !self.decide(building, index, fate) {
                    return Err(crowded);
                }
            }
        }
        if building.crowded {
            return Err(crowded);
        }
        let ready = building.cursor == DONE && building.later.is_empty();
        Ok(if ready { Progress::Ready } else { Progress::Building })
    }

    /// Decides on the flow of an index, if there is one; `false` when there is no room for it.
    fn decide(
        &mut self,
        building: &mut Building,
        index: FlowIndex,
        fate: &mut impl FnMut(FlowIndex, &Flow) -> Fate,
    ) -> bool {
        let Some(flow) = self.get(index) else { return true };
        let entry = match fate(index, &flow) {
            Fate::Stay => Some(index),
            // The engine that holds its packets knows it by this index.
            Fate::Go | Fate::Become(_) if flow.state != FlowState::Active => {
                building.later.insert(index);
                return true;
            }
            Fate::Go => None,
            Fate::Become(action) => self.prepare(&flow.key, &action, FlowState::Active),
        };
        match entry {
            None => {
                building.gone.insert(index);
                true
            }
            Some(entry) => {
                if entry != index {
                    building.moved.insert(index, entry);
                }
                building.table.as_ref().is_some_and(|table| table.publish(entry, &flow.key).is_ok())
            }
        }
    }

    /// Ends a change that was begun; nothing has happened.
    pub fn abandon(&mut self) {
        if let Some(building) = self.building.take() {
            self.give_up(building);
        }
    }

    fn give_up(&mut self, building: Building) {
        // Nobody has seen these entries.
        self.free.extend(building.moved.into_values());
    }

    /// Makes the change happen: for control at once, for each engine when it takes the table. Till all have given back what they had, no index is
    /// used again. Its work grows with the number of flows that go or get another action.
    ///
    /// # Errors
    /// When [`Writer::step`] has more to do, or a flow that came since has no room in the new table; then the change is over.
    pub fn commit(&mut self) -> Result<Change, TableError> {
        match self.building.take() {
            Some(Building { capacity, crowded: true, moved, .. }) => {
                self.free.extend(moved.into_values());
                Err(TableError::Crowded(capacity))
            }
            Some(Building { cursor: DONE, table: Some(table), moved, gone, later, .. }) if later.is_empty() => {
                let table = Arc::new(table);
                self.retired.push(std::mem::replace(&mut self.table, table.clone()));
                for (&old, &new) in &moved {
                    let owner = self.table.segment(new).map_or(0, |segment| segment.action(new).owner);
                    self.records.replace(old, new, owner, self.counted(old), self.counted(new));
                    self.park(old);
                }
                for &index in &gone {
                    self.records.remove(index);
                    self.park(index);
                }
                Ok(Change { table, moved: moved.into_iter().collect(), gone: gone.into_iter().collect() })
            }
            unfinished => {
                self.building = unfinished;
                Err(TableError::NotReady)
            }
        }
    }
}
