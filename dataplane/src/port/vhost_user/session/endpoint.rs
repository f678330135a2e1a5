//! Where peers come from: a socket that this side listens on, or one that it connects to.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::device::Device;
use super::socket::wait;

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
    Server(Listener),
}

/// Connects, again and again.
#[derive(Debug)]
pub(super) struct Client {
    path: PathBuf,
    address: SocketAddrUnix,
    pause: Duration,
    last: Option<Instant>,
    /// What was said of the last failure, so that it is said once.
    told: Option<Errno>,
}

/// A socket that listens. Its file goes with it.
#[derive(Debug)]
pub(super) struct Listener {
    path: PathBuf,
    socket: OwnedFd,
    /// Device and inode of the socket's file, to remove no other that somebody put in its place.
    file: (u64, u64),
    last: Option<Instant>,
}

impl Endpoint {
    /// Prepares to connect to `path`, or listens on it. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub(super) fn open(path: &Path, client: bool) -> Result<Self, String> {
        let address = SocketAddrUnix::new(path).map_err(|errno| failed("use", path, errno))?;
        if client {
            let client = Client { path: path.into(), address, pause: Duration::ZERO, last: None, told: None };
            return Ok(Self::Client(client));
        }
        Listener::bind(path, &address).map(Self::Server)
    }

    /// Waits for the next peer; `None` when the device stops.
    pub(super) fn next(&mut self, device: &Device) -> Option<OwnedFd> {
        match self {
            Self::Client(client) => client.next(device),
            Self::Server(listener) => listener.next(device),
        }
    }
}

fn failed(action: &str, path: &Path, errno: Errno) -> String {
    let remedy = match errno {
        Errno::ADDRINUSE => "; something that is no socket is in its place: remove it, or choose another path",
        Errno::NAMETOOLONG | Errno::INVAL => "; a socket's path has at most 107 bytes: choose a shorter one",
        Errno::NOENT => "; its folder does not exist: create it first",
        Errno::ACCESS | Errno::PERM => "; run mirach as a user who may write there",
        _ => "",
    };
    format!("cannot {action} {}: {errno}{remedy}", path.display())
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
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
            let attempt = unix_socket().and_then(|socket| connect(&socket, &self.address).map(|()| socket));
            match attempt {
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

impl Listener {
    fn bind(path: &Path, address: &SocketAddrUnix) -> Result<Self, String> {
        let fail = |action: &'static str| move |errno| failed(action, path, errno);
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            let probe = unix_socket().map_err(fail("make a socket for"))?;
            match connect(&probe, address) {
                // Nobody listens.
                Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(fail("remove the old socket"))?,
                // It went away by itself.
                Err(Errno::NOENT) => {}
                // Its queue is full, or it has taken this connection, which ends here.
                Ok(()) | Err(Errno::AGAIN) => {
                    return Err(format!(
                        "another process listens on {} already; stop it, choose another path, or let the port connect to it \
                         (client=on)",
                        path.display()
                    ));
                }
                Err(errno) => return Err(failed("see who listens on", path, errno)),
            }
        }
        let socket = unix_socket().map_err(fail("make a socket for"))?;
        let mode = Mode::from_raw_mode(MODE);
        // The file is made with this mode already, less what the umask takes; then it gets all of it.
        rustix::fs::fchmod(&socket, mode).map_err(fail("set the mode of"))?;
        bind(&socket, address).map_err(fail("listen on"))?;
        let file = rustix::fs::lstat(path).map_err(fail("find"))?;
        let listener = Self { path: path.into(), socket, file: (file.st_dev, file.st_ino), last: None };
        rustix::fs::chmod(path, mode).map_err(fail("set the mode of"))?;
        listen(&listener.socket, BACKLOG).map_err(fail("listen on"))?;
        Ok(listener)
    }

    fn next(&mut self, device: &Device) -> Option<OwnedFd> {
        if self.last.take().is_some_and(|last| last.elapsed() < LASTING) {
            rest(device, Instant::now() + FIRST_PAUSE);
        }
        loop {
            if device.is_stopping() {
                return None;
            }
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(peer) => {
                    self.last = Some(Instant::now());
                    return Some(peer);
                }
                Err(Errno::AGAIN) => self.wait(device),
                // It left before its turn.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    let path = self.path.display();
                    tracing::warn!("port `{}`: cannot take a connection to {path} now: {errno}", device.name);
                    rest(device, Instant::now() + LONGEST_PAUSE);
                }
            }
        }
    }

    fn wait(&self, device: &Device) {
        let (socket, attention): (BorrowedFd<'_>, _) = (self.socket.as_fd(), device.attention.as_fd());
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

impl Drop for Listener {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}
