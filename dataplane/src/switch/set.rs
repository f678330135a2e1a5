//! Sets of places in a batch: one bit for each of up to 128 packets.

/// Most packets that a batch of the switch has.
pub const MOST: usize = 128;

/// A set of places in a batch. An element that nothing in the batch needs costs one comparison.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Set(u128);

impl Set {
    /// No place.
    pub(super) const EMPTY: Self = Self(0);

    /// The first `count` places, at most [`MOST`].
    #[inline]
    #[must_use]
    pub(super) const fn first(count: usize) -> Self {
        if count >= MOST { Self(u128::MAX) } else { Self((1 << count) - 1) }
    }

    /// No place is in it.
    #[inline]
    #[must_use]
    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Places in it.
    #[inline]
    #[must_use]
    pub(super) const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Adds a place. Places from [`MOST`] on do not exist.
    #[inline]
    pub(super) const fn insert(&mut self, place: usize) {
        if place < MOST {
            self.0 |= 1 << place;
        }
    }

    /// Takes a place out.
    #[inline]
    pub(super) const fn remove(&mut self, place: usize) {
        if place < MOST {
            self.0 &= !(1 << place);
        }
    }

    /// The place is in it.
    #[inline]
    #[must_use]
    pub(super) const fn contains(self, place: usize) -> bool {
        place < MOST && self.0 >> place & 1 == 1
    }

    /// Its first place alone.
    #[inline]
    #[must_use]
    pub(super) const fn one(self) -> Self {
        Self(self.0 & self.0.wrapping_neg())
    }

    /// What is in both.
    #[inline]
    #[must_use]
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in this one and not in `other`.
    #[inline]
    #[must_use]
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in either.
    #[inline]
    #[must_use]
    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The places in it, in order.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    pub(super) const fn places(self) -> Places {
        Places { left: self.0 as u64, later: (self.0 >> 64) as u64, base: 0 }
    }
}

/// The places in a [`Set`], in order.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// Places from `base` on, one bit each.
    left: u64,
    /// Those from 64 on, while `base` is 0.
    later: u64,
    base: usize,
}

impl Iterator for Places {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            if self.later == 0 {
                return None;
            }
            (self.left, self.later, self.base) = (self.later, 0, 64);
        }
        let place = self.base + self.left.trailing_zeros() as usize;
        self.left &= self.left - 1;
        Some(place)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = (self.left.count_ones() + self.later.count_ones()) as usize;
        (count, Some(count))
    }
}

impl ExactSizeIterator for Places {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_set_is_what_was_put_in(places in prop::collection::btree_set(0_usize..140, 0..60), out in 0_usize..140) {
            let mut set = Set::EMPTY;
            for place in &places {
                set.insert(*place);
            }
            set.remove(out);
            let expected: Vec<usize> = places.iter().copied().filter(|place| *place < MOST && *place != out).collect();
            prop_assert_eq!(set.places().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!((set.len(), set.places().len()), (expected.len(), expected.len()));
            prop_assert!(set.one().places().eq(expected.first().copied()));
            prop_assert!(expected.iter().all(|place| set.contains(*place)) && !set.contains(out));
            prop_assert_eq!(set.and(Set::first(10)).or(set.without(Set::first(10))), set);
        }
    }

    #[test]
    fn the_first_places_are_all_there() {
        for count in 0..=MOST {
            assert!(Set::first(count).places().eq(0..count));
        }
        assert_eq!(Set::first(1000).len(), MOST);
    }
}
