//! What allows a driver to take buffers back that its device held.

/// Proof that the device has stopped: given out by a reset that the device confirmed, after which
/// it is off the bus; or by the bus, when it has taken all memory away from the device.
#[derive(Debug)]
pub(crate) struct Stopped(());

impl Stopped {
    /// Only for what resets a device, after the device confirmed it, and for what takes memory away.
    pub(crate) fn confirmed() -> Self {
        Self(())
    }
}
