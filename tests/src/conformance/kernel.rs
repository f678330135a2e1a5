//! Real devices, or what looks like them, through the kernel's VFIO.

use anyhow::{Context, Result};
use drivers::bus::{PciAddress, PciFunction, PciId};
use hugemem::{IovaSpace, MemoryRequest, PageChoice, Region};
use vfio::{Function, Interface};

use super::cards::Bus;
use super::files::OpenFiles;

/// The bus.
#[derive(Debug)]
pub struct Kernel {
    addresses: Vec<PciAddress>,
    interface: Interface,
    /// Those that are open and have no driver yet.
    open: Vec<Option<Function>>,
    /// The addresses that each of them can have memory at, once it was asked.
    spaces: Vec<Option<IovaSpace>>,
    /// What was open when no card was.
    files: OpenFiles,
}

impl Kernel {
    /// Devices that are bound to vfio-pci.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn new(addresses: Vec<PciAddress>, interface: Interface) -> Result<Self> {
        let mut bus = Self { addresses, interface, open: Vec::new(), spaces: Vec::new(), files: OpenFiles::now()? };
        bus.prepare()?;
        Ok(bus)
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
        (self.open, self.spaces) = self.addresses.iter().map(|_| (None, None)).unzip();
        // What an earlier check that failed left open is not this one's.
        self.files = OpenFiles::now()?;
        Ok(())
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        if self.spaces[side].is_none() {
            self.spaces[side] = Some(IovaSpace::new(&self.opened(side)?.iova_ranges()?));
        }
        let space = self.spaces[side].as_mut().context("it was just made")?;
        Ok(MemoryRequest { bytes, page: PageChoice::Size4K, node: None }.allocate(space)?.region)
    }

    fn function(&mut self, side: usize) -> Result<Function> {
        self.opened(side)?;
        self.open[side].take().context("it was just opened")
    }

    /// What an IOMMU refused is in the kernel's log, where whoever started the guest looks.
    fn complaints(&mut self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        self.files.opened_since()
    }
}
