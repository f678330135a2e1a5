//! What allows a driver to take buffers back that its device held.

/// Proof that the device has stopped: given out by a reset that the device confirmed, after which it is off the bus.
#[derive(Debug)]
pub(crate) struct Stopped(());

impl Stopped {
    /// Only for what resets a device, after the device confirmed it.
    pub(crate) fn confirmed() -> Self {
        Self(())
    }
}
