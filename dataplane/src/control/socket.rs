//! The listening socket, and who is let in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::net::sockopt::socket_peercred;

use crate::socket::{ListenError, Listener};

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
    #[error("cannot {action} {}: {source}; give a path with --control where you may write, or --control none", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried, to be followed by the path.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The control socket. Its file goes with it.
pub(super) struct Listening(Listener);

impl Listening {
    /// Listens on `path`, for this user and root only. A file that a process left there which is gone is replaced.
    pub(super) fn open(path: &Path) -> Result<Self, ControlError> {
        let path = path.to_owned();
        match Listener::open(&path, Mode::RUSR | Mode::WUSR, BACKLOG) {
            Ok(listener) => Ok(Self(listener)),
            Err(ListenError::Taken) => Err(ControlError::Taken { path }),
            Err(ListenError::NoSocket) => Err(ControlError::NoSocket { path }),
            Err(ListenError::System { action, errno }) => {
                Err(ControlError::System { path, action, source: errno.into() })
            }
        }
    }

    /// Lets somebody in who waits. `Ok(None)` for somebody who may not.
    pub(super) fn accept(&self) -> io::Result<Option<OwnedFd>> {
        let Some(client) = self.0.accept()? else { return Ok(None) };
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
        self.0.as_fd()
    }
}
