//! Where the back-end is met: a socket that it listens on, or one of ours that it connects to.

use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

/// How often a back-end that is not there is tried.
const RETRY: Duration = Duration::from_millis(10);

/// The place where connections come from.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// The back-end listens here.
    Connect(PathBuf),
    /// This side listens.
    Listen {
        /// On this file, which is removed in the end.
        path: PathBuf,
        /// The socket.
        listener: OwnedFd,
        /// Device and number of the file, by which it is known again.
        identity: Option<(u64, u64)>,
    },
}

impl Endpoint {
    /// Connects to `path` from now on.
    pub(super) fn connect(path: &Path) -> Self {
        Self::Connect(path.into())
    }

    /// Listens at `path`, where the socket file of a process that has died may be in the way.
    pub(super) fn listen(path: &Path) -> Result<Self, String> {
        let fail = |error: Errno| format!("cannot listen at {}: {}", path.display(), reason(error));
        let address = SocketAddrUnix::new(path).map_err(fail)?;
        let socket = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)
        };
        let listener = socket()?;
        match bind(&listener, &address) {
            Err(Errno::ADDRINUSE) if is_socket(path) && connect(&socket()?, &address) == Err(Errno::CONNREFUSED) => {
                std::fs::remove_file(path)
                    .map_err(|error| format!("cannot remove the stale socket {}: {error}", path.display()))?;
                bind(&listener, &address).map_err(fail)?;
            }
            bound => bound.map_err(fail)?,
        }
        listen(&listener, 1).map_err(fail)?;
        Ok(Self::Listen { path: path.into(), listener, identity: identity(path) })
    }

    /// A connection to the back-end, if it is there now.
    pub(super) fn poll(&self) -> Result<Option<OwnedFd>, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        match self {
            Self::Connect(path) => {
                let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
                match connect(&socket, &SocketAddrUnix::new(path)?) {
                    Ok(()) => Ok(Some(socket)),
                    // Not there, dead, or busy with others.
                    Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Self::Listen { listener, .. } => match accept_with(listener, flags) {
                Ok(socket) => Ok(Some(socket)),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Waits for the back-end until `deadline`.
    pub(super) fn wait(&self, deadline: Instant) -> Result<OwnedFd, String> {
        let start = Instant::now();
        loop {
            match self.poll() {
                Ok(Some(socket)) => return Ok(socket),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(RETRY),
                Ok(None) => {
                    let seconds = start.elapsed().as_secs_f32();
                    return Err(match self {
                        Self::Connect(path) => format!(
                            "nobody has served the vhost-user socket {} for {seconds:.1} s; start its back-end first, or let it \
                             connect to this side (server=on)",
                            path.display()
                        ),
                        Self::Listen { path, .. } => format!(
                            "no back-end has connected to the vhost-user socket {} within {seconds:.1} s; start it as client \
                             (DPDK: client=1)",
                            path.display()
                        ),
                    });
                }
                Err(error) => return Err(format!("vhost-user socket {}: {}", self.path().display(), reason(error))),
            }
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Connect(path) | Self::Listen { path, .. } => path,
        }
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Self::Listen { path, identity: own, .. } = self
            && identity(path) == *own
        {
            // It may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn reason(error: Errno) -> String {
    match error {
        Errno::ACCESS => "permission denied; run as the user who owns it, or let this one write to it".into(),
        Errno::ADDRINUSE => "the file exists and somebody uses it, or it is no socket; choose another path".into(),
        Errno::NAMETOOLONG => "the path is longer than a socket's may be (107 bytes)".into(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_stale_socket_is_taken_over_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = Endpoint::listen(&path).unwrap();
        let error = Endpoint::listen(&path).unwrap_err();
        assert!(error.contains("somebody uses it"), "{error}");
        drop(first);
        assert!(!path.exists(), "it is removed in the end");
        std::fs::write(&path, "mine").unwrap();
        assert!(Endpoint::listen(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn waiting_for_a_back_end_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let soon = || Instant::now() + Duration::from_millis(30);
        let error = Endpoint::connect(&path).wait(soon()).unwrap_err();
        assert!(error.contains("nobody has served") && error.contains("a.sock"), "{error}");
        let listening = Endpoint::listen(&path).unwrap();
        let error = listening.wait(soon()).unwrap_err();
        assert!(error.contains("no back-end has connected"), "{error}");
        let meeting = Endpoint::connect(&path).wait(soon()).unwrap();
        let met = listening.wait(soon()).unwrap();
        rustix::io::write(&meeting, b"x").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&met, &mut byte), Ok(1));
    }
}
