//! What memory a device can reach.

use alloc::vec::Vec;

use hugemem::Region;

use crate::bus::{BusError, PciFunction};
use crate::stopped::Stopped;

/// The regions that are mapped for one function.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    regions: Vec<Region>,
    /// They were all taken away.
    withdrawn: bool,
}

impl Reach {
    /// Makes a region reachable.
    pub(crate) fn map<F: PciFunction>(&mut self, function: &mut F, region: &Region) -> Result<(), BusError> {
        function.map(region)?;
        if self.regions.iter().all(|known| known.iova() != region.iova()) {
            self.regions.push(region.clone());
        }
        Ok(())
    }

    /// Takes a region away.
    pub(crate) fn unmap<F: PciFunction>(&mut self, function: &mut F, region: &Region) -> Result<(), BusError> {
        if !self.withdrawn {
            function.unmap(region)?;
        }
        self.regions.retain(|known| known.iova() != region.iova());
        Ok(())
    }

    /// Takes everything away from a device that does not stop, or does not answer any more. It reaches nothing then,
    /// which is as good as if it had stopped. `None` when the bus cannot.
    pub(crate) fn withdraw<F: PciFunction>(&mut self, function: &mut F) -> Option<Stopped> {
        if !self.withdrawn {
            // All are tried: each that is gone is one less to be written to.
            let failed = self.regions.iter().filter(|region| function.unmap(region).is_err()).count();
            self.withdrawn = failed == 0;
        }
        self.withdrawn.then(Stopped::confirmed)
    }

    /// Gives back what was taken away, to a device that works again.
    pub(crate) fn restore<F: PciFunction>(&mut self, function: &mut F) -> Result<(), BusError> {
        // Mapping what is mapped does nothing, so it does not matter how far taking away came.
        self.regions.iter().try_for_each(|region| function.map(region))?;
        self.withdrawn = false;
        Ok(())
    }
}
