//! One interrupt vector: an eventfd that the kernel or a vfio-user server signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use drivers::bus::BusError;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// One MSI-X vector of a device. An event loop can poll its descriptor for reading; [`Interrupt::consume`] then
/// takes what is pending. After the device is gone it is never signalled again.
#[derive(Debug)]
pub struct Interrupt {
    event: OwnedFd,
    device: String,
}

impl Interrupt {
    pub(crate) fn new(device: &str) -> io::Result<Self> {
        Ok(Self { event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?, device: device.into() })
    }

    /// Takes the signals that are pending and returns how many there were. Never waits.
    ///
    /// # Errors
    /// When the operating system fails.
    pub fn consume(&self) -> Result<u64, BusError> {
        let mut count = [0_u8; 8];
        loop {
            match rustix::io::read(&self.event, &mut count) {
                Ok(_) => return Ok(u64::from_ne_bytes(count)),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    fn failed(&self, error: Errno) -> BusError {
        BusError::System {
            device: self.device.clone(),
            action: "cannot wait for an interrupt".into(),
            reason: error.to_string(),
        }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl drivers::bus::Interrupt for Interrupt {
    fn wait(&mut self, timeout: Duration) -> Result<bool, BusError> {
        let start = Instant::now();
        loop {
            if self.consume()? > 0 {
                return Ok(true);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(false);
            }
            // A timeout beyond what the kernel can express is as good as none.
            let limit = Timespec::try_from(left).ok();
            match poll(&mut [PollFd::new(&self.event, PollFlags::IN)], limit.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use drivers::bus::Interrupt as _;

    #[test]
    fn a_signal_is_seen_once() {
        let mut interrupt = Interrupt::new("test").unwrap();
        assert!(!interrupt.wait(Duration::from_millis(1)).unwrap());
        rustix::io::write(&interrupt, &2_u64.to_ne_bytes()).unwrap();
        assert!(interrupt.wait(Duration::from_secs(5)).unwrap());
        assert!(!interrupt.wait(Duration::ZERO).unwrap());
    }

    #[test]
    fn a_signal_ends_a_wait_that_has_begun() {
        let mut interrupt = Interrupt::new("test").unwrap();
        let event = interrupt.event.try_clone().unwrap();
        let signaller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
        });
        assert!(interrupt.wait(Duration::MAX).unwrap());
        signaller.join().unwrap();
    }
}
