//! What memory a device can reach.

use alloc::vec::Vec;

use hugemem::Region;

use crate::bus::{BusError, PciFunction};
use crate::stopped::Stopped;

/// What memory is mapped for: a function, or a device on another transport.
pub(crate) trait Mapper {
    /// Makes a region reachable for the device.
    fn map(&mut self, region: &Region) -> Result<(), BusError>;
    /// Takes a region away from the device.
    fn unmap(&mut self, region: &Region) -> Result<(), BusError>;
}

impl<F: PciFunction> Mapper for F {
    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        PciFunction::map(self, region)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        PciFunction::unmap(self, region)
    }
}

/// The regions that are mapped for one device.
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
    pub(crate) fn map(&mut self, device: &mut impl Mapper, region: &Region) -> Result<(), BusError> {
        device.map(region)?;
        self.withdrawn.retain(|other| !same(region)(other));
        if !self.mapped.iter().any(same(region)) {
            self.mapped.push(region.clone());
        }
        Ok(())
    }

    /// Takes a region away.
    pub(crate) fn unmap(&mut self, device: &mut impl Mapper, region: &Region) -> Result<(), BusError> {
        if let Some(place) = self.withdrawn.iter().position(same(region)) {
            self.withdrawn.remove(place);
            return Ok(());
        }
        device.unmap(region)?;
        self.mapped.retain(|other| !same(region)(other));
        Ok(())
    }

    /// Takes everything away from a device that does not stop, or does not answer any more. It reaches nothing then,
    /// which is as good as if it had stopped. `None` when the bus cannot.
    pub(crate) fn withdraw(&mut self, device: &mut impl Mapper) -> Option<Stopped> {
        // All are tried: each that is gone is one less to be written to.
        for region in core::mem::take(&mut self.mapped) {
            let to = if device.unmap(&region).is_ok() { &mut self.withdrawn } else { &mut self.mapped };
            to.push(region);
        }
        self.mapped.is_empty().then(Stopped::confirmed)
    }

    /// Gives back what was taken away, to a device that works again.
    pub(crate) fn restore(&mut self, device: &mut impl Mapper) -> Result<(), BusError> {
        while let Some(region) = self.withdrawn.last().cloned() {
            self.map(device, &region)?;
        }
        Ok(())
    }
}
