//! Which I/O virtual addresses are mapped, so that a device is only ever told of maps that make sense.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::user::wire::MAX_MAPS;

/// All maps of a session, none of which overlap.
#[derive(Default, Debug)]
pub(super) struct Maps {
    /// Last address by first address. A map can reach the last address that there is.
    by_first: BTreeMap<u64, u64>,
}

/// The last address of a range, when it is one.
pub(super) fn last(iova: u64, len: u64) -> Result<u64, Errno> {
    len.checked_sub(1).and_then(|more| iova.checked_add(more)).ok_or(Errno::INVAL)
}

impl Maps {
    /// Whether another map may be added.
    pub(super) fn check(&self, iova: u64, len: u64) -> Result<(), Errno> {
        let last = last(iova, len)?;
        if self.by_first.range(..=last).next_back().is_some_and(|(_, other)| *other >= iova) {
            return Err(Errno::EXIST);
        }
        if self.by_first.len() >= MAX_MAPS { Err(Errno::NOSPC) } else { Ok(()) }
    }

    /// Adds a map that was checked.
    pub(super) fn add(&mut self, iova: u64, len: u64) {
        if let Ok(last) = last(iova, len) {
            self.by_first.insert(iova, last);
        }
    }

    /// How many maps lie inside the range; an error when it would cut one.
    pub(super) fn inside(&self, iova: u64, len: u64) -> Result<usize, Errno> {
        let last = last(iova, len)?;
        let cuts_the_first = self.by_first.range(..iova).next_back().is_some_and(|(_, other)| *other >= iova);
        let cuts_the_last = self.by_first.range(iova..=last).next_back().is_some_and(|(_, other)| *other > last);
        if cuts_the_first || cuts_the_last {
            return Err(Errno::INVAL);
        }
        Ok(self.by_first.range(iova..=last).count())
    }

    /// Takes away what lies inside the range.
    pub(super) fn remove(&mut self, iova: u64, len: u64) {
        let Ok(last) = last(iova, len) else { return };
        while let Some(first) = self.by_first.range(iova..=last).next().map(|(first, _)| *first) {
            self.by_first.remove(&first);
        }
    }

    pub(super) fn clear(&mut self) {
        self.by_first.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_never_overlap_and_are_never_cut() {
        let mut maps = Maps::default();
        for (iova, len) in [(0x1000, 0x1000), (0x3000, 0x2000), (u64::MAX - 0xfff, 0x1000)] {
            assert_eq!(maps.check(iova, len), Ok(()));
            maps.add(iova, len);
        }
        for (iova, len) in [(0x1fff, 1), (0, 0x1001), (0x2000, 0x1001), (0x4fff, 1), (0, u64::MAX), (u64::MAX, 1)] {
            assert_eq!(maps.check(iova, len), Err(Errno::EXIST), "{iova:#x} {len:#x}");
        }
        for (iova, len) in [(0, 0), (u64::MAX, 2)] {
            assert_eq!(maps.check(iova, len), Err(Errno::INVAL));
            assert_eq!(maps.inside(iova, len), Err(Errno::INVAL));
        }
        assert_eq!(maps.inside(0x1800, 0x800), Err(Errno::INVAL), "cuts the end off");
        assert_eq!(maps.inside(0x1000, 0x3000), Err(Errno::INVAL), "cuts the start off");
        assert_eq!(maps.inside(0x2000, 0x1000), Ok(0), "nothing is there");
        assert_eq!(maps.inside(0x1000, 0x4000), Ok(2));
        maps.remove(0x1000, 0x4000);
        assert_eq!(maps.inside(0, u64::MAX), Err(Errno::INVAL), "the last byte of the last map is not in it");
        assert_eq!(maps.inside(u64::MAX - 0xfff, 0x1000), Ok(1));
    }
}
