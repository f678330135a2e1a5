//! Message-mode DMA: the client's memory by request and reply.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::user::channel::{Channel, RequestError};
use crate::user::wire::{Body, Command, Fields};

/// Bytes before the data of an answer: address and count.
const FIXED: usize = 16;

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
/// Every call waits for the client, at most for the limit that it is given, and longer only behind another call or a message that is going out
/// already. One access is on its way at a time. Never call it from inside [`Device`](super::Device): the session's thread has to be free to
/// take in the answer.
#[derive(Clone, Debug)]
pub struct MessageDma {
    channel: Arc<Channel>,
    /// Held during an access. With one at a time, neither end can get stuck sending while the other does.
    turn: Arc<Mutex<()>>,
    /// Bytes that the client takes or gives at a time.
    transfer: usize,
}

impl MessageDma {
    pub(super) fn new(channel: Arc<Channel>, transfer: usize) -> Self {
        Self { channel, turn: Arc::default(), transfer }
    }

    /// Reads memory at the I/O virtual address `address`, in as many pieces as the client wants.
    ///
    /// # Errors
    /// See [`DmaError`]; what `bytes` then holds is not said.
    pub fn read(&self, address: u64, bytes: &mut [u8], limit: Duration) -> Result<(), DmaError> {
        let deadline = deadline(limit);
        for (index, piece) in bytes.chunks_mut(self.transfer).enumerate() {
            let address = self.piece(address, index);
            let answer = self.exchange(Command::DMA_READ, address, piece.len(), &[], deadline)?;
            match answer.get(FIXED..).filter(|data| data.len() == piece.len()) {
                Some(data) => piece.copy_from_slice(data),
                None => return Err(DmaError::Refused(Errno::FAULT)),
            }
        }
        Ok(())
    }

    /// Writes memory at the I/O virtual address `address`, in as many pieces as the client wants.
    ///
    /// # Errors
    /// See [`DmaError`]; a part of the bytes may then have been written.
    pub fn write(&self, address: u64, bytes: &[u8], limit: Duration) -> Result<(), DmaError> {
        let deadline = deadline(limit);
        for (index, piece) in bytes.chunks(self.transfer).enumerate() {
            let address = self.piece(address, index);
            self.exchange(Command::DMA_WRITE, address, piece.len(), piece, deadline)?;
        }
        Ok(())
    }

    /// Where a piece begins. Past the end of the address space it wraps, and the client refuses it.
    fn piece(&self, address: u64, index: usize) -> u64 {
        address.wrapping_add((index * self.transfer) as u64)
    }

    fn exchange(
        &self,
        command: Command,
        address: u64,
        count: usize,
        data: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, DmaError> {
        let body = Body::new().u64(address).u64(count as u64).bytes(data).done();
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = self.channel.request(command, &body, &[], deadline).map_err(|error| match error {
            RequestError::Refused(errno) => DmaError::Refused(errno),
            RequestError::TimedOut => DmaError::TimedOut,
            RequestError::Ended(_) => DmaError::Gone,
        })?;
        // QEMU answers a write by the header alone.
        let mut fields = Fields::new(&answer.body);
        match (fields.u64(), fields.u64()) {
            (Some(_), Some(done)) if done != count as u64 => Err(DmaError::Refused(Errno::FAULT)),
            _ => Ok(answer.body),
        }
    }
}

/// A limit that is too long to express is as good as a day.
fn deadline(limit: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(limit).unwrap_or(now + Duration::from_secs(86_400))
}
