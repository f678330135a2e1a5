//! The devices that copy, seen alike.

use std::any::Any;

use drivers::DeviceError;
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine};
use hugemem::Region;

use super::copier::Channel;

/// A device that copies, as control has it: a [`CopyDevice`] of whatever kind.
pub(super) trait Device: Send {
    /// As [`CopyDevice::start`].
    fn start(&mut self) -> Result<Vec<Box<dyn Channel>>, DeviceError>;

    /// As [`CopyDevice::stop`].
    fn stop(&mut self, channels: Vec<Box<dyn Channel>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError>;

    /// As [`CopyDevice::map`].
    fn map(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// As [`CopyDevice::unmap`].
    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// As [`CopyDevice::check`].
    fn check(&mut self) -> Result<(), DeviceError>;

    /// What it is, in a few words.
    fn describe(&self) -> String;
}

/// A device with what it says of itself.
pub(super) struct Described<D> {
    pub(super) device: D,
    pub(super) about: String,
}

impl<D: CopyDevice> Device for Described<D> {
    fn start(&mut self) -> Result<Vec<Box<dyn Channel>>, DeviceError> {
        // Engines poll for as long as anything is underway: interrupts are not asked for.
        let started = self.device.start()?;
        Ok(started.into_iter().map(|(engine, _)| Box::new(engine) as Box<dyn Channel>).collect())
    }

    fn stop(&mut self, channels: Vec<Box<dyn Channel>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        self.device.stop(typed(channels), back)
    }

    fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.device.map(region)
    }

    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.device.unmap(region)
    }

    fn check(&mut self) -> Result<(), DeviceError> {
        self.device.check()
    }

    fn describe(&self) -> String {
        self.about.clone()
    }
}

/// Channels with their type again. They all come from the one device, and so have it.
fn typed<C: CopyEngine + 'static>(channels: Vec<Box<dyn Channel>>) -> Vec<C> {
    let typed = channels.into_iter().filter_map(|channel| {
        let any: Box<dyn Any> = channel.into_any();
        any.downcast::<C>().ok().map(|channel| *channel)
    });
    typed.collect()
}
