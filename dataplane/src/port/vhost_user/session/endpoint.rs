//! Where peers come from: a socket that this side listens on, or one that it connects to.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;

use super::device::Device;
use super::socket::wait;
use crate::socket::{ListenError, Listener, connect_to};

/// Peers that may wait for their turn.
const BACKLOG: i32 = 4;
/// Who may connect to a socket of ours: its user and group.
const MODE: u32 = 0o660;
/// Pause before a failed attempt to connect is repeated: the first, and the longest that it grows to. The first is also that after a
/// short session with a peer that connects by itself.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A session that lasted as long was a good one: the next follows it at once.
const LASTING: Duration = Duration::from_secs(1);

/// One of the two roles.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// The VMM listens.
    Client(Client),
    /// This side listens.
    Server(Server),
}

/// Connects, again and again.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    pause: Duration,
    last: Option<Instant>,
    /// What was said of the last failure, so that it is said once.
    told: Option<Errno>,
}

/// Lets peers in.
#[derive(Debug)]
pub(super) struct Server {
    listener: Listener,
    last: Option<Instant>,
}

impl Endpoint {
    /// Prepares to connect to `path`, or listens on it. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub(super) fn open(path: &Path, client: bool) -> Result<Self, String> {
        if client {
            SocketAddrUnix::new(path).map_err(|errno| failed("use", path, errno))?;
            let client = Client { path: path.into(), pause: Duration::ZERO, last: None, told: None };
            return Ok(Self::Client(client));
        }
        let listener = Listener::open(path, Mode::from_raw_mode(MODE), BACKLOG).map_err(|error| match error {
            ListenError::Taken => format!(
                "another process listens on {} already; stop it, choose another path, or let the port connect to it (client=on)",
                path.display()
            ),
            ListenError::NoSocket => format!(
                "cannot listen on {}: what is there is no socket: remove it, or choose another path",
                path.display()
            ),
            ListenError::System { action, errno } => failed(action, path, errno),
        })?;
        Ok(Self::Server(Server { listener, last: None }))
    }

    /// Waits for the next peer; `None` when the device stops.
    pub(super) fn next(&mut self, device: &Device) -> Option<OwnedFd> {
        match self {
            Self::Client(client) => client.next(device),
            Self::Server(server) => server.next(device),
        }
    }
}

fn failed(action: &str, path: &Path, errno: Errno) -> String {
    let remedy = match errno {
        Errno::NAMETOOLONG | Errno::INVAL => "; a socket's path has at most 107 bytes: choose a shorter one",
        Errno::NOENT => "; its folder does not exist: create it first",
        Errno::ACCESS | Errno::PERM => "; run mirach as a user who may write there",
        _ => "",
    };
    format!("cannot {action} {}: {errno}{remedy}", path.display())
}

/// Sleeps until `deadline`, unless the device stops: `false` then.
fn rest(device: &Device, deadline: Instant) -> bool {
    while !device.is_stopping() {
        if Instant::now() >= deadline {
            return true;
        }
        let attention = device.attention.as_fd();
        if wait(&mut [PollFd::new(&attention, PollFlags::IN)], Some(deadline)).is_ok_and(|called| called) {
            device.consume();
        }
    }
    false
}

impl Client {
    fn next(&mut self, device: &Device) -> Option<OwnedFd> {
        if self.last.take().is_some_and(|last| last.elapsed() >= LASTING) {
            self.pause = Duration::ZERO;
        }
        loop {
            if !self.pause.is_zero() && !rest(device, Instant::now() + self.pause) {
                return None;
            }
            if device.is_stopping() {
                return None;
            }
            self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            match connect_to(&self.path) {
                Ok(socket) => {
                    self.last = Some(Instant::now());
                    self.told = None;
                    return Some(socket);
                }
                Err(errno) => self.tell(&device.name, errno),
            }
        }
    }

    fn tell(&mut self, port: &str, errno: Errno) {
        if self.told.replace(errno) == Some(errno) {
            return;
        }
        let path = self.path.display();
        match errno {
            Errno::NOENT | Errno::CONNREFUSED => {
                tracing::info!(
                    "port `{port}`: nobody listens on {path} yet; start the VM, the port connects by itself"
                );
            }
            errno => tracing::warn!("port `{port}`: cannot connect to {path}: {errno}; it is tried again and again"),
        }
    }
}

impl Server {
    fn next(&mut self, device: &Device) -> Option<OwnedFd> {
        if self.last.take().is_some_and(|last| last.elapsed() < LASTING) {
            rest(device, Instant::now() + FIRST_PAUSE);
        }
        loop {
            if device.is_stopping() {
                return None;
            }
            match self.listener.accept() {
                Ok(Some(peer)) => {
                    self.last = Some(Instant::now());
                    return Some(peer);
                }
                Ok(None) => self.wait(device),
                Err(errno) => {
                    let path = self.listener.path().display();
                    tracing::warn!("port `{}`: cannot take a connection to {path} now: {errno}", device.name);
                    rest(device, Instant::now() + LONGEST_PAUSE);
                }
            }
        }
    }

    fn wait(&self, device: &Device) {
        let (socket, attention): (BorrowedFd<'_>, _) = (self.listener.as_fd(), device.attention.as_fd());
        let mut events = [PollFd::new(&socket, PollFlags::IN), PollFd::new(&attention, PollFlags::IN)];
        // When even waiting fails there is time to breathe.
        if wait(&mut events, None).is_err() {
            rest(device, Instant::now() + LONGEST_PAUSE);
        }
        let [_, called] = &events;
        if !called.revents().is_empty() {
            device.consume();
        }
    }
}
