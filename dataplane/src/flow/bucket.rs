//! One bucket of the hash table: eight places on one cache line.
//!
//! Words 0 and 1 hold eight tags of 16 bits (0: the place is free), words 2 to 5 eight flow indices of 32 bits, word 6 counts the keys that belong here and
//! had to go to their other bucket: as long as there are none, nobody has to look there.

use super::FlowIndex;
use super::sync::{AtomicU64, Ordering};

/// Places of a bucket.
pub(super) const PLACES: usize = 8;
/// Tags in a word.
const TAGS: usize = 4;
/// First word of indices.
const INDICES: usize = 2;
/// Word of the number of keys that went elsewhere.
const ELSEWHERE: usize = 6;

/// The words of a bucket. Any number of threads read; one writes.
pub(super) type Words = [AtomicU64; 8];

/// Places whose tag matched: the highest bit of a byte for each, those of the first four places in even bytes.
pub(super) struct Matches(u64);

impl Iterator for Matches {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let byte = self.0.trailing_zeros() as usize / 8;
        self.0 &= self.0 - 1;
        Some(byte / 2 + byte % 2 * TAGS)
    }
}

/// The highest bit of each tag of `word` that equals the tag repeated in `pattern`.
#[inline(always)]
const fn equal_tags(word: u64, pattern: u64) -> u64 {
    const LOW: u64 = 0x7fff_7fff_7fff_7fff;
    let difference = word ^ pattern;
    !(((difference & LOW) + LOW) | difference | LOW)
}

/// Places that have this tag, in any order; with 0, those that are free.
#[inline(always)]
pub(super) fn matches(bucket: &Words, tag: u16) -> Matches {
    let pattern = u64::from(tag) * 0x0001_0001_0001_0001;
    // Acquire: whoever sees a tag sees the index that belongs to it.
    let [first, second, ..] = bucket;
    let [first, second] = [first, second].map(|word| equal_tags(word.load(Ordering::Acquire), pattern));
    Matches(first >> 8 | second)
}

/// The index in a place whose tag was seen. The place may have been given to another flow since: look at the key.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one of two halves")]
pub(super) fn index(bucket: &Words, place: usize) -> FlowIndex {
    // Acquire: whoever sees an index sees the entry that it points to.
    let word = bucket[INDICES + place / 2 % 4].load(Ordering::Acquire);
    FlowIndex((word >> (place % 2 * 32)) as u32)
}

/// Some key that belongs here lies in its other bucket.
#[inline(always)]
pub(super) fn has_elsewhere(bucket: &Words) -> bool {
    bucket[ELSEWHERE].load(Ordering::Acquire) != 0
}

/// Writer: adds to the number of keys that lie in their other bucket.
pub(super) fn add_elsewhere(bucket: &Words, change: i64) {
    let count = bucket[ELSEWHERE].load(Ordering::Relaxed);
    bucket[ELSEWHERE].store(count.wrapping_add_signed(change), Ordering::Release);
}

/// Writer: a free place.
pub(super) fn free_place(bucket: &Words) -> Option<usize> {
    matches(bucket, 0).next()
}

/// Writer: the place that holds `index`.
pub(super) fn place_of(bucket: &Words, tag: u16, wanted: FlowIndex) -> Option<usize> {
    matches(bucket, tag).find(|place| index(bucket, *place) == wanted)
}

/// Writer: puts another index into a place.
pub(super) fn set_index(bucket: &Words, place: usize, index: FlowIndex) {
    let word = &bucket[INDICES + place / 2 % 4];
    let shift = place % 2 * 32;
    let kept = word.load(Ordering::Relaxed) & !(0xffff_ffff << shift);
    word.store(kept | u64::from(index.0) << shift, Ordering::Release);
}

/// Writer: fills a free place, index first, so that whoever sees the tag sees the index.
pub(super) fn put(bucket: &Words, place: usize, tag: u16, index: FlowIndex) {
    set_index(bucket, place, index);
    set_tag(bucket, place, tag);
}

/// Writer: frees a place.
pub(super) fn clear(bucket: &Words, place: usize) {
    set_tag(bucket, place, 0);
}

fn set_tag(bucket: &Words, place: usize, tag: u16) {
    let word = &bucket[place / TAGS % 2];
    let shift = place % TAGS * 16;
    let kept = word.load(Ordering::Relaxed) & !(0xffff << shift);
    word.store(kept | u64::from(tag) << shift, Ordering::Release);
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_place_holds_its_tag_and_index() {
        let bucket = Words::default();
        for place in 0..PLACES {
            assert!(free_place(&bucket).is_some() && matches(&bucket, 0).any(|free| free == place));
            put(
                &bucket,
                place,
                0x8000 | u16::try_from(place).unwrap(),
                FlowIndex(u32::MAX - u32::try_from(place).unwrap()),
            );
        }
        assert_eq!(free_place(&bucket), None);
        for place in 0..PLACES {
            let found: Vec<_> = matches(&bucket, 0x8000 | u16::try_from(place).unwrap()).collect();
            assert_eq!(found, [place]);
            assert_eq!(index(&bucket, place).0, u32::MAX - u32::try_from(place).unwrap());
        }
        clear(&bucket, 5);
        assert_eq!(free_place(&bucket), Some(5));
    }

    #[test]
    fn tags_are_compared_exactly() {
        // Neighbours that a borrow could make look equal: every pair of small and large tags beside each other.
        for left in [0_u16, 1, 2, 0x7fff, 0x8000, 0x8001, 0xffff] {
            for right in [0_u16, 1, 2, 0x7fff, 0x8000, 0x8001, 0xffff] {
                for wanted in [0_u16, 1, 0x7fff, 0x8000, 0xffff] {
                    let bucket = Words::default();
                    for place in 0..PLACES {
                        put(&bucket, place, if place % 2 == 0 { left } else { right }, FlowIndex(0));
                    }
                    let tags = (0..PLACES).map(|place| if place % 2 == 0 { left } else { right });
                    let expected: Vec<_> =
                        tags.enumerate().filter(|(_, tag)| *tag == wanted).map(|(at, _)| at).collect();
                    let mut found: Vec<_> = matches(&bucket, wanted).collect();
                    found.sort_unstable();
                    assert_eq!(found, expected);
                }
            }
        }
    }
}
