//! What can go wrong with a vfio-user socket.

use std::path::PathBuf;

/// A vfio-user socket or the peer at its other end failed. The text says on which socket, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The operating system refused something that the socket needs.
    #[error("vfio-user socket {}: cannot {action}: {reason}", path.display())]
    System {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause and what mends it.
        reason: String,
    },
    /// Somebody else serves this socket.
    #[error("vfio-user socket {}: another process serves it; stop that one, or choose another path", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The peer closed the connection.
    #[error("vfio-user socket {}: the peer closed the connection", path.display())]
    Closed {
        /// The socket.
        path: PathBuf,
    },
    /// The peer sent what the protocol does not allow, and was disconnected.
    #[error("vfio-user socket {}: {command}: {reason}; the connection was closed", path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// The message.
        command: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The peer did not take or finish a message in time.
    #[error("vfio-user socket {}: {command}: the peer does not answer; the connection was closed", path.display())]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// The message.
        command: &'static str,
    },
}
