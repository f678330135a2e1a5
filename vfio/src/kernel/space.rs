//! Which memory a device can reach, and the regions that have to live as long as it can.

use std::io;

use hugemem::{IovaRange, Region};

/// A range of memory that may be given to a device. Only a [`Region`] makes one: its memory is made for sharing with
/// devices, which is what allows the kernel calls that take it to be safe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DmaRange {
    address: u64,
    iova: u64,
    bytes: u64,
}

impl DmaRange {
    pub(crate) fn of(region: &Region) -> Self {
        Self {
            address: region.as_ptr().expose_provenance() as u64,
            iova: region.iova().raw(),
            bytes: region.len() as u64,
        }
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    pub(crate) fn iova(&self) -> u64 {
        self.iova
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The I/O address space of one device: a type1 container or an iommufd IOAS.
pub(crate) trait AddressSpace {
    /// Makes the range reachable for reading and writing.
    fn map(&self, range: &DmaRange) -> io::Result<()>;
    /// Takes the range away and says how many bytes the kernel took.
    fn unmap(&self, iova: u64, bytes: u64) -> io::Result<u64>;
    /// What the device can use, ascending.
    fn ranges(&self) -> io::Result<Vec<IovaRange>>;
}

/// Why a range could not be taken away.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnmapError {
    /// The kernel refused.
    #[error(transparent)]
    Refused(io::Error),
    /// The kernel took away another number of bytes than was mapped.
    #[error("the kernel took away {0} bytes; the device may still reach the rest until it is closed")]
    Inexact(u64),
}

/// The regions that are mapped now. It holds them, so that no memory goes before its mapping.
#[derive(Default, Debug)]
pub(crate) struct Ledger {
    regions: Vec<Region>,
}

impl Ledger {
    /// Maps `region`, unless it is mapped already.
    pub(crate) fn map(&mut self, space: &dyn AddressSpace, region: &Region) -> io::Result<()> {
        if self.regions.iter().any(|held| held.id() == region.id()) {
            return Ok(());
        }
        space.map(&DmaRange::of(region))?;
        self.regions.push(region.clone());
        Ok(())
    }

    /// Unmaps `region`; `Ok(false)` when it was not mapped. After an error the region stays in the ledger.
    pub(crate) fn unmap(&mut self, space: &dyn AddressSpace, region: &Region) -> Result<bool, UnmapError> {
        let Some(position) = self.regions.iter().position(|held| held.id() == region.id()) else {
            return Ok(false);
        };
        let range = DmaRange::of(region);
        let taken = space.unmap(range.iova(), range.bytes()).map_err(UnmapError::Refused)?;
        if taken != range.bytes() {
            return Err(UnmapError::Inexact(taken));
        }
        self.regions.swap_remove(position);
        Ok(true)
    }

    /// Unmaps everything that it can, and says what it could not. The regions stay held until the ledger is dropped.
    pub(crate) fn unmap_all(&self, space: &dyn AddressSpace) -> Vec<(u64, UnmapError)> {
        let mut failed = Vec::new();
        for region in &self.regions {
            let range = DmaRange::of(region);
            match space.unmap(range.iova(), range.bytes()) {
                Ok(taken) if taken == range.bytes() => {}
                Ok(taken) => failed.push((range.iova(), UnmapError::Inexact(taken))),
                Err(error) => failed.push((range.iova(), UnmapError::Refused(error))),
            }
        }
        failed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use hugemem::{IovaSpace, MemoryRequest, PageChoice};
    use std::cell::RefCell;

    /// Does what a kernel does, and can take away less than it was asked to.
    #[derive(Default)]
    struct FakeSpace {
        mapped: RefCell<Vec<(u64, u64)>>,
        short_by: u64,
    }

    impl AddressSpace for FakeSpace {
        fn map(&self, range: &DmaRange) -> io::Result<()> {
            let mut mapped = self.mapped.borrow_mut();
            if mapped.iter().any(|(iova, _)| *iova == range.iova()) {
                return Err(io::Error::from_raw_os_error(libc::EEXIST));
            }
            mapped.push((range.iova(), range.bytes()));
            Ok(())
        }

        fn unmap(&self, iova: u64, bytes: u64) -> io::Result<u64> {
            self.mapped.borrow_mut().retain(|range| *range != (iova, bytes));
            Ok(bytes - self.short_by)
        }

        fn ranges(&self) -> io::Result<Vec<IovaRange>> {
            Ok(vec![])
        }
    }

    fn region(space: &mut IovaSpace) -> Region {
        let request = MemoryRequest { bytes: 8192, page: PageChoice::Size4K, node: None };
        request.allocate(space).unwrap().region
    }

    fn iova_space() -> IovaSpace {
        IovaSpace::new(&[IovaRange { first: 0x10_0000, last: 0xfff_ffff }])
    }

    #[test]
    fn mapping_twice_asks_the_kernel_once_and_unmapping_is_exact() {
        let (space, mut ledger) = (FakeSpace::default(), Ledger::default());
        let region = region(&mut iova_space());
        ledger.map(&space, &region).unwrap();
        ledger.map(&space, &region.clone()).unwrap();
        assert_eq!(*space.mapped.borrow(), [(region.iova().raw(), region.len() as u64)]);
        assert!(ledger.unmap(&space, &region).unwrap());
        assert!(space.mapped.borrow().is_empty());
        assert!(!ledger.unmap(&space, &region).unwrap(), "nothing left to take away");
    }

    #[test]
    fn a_short_unmap_is_an_error_and_keeps_the_region() {
        let (mut space, mut ledger) = (FakeSpace::default(), Ledger::default());
        let region = region(&mut iova_space());
        ledger.map(&space, &region).unwrap();
        space.short_by = 4096;
        assert!(matches!(ledger.unmap(&space, &region), Err(UnmapError::Inexact(4096))));
        assert_eq!(ledger.regions.len(), 1);
    }

    #[test]
    fn teardown_unmaps_everything_and_reports_what_it_could_not() {
        let (mut space, mut ledger) = (FakeSpace::default(), Ledger::default());
        let mut iovas = iova_space();
        let (one, two) = (region(&mut iovas), region(&mut iovas));
        ledger.map(&space, &one).unwrap();
        ledger.map(&space, &two).unwrap();
        assert!(ledger.unmap_all(&space).is_empty());
        assert!(space.mapped.borrow().is_empty());
        space.short_by = 1;
        assert_eq!(ledger.unmap_all(&space).len(), 2);
    }
}
