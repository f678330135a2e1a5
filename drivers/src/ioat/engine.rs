//! An engine: taking it over, starting its channels, watching and stopping it.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::Region;

use super::channel::{Channel, Common};
use super::options::{Config, Summary, Version};
use super::recovery::{ARM_LIMIT, Phase, RESET_LIMIT};
use super::registers::{CBVER, CHANCNT, INTRCTRL, XFERCAP, intrctrl};
use super::report::{End, Record, Report};
use super::reset::{gone, halt, timed_out};
use crate::bus::{BusError, Clock, PciFunction, PciId, wait_until};
use crate::copy_engine::{CopyDevice, CopyDone, Started};
use crate::error::DeviceError;
use crate::reach::Reach;

const VENDOR: u16 = 0x8086;
/// The register window.
const BAR: u8 = 0;
/// Channels that an engine can have.
const MOST_CHANNELS: u8 = 8;
/// Versions that this driver knows.
const OLDEST: Version = Version(0x32);
const NEWEST: Version = Version(0x3f);
/// Least and most that XFERCAP can be: 4 KiB to 1 MiB. Where it says more, this much is used.
const SHORTEST: u8 = 12;
const LONGEST: u8 = 20;
/// How long a reset may take when the driver goes away and nobody can be told.
const LAST_RESET_LIMIT: Duration = Duration::from_millis(50);

/// Whether this is an engine that the driver is for: that of Broadwell (Xeon D and E5), Skylake, Cascade Lake or Ice Lake.
#[must_use]
pub fn matches(id: PciId) -> bool {
    id.vendor == VENDOR && matches!(id.device, 0x0b00 | 0x2021 | 0x6f20..=0x6f27 | 0x6f2e | 0x6f2f | 0x6f50..=0x6f53)
}

/// An engine, owned.
///
/// [`Ioat::open`] finds out what it is and takes all memory; [`CopyDevice::start`] hands out its channels; [`CopyDevice::stop`] resets it and takes them back, after
/// which it can be started again. Dropping it resets it and takes it off the bus.
pub struct Ioat<F: PciFunction> {
    bar: F::Bar,
    clock: Arc<dyn Clock>,
    config: Config,
    summary: Summary,
    /// Channels that are not handed out.
    home: Vec<Option<Channel<F::Bar>>>,
    reports: Vec<Arc<Report>>,
    reach: Reach,
    // Last, so that registers are let go of before the function is.
    function: F,
}

impl<F: PciFunction> Ioat<F> {
    /// Takes over an engine: resets it, and takes memory for its rings from `memory`, [`Config::ring_memory`] bytes at most, which is mapped for it
    /// here. What is to be copied is to be mapped with [`CopyDevice::map`].
    ///
    /// # Errors
    /// When the function is no such engine or does not answer in time, or memory does not suffice.
    pub fn open(mut function: F, clock: Arc<dyn Clock>, memory: &Region, config: Config) -> Result<Self, DeviceError> {
        let name = function.name().to_string();
        let id @ PciId { vendor, device, .. } = function.id();
        if !matches(id) {
            let reason = alloc::format!(
                "{vendor:04x}:{device:04x} is no Intel I/OAT engine of version 3.2 to 3.4 (8086:0b00, 2021, 6f20 and kin)"
            );
            return Err(DeviceError::Unsupported { device: name, reason });
        }
        // Whatever the last owner left behind.
        match function.reset() {
            Ok(()) | Err(BusError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let bar = function.bar(BAR)?;
        let mut summary = identify::<F>(&name, &bar, &config)?;
        summary.interrupts = config.interrupts && function.interrupt_count() >= summary.channels.into();
        // Also those channels that are not used.
        halt(&mut function, &bar, summary.device_channels, summary.version, &*clock, RESET_LIMIT)?;
        let mut reach = Reach::default();
        reach.map(&mut function, memory)?;
        let Summary { unit, depth, .. } = summary;
        let common = Common { clock: Arc::clone(&clock), unit, depth, patience: config.patience };
        let (mut home, mut reports) = (Vec::new(), Vec::new());
        for number in 0..summary.channels {
            let channel = Channel::new(bar.clone(), number, memory, common.clone())
                .map_err(|source| DeviceError::Memory { device: name.clone(), source })?;
            reports.push(Arc::clone(&channel.report));
            home.push(Some(channel));
        }
        Ok(Self { bar, clock, config, summary, home, reports, reach, function })
    }

    /// What driver and engine agreed on.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What was asked for.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The function that the engine sits on.
    #[must_use]
    pub fn function(&self) -> &F {
        &self.function
    }

    fn bring_up(&mut self) -> Result<Vec<F::Interrupt>, DeviceError> {
        self.bring_down()?;
        self.reach.restore(&mut self.function)?;
        let Summary { channels, interrupts, .. } = self.summary;
        let handles = if interrupts { self.function.interrupts(channels.into())? } else { Vec::new() };
        let control = if interrupts { intrctrl::MASTER_ENABLE | intrctrl::MSIX_CONTROL } else { 0 };
        INTRCTRL.store(&self.bar, 0, control);
        self.function.set_bus_master(true)?;
        for channel in self.home.iter_mut().flatten() {
            channel.interrupts = interrupts;
            channel.start();
            wait_until(&*self.clock, 2 * ARM_LIMIT, Duration::from_micros(20), || channel.is_started());
            if channel.recovery.phase != Phase::Working {
                let device = self.function.name();
                return Err(match channel.report.end() {
                    Some(End::Gone) => gone(device),
                    _ => timed_out(device, "a channel to accept a chain (CHANSTS)", ARM_LIMIT),
                });
            }
        }
        Ok(handles)
    }

    /// Stops everything. What is at home has no job any more, when the engine did stop, or the bus took all memory away from it.
    fn bring_down(&mut self) -> Result<(), DeviceError> {
        let Summary { device_channels, version, .. } = self.summary;
        let halted = halt(&mut self.function, &self.bar, device_channels, version, &*self.clock, RESET_LIMIT);
        let (stopped, outcome) = match halted {
            Ok(stopped) => (Some(stopped), Ok(())),
            Err(error) => (self.reach.withdraw(&mut self.function), Err(error)),
        };
        if let Some(stopped) = stopped {
            self.home.iter_mut().flatten().for_each(|channel| channel.reset(&stopped));
        }
        outcome
    }

    /// What happened to each channel so far.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.reports.iter().map(|report| report.record()).collect()
    }
}

impl<F: PciFunction> CopyDevice for Ioat<F> {
    type Engine = Channel<F::Bar>;
    type Interrupt = F::Interrupt;

    fn name(&self) -> &str {
        self.function.name()
    }

    fn start(&mut self) -> Result<Vec<Started<Self>>, DeviceError> {
        if self.home.iter().any(Option::is_none) {
            let reason = "its channels are in use already; stop it with all of them first".to_string();
            return Err(DeviceError::Request { device: self.function.name().to_string(), reason });
        }
        let started = self.bring_up();
        if started.is_err() {
            // The error that counts is the first.
            let _ = self.bring_down();
        }
        let mut interrupts = started?.into_iter().map(Some).collect::<Vec<_>>();
        interrupts.resize_with(self.home.len(), || None);
        Ok(self.home.iter_mut().filter_map(Option::take).zip(interrupts).collect())
    }

    /// A channel of another engine is dropped. Channels that stay away have no jobs any more either, but cannot say so.
    fn stop(&mut self, engines: Vec<Channel<F::Bar>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        for channel in engines {
            let own = self.reports.get(usize::from(channel.number));
            let is_own = own.is_some_and(|own| Arc::ptr_eq(own, &channel.report));
            if let Some(place) = self.home.get_mut(usize::from(channel.number)).filter(|_| is_own) {
                *place = Some(channel);
            }
        }
        let outcome = self.bring_down();
        for channel in self.home.iter_mut().flatten() {
            back.reserve(channel.ring.jobs());
            channel.ring.tell(back);
        }
        outcome
    }

    fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
        Ok(self.reach.map(&mut self.function, region)?)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
        Ok(self.reach.unmap(&mut self.function, region)?)
    }

    fn check(&mut self) -> Result<(), DeviceError> {
        let ended =
            (0_u8..).zip(&self.reports).find_map(|(number, report)| Some((report.end()?, report.sentence(number)?)));
        match ended {
            None => Ok(()),
            Some((End::Gone, _)) => Err(gone(self.function.name())),
            Some((_, reason)) => Err(DeviceError::Device { device: self.function.name().to_string(), reason }),
        }
    }
}

/// Finds out what the engine is.
fn identify<F: PciFunction>(name: &str, bar: &F::Bar, config: &Config) -> Result<Summary, DeviceError> {
    let (version, count, longest) = (CBVER.load(bar, 0), CHANCNT.load(bar, 0), XFERCAP.load(bar, 0));
    if (version, count, longest) == (u8::MAX, u8::MAX, u8::MAX) {
        return Err(gone(name));
    }
    let version = Version(version);
    if !(OLDEST..=NEWEST).contains(&version) {
        let reason = alloc::format!("it is of version {version}; this driver knows 3.2 and what follows it");
        return Err(DeviceError::Unsupported { device: name.to_string(), reason });
    }
    let misbehaves = |reason| Err(DeviceError::Device { device: name.to_string(), reason });
    // Five bits each; the others are reserved.
    let (device_channels, longest) = (count & 0x1f, longest & 0x1f);
    if !(1..=MOST_CHANNELS).contains(&device_channels) {
        return misbehaves(alloc::format!("it has {device_channels} channels (CHANCNT); 1 to {MOST_CHANNELS} can be"));
    }
    if longest < SHORTEST {
        return misbehaves(alloc::format!("it copies up to 2^{longest} bytes (XFERCAP); 2^{SHORTEST} is the least"));
    }
    Ok(Summary {
        version,
        channels: config.channels.clamp(1, device_channels),
        device_channels,
        unit: 1 << longest.min(LONGEST),
        depth: config.underway(),
        interrupts: false,
    })
}

impl<F: PciFunction> Drop for Ioat<F> {
    fn drop(&mut self) {
        let Summary { device_channels, version, .. } = self.summary;
        // Nobody to tell; the bus resets the function once more before it unmaps memory.
        let _ = halt(&mut self.function, &self.bar, device_channels, version, &*self.clock, LAST_RESET_LIMIT);
    }
}

impl<F: PciFunction> fmt::Debug for Ioat<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ioat")
            .field("name", &self.function.name())
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
