//! The client's end of the socket: requests that have a deadline, and answers that are checked.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::BusError;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::bar::Rest;
use crate::user::UserError;
use crate::user::channel::{Channel, Message, RequestError};
use crate::user::version::{self, Peer};
use crate::user::wire::{Body, Command, Fields};

/// How often a server is tried whose queue of clients is full.
const RETRY: Duration = Duration::from_millis(10);
/// Longest time that a server is given: a clock has no moment for the end of every [`Duration`].
const LONGEST: Duration = Duration::from_secs(86_400);

/// Asks the server, and says in the terms of the bus what goes wrong.
#[derive(Debug)]
pub(super) struct Connection {
    /// The device, for messages.
    pub(super) name: String,
    pub(super) channel: Arc<Channel>,
    timeout: Duration,
    /// The server shares pages of registers, so that an access can overtake messages that are on their way.
    pub(super) shares_pages: AtomicBool,
}

impl Connection {
    /// Connects to the socket at `path`. Nothing is said yet.
    pub(super) fn open(path: &Path, name: String, timeout: Duration) -> Result<Self, BusError> {
        let timeout = timeout.min(LONGEST);
        let fail = |error: Errno| {
            let reason = match error {
                Errno::NOENT => "it does not exist; start the server first".into(),
                Errno::CONNREFUSED => "nobody serves it; start the server first".into(),
                Errno::AGAIN => "its server does not take clients; does it serve others?".into(),
                Errno::ACCESS => {
                    "permission denied; run as the user who runs the server, or let this one write to it".into()
                }
                error => error.to_string(),
            };
            cannot_connect(&name, path, reason)
        };
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
        let start = Instant::now();
        loop {
            match connect(&socket, &address) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if start.elapsed() < timeout => std::thread::sleep(RETRY),
                Err(error) => return Err(fail(error)),
            }
        }
        let channel = Arc::new(Channel::new(path, socket, timeout));
        Ok(Self { name, channel, timeout, shares_pages: AtomicBool::new(false) })
    }

    /// Agrees on the version. A server takes the next client into its queue while it serves another one, and says nothing yet.
    pub(super) fn agree(&self) -> Result<Peer, BusError> {
        let answer = self.ask(Command::VERSION, &version::body(false), &[]).map_err(|error| {
            if matches!(self.channel.ended(), Some(UserError::TimedOut { .. })) {
                let reason = "its server does not answer; does it serve another client?".into();
                cannot_connect(&self.name, self.channel.path(), reason)
            } else {
                error
            }
        })?;
        version::parse(&answer.body).map_err(|reason| self.broke(Command::VERSION, reason))
    }

    /// The device is gone: the reason is why the connection has ended.
    fn gone(&self, reason: &UserError) -> BusError {
        BusError::Gone { device: self.name.clone(), reason: reason.to_string() }
    }

    /// Ends the connection with a server that broke the protocol.
    pub(super) fn broke(&self, command: Command, reason: impl Into<String>) -> BusError {
        let reason = self.channel.protocol(command.name(), reason);
        self.channel.end(reason.clone());
        self.gone(&reason)
    }

    /// Asks, and waits for the answer. A server that gives none in time is as good as gone, so the connection ends: otherwise each
    /// access to a register would wait as long again.
    pub(super) fn ask(&self, command: Command, body: &[u8], files: &[BorrowedFd<'_>]) -> Result<Message, BusError> {
        self.channel.request(command, body, files, Instant::now() + self.timeout).map_err(|error| match error {
            RequestError::Refused(errno) => BusError::System {
                device: self.name.clone(),
                action: format!("vfio-user socket {}: {}", self.channel.path().display(), command.name()),
                reason: format!("the server refuses: {errno}"),
            },
            RequestError::TimedOut => {
                let path = self.channel.path().into();
                let reason = UserError::TimedOut { path, command: command.name() };
                self.channel.end(reason.clone());
                self.gone(&reason)
            }
            RequestError::Ended(reason) => self.gone(&reason),
        })
    }

    /// Reads from a region.
    pub(super) fn read(&self, region: u32, offset: u64, bytes: &mut [u8]) -> Result<(), BusError> {
        let command = Command::REGION_READ;
        let answer = self.ask(command, &access(region, offset, bytes.len()).done(), &[])?;
        let mut fields = Fields::new(&answer.body);
        let (Some(_), Some(_), Some(count)) = (fields.u64(), fields.u32(), fields.u32()) else {
            return Err(self.broke(command, "the reply is too short"));
        };
        let data = fields.rest();
        if count as usize != data.len() || data.len() > bytes.len() {
            let text = format!("{} bytes wanted, {count} announced, {} sent", bytes.len(), data.len());
            return Err(self.broke(command, text));
        }
        if data.len() < bytes.len() {
            return Err(BusError::System {
                device: self.name.clone(),
                action: format!("vfio-user socket {}: {}", self.channel.path().display(), command.name()),
                reason: format!("{} bytes at {offset:#x} of region {region} wanted, {count} read", bytes.len()),
            });
        }
        bytes.copy_from_slice(data);
        Ok(())
    }

    /// Writes to a region, and waits until it is done.
    pub(super) fn write(&self, region: u32, offset: u64, bytes: &[u8]) -> Result<(), BusError> {
        let body = access(region, offset, bytes.len()).bytes(bytes).done();
        let answer = self.ask(Command::REGION_WRITE, &body, &[])?;
        let mut fields = Fields::new(&answer.body);
        match (fields.u64(), fields.u32(), fields.u32()) {
            (Some(_), Some(_), Some(count)) if count as usize != bytes.len() => Err(BusError::System {
                device: self.name.clone(),
                action: format!("vfio-user socket {}: {}", self.channel.path().display(), Command::REGION_WRITE.name()),
                reason: format!("{} bytes at {offset:#x} of region {region} to write, {count} written", bytes.len()),
            }),
            _ => Ok(()),
        }
    }
}

fn cannot_connect(name: &str, path: &Path, reason: String) -> BusError {
    BusError::System {
        device: name.into(),
        action: format!("cannot connect to the vfio-user socket {}", path.display()),
        reason,
    }
}

/// What region messages begin with.
fn access(region: u32, offset: u64, count: usize) -> Body {
    // Registers and configuration words: 8 bytes at most.
    Body::new().u64(offset).u32(region).u32(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The part of a register window that is reached by message.
///
/// Stores are posted: nobody waits for them, as on the wire. The server takes messages in order, so a load that follows sees them done. A
/// store or load on a shared page is no message and would overtake them, as nothing does on the wire; where there are such pages, stores are
/// waited for.
#[derive(Debug)]
pub(super) struct ByMessage {
    pub(super) connection: Arc<Connection>,
    pub(super) region: u32,
}

impl Rest for ByMessage {
    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.connection.read(self.region, offset, bytes).map_err(io::Error::other)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.connection.shares_pages.load(Ordering::Relaxed) {
            return self.connection.write(self.region, offset, bytes).map_err(io::Error::other);
        }
        let body = access(self.region, offset, bytes.len()).bytes(bytes).done();
        self.connection.channel.post(Command::REGION_WRITE, &body).map_err(io::Error::other)
    }
}
