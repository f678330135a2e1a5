//! Message-mode DMA: the client's memory by request and reply.

use std::time::Duration;

use rustix::io::Errno;

/// Why message-mode DMA did not happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DmaError {
    /// The client refuses: nothing is mapped there, or not for this direction.
    #[error("the client refuses the access to its memory: {0}")]
    Refused(Errno),
    /// The client did not answer within the limit.
    #[error("the client does not answer an access to its memory in time")]
    TimedOut,
    /// The client is gone.
    #[error("the client has left")]
    Gone,
}

/// Reaches the client's memory by message, for as long as its session lasts. Clones are handles to the same session.
///
/// Every call waits for the client, at most for the limit that it is given. One access is on its way at a time. Never call it from inside
/// [`Device`](super::Device): the session's thread has to be free to take in the answer.
#[derive(Clone, Debug)]
pub struct MessageDma {}

impl MessageDma {
    /// Reads memory at the I/O virtual address `address`.
    ///
    /// # Errors
    /// See [`DmaError`]; what `bytes` then holds is not said.
    pub fn read(&self, _address: u64, _bytes: &mut [u8], _limit: Duration) -> Result<(), DmaError> {
        Err(DmaError::Gone)
    }

    /// Writes memory at the I/O virtual address `address`.
    ///
    /// # Errors
    /// See [`DmaError`]; a part of the bytes may then have been written.
    pub fn write(&self, _address: u64, _bytes: &[u8], _limit: Duration) -> Result<(), DmaError> {
        Err(DmaError::Gone)
    }
}
