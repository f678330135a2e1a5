//! How a server is told to end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

/// Ends [`Server::serve`](super::Server::serve), from any thread and once for all. Clones are handles to the same.
#[derive(Clone, Debug)]
pub struct Stop {
    event: Arc<OwnedFd>,
}

impl Stop {
    /// Not yet told to stop.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { event: Arc::new(event) })
    }

    /// Tells every server that has this handle to end.
    pub fn stop(&self) {
        // It fails only when the count is full, and then the servers are told already.
        let _ = rustix::io::write(&*self.event, &1_u64.to_ne_bytes());
    }

    /// Whether they have been told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        let mut wait = [PollFd::new(&*self.event, PollFlags::IN)];
        matches!(poll(&mut wait, Some(&rustix::event::Timespec::default())), Ok(1))
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
