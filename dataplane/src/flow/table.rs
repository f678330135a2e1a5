//! What readers and writer share: buckets by hash, and entries by index.

use std::fmt;
use std::sync::Arc;

use hugemem::MemoryError;

use super::bucket::{self, Words};
use super::hash::KeyedHash;
use super::memory::{Array, Memory};
use super::segment::{SEGMENT, Segment};
use super::sync::{AtomicU64, Ordering};
use super::{FlowIndex, FlowKey};

/// Buckets that the search for room looks at before it gives up.
const MOST_SEARCHED: usize = 512;
/// How often a look-up begins again because flows were moved meanwhile. Moves are rare: this is never reached but by a writer
/// that does nothing else.
const MOST_RETRIES: usize = 1_000;

/// Buckets and entries of a flow table. Control gives one to each engine, by [`Arc`], and gets it back.
///
/// A key has two buckets. It lies in the first when there is room, else in the second; flows are moved between their two buckets when both are full.
pub struct Table {
    hash: KeyedHash,
    /// A power of two of them.
    buckets: Array<8>,
    mask: u64,
    segments: Box<[Arc<Segment>]>,
    capacity: u32,
    /// Counts the flows that were moved between buckets: a look-up that found nothing while this changed begins again.
    moves: AtomicU64,
    /// Number of wide flows.
    wide: AtomicU64,
}

/// Where a key belongs.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Home {
    pub(super) first: u32,
    pub(super) second: u32,
    pub(super) tag: u16,
}

/// There is no room, although flows were moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crowded;

/// Memory of the buckets of a table for `capacity` flows, in bytes.
pub(super) fn bucket_bytes(capacity: u32) -> usize {
    buckets_for(capacity) * 64
}

/// Buckets for a table of `capacity` flows: at least half again as many places as flows.
fn buckets_for(capacity: u32) -> usize {
    (capacity as usize * 3 / 2).div_ceil(bucket::PLACES).next_power_of_two().max(2)
}

impl Table {
    pub(super) fn new(capacity: u32, hash: KeyedHash, segments: Box<[Arc<Segment>]>) -> Result<Self, MemoryError> {
        let count = buckets_for(capacity);
        let buckets = Memory::allocate(count * 64)?.array(count)?;
        let mask = count as u64 - 1;
        Ok(Self { hash, buckets, mask, segments, capacity, moves: AtomicU64::new(0), wide: AtomicU64::new(0) })
    }

    /// Flows that it is made for.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    pub(super) fn segments(&self) -> &[Arc<Segment>] {
        &self.segments
    }

    #[inline(always)]
    pub(super) fn segment(&self, index: FlowIndex) -> Option<&Segment> {
        self.segments.get(index.0 as usize / SEGMENT).map(|segment| &**segment)
    }

    /// Some flow is wide.
    #[inline]
    pub(super) fn has_wide(&self) -> bool {
        self.wide.load(Ordering::Acquire) > 0
    }

    #[inline(always)]
    pub(super) fn hash(&self, key: &FlowKey) -> u64 {
        self.hash.of(key)
    }

    /// The low bits choose the first bucket, those in the middle the tag, the high ones the second bucket.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "buckets are far fewer than 2^24; a tag has 16 bits")]
    pub(super) fn home(&self, hash: u64) -> Home {
        let first = hash & self.mask;
        let second = (hash >> 40) & self.mask;
        // Two buckets are better than one.
        let second = if second == first { first ^ 1 } else { second };
        Home { first: first as u32, second: second as u32, tag: ((hash >> 24) as u16).max(1) }
    }

    #[inline(always)]
    pub(super) fn bucket(&self, number: u32) -> &Words {
        // The mask keeps numbers below the length, which the compiler does not know.
        &self.buckets[number as usize]
    }

    #[inline(always)]
    pub(super) fn prefetch_bucket(&self, number: u32) {
        self.buckets.prefetch(number as usize);
    }

    /// Number of moves so far; look-ups between two equal answers have seen every flow.
    #[inline(always)]
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Acquire)
    }

    #[inline(always)]
    fn find_in(&self, number: u32, tag: u16, key: &FlowKey) -> Option<FlowIndex> {
        let bucket = self.bucket(number);
        bucket::matches(bucket, tag).map(|place| bucket::index(bucket, place)).find(|index| self.has(*index, key))
    }

    /// The flow of this index has this key.
    #[inline(always)]
    pub(super) fn has(&self, index: FlowIndex, key: &FlowKey) -> bool {
        self.segment(index).is_some_and(|segment| segment.has(index, key))
    }

    /// Looks for one key, whatever is moved meanwhile.
    pub(super) fn find(&self, key: &FlowKey, home: Home) -> Option<FlowIndex> {
        let mut moves = self.moves();
        for _ in 0..MOST_RETRIES {
            if let Some(found) = self.find_in(home.first, home.tag, key) {
                return Some(found);
            }
            if bucket::has_elsewhere(self.bucket(home.first))
                && let Some(found) = self.find_in(home.second, home.tag, key)
            {
                return Some(found);
            }
            let now = self.moves();
            if now == moves {
                break;
            }
            moves = now;
            #[cfg(loom)]
            loom::thread::yield_now();
        }
        None
    }

    /// Writer: where the key of a flow belongs.
    fn home_of(&self, index: FlowIndex) -> Option<Home> {
        Some(self.home(self.hash(&self.segment(index)?.key(index))))
    }

    /// Writer: lets a filled entry be found. The key must not be in the table.
    pub(super) fn publish(&self, index: FlowIndex, key: &FlowKey) -> Result<(), Crowded> {
        let home = self.home(self.hash(key));
        let (bucket, place) = match bucket::free_place(self.bucket(home.first)) {
            Some(place) => (home.first, place),
            None => match bucket::free_place(self.bucket(home.second)) {
                Some(place) => (home.second, place),
                None => self.make_room(home).ok_or(Crowded)?,
            },
        };
        bucket::put(self.bucket(bucket), place, home.tag, index);
        if bucket != home.first {
            bucket::add_elsewhere(self.bucket(home.first), 1);
        }
        if key.is_wide() {
            self.wide.store(self.wide.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
        Ok(())
    }

    /// Writer: the bucket and place of a flow.
    fn locate(&self, index: FlowIndex, home: Home) -> Option<(u32, usize)> {
        [home.first, home.second]
            .into_iter()
            .find_map(|number| Some((number, bucket::place_of(self.bucket(number), home.tag, index)?)))
    }

    /// Writer: lets a flow be found no more. `false` when it could not be found before.
    pub(super) fn withdraw(&self, index: FlowIndex, key: &FlowKey) -> bool {
        let home = self.home(self.hash(key));
        let Some((number, place)) = self.locate(index, home) else {
            return false;
        };
        bucket::clear(self.bucket(number), place);
        if number != home.first {
            bucket::add_elsewhere(self.bucket(home.first), -1);
        }
        if key.is_wide() {
            self.wide.store(self.wide.load(Ordering::Relaxed).saturating_sub(1), Ordering::Release);
        }
        true
    }

    /// Writer: lets `new` be found in place of `old`, which has the same key, from one moment to the next.
    pub(super) fn exchange(&self, old: FlowIndex, new: FlowIndex, key: &FlowKey) -> bool {
        let home = self.home(self.hash(key));
        let Some((number, place)) = self.locate(old, home) else {
            return false;
        };
        bucket::set_index(self.bucket(number), place, new);
        true
    }

    /// Writer: makes room in one of two full buckets, by moving flows to their other buckets along the shortest way to a bucket with
    /// room. Gives the bucket and the free place.
    fn make_room(&self, home: Home) -> Option<(u32, usize)> {
        /// A full bucket that was come to, from which place of which step.
        struct Step {
            bucket: u32,
            from: Option<(usize, usize)>,
        }
        let mut steps = vec![Step { bucket: home.first, from: None }, Step { bucket: home.second, from: None }];
        let mut next = 0;
        while let Some(bucket) = steps.get(next).map(|step| step.bucket) {
            for place in 0..bucket::PLACES {
                let flow = self.home_of(bucket::index(self.bucket(bucket), place))?;
                let other = if flow.first == bucket { flow.second } else { flow.first };
                let Some(free) = bucket::free_place(self.bucket(other)) else {
                    if steps.len() < MOST_SEARCHED && steps.iter().all(|step| step.bucket != other) {
                        steps.push(Step { bucket: other, from: Some((next, place)) });
                    }
                    continue;
                };
                // Back along the way: each move frees the place that the one before it goes to.
                let (mut at, mut place, mut target) = (next, place, (other, free));
                loop {
                    let step = steps.get(at)?;
                    self.move_flow((step.bucket, place), target)?;
                    target = (step.bucket, place);
                    match step.from {
                        None => return Some(target),
                        Some(from) => (at, place) = from,
                    }
                }
            }
            next += 1;
        }
        None
    }

    /// Writer: moves a flow to a free place of its other bucket. It can be found all the time by whoever looks again
    /// when `moves` has changed.
    fn move_flow(&self, (from, place): (u32, usize), (to, free): (u32, usize)) -> Option<()> {
        let index = bucket::index(self.bucket(from), place);
        let home = self.home_of(index)?;
        bucket::put(self.bucket(to), free, home.tag, index);
        if to == home.second {
            bucket::add_elsewhere(self.bucket(home.first), 1);
        }
        // Release: whoever sees the count sees the flow in its new bucket; it comes before the clearing, so that whoever misses the flow
        // in its old bucket sees the count.
        self.moves.store(self.moves.load(Ordering::Relaxed) + 1, Ordering::Release);
        bucket::clear(self.bucket(from), place);
        if from == home.second {
            bucket::add_elsewhere(self.bucket(home.first), -1);
        }
        Some(())
    }

    /// Writer: moves a flow to its other bucket.
    #[cfg(all(test, loom))]
    pub(super) fn shift(&self, index: FlowIndex) -> Option<()> {
        let home = self.home_of(index)?;
        let (from, place) = self.locate(index, home)?;
        let to = if from == home.first { home.second } else { home.first };
        self.move_flow((from, place), (to, bucket::free_place(self.bucket(to))?))
    }

    /// Flows in each bucket, for tests and statistics of the hash.
    #[cfg(all(test, not(loom)))]
    pub(super) fn occupancy(&self) -> impl Iterator<Item = usize> {
        self.buckets.iter().map(|bucket| bucket::PLACES - bucket::matches(bucket, 0).count())
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("capacity", &self.capacity)
            .field("buckets", &self.buckets.len())
            .finish_non_exhaustive()
    }
}
