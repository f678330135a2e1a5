//! Two real cards, or what looks like them, through the kernel's VFIO.

use anyhow::{Context, Result};
use drivers::bus::{PciAddress, PciFunction, PciId};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::{Function, Interface};

use super::cards::Bus;
use super::files::OpenFiles;

/// The bus.
#[derive(Debug)]
pub struct Kernel {
    addresses: [PciAddress; 2],
    interface: Interface,
    open: [Option<Function>; 2],
    /// What was open when no card was.
    files: OpenFiles,
}

impl Kernel {
    /// Two devices that are bound to vfio-pci.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn new(addresses: [PciAddress; 2], interface: Interface) -> Result<Self> {
        Ok(Self { addresses, interface, open: [None, None], files: OpenFiles::now()? })
    }

    /// What the first device says it is.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn id(&mut self) -> Result<PciId> {
        Ok(self.opened(0)?.id())
    }

    fn opened(&mut self, side: usize) -> Result<&Function> {
        let place = &mut self.open[side];
        if place.is_none() {
            *place = Some(Function::open(self.addresses[side], self.interface)?);
        }
        place.as_ref().context("it was just opened")
    }
}

impl Bus for Kernel {
    type Function = Function;

    fn prepare(&mut self) -> Result<()> {
        self.open = [None, None];
        // What an earlier check that failed left open is not this one's.
        self.files = OpenFiles::now()?;
        Ok(())
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        let mut space = IovaSpace::new(&self.opened(side)?.iova_ranges()?);
        Ok(MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(&mut space)?.region)
    }

    fn function(&mut self, side: usize) -> Result<Function> {
        self.opened(side)?;
        self.open[side].take().context("it was just opened")
    }

    fn set_link(&mut self, _: usize, _: bool) -> Result<bool> {
        Ok(false)
    }

    /// What an IOMMU refused is in the kernel's log, where whoever started the guest looks.
    fn complaints(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        self.files.opened_since()
    }
}
