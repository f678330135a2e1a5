//! The look-up of many keys: in stages, each of which asks for the memory that the next one reads.

use super::bucket;
use super::table::{Home, Table};
use super::{FlowIndex, FlowKey};

/// Keys that are looked up together.
pub(super) const MOST_TOGETHER: usize = 128;
/// Keys that go through a stage before others go through the one before it: enough that what they asked for has come when it is needed, and no
/// more than a processor has places to wait for.
const GROUP: usize = 16;

/// Keys in a row that are the same, and what is known about their flow. The packets of a flow often come together: they are looked up once.
#[derive(Clone, Copy)]
struct Sought {
    home: Home,
    /// Place of the first of them.
    place: u8,
    /// How many they are.
    len: u8,
    candidate: Candidate,
}

/// What a key's first bucket says.
#[derive(Clone, Copy)]
enum Candidate {
    /// The key is nowhere.
    None,
    /// The key may be in its other bucket.
    Elsewhere,
    /// The first flow whose tag matches, which is nearly always the one.
    Flow(FlowIndex),
}

/// Where a look-up notes what it has come to. It is kept, because making it takes longer than looking one key up.
pub(super) struct Probe {
    sought: [Sought; MOST_TOGETHER],
    /// How many of them are still to be found.
    left: usize,
    /// Places of keys that are the same as the one before, a bit for each.
    repeats: u128,
    wide: [FlowKey; MOST_TOGETHER],
}

impl Default for Probe {
    fn default() -> Self {
        let nothing = Sought { home: Home::default(), place: 0, len: 0, candidate: Candidate::None };
        Self { sought: [nothing; MOST_TOGETHER], left: 0, repeats: 0, wide: [FlowKey::NONE; MOST_TOGETHER] }
    }
}

impl Probe {
    /// Begins with other keys, at most [`MOST_TOGETHER`].
    #[inline]
    pub(super) fn begin(&mut self, keys: &[FlowKey]) {
        let mut runs = self.sought.iter_mut();
        let mut run: Option<(&mut Sought, &FlowKey)> = None;
        self.left = 0;
        self.repeats = 0;
        for (place, key) in (0..).zip(keys) {
            match &mut run {
                Some((run, first)) if first.is(key) => {
                    run.len += 1;
                    self.repeats |= 1 << place;
                }
                _ => {
                    run = runs.next().map(|run| (run, key));
                    if let Some((run, _)) = &mut run {
                        (run.place, run.len) = (place, 1);
                    }
                    self.left += 1;
                }
            }
        }
    }

    /// Gives keys that are the same as the one before what that has found.
    #[inline]
    pub(super) fn end(&self, found: &mut [Option<FlowIndex>]) {
        let mut repeats = self.repeats;
        while repeats != 0 {
            let place = repeats.trailing_zeros() as usize;
            repeats &= repeats - 1;
            let index = place.checked_sub(1).and_then(|before| found.get(before).copied().flatten());
            if let Some(found) = found.get_mut(place) {
                *found = index;
            }
        }
    }

    /// Looks for the wide forms of the keys, and for these keys no more that it finds. How many it found.
    pub(super) fn wide(
        &mut self,
        table: &Table,
        reader: usize,
        keys: &[FlowKey],
        found: &mut [Option<FlowIndex>],
    ) -> u64 {
        let Self { sought, left, wide, .. } = self;
        let sought = sought.get_mut(..*left).unwrap_or_default();
        for run in &*sought {
            let place = usize::from(run.place);
            if let (Some(wide), Some(key)) = (wide.get_mut(place), keys.get(place)) {
                *wide = key.wide();
            }
        }
        let got = look(table, reader, wide, sought, found);
        *left = 0;
        for at in 0..sought.len() {
            let Some(run) = sought.get(at).copied() else { break };
            if found.get(usize::from(run.place)).is_some_and(Option::is_none)
                && let Some(kept) = sought.get_mut(*left)
            {
                *kept = run;
                *left += 1;
            }
        }
        got
    }

    /// Looks for the keys that are not found yet. How many it found.
    #[inline]
    pub(super) fn narrow(
        &mut self,
        table: &Table,
        reader: usize,
        keys: &[FlowKey],
        found: &mut [Option<FlowIndex>],
    ) -> u64 {
        look(table, reader, keys, self.sought.get_mut(..self.left).unwrap_or_default(), found)
    }
}

/// Looks for the keys of `sought`; how many it found.
#[inline]
fn look(table: &Table, reader: usize, keys: &[FlowKey], sought: &mut [Sought], found: &mut [Option<FlowIndex>]) -> u64 {
    let moves = table.moves();
    let groups = sought.len().div_ceil(GROUP);
    let mut count = 0;
    for step in 0..groups + 2 {
        for run in group(sought, Some(step)) {
            let Some(key) = keys.get(usize::from(run.place)) else { continue };
            run.home = table.home(table.hash(key));
            table.prefetch_bucket(run.home.first);
        }
        for run in group(sought, step.checked_sub(1)) {
            let bucket = table.bucket(run.home.first);
            run.candidate = if let Some(matching) = bucket::matches(bucket, run.home.tag).next() {
                let index = bucket::index(bucket, matching);
                if let Some(segment) = table.segment(index) {
                    segment.prefetch(index, reader);
                }
                Candidate::Flow(index)
            } else if bucket::has_elsewhere(bucket) {
                table.prefetch_bucket(run.home.second);
                Candidate::Elsewhere
            } else {
                Candidate::None
            };
        }
        for run in group(sought, step.checked_sub(2)) {
            let place = usize::from(run.place);
            let Some(key) = keys.get(place) else { continue };
            let index = match run.candidate {
                Candidate::Flow(index) if table.has(index, key) => Some(index),
                Candidate::None => None,
                _ => table.find(key, run.home),
            };
            count += tell(*run, index, found);
        }
    }
    // What was moved meanwhile may have been missed.
    if table.moves() != moves {
        for run in sought {
            let place = usize::from(run.place);
            if let (Some(key), Some(None)) = (keys.get(place), found.get(place)) {
                count += tell(*run, table.find(key, run.home), found);
            }
        }
    }
    count
}

/// The sought keys of one group; of one that does not exist, none.
#[inline(always)]
fn group(sought: &mut [Sought], number: Option<usize>) -> &mut [Sought] {
    let first = number.map_or(sought.len(), |number| number * GROUP);
    let end = sought.len().min(first + GROUP);
    sought.get_mut(first..end).unwrap_or_default()
}

/// Stores what was found for the first key of a run; for how many keys that holds.
#[inline(always)]
fn tell(run: Sought, index: Option<FlowIndex>, found: &mut [Option<FlowIndex>]) -> u64 {
    if let Some(found) = found.get_mut(usize::from(run.place)) {
        *found = index;
    }
    if index.is_some() { u64::from(run.len) } else { 0 }
}
