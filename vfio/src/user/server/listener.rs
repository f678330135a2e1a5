//! The socket that a server listens on.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

use super::{Device, Stop, session};
use crate::user::UserError;
use crate::user::channel::Channel;
use crate::user::socket;

/// Clients that may wait for their turn.
const BACKLOG: i32 = 8;
/// How long a client may take to finish a message, or to take one in.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait when the process has no descriptors left for another client.
const PAUSE: Duration = Duration::from_millis(100);

/// A vfio-user socket that listens. The socket is removed when this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    socket: OwnedFd,
    /// Device and inode of the socket's file, to remove no other that somebody put in its place.
    file: (u64, u64),
}

impl Server {
    /// Listens on `path`. A socket that a dead process left there is removed.
    ///
    /// # Errors
    /// [`UserError::InUse`] when a live process serves it; [`UserError::System`] for all else.
    pub fn bind(path: impl AsRef<Path>) -> Result<Self, UserError> {
        let path = path.as_ref();
        let fail = |action: &'static str| {
            move |error: Errno| UserError::System { path: path.into(), action, reason: reason(error) }
        };
        let address = SocketAddrUnix::new(path).map_err(fail("use this path"))?;
        let new =
            || socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None);
        if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
            let probe = new().map_err(fail("make a socket"))?;
            match connect(&probe, &address) {
                // Nobody listens.
                Err(Errno::CONNREFUSED) => rustix::fs::unlink(path).map_err(fail("remove the old socket"))?,
                // It went away by itself.
                Err(Errno::NOENT) => {}
                // Its queue is full, or it has taken this connection, which ends here.
                Ok(()) | Err(Errno::AGAIN) => return Err(UserError::InUse { path: path.into() }),
                Err(error) => return Err(fail("look who serves it")(error)),
            }
        }
        let socket = new().map_err(fail("make a socket"))?;
        bind(&socket, &address).map_err(fail("bind to it"))?;
        let file = rustix::fs::lstat(path).map_err(fail("find the new socket"))?;
        let server = Self { path: path.into(), socket, file: (file.st_dev, file.st_ino) };
        listen(&server.socket, BACKLOG).map_err(fail("listen on it"))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves `device` to one client after the other, until it is told to stop.
    ///
    /// # Errors
    /// When the listening socket fails. What goes wrong with a client ends only its session, and is told to
    /// [`Device::disconnected`].
    pub fn serve(&self, device: &mut dyn Device, stop: &Stop) -> Result<(), UserError> {
        let fail = |error: Errno| UserError::System {
            path: self.path.clone(),
            action: "wait for a client",
            reason: error.to_string(),
        };
        loop {
            let stop_event = stop.as_fd();
            let mut events = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&stop_event, PollFlags::IN)];
            if let Err(socket::Broken::System(error)) = socket::wait(&mut events, None) {
                return Err(fail(error));
            }
            if stop.is_told() {
                return Ok(());
            }
            match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => {
                    let channel = Arc::new(Channel::new(&self.path, client, PATIENCE));
                    if let Err(error) = session::run(&channel, device, stop) {
                        tracing::warn!(%error, "a vfio-user session has ended");
                    }
                    // A handle for message-mode DMA may still hold the channel: it must not hold the client.
                    channel.end(channel.closed());
                }
                // It left before its turn.
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                    tracing::warn!(socket = %self.path.display(), %error, "cannot take a client now");
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(fail(error)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// The cause, with what mends it where that is not plain.
fn reason(error: Errno) -> String {
    match error {
        Errno::ADDRINUSE => "a file that is no socket is in its place; remove it, or choose another path".into(),
        Errno::NAMETOOLONG => "a socket's path has at most 107 bytes; choose a shorter one".into(),
        Errno::NOENT => "its folder does not exist; create it first".into(),
        error => error.to_string(),
    }
}
