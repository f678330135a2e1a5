//! Memory of a client that does not share it: reached by message.

use std::sync::Arc;
use std::time::Duration;

use vfio::user::server::{DmaError, MessageDma};

/// A message took place or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RemoteError {
    /// The client refuses it, or does not answer.
    Refused,
    /// The client is gone, and its memory with it.
    Gone,
}

/// Reaches memory by message. Each call waits for the answer, at most for a limit of its own.
pub(super) trait Remote: Send + Sync {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), RemoteError>;
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), RemoteError>;
}

/// A handle to it.
pub(super) type AnyRemote = Arc<dyn Remote>;

/// How long a client has for one access. An emulator with little time to run can be slow.
const LIMIT: Duration = Duration::from_secs(5);

impl From<DmaError> for RemoteError {
    fn from(error: DmaError) -> Self {
        if error == DmaError::Gone { Self::Gone } else { Self::Refused }
    }
}

impl Remote for MessageDma {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), RemoteError> {
        Ok(MessageDma::read(self, address, bytes, LIMIT)?)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), RemoteError> {
        Ok(MessageDma::write(self, address, bytes, LIMIT)?)
    }
}
