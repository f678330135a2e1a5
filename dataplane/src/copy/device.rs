//! The devices that copy, seen alike.

use std::any::Any;

use drivers::DeviceError;
use drivers::bus::PciFunction;
use drivers::copy_engine::{CopyDone, CopyEngine};
use drivers::ioat::{self, Ioat};
use hugemem::Region;

use super::copier::Channel;

/// A device that copies, as control has it.
pub(super) trait Device: Send {
    /// Starts it; its channels.
    ///
    /// # Errors
    /// When it does not start. Memory stays mapped.
    fn start(&mut self) -> Result<Vec<Box<dyn Channel>>, DeviceError>;

    /// Stops it and takes its channels back. What they had underway is appended to `back`.
    ///
    /// # Errors
    /// When it does not stop, or is gone.
    fn stop(&mut self, channels: Vec<Box<dyn Channel>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError>;

    /// Lets it reach memory.
    ///
    /// # Errors
    /// When the bus cannot.
    fn map(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// Takes memory away, of which no copy is underway.
    ///
    /// # Errors
    /// When the bus cannot.
    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError>;

    /// What is wrong with it, if anything is.
    ///
    /// # Errors
    /// A sentence about the first of its channels that works no more.
    fn check(&self) -> Result<(), DeviceError>;

    /// What it is, in a few words.
    fn describe(&self) -> String;
}

/// Channels with their type again. Others are dropped: the device knows that it does not have them.
pub(super) fn typed<C: CopyEngine + 'static>(channels: Vec<Box<dyn Channel>>) -> impl Iterator<Item = C> {
    channels.into_iter().filter_map(|channel| {
        let any: Box<dyn Any> = channel.into_any();
        any.downcast::<C>().ok().map(|channel| *channel)
    })
}

/// The same words for every driver, since their device objects have the same shape.
macro_rules! device {
    ($engine:ident, $channel:ty) => {
        impl<F: PciFunction> Device for $engine<F> {
            fn start(&mut self) -> Result<Vec<Box<dyn Channel>>, DeviceError> {
                let started = $engine::start(self)?;
                Ok(started.into_iter().map(|(channel, _)| Box::new(channel) as Box<dyn Channel>).collect())
            }

            fn stop(&mut self, channels: Vec<Box<dyn Channel>>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
                $engine::stop(self, typed::<$channel>(channels), back)
            }

            fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
                $engine::map(self, region)
            }

            fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
                $engine::unmap(self, region)
            }

            fn check(&self) -> Result<(), DeviceError> {
                $engine::check(self)
            }

            fn describe(&self) -> String {
                self.summary().to_string()
            }
        }
    };
}

device!(Ioat, ioat::Channel<F::Bar>);
