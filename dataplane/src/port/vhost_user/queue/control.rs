//! The session's end of a ring.

use std::sync::Arc;
use std::time::Duration;

use super::link::Shared;
use super::receive::Receiver;
use super::transmit::Transmitter;
use super::{RingConfig, RingError, RingLog, Stopped};
use crate::guest::Memory;
use crate::port::vhost_user::notify::Call;
use crate::port::vhost_user::ring::RingFault;

/// One vring of a port, for its session. The engine that polls it never waits for what happens here; what happens here
/// waits for at most a batch of the engine, and [`Vring::stop`] and [`Vring::set_memory`] for frames that are underway.
///
/// After the ring was started, enabled or given memory, the session wakes the engine, which may sleep although something is
/// available.
#[derive(Clone)]
pub(crate) enum Vring {
    /// Frames from the VM.
    Receive(Arc<Shared<Receiver>>),
    /// Frames to the VM.
    Transmit(Arc<Shared<Transmitter>>),
}

/// The same expression for either direction.
macro_rules! either {
    ($vring:expr, $shared:ident => $body:expr) => {
        match $vring {
            Vring::Receive($shared) => $body,
            Vring::Transmit($shared) => $body,
        }
    };
}

impl Vring {
    /// Starts the ring, disabled or enabled as it was last set.
    ///
    /// # Errors
    /// When it runs already, does not lie in the VM's memory, or its state cannot be.
    pub(in super::super) fn start(&self, config: RingConfig) -> Result<(), RingError> {
        either!(self, shared => shared.start(config))
    }

    /// Lets frames through, or no more. Frames to a VM whose ring is disabled are dropped; frames from it wait in its memory.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn enable(&self, on: bool) -> Result<(), RingError> {
        either!(self, shared => shared.enable(on))
    }

    /// Stops the ring: takes nothing more, waits until every frame that was taken has gone its way, at most for `limit`, and
    /// lets the VM's memory go. `None` when it did not run.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn stop(&self, limit: Duration) -> Result<Option<Stopped>, RingError> {
        either!(self, shared => shared.stop(limit))
    }

    /// Gives the ring a new memory table and ends a [`RingFault::Miss`]. With `drained`, waits that long at most until no frame refers to
    /// the old table; `Ok(false)` when some still do, and then that table's memory stays mapped until [`Vring::sweep`] finds that none does. Without, every
    /// mapping of the old table has to be in the new one.
    ///
    /// # Errors
    /// When the ring does not lie in the new memory: it stops then, until it is given another.
    pub(in super::super) fn set_memory(
        &self,
        memory: Arc<Memory>,
        drained: Option<Duration>,
    ) -> Result<bool, RingError> {
        either!(self, shared => shared.set_memory(memory, drained))
    }

    /// Lets go of memory that frames lay in when the ring stopped or moved, and that have come home since. To be called now and then.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn sweep(&self) -> Result<(), RingError> {
        either!(self, shared => shared.sweep())
    }

    /// Sets whom to signal.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn set_call(&self, call: Option<Call>) -> Result<(), RingError> {
        either!(self, shared => shared.set_call(call))
    }

    /// Sets whether the VM never kicks, so that an engine which does not look misses what is there.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn set_polled(&self, polled: bool) -> Result<(), RingError> {
        either!(self, shared => shared.set_polled(polled))
    }

    /// Sets where writes are noted.
    ///
    /// # Errors
    /// [`RingError::Busy`].
    pub(in super::super) fn set_log(&self, log: Option<RingLog>) -> Result<(), RingError> {
        either!(self, shared => shared.set_log(log))
    }

    /// Why the ring does not go on, if it does not.
    pub(in super::super) fn fault(&self) -> Option<RingFault> {
        either!(self, shared => shared.state()).ok()?.2
    }

    /// The ring is started.
    pub(in super::super) fn is_running(&self) -> bool {
        either!(self, shared => shared.state()).is_ok_and(|(running, ..)| running)
    }

    /// The ring is enabled, started or not.
    #[cfg(test)]
    pub(in super::super) fn is_enabled(&self) -> bool {
        either!(self, shared => shared.state()).is_ok_and(|(_, enabled, _)| enabled)
    }
}

impl std::fmt::Debug for Vring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let direction = match self {
            Self::Receive(_) => "receive",
            Self::Transmit(_) => "transmit",
        };
        f.debug_struct("Vring").field("direction", &direction).field("running", &self.is_running()).finish()
    }
}
