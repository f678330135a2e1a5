//! The listening socket: one owner at a time, and nobody else's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, chmodat, lstat, unlink};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

/// Connections that may wait to be let in.
const BACKLOG: i32 = 64;

/// There is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Another forwarder has it.
    #[error("another mirach listens on {}; give this one another socket with --control", path.display())]
    Taken {
        /// The socket.
        path: PathBuf,
    },
    /// Something else lies there.
    #[error("{} is there already and no socket; remove it, or give another path with --control", path.display())]
    NoSocket {
        /// What lies there.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {}: {action}: {source}; give a path with --control where you may write, or --control none", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// A socket that listens. Its file goes with it.
pub(super) struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file.
    identity: Option<(u64, u64)>,
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

impl Listening {
    /// Listens on `path`, for this user and root only. A file that a process left there which is gone is replaced.
    pub(super) fn open(path: &Path) -> Result<Self, ControlError> {
        let system =
            |action| move |source: Errno| ControlError::System { path: path.to_owned(), action, source: source.into() };
        let address = SocketAddrUnix::new(path).map_err(system("the path is too long or empty"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let new = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(system("make a socket"));
        if let Ok(file) = lstat(path) {
            if FileType::from_raw_mode(file.st_mode) != FileType::Socket {
                return Err(ControlError::NoSocket { path: path.to_owned() });
            }
            // Nobody listens on a file that was left behind.
            match connect(&new()?, &address) {
                Err(Errno::CONNREFUSED) => unlink(path).map_err(system("remove the file left there"))?,
                _ => return Err(ControlError::Taken { path: path.to_owned() }),
            }
        }
        let socket = new()?;
        bind(&socket, &address).map_err(|source| match source {
            Errno::ADDRINUSE => ControlError::Taken { path: path.to_owned() },
            source => system("make the file")(source),
        })?;
        let listening = Self { socket, path: path.to_owned(), identity: lstat(path).ok().as_ref().map(identity) };
        // Nobody can connect before it listens, so nobody slips in before the mode is right.
        let mode = Mode::RUSR | Mode::WUSR;
        chmodat(CWD, path, mode, AtFlags::empty()).map_err(system("keep others out"))?;
        listen(&listening.socket, BACKLOG).map_err(system("listen"))?;
        Ok(listening)
    }

    /// Lets somebody in who waits. `Ok(None)` for somebody who may not.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let client = accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let peer = socket_peercred(&client)?;
        let may = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
        if !may {
            tracing::warn!(
                "control socket: refused process {} of user {}",
                peer.pid.as_raw_nonzero(),
                peer.uid.as_raw()
            );
        }
        Ok(may.then_some(client))
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // What another process has put there since is not ours.
        if lstat(&self.path).is_ok_and(|file| Some(identity(&file)) == self.identity) {
            let _ = unlink(&self.path);
        }
    }
}
