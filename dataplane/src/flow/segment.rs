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
/// Word of the second line where the state lies, behind the action.
const STATE: usize = ACTION_WORDS;
/// Words of a reader's counts.
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
    /// Two cache lines a flow: the key; action and state.
    lines: Array<LINE>,
    /// One array for each reader: packets, bytes, last seen, and a word that keeps two flows to a cache line.
    counts: Box<[Array<COUNT_WORDS>]>,
}

/// Bytes of memory that a flow takes in a segment with this many readers.
pub(super) const fn bytes_per_flow(readers: usize) -> usize {
    2 * LINE * 8 + readers * COUNT_WORDS * 8
}

impl Segment {
    pub(super) fn new(readers: usize) -> Result<Self, MemoryError> {
        let memory = Memory::allocate(SEGMENT * bytes_per_flow(readers))?;
        Ok(Self {
            lines: memory.array(2 * SEGMENT)?,
            counts: (0..readers).map(|_| memory.array(SEGMENT)).collect::<Result<_, _>>()?,
        })
    }

    #[inline(always)]
    fn key_line(&self, index: FlowIndex) -> &[AtomicU64; LINE] {
        &self.lines[index.0 as usize % SEGMENT * 2]
    }

    #[inline(always)]
    fn action_line(&self, index: FlowIndex) -> &[AtomicU64; LINE] {
        &self.lines[index.0 as usize % SEGMENT * 2 + 1]
    }

    /// Fetches what a look-up that finds the flow, and `reader` behind it, will read and write.
    #[inline(always)]
    pub(super) fn prefetch(&self, index: FlowIndex, reader: usize) {
        let place = index.0 as usize % SEGMENT;
        self.lines.prefetch(place * 2);
        self.lines.prefetch(place * 2 + 1);
        if let Some(counts) = self.counts.get(reader) {
            counts.prefetch_to_write(place);
        }
    }

    /// The flow has this key.
    #[inline(always)]
    pub(super) fn has(&self, index: FlowIndex, key: &FlowKey) -> bool {
        let line = self.key_line(index);
        let differences = line.iter().zip(&key.0).map(|(have, want)| have.load(Ordering::Relaxed) ^ want);
        differences.fold(0, |all, difference| all | difference) == 0
    }

    pub(super) fn key(&self, index: FlowIndex) -> FlowKey {
        FlowKey(self.key_line(index).each_ref().map(|word| word.load(Ordering::Relaxed)))
    }

    /// What is done with the packets of a flow, and whether they may pass: one cache line.
    #[inline(always)]
    pub(super) fn decision(&self, index: FlowIndex) -> (PackedAction, FlowState) {
        let line = self.action_line(index);
        let state = FlowState::of(line[STATE].load(Ordering::Acquire));
        (PackedAction(std::array::from_fn(|word| line[word].load(Ordering::Relaxed))), state)
    }

    pub(super) fn action(&self, index: FlowIndex) -> Action {
        Action::from(self.decision(index).0)
    }

    #[inline]
    pub(super) fn state(&self, index: FlowIndex) -> FlowState {
        FlowState::of(self.action_line(index)[STATE].load(Ordering::Acquire))
    }

    #[inline]
    pub(super) fn set_state(&self, index: FlowIndex, state: FlowState) {
        self.action_line(index)[STATE].store(state.word(), Ordering::Release);
    }

    /// Packets of one reader may pass from now on.
    #[inline]
    pub(super) fn activate(&self, index: FlowIndex, reader: usize) {
        let bit = u32::try_from(reader).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0);
        // Several readers may clear theirs at once.
        self.action_line(index)[STATE].fetch_and(!bit, Ordering::AcqRel);
    }

    /// Fills an entry that nobody can find.
    pub(super) fn fill(&self, index: FlowIndex, key: &FlowKey, action: &Action, state: FlowState) {
        for (word, value) in self.key_line(index).iter().zip(key.0) {
            word.store(value, Ordering::Relaxed);
        }
        let PackedAction(values) = PackedAction::from(action);
        for (word, value) in self.action_line(index).iter().zip(values) {
            word.store(value, Ordering::Relaxed);
        }
        self.set_state(index, state);
    }

    /// Counts for the one thread that is this reader.
    #[inline]
    pub(super) fn count(&self, reader: usize, index: FlowIndex, packets: u64, bytes: u64, now: u64) {
        let Some([all_packets, all_bytes, last_seen, _]) =
            self.counts.get(reader).and_then(|counts| counts.get(index.0 as usize % SEGMENT))
        else {
            return;
        };
        let add =
            |word: &AtomicU64, more| word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        add(all_packets, packets);
        add(all_bytes, bytes);
        last_seen.store(now, Ordering::Relaxed);
    }

    /// What all readers have counted since the table is there, for this flow and those that had its index before.
    pub(super) fn counts(&self, index: FlowIndex) -> Counts {
        let mut sum = Counts::default();
        for counts in &self.counts {
            let [packets, bytes, last_seen, _] = &counts[index.0 as usize % SEGMENT];
            sum.packets = sum.packets.wrapping_add(packets.load(Ordering::Relaxed));
            sum.bytes = sum.bytes.wrapping_add(bytes.load(Ordering::Relaxed));
            sum.last_seen = sum.last_seen.max(last_seen.load(Ordering::Relaxed));
        }
        sum
    }
}
