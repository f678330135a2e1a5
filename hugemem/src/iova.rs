//! Addresses that only devices can use, and where the IOMMU lets them lie.

use alloc::vec::Vec;
use core::fmt;

/// An I/O virtual address: what a device puts on the bus. Never a pointer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Iova(u64);

impl Iova {
    /// The address `raw`.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The address as a device's register or descriptor wants it.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on; `None` past the end of the address space.
    #[must_use]
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    /// The address `bytes` further on, inside a region that is known to reach so far.
    pub(crate) const fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }
}

impl fmt::Debug for Iova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iova({:#x})", self.0)
    }
}

/// A range of I/O virtual addresses, both ends included (so that it can reach the last address there is).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IovaRange {
    /// First address.
    pub first: u64,
    /// Last address.
    pub last: u64,
}

impl IovaRange {
    fn intersection(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }
}

/// No free range of I/O virtual addresses is large enough.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "no free IOVA range of {bytes} bytes (aligned to {alignment:#x}) within what the IOMMUs of all devices allow; \
     use fewer ports or less memory"
)]
pub struct OutOfIova {
    /// Bytes asked for.
    pub bytes: u64,
    /// Alignment asked for.
    pub alignment: u64,
}

/// Addresses below this are never handed out: zero is what a cleared descriptor holds, and a device that reads one must fault.
const LOWEST: u64 = 0x10_0000;

/// Hands out I/O virtual addresses inside the ranges that the IOMMU reports.
#[derive(Clone, Debug)]
pub struct IovaSpace {
    /// Ascending and disjoint.
    free: Vec<IovaRange>,
}

impl IovaSpace {
    /// A space of `ranges`, which may overlap and come in any order.
    #[must_use]
    pub fn new(ranges: &[IovaRange]) -> Self {
        let mut space = Self { free: Vec::with_capacity(ranges.len()) };
        let usable = IovaRange { first: LOWEST, last: u64::MAX };
        for range in ranges.iter().filter_map(|range| range.intersection(usable)) {
            space.insert(range);
        }
        space
    }

    /// A space for when no IOMMU limits it: 47 bits, as far as any CPU or IOMMU of today goes.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::new(&[IovaRange { first: 0, last: (1 << 47) - 1 }])
    }

    /// Keeps only what lies in `ranges` as well: what another device's IOMMU lets through.
    pub fn intersect(&mut self, ranges: &[IovaRange]) {
        let other = Self::new(ranges);
        self.free = self.free.iter().flat_map(|a| other.free.iter().filter_map(move |b| a.intersection(*b))).collect();
    }

    /// Takes the lowest free `len` bytes whose start is a multiple of `alignment`, a power of two.
    ///
    /// # Errors
    /// When nothing that large is free.
    pub fn allocate(&mut self, len: u64, alignment: u64) -> Result<Iova, OutOfIova> {
        let failure = OutOfIova { bytes: len, alignment };
        if len == 0 || !alignment.is_power_of_two() {
            return Err(failure);
        }
        for (index, range) in self.free.iter().copied().enumerate() {
            let Some(first) = range.first.checked_next_multiple_of(alignment) else {
                continue;
            };
            let Some(last) = first.checked_add(len - 1) else {
                continue;
            };
            if last > range.last {
                continue;
            }
            self.free.remove(index);
            if let Some(end) = first.checked_sub(1).filter(|end| *end >= range.first) {
                self.insert(IovaRange { first: range.first, last: end });
            }
            if last < range.last {
                self.insert(IovaRange { first: last + 1, last: range.last });
            }
            return Ok(Iova(first));
        }
        Err(failure)
    }

    /// Gives back what [`IovaSpace::allocate`] gave.
    pub fn release(&mut self, start: Iova, len: u64) {
        if let Some(last) = len.checked_sub(1).and_then(|more| start.0.checked_add(more)) {
            self.insert(IovaRange { first: start.0, last });
        }
    }

    /// Adds a range and joins it with those that it touches or overlaps.
    fn insert(&mut self, mut range: IovaRange) {
        self.free.retain(|old| {
            let apart = old.last.checked_add(1).is_some_and(|next| next < range.first)
                || range.last.checked_add(1).is_some_and(|next| next < old.first);
            if !apart {
                range = IovaRange { first: range.first.min(old.first), last: range.last.max(old.last) };
            }
            apart
        });
        let position = self.free.partition_point(|old| old.first < range.first);
        self.free.insert(position, range);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn an_allocation_avoids_the_holes_that_the_iommu_reports() {
        let below_msi = IovaRange { first: 0, last: 0xfedf_ffff };
        let above_msi = IovaRange { first: 0xfef0_0000, last: (1 << 39) - 1 };
        let mut space = IovaSpace::new(&[below_msi, above_msi]);
        let large = space.allocate(1 << 32, 1 << 30).unwrap();
        assert_eq!(large.raw(), 1 << 32);
        assert_eq!(space.allocate(1 << 39, 1), Err(OutOfIova { bytes: 1 << 39, alignment: 1 }));
    }

    #[test]
    fn a_space_can_reach_the_last_address() {
        let mut space = IovaSpace::new(&[IovaRange { first: u64::MAX - (MIB - 1), last: u64::MAX }]);
        assert_eq!(space.allocate(MIB, MIB).unwrap().raw(), u64::MAX - (MIB - 1));
        assert!(space.allocate(1, 1).is_err());
    }

    #[test]
    fn an_intersection_holds_only_what_every_device_can_reach() {
        let mut space = IovaSpace::unlimited();
        space.intersect(&[IovaRange { first: 0, last: 4 * MIB - 1 }, IovaRange { first: 8 * MIB, last: 9 * MIB - 1 }]);
        space.intersect(&[IovaRange { first: 3 * MIB, last: 8 * MIB + 4095 }]);
        assert_eq!(space.allocate(MIB, 4096).unwrap().raw(), 3 * MIB);
        assert_eq!(space.allocate(4096, 4096).unwrap().raw(), 8 * MIB);
        assert!(space.allocate(4096, 4096).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn allocations_are_aligned_and_disjoint_and_all_come_back(
            requests in prop::collection::vec((1_u64..3 * MIB, 0_u32..22), 1..40)
        ) {
            let whole = IovaRange { first: MIB, last: 64 * MIB - 1 };
            let mut space = IovaSpace::new(&[whole]);
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (len, shift) in requests {
                let Ok(start) = space.allocate(len, 1 << shift) else { continue };
                let (first, last) = (start.raw(), start.raw() + len - 1);
                prop_assert_eq!(first % (1 << shift), 0);
                prop_assert!(first >= whole.first && last <= whole.last);
                prop_assert!(taken.iter().all(|(f, l)| last < *f || first > *l));
                taken.push((first, last));
            }
            for (first, last) in taken {
                space.release(Iova::new(first), last - first + 1);
            }
            prop_assert_eq!(space.free, [whole]);
        }
    }
}
