//! A cable to a card in another process: a Unix socket that keeps frames apart.
//!
//! Both ends are given the same path. Whoever comes first listens there, the other one connects. When one of them goes, the other waits for the next.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::lstat;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen,
    recv, send, socket_with,
};

use super::{Wire, WireError};

/// See the module. Frames sent while nobody is at the other end are lost.
#[derive(Debug)]
pub struct Peer {
    path: PathBuf,
    /// Where the other end comes to; taken away when this is dropped.
    listener: Option<Listener>,
    connection: Option<OwnedFd>,
    tried: Option<Instant>,
    buffer: Box<[u8]>,
    /// Bytes of the frame in the buffer; 0 is none.
    len: usize,
}

/// A socket that listens, with device and inode of its file.
#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    file: (u64, u64),
}

impl Listener {
    /// It is still the one that is found at `path`.
    fn is_at(&self, path: &Path) -> bool {
        lstat(path).is_ok_and(|file| (file.st_dev, file.st_ino) == self.file)
    }
}

/// The largest IP packet behind an Ethernet header with two VLAN tags.
const LONGEST: usize = 65_535 + 22;
/// How often the other end is looked for.
const AGAIN: Duration = Duration::from_millis(20);

impl Peer {
    /// Joins the cable at `path`.
    ///
    /// # Errors
    /// When the path cannot be used.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, WireError> {
        let path = path.into();
        let mut peer =
            Self { path, listener: None, connection: None, tried: None, buffer: vec![0; LONGEST].into(), len: 0 };
        peer.join().map_err(|error| WireError {
            wire: format!("peer {}", peer.path.display()),
            action: "join it",
            source: error.into(),
            remedy: "",
        })?;
        Ok(peer)
    }

    /// Somebody is at the other end, or was when it was last looked.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects to whoever listens at the path, or listens there.
    fn join(&mut self) -> Result<(), Errno> {
        // Another process may have put its own socket there in the same moment: then that is where the ends meet.
        self.listener.take_if(|listener| !listener.is_at(&self.path));
        if let Some(listener) = &self.listener {
            match accept_with(&listener.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => self.connection = Some(connection),
                Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error),
            }
            return Ok(());
        }
        let address = SocketAddrUnix::new(&self.path)?;
        let socket = socket()?;
        match connect(&socket, &address) {
            Ok(()) => self.connection = Some(socket),
            // The other one is there, and busy.
            Err(Errno::AGAIN) => {}
            Err(error @ (Errno::NOENT | Errno::CONNREFUSED)) => self.listen(error == Errno::CONNREFUSED)?,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Listens. The socket appears at the path only when it is ready, so that nobody takes it for one that a dead process left.
    fn listen(&mut self, replace: bool) -> Result<(), Errno> {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{}", std::process::id()));
        let fresh = PathBuf::from(name);
        let socket = socket()?;
        bind(&socket, &SocketAddrUnix::new(&fresh)?)?;
        let file = lstat(&fresh)?;
        let shown = listen(&socket, 1)
            .map_err(io::Error::from)
            .and_then(|()| if replace { fs::rename(&fresh, &self.path) } else { fs::hard_link(&fresh, &self.path) });
        let _moved_already = fs::remove_file(&fresh);
        match shown {
            Ok(()) => self.listener = Some(Listener { socket, file: (file.st_dev, file.st_ino) }),
            // The other end was quicker: connect to it next time.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        }
        Ok(())
    }

    /// The other end has gone.
    fn part(&mut self) {
        self.connection = None;
        self.len = 0;
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)
}

impl Wire for Peer {
    fn peek(&mut self) -> Option<&[u8]> {
        if self.len == 0 {
            let connection = self.connection.as_ref()?;
            match recv(connection, &mut *self.buffer, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => self.part(),
                Ok((_, len)) => self.len = len.min(LONGEST),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.part(),
            }
        }
        self.buffer.get(..self.len).filter(|frame| !frame.is_empty())
    }

    fn advance(&mut self) {
        self.len = 0;
    }

    fn transmit(&mut self, frame: &[u8]) -> bool {
        let Some(connection) = &self.connection else { return true };
        match send(connection, frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::AGAIN | Errno::INTR) => false,
            // Longer than the socket takes: longer than any Ethernet frame.
            Ok(_) | Err(Errno::MSGSIZE) => true,
            Err(_) => {
                self.part();
                true
            }
        }
    }

    fn begin(&mut self) {
        if self.connection.is_some() || self.tried.is_some_and(|tried| tried.elapsed() < AGAIN) {
            return;
        }
        self.tried = Some(Instant::now());
        // A path that could be used and cannot be now is tried again.
        let _later = self.join();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.listener.as_ref().is_some_and(|listener| listener.is_at(&self.path)) {
            let _gone = fs::remove_file(&self.path);
        }
    }
}
