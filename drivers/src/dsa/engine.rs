//! A device: taking it over, configuring and starting its work queues, watching and stopping it.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use hugemem::Region;

use super::capabilities::Capabilities;
use super::channel::{Channel, Common};
use super::command::{Command, Desk};
use super::layout;
use super::options::{Config, Summary};
use super::recovery::Recovery;
use super::registers::{BAR, DeviceState, PORTAL_BAR, QueueState, device_state};
use super::report::{End, Record, Report};
use super::reset::{gone, halt, order};
use super::software_error::SoftwareError;
use crate::bus::{Bar, BusError, Clock, PciFunction, PciId};
use crate::copy_engine::{CopyDevice, CopyDone, Started};
use crate::error::DeviceError;
use crate::reach::Reach;

const VENDOR: u16 = 0x8086;
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_millis(200);
/// How long a reset may take when the driver goes away and nobody can be told.
const LAST_RESET_LIMIT: Duration = Duration::from_millis(50);

/// Whether this is a device that the driver is for: that of Sapphire and Emerald Rapids, Granite Rapids D, or Diamond Rapids.
#[must_use]
pub fn matches(id: PciId) -> bool {
    id.vendor == VENDOR && matches!(id.device, 0x0b25 | 0x11fb | 0x1212)
}

/// A device, owned.
///
/// [`Dsa::open`] finds out what it is and takes all memory; [`CopyDevice::start`] configures it and hands out its channels; [`CopyDevice::stop`] resets it
/// and takes them back, after which it can be started again. Dropping it resets it and takes it off the bus.
pub struct Dsa<F: PciFunction> {
    bar: F::Bar,
    clock: Arc<dyn Clock>,
    config: Config,
    capabilities: Capabilities,
    summary: Summary,
    desk: Arc<Desk>,
    /// Channels that are not handed out.
    home: Vec<Option<Channel<F::Bar>>>,
    reports: Vec<Arc<Report>>,
    started: bool,
    reach: Reach,
    // Last, so that registers are let go of before the function is.
    function: F,
}

impl<F: PciFunction> Dsa<F> {
    /// Takes over a device: resets it, and takes memory for descriptors and records from `memory`, [`Config::ring_memory`] bytes at most, which is mapped
    /// for it here. What is to be copied is to be mapped with [`CopyDevice::map`].
    ///
    /// # Errors
    /// When the function is no such device or does not answer in time, it or the bus lacks what was asked for, or memory does not suffice.
    pub fn open(mut function: F, clock: Arc<dyn Clock>, memory: &Region, config: Config) -> Result<Self, DeviceError> {
        let name = function.name().to_string();
        let id @ PciId { vendor, device, .. } = function.id();
        if !matches(id) {
            let reason = alloc::format!("{vendor:04x}:{device:04x} is no Intel DSA (8086:0b25, 11fb or 1212)");
            return Err(DeviceError::Unsupported { device: name, reason });
        }
        // Whatever the last owner left behind.
        match function.reset() {
            Ok(()) | Err(BusError::Missing { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let (bar, portals) = (function.bar(BAR)?, function.bar(PORTAL_BAR)?);
        let capabilities = Capabilities::read(&name, [&bar, &portals])?;
        let mut summary = capabilities.agree(&name, &config)?;
        if config.shared && !portals.can_enqueue() {
            let reason = "a shared work queue needs ENQCMD with a PASID of this process, which this bus does not give; use a dedicated \
                          one, or the idxd character device (/dev/dsa)";
            return Err(DeviceError::Unsupported { device: name, reason: reason.to_string() });
        }
        // Vector 0 is for errors and commands.
        summary.interrupts = config.interrupts && function.interrupt_count() > summary.channels.into();
        halt(&mut function, &bar, &*clock, COMMAND_LIMIT)?;
        let mut reach = Reach::default();
        reach.map(&mut function, memory)?;
        let desk = Arc::<Desk>::default();
        let common = Common {
            clock: Arc::clone(&clock),
            desk: Arc::clone(&desk),
            shape: capabilities.shape(&summary),
            shared: config.shared,
            patience: config.patience,
        };
        let (mut home, mut reports) = (Vec::new(), Vec::new());
        for number in 0..summary.channels {
            let bars = [bar.clone(), portals.clone()];
            let channel = Channel::new(bars, number, capabilities.queue(number), memory, common.clone())
                .map_err(|source| DeviceError::Memory { device: name.clone(), source })?;
            reports.push(Arc::clone(&channel.report));
            home.push(Some(channel));
        }
        Ok(Self { bar, clock, config, capabilities, summary, desk, home, reports, started: false, reach, function })
    }

    /// What driver and device agreed on.
    #[must_use]
    pub fn summary(&self) -> &Summary {
        &self.summary
    }

    /// What was asked for.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The function that the device sits on.
    #[must_use]
    pub fn function(&self) -> &F {
        &self.function
    }

    fn bring_up(&mut self) -> Result<Vec<F::Interrupt>, DeviceError> {
        self.bring_down()?;
        self.reach.restore(&mut self.function)?;
        let Summary { channels, interrupts, .. } = self.summary;
        let vectors = if interrupts { self.function.interrupts(u16::from(channels) + 1)? } else { Vec::new() };
        // The first is for errors, which are polled for.
        let handles = vectors.into_iter().skip(1).collect();
        layout::write(&self.bar, &self.capabilities, &self.summary);
        self.function.set_bus_master(true)?;
        self.order(Command::EnableDevice)?;
        SoftwareError::acknowledge(&self.bar);
        for number in 0..channels {
            let vector = u16::from(number) + 1;
            let handle = match interrupts {
                true if self.capabilities.handles => Some(self.order(Command::RequestInterrupt(vector))?),
                true => Some(vector),
                false => None,
            };
            self.order(Command::EnableQueue(number))?;
            let Some(channel) = self.home.get_mut(usize::from(number)).and_then(Option::as_mut) else { continue };
            if channel.registers.queue_state() != Some(QueueState::Enabled) {
                let reason = alloc::format!("it says that work queue {number} was enabled, and it is not (WQCFG)");
                return Err(DeviceError::Device { device: self.function.name().to_string(), reason });
            }
            channel.queue.set_interrupt(handle);
            channel.report.restart();
            channel.recovery = Recovery::working();
        }
        Ok(handles)
    }

    fn order(&self, command: Command) -> Result<u16, DeviceError> {
        order(self.function.name(), &self.bar, &*self.clock, command, COMMAND_LIMIT)
    }

    /// Stops everything. What is at home has no job any more, when the device did stop, or the bus took all memory away from it.
    fn bring_down(&mut self) -> Result<(), DeviceError> {
        self.started = false;
        let halted = halt(&mut self.function, &self.bar, &*self.clock, COMMAND_LIMIT);
        let (stopped, outcome) = match halted {
            Ok(stopped) => (Some(stopped), Ok(())),
            Err(error) => (self.reach.withdraw(&mut self.function), Err(error)),
        };
        if let Some(stopped) = stopped {
            // Whoever left a command behind: it is over.
            self.desk.leave();
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

impl<F: PciFunction> CopyDevice for Dsa<F> {
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
        self.started = true;
        Ok(self.home.iter_mut().filter_map(Option::take).zip(interrupts).collect())
    }

    /// A channel of another device is dropped. Channels that stay away have no jobs any more either, but cannot say so.
    fn stop(&mut self, engines: Vec<Channel<F::Bar>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        for channel in engines {
            let number = usize::from(channel.number());
            let is_own = self.reports.get(number).is_some_and(|own| Arc::ptr_eq(own, &channel.report));
            if let Some(place) = self.home.get_mut(number).filter(|_| is_own) {
                *place = Some(channel);
            }
        }
        let outcome = self.bring_down();
        for channel in self.home.iter_mut().flatten() {
            back.reserve(channel.queue.jobs());
            channel.queue.tell(back);
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
        let misbehaves = |reason| Err(DeviceError::Device { device: self.function.name().to_string(), reason });
        let ended =
            (0_u8..).zip(&self.reports).find_map(|(number, report)| Some((report.end()?, report.sentence(number)?)));
        match ended {
            Some((End::Gone, _)) => return Err(gone(self.function.name())),
            Some((_, reason)) => return misbehaves(reason),
            None if !self.started => return Ok(()),
            None => {}
        }
        // One that halts while its channels have nothing to do.
        match device_state(&self.bar) {
            None => Err(gone(self.function.name())),
            Some(DeviceState::Halted) => misbehaves("it halted (GENSTS); stop and start it".to_string()),
            Some(DeviceState::Disabled) => {
                misbehaves("somebody else reset or disabled it (GENSTS); stop and start it".to_string())
            }
            Some(DeviceState::Enabled | DeviceState::Draining) => Ok(()),
        }
    }
}

impl<F: PciFunction> Drop for Dsa<F> {
    fn drop(&mut self) {
        // Nobody to tell; the bus resets the function once more before it unmaps memory.
        let _ = halt(&mut self.function, &self.bar, &*self.clock, LAST_RESET_LIMIT);
    }
}

impl<F: PciFunction> fmt::Debug for Dsa<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dsa")
            .field("name", &self.function.name())
            .field("summary", &self.summary)
            .finish_non_exhaustive()
    }
}
