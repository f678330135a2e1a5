//! The arrays by flow index, in pieces, so that a table can grow without moving anything.

use hugemem::MemoryError;

use super::action::{Action, FlowState};
use super::memory::{Array, Memory};
use super::packed::{ACTION_WORDS, PackedAction};
use super::sync::{AtomicU64, Ordering};
use super::{FlowIndex, FlowKey};

/// Flows of one segment, a power of two.
#[cfg(not(loom))]
pub(super) const SEGMENT: usize = 1 << 16;
#[cfg(loom)]
pub(super) const SEGMENT: usize = 1 << 2;

/// Words of a cache line.
const LINE: usize = 8;
/// First word of the action in an entry, at the start of its second line.
const ACTION: usize = LINE;
/// Word of the state, behind the action.
const STATE: usize = ACTION + ACTION_WORDS;
/// First word of the counts of the only engine, if there is one only, behind the state.
const COUNTS: usize = STATE + 1;
/// Words of the counts of each of several engines, of which the last keeps two flows to a cache line.
const COUNT_WORDS: usize = 4;

/// What has been counted for one flow.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// When the last of them came, in the unit that the readers use.
    pub last_seen: u64,
}

/// Arrays for [`SEGMENT`] flows.
pub(super) struct Segment {
    /// Two cache lines a flow: the key; action, state and, when there is one engine, what it counts.
    entries: Array<{ 2 * LINE }>,
    /// One array for each of several engines, so that none writes where others read: packets, bytes, last seen.
    counts: Box<[Array<COUNT_WORDS>]>,
}

/// Bytes of memory that a flow takes in a segment with this many engines, the readers that count.
pub(super) const fn bytes_per_flow(engines: usize) -> usize {
    let counts = if engines > 1 { engines * COUNT_WORDS * 8 } else { 0 };
    2 * LINE * 8 + counts
}

impl Segment {
    pub(super) fn new(engines: usize) -> Result<Self, MemoryError> {
        let memory = Memory::allocate(SEGMENT * bytes_per_flow(engines))?;
        let arrays = if engines > 1 { engines } else { 0 };
        Ok(Self {
            entries: memory.array(SEGMENT)?,
            counts: (0..arrays).map(|_| memory.array(SEGMENT)).collect::<Result<_, _>>()?,
        })
    }

    #[inline(always)]
    fn entry(&self, index: FlowIndex) -> &[AtomicU64; 2 * LINE] {
        &self.entries[index.0 as usize % SEGMENT]
    }

    /// Where `reader` counts for a flow; nowhere if it is an onlooker.
    #[inline(always)]
    fn counts_of(&self, reader: usize, index: FlowIndex) -> Option<&[AtomicU64]> {
        if self.counts.is_empty() {
            return self.entry(index).get(COUNTS..).filter(|_| reader == 0);
        }
        self.counts.get(reader)?.get(index.0 as usize % SEGMENT).map(<[_; _]>::as_slice)
    }

    /// Fetches what a look-up that finds the flow, and `reader` behind it, will read and write.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: FlowIndex, reader: usize) {
        let entry = self.entry(index);
        hugemem::prefetch(entry);
        if self.counts.is_empty() {
            hugemem::prefetch_to_write(&entry[ACTION]);
        } else {
            hugemem::prefetch(&entry[ACTION]);
            if let Some(counts) = self.counts.get(reader) {
                counts.prefetch_to_write(index.0 as usize % SEGMENT);
            }
        }
    }

    /// The flow has this key.
    #[inline(always)]
    pub(super) fn has(&self, index: FlowIndex, key: &FlowKey) -> bool {
        self.entry(index).iter().zip(&key.0).all(|(have, want)| have.load(Ordering::Relaxed) == *want)
    }

    pub(super) fn key(&self, index: FlowIndex) -> FlowKey {
        let entry = self.entry(index);
        FlowKey(std::array::from_fn(|word| entry[word].load(Ordering::Relaxed)))
    }

    /// What is done with the packets of a flow, and whether they may pass: one cache line.
    #[inline(always)]
    pub(super) fn decision(&self, index: FlowIndex) -> (PackedAction, FlowState) {
        let entry = self.entry(index);
        let state = FlowState::of(entry[STATE].load(Ordering::Acquire));
        (PackedAction(std::array::from_fn(|word| entry[ACTION + word].load(Ordering::Relaxed))), state)
    }

    #[inline]
    pub(super) fn action(&self, index: FlowIndex) -> Action {
        Action::from(self.decision(index).0)
    }

    #[inline]
    pub(super) fn state(&self, index: FlowIndex) -> FlowState {
        FlowState::of(self.entry(index)[STATE].load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn set_state(&self, index: FlowIndex, state: FlowState) {
        self.entry(index)[STATE].store(state.word(), Ordering::Release);
    }

    /// Packets of one reader may pass from now on.
    #[inline]
    pub(super) fn activate(&self, index: FlowIndex, reader: usize) {
        let bit = u32::try_from(reader).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0);
        // Several readers may clear theirs at once.
        self.entry(index)[STATE].fetch_and(!bit, Ordering::AcqRel);
    }

    /// Fills an entry that nobody can find.
    pub(super) fn fill(&self, index: FlowIndex, key: &FlowKey, action: &Action, state: FlowState) {
        let entry = self.entry(index);
        let PackedAction(values) = PackedAction::from(action);
        for (word, value) in entry.iter().zip(key.0.into_iter().chain(values)) {
            word.store(value, Ordering::Relaxed);
        }
        self.set_state(index, state);
    }

    /// Counts for the one thread that is this reader.
    #[inline]
    pub(super) fn count(&self, reader: usize, index: FlowIndex, packets: u64, bytes: u64, now: u64) {
        let Some([all_packets, all_bytes, last_seen, ..]) = self.counts_of(reader, index) else { return };
        let add =
            |word: &AtomicU64, more| word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        add(all_packets, packets);
        add(all_bytes, bytes);
        last_seen.store(now, Ordering::Relaxed);
    }

    /// What all readers have counted since the table is there, for this flow and those that had its index before.
    pub(super) fn counts(&self, index: FlowIndex) -> Counts {
        let mut sum = Counts::default();
        for reader in 0..self.counts.len().max(1) {
            let Some([packets, bytes, last_seen, ..]) = self.counts_of(reader, index) else { continue };
            sum.packets = sum.packets.wrapping_add(packets.load(Ordering::Relaxed));
            sum.bytes = sum.bytes.wrapping_add(bytes.load(Ordering::Relaxed));
            sum.last_seen = sum.last_seen.max(last_seen.load(Ordering::Relaxed));
        }
        sum
    }
}
