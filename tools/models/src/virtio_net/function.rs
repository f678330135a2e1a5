//! The driver's half of a card: a PCI function in the same process.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use drivers::bus::{Bar, BusError, PciFunction, PciId, Width};
use hugemem::{IovaRange, Region};

use super::device::{Control, Shared};
use super::pci::{MSIX_TABLE, STRUCTURES, structures_bytes};
use crate::interrupt::EventInterrupt;

/// A virtio-net card as its driver sees it. Dropping it stops the card and takes all memory away from it.
pub struct Function {
    shared: Arc<Shared>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Function {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }

    fn is_gone(&self) -> bool {
        self.shared.gone.load(Ordering::Relaxed)
    }

    fn device(&self) -> String {
        self.shared.name.to_string()
    }

    fn mapping_error(&self, action: &'static str, region: &Region, reason: &str) -> BusError {
        BusError::Mapping {
            device: self.device(),
            action,
            iova: region.iova().raw(),
            bytes: region.len() as u64,
            reason: reason.to_owned(),
        }
    }
}

impl PciFunction for Function {
    type Bar = Window;
    type Interrupt = EventInterrupt;

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn id(&self) -> PciId {
        PciId {
            vendor: 0x1af4,
            device: 0x1041,
            subsystem_vendor: 0x1af4,
            subsystem_device: 0x1100,
            class: 0x02_0000,
            revision: 1,
        }
    }

    fn read_config(&self, offset: u16) -> Result<u32, BusError> {
        if self.is_gone() {
            return Ok(u32::MAX);
        }
        let mut core = self.shared.lock();
        if let Some((bar, at, width)) = core.pci.window(offset)
            && bar == STRUCTURES
        {
            return Ok(u32::narrow(core.load_register(at, width)));
        }
        Ok(core.pci.load(offset))
    }

    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError> {
        let mut core = self.shared.lock();
        match core.pci.window(offset) {
            Some((bar, at, width)) if bar == STRUCTURES => {
                drop(core);
                if !self.shared.ring_bell(at, value.into()) {
                    self.shared.lock().store_register(at, width, value.into());
                }
            }
            _ => core.pci.store(offset, value),
        }
        Ok(())
    }

    fn bar(&mut self, index: u8) -> Result<Window, BusError> {
        let core = self.shared.lock();
        let size = match index {
            STRUCTURES => structures_bytes(&core.config, u16::try_from(core.queues.len()).unwrap_or(u16::MAX)),
            MSIX_TABLE => 0x1000,
            _ => {
                return Err(BusError::Missing { device: self.device(), missing: format!("it has no BAR {index}") });
            }
        };
        Ok(Window {
            shared: Arc::clone(&self.shared),
            size: if index == STRUCTURES { size } else { 0 },
            shown: size.into(),
        })
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        Ok(self.shared.lock().config.iova_ranges.clone())
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        let mut core = self.shared.lock();
        let first = region.iova().raw();
        let last = first.saturating_add(region.len() as u64 - 1);
        let reachable = |range: &IovaRange| range.first <= first && last <= range.last;
        if !core.config.iova_ranges.iter().any(reachable) {
            return Err(self.mapping_error("map", region, "the IOMMU does not let this range through"));
        }
        if core.memory.map(region) { Ok(()) } else { Err(self.mapping_error("map", region, "it overlaps another map")) }
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        if self.shared.lock().memory.unmap(region) {
            Ok(())
        } else {
            Err(self.mapping_error("unmap", region, "it is not mapped"))
        }
    }

    fn interrupt_count(&self) -> u16 {
        self.shared.lock().config.vectors
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<EventInterrupt>, BusError> {
        let mut core = self.shared.lock();
        if count > core.config.vectors {
            let missing = format!("it has {} interrupt vectors, not {count}", core.config.vectors);
            return Err(BusError::Missing { device: self.device(), missing });
        }
        core.vectors.clear();
        let mut interrupts = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (interrupt, event) = EventInterrupt::new(&self.shared.name)?;
            interrupts.push(interrupt);
            core.vectors.push(event);
        }
        core.pci.set_msix(count > 0);
        Ok(interrupts)
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        self.shared.lock().pci.set_bus_master(enabled);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), BusError> {
        let mut core = self.shared.lock();
        if !core.pci.has_reset() {
            return Err(BusError::Missing { device: self.device(), missing: "it has no function reset".to_owned() });
        }
        core.reset();
        core.pci.set_bus_master(false);
        core.pci.set_msix(false);
        core.vectors.clear();
        Ok(())
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.pci.set_bus_master(false);
        core.reset();
        core.vectors.clear();
        core.memory.clear();
    }
}

/// The register window of a card. The MSI-X table's window is there but shows nothing: interrupts are the bus's business.
#[derive(Clone)]
pub struct Window {
    shared: Arc<Shared>,
    /// Bytes behind which there are registers.
    size: u32,
    /// Size that it has.
    shown: u64,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("device", &self.shared.name).field("size", &self.shown).finish_non_exhaustive()
    }
}

impl Window {
    fn reaches(&self, offset: u32, bytes: u32) -> bool {
        offset.is_multiple_of(bytes) && offset <= self.size && bytes <= self.size - offset
    }
}

impl Bar for Window {
    fn size(&self) -> u64 {
        self.shown
    }

    fn load<W: Width>(&self, offset: u32) -> W {
        if !self.reaches(offset, W::BYTES) || self.shared.gone.load(Ordering::Relaxed) {
            return W::narrow(u64::MAX);
        }
        let mut core = self.shared.lock();
        if core.trick.is_gone() {
            self.shared.gone.store(true, Ordering::Relaxed);
            return W::narrow(u64::MAX);
        }
        W::narrow(core.load_register(offset, W::BYTES))
    }

    fn store<W: Width>(&self, offset: u32, value: W) {
        if !self.reaches(offset, W::BYTES) || self.shared.gone.load(Ordering::Relaxed) {
            return;
        }
        if !self.shared.ring_bell(offset, value.widen()) {
            self.shared.lock().store_register(offset, W::BYTES, value.widen());
        }
    }

    fn store_block(&self, offset: u32, block: &[u64; 8]) {
        for (index, word) in (0_u32..).zip(block) {
            self.store(offset.wrapping_add(8 * index), *word);
        }
    }

    fn publish<W: Width>(&self, offset: u32, value: W) {
        fence(Ordering::SeqCst);
        self.store(offset, value);
    }
}
