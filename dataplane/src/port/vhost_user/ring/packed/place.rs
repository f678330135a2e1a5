//! Places in a packed ring.

/// A place in a packed ring together with the round that it is meant in: `0..size` while the wrap counter is 1, `size..2 * size` while
/// it is 0 (2.8.1). Both sides start at 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Place(u32);

/// A ring's length, which says how places follow each other. It need not be a power of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rounds {
    size: u32,
}

impl Rounds {
    /// For a ring of `size` descriptors, 1 to 32768.
    pub(super) fn new(size: u16) -> Self {
        Self { size: size.into() }
    }

    /// Descriptors in the ring.
    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        self.size
    }

    /// The place `count` further on; `count` is at most two rounds.
    #[inline(always)]
    pub(super) fn after(self, place: Place, count: u32) -> Place {
        let next = place.0 + count;
        Place(if next >= 2 * self.size { next - 2 * self.size } else { next })
    }

    /// The place `count` before; `count` is at most two rounds.
    #[inline]
    pub(super) fn before(self, place: Place, count: u32) -> Place {
        self.after(place, 2 * self.size - count)
    }

    /// How far it is from `from` forward to `to`, less than two rounds.
    #[inline(always)]
    pub(super) fn distance(self, from: Place, to: Place) -> u32 {
        if to.0 >= from.0 { to.0 - from.0 } else { to.0 + 2 * self.size - from.0 }
    }

    /// Which descriptor of the ring it is.
    #[inline(always)]
    pub(super) fn index(self, place: Place) -> usize {
        (if place.0 >= self.size { place.0 - self.size } else { place.0 }) as usize
    }

    /// The wrap counter there.
    #[inline(always)]
    pub(super) fn wrap(self, place: Place) -> bool {
        place.0 < self.size
    }

    /// The place that messages and event suppression write as an index in bits 0-14 and a wrap counter in bit 15. `None` for an index
    /// beyond the ring.
    #[inline(always)]
    pub(super) fn place_of(self, bits: u16) -> Option<Place> {
        let index = u32::from(bits & 0x7fff);
        let round = if bits & 0x8000 == 0 { self.size } else { 0 };
        (index < self.size).then_some(Place(index + round))
    }

    /// The same the other way.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "an index has at most 15 bits")]
    pub(super) fn bits_of(self, place: Place) -> u16 {
        self.index(place) as u16 | u16::from(self.wrap(place)) << 15
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_go_round_twice_before_they_repeat(size in 1_u16..=32768, start in 0_u32..65536, count in 0_u32..65536) {
            let rounds = Rounds::new(size);
            let start = Place(start % (2 * rounds.size()));
            let count = count % (2 * rounds.size());
            let end = rounds.after(start, count);
            prop_assert_eq!(rounds.distance(start, end), count);
            prop_assert_eq!(rounds.before(end, count), start);
            prop_assert_eq!(rounds.after(start, 2 * rounds.size()), start);
            prop_assert!(rounds.index(end) < usize::from(size));
            prop_assert_eq!(rounds.place_of(rounds.bits_of(end)), Some(end));
            let round = rounds.after(start, rounds.size());
            prop_assert_eq!((rounds.index(round), rounds.wrap(round)), (rounds.index(start), !rounds.wrap(start)));
        }
    }
}
