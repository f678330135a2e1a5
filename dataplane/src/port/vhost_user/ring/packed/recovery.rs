//! Where a packed ring goes on after a device that died.
//!
//! The driver keeps no index that says how far the device came, and a frontend may only know where the device once began (QEMU keeps no
//! in-flight region for network devices, and repeats the base of the last start). But the ring itself shows it:
//!
//! - Whoever writes a descriptor writes its round into the `AVAILABLE` bit. Going through the ring, that bit changes at one
//!   place, where the driver will write next: the *end*.
//! - Going back from the end, available descriptors follow each other up to the device's place; in front of that lies the descriptor
//!   that was made used last.
//!
//! Two things can lie between: the rest of the chain that was used last (only its head was overwritten), and, in a ring in which one used
//! descriptor stands for a run, the rest of the run. Both end with the identifier that the used descriptor has; where that could as
//! well be the next buffer's, the frontend's word decides. A device that died while it wrote a batch leaves the batch without its first
//! descriptor; the driver, which waits for that one, saw nothing of it.
//!
//! All of this is a guess about memory of the driver's. A wrong one makes the driver wait for ever, and nothing worse.

use super::super::inflight::PackedState;
use super::{AVAILABLE, NEXT, Place, Rounds, USED, flags, identifier, is_available, used_word};

/// The second words of all descriptors of a ring, read once.
#[derive(Debug)]
pub(super) struct Image<'i> {
    words: &'i [u64],
    rounds: Rounds,
    /// One used descriptor may stand for a run of chains.
    skip_used: bool,
}

/// Where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Resumed {
    /// The first place that is not used.
    pub(super) place: Place,
    /// What the device that died did not get to writing: places and second words, the first to be written last.
    pub(super) unfinished: Vec<(Place, u64)>,
}

impl Resumed {
    fn at(place: Place) -> Self {
        Self { place, unfinished: Vec::new() }
    }
}

impl<'i> Image<'i> {
    /// The image of a ring.
    pub(super) fn new(words: &'i [u64], rounds: Rounds, skip_used: bool) -> Self {
        Self { words, rounds, skip_used }
    }

    /// The driver was not writing while it was read.
    pub(super) fn is_whole(&self) -> bool {
        self.end().is_some()
    }

    /// Where to go on according to an in-flight region. `None` when it cannot be the region of this ring as it is now, for
    /// instance because the guest was restarted while no device was there.
    pub(super) fn redo(&self, state: &PackedState) -> Option<Resumed> {
        let (from, to) = (self.rounds.place_of(state.from)?, self.rounds.place_of(state.to)?);
        let count = self.rounds.distance(from, to);
        if count > self.rounds.size() {
            return None;
        }
        let published = !is_available(self.word(from), self.rounds.wrap(from));
        if count == 0 || published {
            return self.fits(to).then_some(Resumed::at(to));
        }
        // The batch was not shown yet, so the driver saw none of it: it is written again.
        let mut unfinished = Vec::new();
        let mut place = from;
        let mut entries = state.entries.iter();
        while self.rounds.distance(place, to) > 0 {
            let (descriptors, word) = *entries.next()?;
            if descriptors == 0 || u32::from(descriptors) > self.rounds.distance(place, to) {
                return None;
            }
            let next = self.rounds.after(place, descriptors.into());
            let last = self.word(self.rounds.before(next, 1));
            if identifier(last) != identifier(word) {
                return None;
            }
            unfinished.push((place, word));
            place = next;
        }
        Some(Resumed { place: to, unfinished })
    }

    /// Where to go on according to the frontend's `base`, unless the ring shows that it cannot be.
    pub(super) fn resume(&self, base: Place) -> Resumed {
        let Some((first, run)) = self.available_run() else { return Resumed::at(base) };
        if self.follows(first, run, base) {
            return Resumed::at(base);
        }
        let unfinished: Vec<_> = self.hole(first, run).into_iter().collect();
        if self.skip_used && run < self.rounds.size() {
            // The used descriptor names the last chain of its run.
            let used = identifier(self.word(self.rounds.before(first, 1)));
            let rest = (0..run).find(|offset| identifier(self.word(self.rounds.after(first, *offset))) == used);
            if let Some(offset) = rest {
                return Resumed { place: self.rounds.after(first, offset + 1), unfinished };
            }
        }
        Resumed { place: first, unfinished }
    }

    /// Whether the ring does not contradict that a device stopped at `place`.
    fn fits(&self, place: Place) -> bool {
        self.available_run().is_none_or(|(first, run)| self.follows(first, run, place))
    }

    #[inline]
    fn word(&self, place: Place) -> u64 {
        self.words.get(self.rounds.index(place)).copied().unwrap_or(0)
    }

    /// Where the driver will write next. `None` when it is writing right now, or the ring makes no sense.
    fn end(&self) -> Option<Place> {
        let round = |word: &u64| flags(*word) & AVAILABLE != 0;
        let first = round(self.words.first()?);
        let start = Place::default();
        let start = if first { start } else { self.rounds.after(start, self.rounds.size()) };
        let index = self.words.iter().take_while(|word| round(word) == first).count();
        if self.words.iter().skip(index).any(|word| round(word) == first) {
            return None;
        }
        u32::try_from(index).ok().map(|index| self.rounds.after(start, index))
    }

    /// The available descriptors in front of the end, and the rest of what was used last: where they begin, and how many.
    fn available_run(&self) -> Option<(Place, u32)> {
        let end = self.end()?;
        let looks_available = |count: &u32| {
            let word = self.word(self.rounds.before(end, *count));
            (flags(word) & AVAILABLE != 0) != (flags(word) & USED != 0)
        };
        let run = (1..=self.rounds.size()).take_while(looks_available).count();
        let run = u32::try_from(run).ok()?;
        Some((self.rounds.before(end, run), run))
    }

    /// Whether `place` is in the `run` descriptors from `first` on, with nothing in front of it but the rest of what was used last.
    fn follows(&self, first: Place, run: u32, place: Place) -> bool {
        let rest = self.rounds.distance(first, place);
        if rest == 0 || rest > run {
            return rest == 0;
        }
        // The used descriptor has the identifier that was in the last descriptor of what it stands for. In a ring without one,
        // the driver went over it again.
        let id = |place| identifier(self.word(self.rounds.before(place, 1)));
        if run < self.rounds.size() && id(place) != id(first) {
            return false;
        }
        if self.skip_used {
            return true;
        }
        let goes_on = |offset: u32| flags(self.word(self.rounds.after(first, offset))) & NEXT != 0;
        (0..rest - 1).all(goes_on) && !goes_on(rest - 1)
    }

    /// The first buffer of a batch that was written but for its first, and what to write there: it comes back empty. Only seen where
    /// every buffer is one descriptor.
    fn hole(&self, first: Place, run: u32) -> Option<(Place, u64)> {
        let chained = self.words.iter().any(|word| flags(*word) & NEXT != 0);
        if chained || self.skip_used {
            return None;
        }
        for back in 1..=self.rounds.size() - run {
            let place = self.rounds.before(first, back);
            let word = self.word(place);
            if is_available(word, self.rounds.wrap(place)) {
                // The rest of a chain of two has the identifier of its used head.
                let head = self.word(self.rounds.before(place, 1));
                let is_rest = back < self.rounds.size() - run && identifier(head) == identifier(word);
                let empty = used_word(identifier(word), 0, self.rounds.wrap(place));
                return (back > 1 && !is_rest).then_some((place, empty));
            }
        }
        None
    }
}
