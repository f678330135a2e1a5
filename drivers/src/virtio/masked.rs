//! Indexing into rings whose length is a power of two.

use alloc::boxed::Box;

/// The element of `ring` that the free-running counter `position` points at.
///
/// `ring` is not empty and its length is a power of two; then this cannot fail. The compiler keeps the bounds check all the
/// same, one compare that always predicts right.
#[inline(always)]
pub(super) fn at<T>(ring: &[T], position: u16) -> &T {
    &ring[usize::from(position) & (ring.len() - 1)]
}

/// As [`at`], to change.
#[inline(always)]
pub(super) fn at_mut<T>(ring: &mut [T], position: u16) -> &mut T {
    let mask = ring.len() - 1;
    &mut ring[usize::from(position) & mask]
}

/// A ring of `size` elements made by `element` from their index.
pub(super) fn ring_of<T>(size: u16, element: impl FnMut(u16) -> T) -> Box<[T]> {
    (0..size.max(1)).map(element).collect()
}

/// Whether an event that a peer asked for lies among those between `old` and `new`, counters that run freely
/// (virtio 1.3, section 2.7.7.1: `vring_need_event`).
#[inline(always)]
pub(super) fn event_passed(event: u16, new: u16, old: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_position_always_lands_in_the_ring(power in 0_u32..=15, position: u16) {
            let size = 1_u16 << power;
            let mut ring = ring_of(size, |index| index);
            prop_assert_eq!(*at(&ring, position), position % size);
            prop_assert_eq!(*at_mut(&mut ring, position), position % size);
        }

        #[test]
        fn an_event_passes_exactly_when_it_is_among_the_new_ones(old: u16, count in 0_u16..0x7fff, event: u16) {
            let new = old.wrapping_add(count);
            let expected = (0..count).any(|step| old.wrapping_add(step) == event);
            prop_assert_eq!(event_passed(event, new, old), expected);
        }
    }
}
