//! The listening socket, and who is let in.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, chmodat, chownat, stat};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Gid;

use super::caller::{Access, Caller};
use crate::config::ControlSocket;
use crate::socket::{ListenError, Listener};

/// Connections that may wait to be let in.
const BACKLOG: i32 = 64;
/// Who may use it without a group of readers.
const OWNER: Mode = Mode::RUSR.union(Mode::WUSR);

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
    /// There is no usual place for it.
    #[error("XDG_RUNTIME_DIR is not set, so there is no usual control socket; give --control PATH")]
    NoUsual,
    /// There is no such group.
    #[error("there is no group `{name}` in /etc/group; give --control-group one that is there, or the number of one")]
    NoGroup {
        /// What was given.
        name: String,
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

/// A group of users who may call methods that change nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderGroup(Gid);

impl ReaderGroup {
    /// The group of that name or number.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Self, ControlError> {
        let no_group = || ControlError::NoGroup { name: name.to_owned() };
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        let number = number_of(name, &groups).or_else(|| name.parse().ok());
        // The largest number means "none" to the system.
        number.filter(|number| *number != u32::MAX).map(|number| Self(Gid::from_raw(number))).ok_or_else(no_group)
    }
}

/// The number of the group `name` in the text of `/etc/group` (`group(5)`).
fn number_of(name: &str, groups: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

/// The control socket. Its file goes with it.
pub(super) struct Listening {
    listener: Listener,
    readers: bool,
}

impl Listening {
    /// Listens on `path`, for this user and root, and for members of `readers`. A file that a process left there which is gone is
    /// replaced.
    pub(super) fn open(path: &Path, readers: Option<&ReaderGroup>) -> Result<Self, ControlError> {
        let path = path.to_owned();
        let failed = |action, errno: Errno| ControlError::System { path: path.clone(), action, source: errno.into() };
        let listener = Listener::open(&path, OWNER, BACKLOG).map_err(|error| match error {
            ListenError::Taken => ControlError::Taken { path: path.clone() },
            ListenError::NoSocket => ControlError::NoSocket { path: path.clone() },
            ListenError::System { action, errno } => failed(action, errno),
        })?;
        if let Some(ReaderGroup(group)) = readers {
            // Until then it is for this user alone.
            chownat(CWD, &path, None, Some(*group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| failed("give to the group", errno))?;
            chmodat(CWD, &path, OWNER | Mode::RGRP | Mode::WGRP, AtFlags::empty())
                .map_err(|errno| failed("let the group use", errno))?;
        }
        Ok(Self { listener, readers: readers.is_some() })
    }

    /// Lets somebody in who waits. `Ok(None)` for somebody who may not.
    pub(super) fn accept(&self) -> io::Result<Option<(OwnedFd, Caller)>> {
        let Some(client) = self.listener.accept()? else { return Ok(None) };
        let peer = socket_peercred(&client)?;
        if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
            return Ok(Some((client, Caller::new(Access::Write))));
        }
        if self.readers {
            // The kernel has let it connect, which it does for members of the socket's group alone.
            return Ok(Some((client, Caller::new(Access::Read))));
        }
        tracing::warn!("control socket: refused process {} of user {}", peer.pid.as_raw_nonzero(), peer.uid.as_raw());
        Ok(None)
    }
}

/// The usual place, with its folder. A folder of this user's lets the readers through.
pub(super) fn usual_place(readers: Option<&ReaderGroup>) -> Result<PathBuf, ControlError> {
    let path = ControlSocket::usual().ok_or(ControlError::NoUsual)?;
    let Some(folder) = path.parent() else { return Ok(path) };
    let failed = |action, errno: Errno| ControlError::System { path: folder.to_owned(), action, source: errno.into() };
    if !folder.exists() {
        use std::os::unix::fs::DirBuilderExt;
        // If it cannot be made, the socket cannot either, and says so.
        let _ = std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
    }
    if let Some(ReaderGroup(group)) = readers {
        let own = rustix::process::geteuid().as_raw();
        if stat(folder).is_ok_and(|found| found.st_uid == own) {
            chownat(CWD, folder, None, Some(*group), AtFlags::empty())
                .map_err(|errno| failed("give to the group", errno))?;
            chmodat(CWD, folder, Mode::RWXU | Mode::RGRP | Mode::XGRP, AtFlags::empty())
                .map_err(|errno| failed("let the group use", errno))?;
        }
    }
    Ok(path)
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_known_by_name_and_number() {
        let groups = "root:x:0:\nnet:x:27:a,b\nbad\nworse:x:\n";
        assert_eq!(number_of("net", groups), Some(27));
        assert_eq!(number_of("root", groups), Some(0));
        assert_eq!(["bad", "worse", "x", "", "27"].map(|name| number_of(name, groups)), [None; 5]);
        assert_eq!(ReaderGroup::find("27").ok(), Some(ReaderGroup(Gid::from_raw(27))));
        for name in ["4294967295", "no such group", "-1", ""] {
            assert!(matches!(ReaderGroup::find(name), Err(ControlError::NoGroup { .. })), "{name}");
        }
    }
}
