//! Interrupt vectors of a model: eventfds, as VFIO has them.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use drivers::bus::{BusError, Interrupt};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// The driver's end of an interrupt vector.
#[derive(Clone, Debug)]
pub struct EventInterrupt {
    device: Arc<str>,
    event: Arc<OwnedFd>,
}

impl EventInterrupt {
    pub(crate) fn new(device: &Arc<str>) -> Result<(Self, Arc<OwnedFd>), BusError> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|error| failure(device, "create an eventfd", error))?;
        let event = Arc::new(event);
        Ok((Self { device: Arc::clone(device), event: Arc::clone(&event) }, event))
    }
}

fn failure(device: &str, action: &str, error: rustix::io::Errno) -> BusError {
    BusError::System { device: device.to_owned(), action: action.to_owned(), reason: error.to_string() }
}

/// Signals a vector. A full counter loses nothing: the driver is already due to wake up.
pub(crate) fn signal(event: &OwnedFd) {
    let _full = rustix::io::write(event, &1_u64.to_ne_bytes());
}

impl AsFd for EventInterrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Interrupt for EventInterrupt {
    fn wait(&mut self, timeout: Duration) -> Result<bool, BusError> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        let mut descriptors = [PollFd::new(&*self.event, PollFlags::IN)];
        match poll(&mut descriptors, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(failure(&self.device, "wait for an interrupt", error)),
        }
        let mut count = [0; 8];
        match rustix::io::read(&*self.event, &mut count) {
            Ok(_) => Ok(true),
            Err(rustix::io::Errno::AGAIN) => Ok(false),
            Err(error) => Err(failure(&self.device, "read an eventfd", error)),
        }
    }
}
