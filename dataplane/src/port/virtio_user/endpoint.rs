//! Where the back-end is met: a socket that it listens on, or one of ours that it connects to.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::socket::{ListenError, Listener, connect_to};

/// Who may connect to a socket of ours: its user and group.
const MODE: u32 = 0o660;
/// How often a back-end that is not there is tried.
const RETRY: Duration = Duration::from_millis(10);

/// The place where connections come from.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// The back-end listens here.
    Connect(PathBuf),
    /// This side listens.
    Listen(Listener),
}

impl Endpoint {
    /// Connects to `path` from now on.
    pub(super) fn connect(path: &Path) -> Self {
        Self::Connect(path.into())
    }

    /// Listens at `path`, where the socket file of a process that has died may be in the way.
    pub(super) fn listen(path: &Path) -> Result<Self, String> {
        let listening = Listener::open(path, Mode::from_raw_mode(MODE), 1).map_err(|error| match error {
            ListenError::Taken => format!("somebody listens on {} already; choose another path", path.display()),
            ListenError::NoSocket => format!("what is at {} is no socket; choose another path", path.display()),
            ListenError::System { action, errno } => format!("cannot {action} {}: {}", path.display(), reason(errno)),
        });
        listening.map(Self::Listen)
    }

    /// A connection to the back-end, if it is there now.
    pub(super) fn poll(&self) -> Result<Option<OwnedFd>, Errno> {
        match self {
            Self::Connect(path) => match connect_to(path) {
                Ok(socket) => Ok(Some(socket)),
                // Not there, dead, or busy with others.
                Err(Errno::NOENT | Errno::CONNREFUSED | Errno::AGAIN | Errno::INTR) => Ok(None),
                Err(error) => Err(error),
            },
            Self::Listen(listener) => listener.accept(),
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
                        Self::Listen(listener) => format!(
                            "no back-end has connected to the vhost-user socket {} within {seconds:.1} s; start it as client \
                             (DPDK: client=1)",
                            listener.path().display()
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
            Self::Connect(path) => path,
            Self::Listen(listener) => listener.path(),
        }
    }
}

fn reason(error: Errno) -> String {
    match error {
        Errno::ACCESS => "permission denied; run as the user who owns it, or let this one write to it".into(),
        Errno::NAMETOOLONG => "the path is longer than a socket's may be (107 bytes)".into(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

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
