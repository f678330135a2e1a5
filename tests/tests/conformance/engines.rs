//! A software copy engine in this process, on a thread of its own.

use std::sync::Weak;

use anyhow::{Context, Result};
use hugemem::{Iova, Region};
use lab::conformance::Bus;
use lab::copy_conformance::{Engines, Expected, IoatDriver};
use models::card::{self, Chip, Control, Function, Options, Running};
use models::ioat::{self, Ioat};
use models::wire::Null;

/// Engines of each device here.
pub(crate) const ENGINES: u8 = 3;

/// Bytes that an engine copies in one piece, as a power of two.
pub(crate) const LONGEST: u8 = 14;

/// What is expected of each.
pub(crate) const EXPECTED: Expected = Expected {
    not_offered: &[("a-device-that-falls-silent-is-gone", "a device in this process always answers")],
    engines: ENGINES,
    fails_alone: true,
    // The engine counts with 16 bits.
    jobs: 66_000,
};

/// The same for devices that reach memory by message.
pub(crate) const BY_MESSAGE: Expected = Expected { fails_alone: false, jobs: 3000, ..EXPECTED };

/// The rigs of I/OAT by name: memory at hand, and memory by message.
pub(crate) fn ioat() -> [(&'static str, Engines<InProcess<Ioat>, IoatDriver>); 2] {
    fn chip() -> Ioat {
        Ioat::new(ioat::Config { channels: ENGINES, longest: LONGEST, ..ioat::Config::default() })
    }
    let rig = |messages, expected| Engines { bus: InProcess::new(chip, messages), driver: IoatDriver, expected };
    [("ioat", rig(false, EXPECTED)), ("ioat-messages", rig(true, BY_MESSAGE))]
}

/// A device that runs, and the function that drivers see of it, unless one has it.
type Device<C> = (Running<C, Null>, Option<Function<C>>);

/// The bus.
pub(crate) struct InProcess<C: Chip> {
    chip: fn() -> C,
    messages: bool,
    device: Option<Device<C>>,
    watches: Vec<Weak<()>>,
    /// Where the next memory is.
    next: Iova,
}

impl<C: Chip> InProcess<C> {
    pub(crate) fn new(chip: fn() -> C, messages: bool) -> Self {
        Self { chip, messages, device: None, watches: Vec::new(), next: Iova::new(0) }
    }

    fn control(&self) -> Result<&Control<C>> {
        Ok(self.device.as_ref().context("the device is not there")?.0.control())
    }
}

impl<C: Chip> Bus for InProcess<C> {
    type Function = Function<C>;

    fn prepare(&mut self) -> Result<()> {
        self.device = None;
        self.watches.clear();
        self.next = Iova::new(0x1000_0000);
        let options = Options { message_dma: self.messages, ..Options::named("engines") };
        let (function, device) = card::new(options, (self.chip)(), Null)?;
        self.device = Some((device.run()?, Some(function)));
        Ok(())
    }

    fn memory(&mut self, _: usize, bytes: usize) -> Result<Region> {
        let (region, watch) = models::watched_region(bytes, self.next);
        self.next = self.next.checked_add(region.len() as u64).context("no address is left")?;
        self.watches.push(watch);
        Ok(region)
    }

    fn function(&mut self, _: usize) -> Result<Function<C>> {
        self.device.as_mut().and_then(|(_, function)| function.take()).context("the device is open")
    }

    fn remove(&mut self) -> Result<bool> {
        self.control()?.remove();
        Ok(true)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        let control = self.control()?;
        let faults = control.faults();
        Ok(control.violations().into_iter().chain(faults.iter().map(|fault| format!("{fault:?}"))).collect())
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        let control = self.control()?;
        let (regions, vectors) = (control.mapped(), control.enabled_vectors());
        let mut leftovers = Vec::new();
        if (regions, vectors) != (0, 0) {
            leftovers.push(format!("{regions} maps, {vectors} interrupt vectors"));
        }
        let held = self.watches.iter().filter(|watch| watch.upgrade().is_some()).count();
        if held > 0 {
            leftovers.push(format!("{held} regions of memory"));
        }
        Ok(leftovers)
    }
}
