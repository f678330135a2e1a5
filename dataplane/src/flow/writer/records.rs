//! What the writer knows of each flow beside the table: whose it is, when it came, and from where its counts go.

use std::collections::HashMap;

use super::super::FlowIndex;
use super::super::segment::Counts;
use super::Refused;

/// No flow, at either end of an owner's list.
const NONE: u32 = u32::MAX;

/// What is known of one index.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// What had been counted at this index when the flow came, less what the flow had counted at another index.
    before: Counts,
    /// When the flow had last been seen when it came to this index.
    seen: u64,
    created: u64,
    /// When the flow had last been seen when eviction last came by.
    visited: u64,
    /// Neighbours in the list of its owner's flows.
    previous: u32,
    next: u32,
    owner: u16,
    live: bool,
}

/// One owner's flows: a list from the one that eviction looks at next to the one that it came by last.
#[derive(Clone, Copy, Debug)]
struct Owner {
    first: u32,
    last: u32,
    count: u32,
    quota: Option<u32>,
}

impl Default for Owner {
    fn default() -> Self {
        Self { first: NONE, last: NONE, count: 0, quota: None }
    }
}

/// Records of all flows.
#[derive(Default, Debug)]
pub(super) struct Records {
    records: Vec<Record>,
    owners: HashMap<u16, Owner>,
    count: u32,
}

impl Records {
    pub(super) fn len(&self) -> u32 {
        self.count
    }

    pub(super) fn owned(&self, owner: u16) -> u32 {
        self.owners.get(&owner).map_or(0, |owner| owner.count)
    }

    pub(super) fn bytes(&self) -> usize {
        self.records.capacity() * size_of::<Record>() + self.owners.capacity() * size_of::<(u16, Owner)>()
    }

    pub(super) fn set_quota(&mut self, owner: u16, quota: Option<u32>) {
        let entry = self.owners.entry(owner).or_default();
        entry.quota = quota;
        self.forget_if_empty(owner);
    }

    /// The owner may have one flow more.
    pub(super) fn allowed(&self, owner: u16) -> Result<(), Refused> {
        match self.owners.get(&owner) {
            Some(&Owner { quota: Some(quota), count, .. }) if count >= quota => Err(Refused::Quota { owner, quota }),
            _ => Ok(()),
        }
    }

    fn live(&self, index: FlowIndex) -> Option<&Record> {
        self.records.get(index.0 as usize).filter(|record| record.live)
    }

    fn live_mut(&mut self, index: FlowIndex) -> Option<&mut Record> {
        self.records.get_mut(index.0 as usize).filter(|record| record.live)
    }

    /// Takes in a flow at an index where `counted` had been counted before.
    pub(super) fn insert(&mut self, index: FlowIndex, owner: u16, now: u64, counted: Counts) {
        self.put(
            index,
            Record {
                before: counted,
                seen: now,
                created: now,
                visited: 0,
                previous: NONE,
                next: NONE,
                owner,
                live: true,
            },
        );
    }

    fn put(&mut self, index: FlowIndex, record: Record) {
        let place = index.0 as usize;
        while self.records.len() <= place {
            self.records.push(Record { live: false, ..record });
        }
        if let Some(old) = self.records.get_mut(place) {
            *old = record;
        }
        self.count += 1;
        self.owners.entry(record.owner).or_default().count += 1;
        self.append(index);
    }

    /// Puts a flow at the end of its owner's list.
    fn append(&mut self, index: FlowIndex) {
        let Some(owner) = self.live(index).map(|record| record.owner) else { return };
        let list = self.owners.entry(owner).or_default();
        let last = std::mem::replace(&mut list.last, index.0);
        if last == NONE {
            list.first = index.0;
        } else if let Some(record) = self.live_mut(FlowIndex(last)) {
            record.next = index.0;
        }
        if let Some(record) = self.live_mut(index) {
            (record.previous, record.next) = (last, NONE);
        }
    }

    /// Takes a flow out of its owner's list.
    fn unlink(&mut self, index: FlowIndex) {
        let Some(&Record { previous, next, owner, .. }) = self.live(index) else { return };
        let list = self.owners.entry(owner).or_default();
        if list.first == index.0 {
            list.first = next;
        }
        if list.last == index.0 {
            list.last = previous;
        }
        if let Some(record) = self.live_mut(FlowIndex(previous)) {
            record.next = next;
        }
        if let Some(record) = self.live_mut(FlowIndex(next)) {
            record.previous = previous;
        }
    }

    pub(super) fn remove(&mut self, index: FlowIndex) {
        self.unlink(index);
        let Some(record) = self.live_mut(index) else { return };
        record.live = false;
        let owner = record.owner;
        self.count -= 1;
        self.owners.entry(owner).or_default().count -= 1;
        self.forget_if_empty(owner);
    }

    fn forget_if_empty(&mut self, owner: u16) {
        if self.owners.get(&owner).is_some_and(|owner| owner.count == 0 && owner.quota.is_none()) {
            self.owners.remove(&owner);
        }
    }

    /// Brings a flow from one index to another, with its counts; `old_counted` and `new_counted` were counted at these.
    pub(super) fn replace(
        &mut self,
        old: FlowIndex,
        new: FlowIndex,
        owner: u16,
        old_counted: Counts,
        new_counted: Counts,
    ) {
        let Some(&record) = self.live(old) else { return };
        let counts = since(old_counted, record);
        self.remove(old);
        let before = Counts {
            packets: new_counted.packets.wrapping_sub(counts.packets),
            bytes: new_counted.bytes.wrapping_sub(counts.bytes),
            last_seen: new_counted.last_seen,
        };
        self.put(new, Record { before, seen: counts.last_seen, owner, ..record });
    }

    /// When the flow came, and what it has counted, given what was counted at its index.
    pub(super) fn get(&self, index: FlowIndex, counted: impl FnOnce() -> Counts) -> Option<(u64, Counts)> {
        let record = *self.live(index)?;
        Some((record.created, since(counted(), record)))
    }

    /// Number of an owner who has most flows.
    pub(super) fn largest_owner(&self) -> Option<u16> {
        self.owners
            .iter()
            .filter(|(_, owner)| owner.count > 0)
            .max_by_key(|(_, owner)| owner.count)
            .map(|(number, _)| *number)
    }

    /// The flow of `owner` that eviction looks at next.
    pub(super) fn first_of(&self, owner: u16) -> Option<FlowIndex> {
        self.owners.get(&owner).map(|owner| owner.first).filter(|first| *first != NONE).map(FlowIndex)
    }

    /// When the flow had last been seen when eviction came by the last time; 0 when it never did.
    pub(super) fn visited(&self, index: FlowIndex) -> u64 {
        self.live(index).map_or(0, |record| record.visited)
    }

    /// Eviction came by, when the flow had last been seen at `seen`: it is at the end of the list now.
    pub(super) fn visit(&mut self, index: FlowIndex, seen: u64) {
        self.unlink(index);
        if let Some(record) = self.live_mut(index) {
            record.visited = seen;
        }
        self.append(index);
    }
}

/// What the flow of `record` has counted, given what was counted at its index.
fn since(counted: Counts, record: Record) -> Counts {
    // The index may have been another flow's before, which was seen earlier.
    let here = counted.last_seen > record.before.last_seen;
    Counts {
        packets: counted.packets.wrapping_sub(record.before.packets),
        bytes: counted.bytes.wrapping_sub(record.before.bytes),
        last_seen: if here { counted.last_seen } else { record.seen },
    }
}
