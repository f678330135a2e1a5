//! The driver's half of a card: a PCI function in the same process.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use drivers::bus::{Bar, BusError, PciFunction, PciId, Width};
use hugemem::{IovaRange, Region};

use super::chip::{BlockWrite, Chip};
use super::core::Shared;
use super::device::Control;
use super::registers::Registers;
use super::remote::{Remote, RemoteError};
use crate::interrupt::EventInterrupt;
use crate::memory::{Access, Hint, Memory};

/// A card as a driver in the same process sees it. Dropping it stops the card and takes all memory away from it.
pub struct Function<C: Chip> {
    shared: Arc<Shared<C>>,
    /// The client's memory, when it is reached by message.
    client: Option<Arc<Client>>,
}

impl<C: Chip> fmt::Debug for Function<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl<C: Chip> Function<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        let client = shared.options.message_dma.then(Arc::<Client>::default);
        if let Some(client) = &client {
            shared.lock().bus.mail.connect(Some(Arc::<Client>::clone(client)));
        }
        Self { shared, client }
    }

    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> Control<C> {
        Control::new(Arc::clone(&self.shared))
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

impl<C: Chip> PciFunction for Function<C> {
    type Bar = Window<C>;
    type Interrupt = EventInterrupt;

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn id(&self) -> PciId {
        self.shared.layout.id
    }

    fn read_config(&self, offset: u16) -> Result<u32, BusError> {
        let mut bytes = [0xff; 4];
        if !self.shared.is_gone() {
            self.shared.lock().read_config(usize::from(offset & !3), &mut bytes);
        }
        Ok(u32::from_le_bytes(bytes))
    }

    fn write_config(&mut self, offset: u16, value: u32) -> Result<(), BusError> {
        if !self.shared.is_gone() {
            self.shared.lock().write_config(usize::from(offset & !3), &value.to_le_bytes());
        }
        Ok(())
    }

    fn bar(&mut self, index: u8) -> Result<Window<C>, BusError> {
        let Some(layout) = self.shared.layout.windows.iter().find(|window| window.bar == index) else {
            return Err(BusError::Missing { device: self.device(), missing: format!("it has no BAR {index}") });
        };
        // The MSI-X table's window is there but shows nothing: interrupts are the bus's business.
        let size = if index == self.shared.layout.msix_window { 0 } else { layout.bytes };
        let registers = self.shared.windows.get(usize::from(index)).cloned().flatten();
        Ok(Window { shared: Arc::clone(&self.shared), bar: index, size, shown: layout.bytes.into(), registers })
    }

    fn iova_ranges(&self) -> Result<Vec<IovaRange>, BusError> {
        Ok(self.shared.options.iova_ranges.clone())
    }

    fn map(&mut self, region: &Region) -> Result<(), BusError> {
        let first = region.iova().raw();
        let last = first.saturating_add(region.len() as u64 - 1);
        let reachable = |range: &IovaRange| range.first <= first && last <= range.last;
        if !self.shared.options.iova_ranges.iter().any(reachable) {
            return Err(self.mapping_error("map", region, "the IOMMU does not let this range through"));
        }
        let memory = &mut self.shared.lock().bus.memory;
        let mapped = match &self.client {
            Some(client) => {
                let mut known = client.memory.lock().unwrap_or_else(PoisonError::into_inner);
                let maps = known.mapped();
                known.map(region) && (known.mapped() == maps || memory.map_away(region))
            }
            None => memory.map(region),
        };
        if mapped { Ok(()) } else { Err(self.mapping_error("map", region, "it overlaps another map")) }
    }

    fn unmap(&mut self, region: &Region) -> Result<(), BusError> {
        if let Some(client) = &self.client {
            client.memory.lock().unwrap_or_else(PoisonError::into_inner).unmap(region);
        }
        if self.shared.lock().bus.memory.unmap(region) {
            Ok(())
        } else {
            Err(self.mapping_error("unmap", region, "it is not mapped"))
        }
    }

    fn interrupt_count(&self) -> u16 {
        self.shared.layout.vectors
    }

    fn interrupts(&mut self, count: u16) -> Result<Vec<EventInterrupt>, BusError> {
        if count > self.shared.layout.vectors {
            let missing = format!("it has {} interrupt vectors, not {count}", self.shared.layout.vectors);
            return Err(BusError::Missing { device: self.device(), missing });
        }
        let mut interrupts = Vec::with_capacity(count.into());
        let mut events = Vec::with_capacity(count.into());
        for _ in 0..count {
            let (interrupt, event) = EventInterrupt::new(&self.shared.name)?;
            interrupts.push(interrupt);
            events.push(event);
        }
        let mut core = self.shared.lock();
        let mut events = events.into_iter();
        for vector in &mut core.bus.vectors {
            vector.event = events.next();
        }
        core.space.set_msix(count > 0);
        Ok(interrupts)
    }

    fn set_bus_master(&mut self, enabled: bool) -> Result<(), BusError> {
        self.shared.lock().set_bus_master(enabled);
        Ok(())
    }

    fn reset(&mut self) -> Result<(), BusError> {
        if self.shared.is_gone() {
            let reason = "it was removed".to_owned();
            return Err(BusError::Gone { device: self.device(), reason });
        }
        let mut core = self.shared.lock();
        core.reset();
        core.bus.vectors.iter_mut().for_each(|vector| vector.event = None);
        Ok(())
    }
}

impl<C: Chip> Drop for Function<C> {
    fn drop(&mut self) {
        self.shared.lock().unplug();
    }
}

/// A register window of a card.
pub struct Window<C> {
    shared: Arc<Shared<C>>,
    bar: u8,
    /// Bytes behind which there are registers.
    size: u32,
    /// Size that it has.
    shown: u64,
    registers: Option<Arc<Registers>>,
}

impl<C> Clone for Window<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), registers: self.registers.clone(), ..*self }
    }
}

impl<C> fmt::Debug for Window<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("device", &self.shared.name).field("bar", &self.bar).finish_non_exhaustive()
    }
}

impl<C: Chip> Window<C> {
    /// The words behind `offset`, when the driver reaches them without a call.
    #[inline]
    fn open(&self, offset: u32, bytes: u32) -> Option<&Registers> {
        self.registers.as_deref().filter(|registers| registers.is_open(offset, bytes))
    }

    #[inline]
    fn answers(&self, offset: u32, bytes: u32) -> bool {
        let inside = offset.is_multiple_of(bytes) && offset <= self.size && bytes <= self.size - offset;
        inside && !self.shared.is_gone()
    }
}

impl<C: Chip> Bar for Window<C> {
    fn size(&self) -> u64 {
        self.shown
    }

    #[inline]
    fn load<W: Width>(&self, offset: u32) -> W {
        W::narrow(if !self.answers(offset, W::BYTES) {
            u64::MAX
        } else if let Some(registers) = self.open(offset, W::BYTES) {
            registers.load(offset, W::BYTES)
        } else {
            self.shared.load(self.bar, offset, W::BYTES)
        })
    }

    #[inline]
    fn store<W: Width>(&self, offset: u32, value: W) {
        if !self.answers(offset, W::BYTES) {
            return;
        }
        match self.open(offset, W::BYTES) {
            Some(registers) => registers.store(offset, W::BYTES, value.widen()),
            None => self.shared.store(self.bar, offset, W::BYTES, value.widen()),
        }
    }

    /// The chip gets them at its next poll, or before the next access that calls it.
    fn store_block(&self, offset: u32, block: &[u64; 8]) {
        if !self.answers(offset, 64) {
            return;
        }
        if self.open(offset, 8).is_none() {
            self.shared.post_block(self.bar, offset, block);
            return;
        }
        for (index, word) in (0_u32..).zip(block) {
            self.store(offset.wrapping_add(8 * index), *word);
        }
    }

    fn can_enqueue(&self) -> bool {
        true
    }

    fn enqueue_block(&self, offset: u32, block: &[u64; 8]) -> bool {
        self.answers(offset, 64) && self.shared.store_block(self.bar, offset, block, BlockWrite::Deferrable)
    }

    /// A store is enough: to a shared page it releases what was written before, and elsewhere it goes through a lock.
    #[inline]
    fn publish<W: Width>(&self, offset: u32, value: W) {
        self.store(offset, value);
    }
}

/// A client in this process whose memory is reached as if by message.
#[derive(Default)]
struct Client {
    memory: Mutex<Memory>,
}

impl Remote for Client {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), RemoteError> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let place = memory.here(&mut Hint::default(), address, bytes.len(), Access::Read);
        place.ok_or(RemoteError::Refused)?.read(bytes);
        Ok(())
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let place = memory.here(&mut Hint::default(), address, bytes.len(), Access::Write);
        place.ok_or(RemoteError::Refused)?.write(bytes);
        Ok(())
    }
}
