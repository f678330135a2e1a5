//! The device half of a card, and the handle that looks into it.

use std::fmt;
use std::sync::Arc;

use drivers::bus::BusError;

use super::bus::Bus;
use super::chip::{Chip, Work};
use super::core::{Core, Shared};
use super::function::Function;
use super::options::Options;
use crate::memory::DmaFault;
use crate::wire::Wire;

/// Makes a card with `chip` on it: the half for a driver in this process, and the device half plugged into `wire`.
///
/// # Errors
/// [`BusError::System`] when the system has no memory for shared pages, or no descriptor.
pub fn new<C: Chip, W: Wire>(options: Options, chip: C, wire: W) -> Result<(Function<C>, Device<C, W>), BusError> {
    let device = Device::new(options, chip, wire)?;
    Ok((Function::new(Arc::clone(&device.shared)), device))
}

/// The card itself.
pub struct Device<C, W> {
    pub(super) shared: Arc<Shared<C>>,
    wire: W,
}

impl<C, W: fmt::Debug> fmt::Debug for Device<C, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.shared.name).field("wire", &self.wire).finish_non_exhaustive()
    }
}

/// Frames of one poll, in each direction and queue.
const BUDGET: usize = 64;

impl<C: Chip, W: Wire> Device<C, W> {
    pub(super) fn new(options: Options, chip: C, wire: W) -> Result<Self, BusError> {
        let name = options.name.clone();
        let shared = Shared::new(options, chip).map_err(|error| BusError::System {
            device: name,
            action: "create the memory of shared register pages".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self { shared: Arc::new(shared), wire })
    }

    /// Does what there is to do, with up to 64 frames in each direction and queue.
    pub fn poll(&mut self) -> Work {
        self.poll_batch(BUDGET)
    }

    /// As [`Device::poll`] with up to about `budget` frames.
    pub fn poll_batch(&mut self, budget: usize) -> Work {
        self.shared.poll(&mut self.wire, budget)
    }

    /// What it is plugged into.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// What it is plugged into.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> Control<C> {
        Control::new(Arc::clone(&self.shared))
    }
}

/// Looks into a card and meddles with it, from any thread.
pub struct Control<C> {
    shared: Arc<Shared<C>>,
}

impl<C> Clone for Control<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for Control<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl<C: Chip> Control<C> {
    pub(super) fn new(shared: Arc<Shared<C>>) -> Self {
        Self { shared }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Lets `work` look at the chip, or change it, while nothing else happens on the card.
    pub fn with<T>(&self, work: impl FnOnce(&mut C, &mut Bus) -> T) -> T {
        let (answer, errands) = {
            let mut core = self.shared.lock();
            let Core { chip, bus, .. } = &mut *core;
            bus.begin_access();
            let answer = work(chip, bus);
            (answer, bus.quick_errands())
        };
        self.shared.run(errands);
        answer
    }

    /// Accesses to memory that is not mapped, the first 256 of them.
    #[must_use]
    pub fn faults(&self) -> Vec<DmaFault> {
        self.shared.lock().bus.memory.faults()
    }

    /// Number of accesses to memory that is not mapped.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.shared.lock().bus.memory.fault_count()
    }

    /// Rules of the datasheet that the driver broke, each in a sentence.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.shared.lock().bus.violations.clone()
    }

    /// Number of maps.
    #[must_use]
    pub fn mapped(&self) -> usize {
        self.shared.lock().bus.memory.mapped()
    }

    /// Interrupt vectors that the driver has enabled.
    #[must_use]
    pub fn enabled_vectors(&self) -> usize {
        self.shared.lock().bus.vectors.iter().filter(|vector| vector.event.is_some()).count()
    }

    /// Interrupts sent.
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.shared.lock().bus.signals
    }

    /// Pulls the card out, for good: all registers read all ones and nothing happens any more.
    pub fn remove(&self) {
        self.shared.lock().bus.remove();
    }

    /// The card was pulled out.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.shared.is_gone()
    }
}
