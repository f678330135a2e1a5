//! The way to a back-end, which may come and go.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use drivers::bus::BusError;
use drivers::nic::{MacAddress, NicError};
use drivers::virtio::Features;
use drivers::virtio::transport::{self, Status, Transport};
use hugemem::Region;
use rustix::io::Errno;

use super::back_end::BackEnd;
use super::channel::Failure;
use super::endpoint::Endpoint;
use crate::port::vhost_user::notify::{Call, Kick as Arrivals, Notifier};

/// How long a back-end is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What the user asked for.
#[derive(Clone, Debug)]
pub(super) struct Wishes {
    /// Ethernet address.
    pub(super) mac: Option<MacAddress>,
    /// Payload of a frame, which the back-end is told.
    pub(super) mtu: Option<u16>,
}

/// The way to a back-end, which may come and go.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) name: String,
    pub(super) wishes: Wishes,
    pub(super) endpoint: Endpoint,
    pub(super) back_end: Option<BackEnd>,
    /// A connection to the one that comes next.
    pub(super) next: Option<OwnedFd>,
    /// It was said that the back-end is away.
    pub(super) mourned: bool,
    /// Why nobody can be met, as far as it was said.
    pub(super) told: Option<Errno>,
    /// The back-end may reach memory.
    pub(super) open: bool,
    pub(super) regions: Vec<Region>,
    pub(super) accepted: Features,
    pub(super) status: Status,
    /// Queues that were set up since the last reset.
    pub(super) started: Vec<u16>,
    pub(super) interrupts: Vec<Interrupt>,
    pub(super) notifier: Arc<Notifier>,
}

/// An eventfd that the back-end signals, and what watches it without ever reading: the back-end may do to it what it likes.
#[derive(Debug)]
pub(super) struct Interrupt {
    pub(super) event: OwnedFd,
    pub(super) _arrivals: Arrivals,
}

/// Notifies the back-end about one queue. Never blocks, though the back-end has the same eventfd.
#[derive(Debug)]
pub(super) struct Kick(pub(super) Call);

impl transport::Doorbell for Kick {
    fn ring(&self) {
        // One that the kernel refuses is made good by the next.
        let _ = self.0.signal();
    }
}

impl Socket {
    /// Meets the back-end at `endpoint`.
    pub(super) fn open(name: String, endpoint: Endpoint, wishes: Wishes) -> Result<Self, NicError> {
        let notifier =
            Notifier::new().map_err(|error| NicError::Request { device: name.clone(), reason: error.to_string() })?;
        let mut socket = Self {
            name,
            wishes,
            endpoint,
            back_end: None,
            next: None,
            mourned: false,
            told: None,
            open: false,
            regions: Vec::new(),
            accepted: Features::empty(),
            status: Status::empty(),
            started: Vec::new(),
            interrupts: Vec::new(),
            notifier,
        };
        socket.meet()?;
        Ok(socket)
    }

    pub(super) fn explain(&self, failure: Failure) -> NicError {
        match failure {
            Failure::Closed => {
                let reason = format!("its back-end at {} hung up", self.endpoint.path().display());
                NicError::Bus(BusError::Gone { device: self.name.clone(), reason })
            }
            failure => self.misbehaves(failure.to_string()),
        }
    }

    pub(super) fn in_bus_terms(&self, action: String, failure: &Failure) -> BusError {
        match failure {
            Failure::Closed => BusError::Gone { device: self.name.clone(), reason: failure.to_string() },
            failure => BusError::System { device: self.name.clone(), action, reason: failure.to_string() },
        }
    }

    /// Waits for a back-end and shakes hands with it. One that hangs up meanwhile may come back, as it does when it is being restarted.
    pub(super) fn meet(&mut self) -> Result<(), NicError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let socket = match self.next.take() {
                Some(socket) => socket,
                None => self
                    .endpoint
                    .wait(deadline)
                    .map_err(|reason| NicError::Bus(BusError::Gone { device: self.name.clone(), reason }))?,
            };
            match BackEnd::greet(socket) {
                Ok(back_end) => {
                    self.back_end = Some(back_end);
                    self.mourned = false;
                    self.told = None;
                    return Ok(());
                }
                Err(Failure::Closed) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(failure) => return Err(self.explain(failure)),
            }
        }
    }

    /// Says something to the back-end.
    pub(super) fn with<R>(&mut self, say: impl FnOnce(&mut BackEnd) -> Result<R, Failure>) -> Result<R, NicError> {
        let said = match &mut self.back_end {
            Some(back_end) => say(back_end),
            None => Err(Failure::Closed),
        };
        said.map_err(|failure| self.explain(failure))
    }

    /// Queue pairs that the back-end has.
    pub(super) fn pairs(&self) -> u16 {
        self.back_end.as_ref().map_or(0, |back_end| back_end.pairs)
    }

    /// Stops all queues that were started.
    pub(super) fn stop_queues(&mut self) -> Result<(), Failure> {
        let started = std::mem::take(&mut self.started);
        self.back_end.as_mut().map_or(Ok(()), |back_end| back_end.stop(started))
    }
}
