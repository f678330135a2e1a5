//! Unix sockets that this process listens on: one owner at a time, and nobody else's file.
//!
//! A file that a process left behind which has died is replaced; a socket that somebody listens on, or that is no socket, is not. Whoever
//! takes a path over holds a lock on its folder from looking at what is there to listening, so that two processes never take the
//! same file for a dead one's.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, chmodat, fchmod, flock, lstat, open, unlink,
};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};

/// How long another process may take to listen.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(5);

/// A socket of this process at a path. Its file goes with it.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the file, by which it is known again.
    identity: (u64, u64),
}

/// There is no listening there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ListenError {
    /// Somebody listens on it.
    Taken,
    /// What lies there is no socket.
    NoSocket,
    /// The system refused.
    System {
        /// What was tried, to be followed by the path.
        action: &'static str,
        /// What it said.
        errno: Errno,
    },
}

/// A stream socket that does not block.
pub(crate) fn unix_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// A connection to whoever listens on `path`.
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = unix_socket()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn system(action: &'static str) -> impl Fn(Errno) -> ListenError {
    move |errno| ListenError::System { action, errno }
}

impl Listener {
    /// Listens on `path`, for whom `mode` lets in; `backlog` connections may wait.
    pub(crate) fn open(path: &Path, mode: Mode, backlog: i32) -> Result<Self, ListenError> {
        let address = SocketAddrUnix::new(path).map_err(system("listen on"))?;
        let socket = unix_socket().map_err(system("make a socket for"))?;
        // The file is made with this mode already, less what the umask takes; then it gets all of it.
        fchmod(&socket, mode).map_err(system("set the mode of"))?;
        let _lock = lock(path)?;
        clear(path)?;
        bind(&socket, &address).map_err(|errno| match errno {
            Errno::ADDRINUSE => ListenError::Taken,
            errno => ListenError::System { action: "listen on", errno },
        })?;
        let file = lstat(path).map_err(system("find"))?;
        let listener = Self { socket, path: path.into(), identity: identity(&file) };
        chmodat(CWD, path, mode, AtFlags::empty()).map_err(system("set the mode of"))?;
        listen(&listener.socket, backlog).map_err(system("listen on"))?;
        Ok(listener)
    }

    /// Lets in somebody who waits: `None` when nobody does.
    pub(crate) fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        match accept_with(&self.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(peer) => Ok(Some(peer)),
            // The last one left before its turn.
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // What another process has put there since is not ours, and comes only after a look under the lock.
        let _lock = lock(&self.path);
        if lstat(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = unlink(&self.path);
        }
    }
}

fn identity(file: &Stat) -> (u64, u64) {
    (file.st_dev, file.st_ino)
}

/// Keeps other processes of this kind from listening in the same folder until the lock is dropped. `None` for a folder that may not be read and therefore not
/// be locked.
fn lock(path: &Path) -> Result<Option<OwnedFd>, ListenError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = match open(folder, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(ListenError::System { action: "open the folder of", errno }),
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Some(folder)),
            Err(Errno::AGAIN | Errno::INTR) if Instant::now() < deadline => std::thread::sleep(LOOK),
            // A file system without locks.
            Err(Errno::NOLCK | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(ListenError::System { action: "lock the folder of", errno }),
        }
    }
}

/// Removes a socket that nobody listens on.
fn clear(path: &Path) -> Result<(), ListenError> {
    let Ok(file) = lstat(path) else { return Ok(()) };
    if FileType::from_raw_mode(file.st_mode) != FileType::Socket {
        return Err(ListenError::NoSocket);
    }
    match connect_to(path) {
        Err(Errno::CONNREFUSED) => unlink(path).map_err(system("remove the old socket")),
        // It went away by itself.
        Err(Errno::NOENT) => Ok(()),
        // Its queue is full, or it has taken this connection, which ends here.
        Ok(_) | Err(Errno::AGAIN) => Err(ListenError::Taken),
        Err(errno) => Err(ListenError::System { action: "see who listens on", errno }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

    #[test]
    fn a_stale_socket_is_taken_over_and_a_live_one_or_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        drop(UnixListener::bind(&path).unwrap());
        let first = Listener::open(&path, MODE, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(Listener::open(&path, MODE, 1).unwrap_err(), ListenError::Taken);
        assert_eq!(first.accept().unwrap().map(drop), Some(()), "that was the look at it");
        connect_to(&path).unwrap();
        drop(first);
        assert!(!path.exists(), "it is removed in the end");
        std::fs::write(&path, "mine").unwrap();
        assert_eq!(Listener::open(&path, MODE, 1).unwrap_err(), ListenError::NoSocket);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn what_another_has_put_in_its_place_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let first = Listener::open(&path, MODE, 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::open(&path, MODE, 1).unwrap();
        drop(first);
        connect_to(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn of_many_who_find_a_dead_ones_socket_one_gets_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let opened: Vec<_> = std::thread::scope(|scope| {
                let open = || {
                    start.wait();
                    Listener::open(&path, MODE, 4)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (winners, losers): (Vec<_>, Vec<_>) = opened.into_iter().partition(Result::is_ok);
            assert_eq!(winners.len(), 1, "{losers:?}");
            assert!(losers.into_iter().all(|loser| loser.unwrap_err() == ListenError::Taken));
            connect_to(&path).unwrap();
        }
    }

    #[test]
    fn what_the_system_refuses_is_said() {
        let missing = Path::new("/nonexistent/a.sock");
        let error = Listener::open(missing, MODE, 1).unwrap_err();
        assert_eq!(error, ListenError::System { action: "open the folder of", errno: Errno::NOENT });
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let error = Listener::open(&long, MODE, 1).unwrap_err();
        assert_eq!(error, ListenError::System { action: "listen on", errno: Errno::NAMETOOLONG });
    }
}
