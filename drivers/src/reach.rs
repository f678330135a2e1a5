//! What memory a device can reach.

use alloc::vec::Vec;

use hugemem::Region;

use crate::bus::{BusError, PciFunction};
use crate::stopped::Stopped;

/// The regions that are mapped for one function.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Those that it reaches.
    mapped: Vec<Region>,
    /// Those that were taken away from it for the time being.
    withdrawn: Vec<Region>,
}

fn same(region: &Region) -> impl Fn(&Region) -> bool {
    let iova = region.iova();
    move |other| other.iova() == iova
}

impl Reach {
    /// Makes a region reachable.
    pub(crate) fn map<F: PciFunction>(&mut self, function: &mut F, region: &Region) -> Result<(), BusError> {
        function.map(region)?;
        self.withdrawn.retain(|other| !same(region)(other));
        if !self.mapped.iter().any(same(region)) {
            self.mapped.push(region.clone());
        }
        Ok(())
    }

    /// Takes a region away.
    pub(crate) fn unmap<F: PciFunction>(&mut self, function: &mut F, region: &Region) -> Result<(), BusError> {
        if let Some(place) = self.withdrawn.iter().position(same(region)) {
            self.withdrawn.remove(place);
            return Ok(());
        }
        function.unmap(region)?;
        self.mapped.retain(|other| !same(region)(other));
        Ok(())
    }

    /// Takes everything away from a device that does not stop, or does not answer any more. It reaches nothing then,
    /// which is as good as if it had stopped. `None` when the bus cannot.
    pub(crate) fn withdraw<F: PciFunction>(&mut self, function: &mut F) -> Option<Stopped> {
        // All are tried: each that is gone is one less to be written to.
        for region in core::mem::take(&mut self.mapped) {
            let to = if function.unmap(&region).is_ok() { &mut self.withdrawn } else { &mut self.mapped };
            to.push(region);
        }
        self.mapped.is_empty().then(Stopped::confirmed)
    }

    /// Gives back what was taken away, to a device that works again.
    pub(crate) fn restore<F: PciFunction>(&mut self, function: &mut F) -> Result<(), BusError> {
        while let Some(region) = self.withdrawn.last().cloned() {
            self.map(function, &region)?;
        }
        Ok(())
    }
}
