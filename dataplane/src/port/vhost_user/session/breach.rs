//! Why a request is refused, or a session ends.

use rustix::io::Errno;
use vhost::vhost_user::message::FrontendReq;

use crate::guest::GuestError;
use crate::port::vhost_user::queue::RingError;

/// What a peer did that cannot be served. Texts are behind "port `NAME`: ".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Breach {
    /// It closed the connection, between two messages.
    #[error("the VM has closed the connection")]
    Closed,
    /// It closed the connection in the middle of a message.
    #[error("the connection ended in the middle of {}", named(*.0))]
    Truncated(Option<FrontendReq>),
    /// It did not go on with a message for too long.
    #[error("it began {} and did not finish it within {seconds} s", named(*.request))]
    Stalled {
        /// The message, where that was to be seen.
        request: Option<FrontendReq>,
        /// How long it had.
        seconds: u64,
    },
    /// It does not take in what we answer.
    #[error("it does not read the replies to its requests")]
    NotReading,
    /// Another version of the protocol.
    #[error("a message of protocol version {0}; only 1 is known")]
    Version(u32),
    /// Flags that no request has.
    #[error("a message with flags {0:#x}, which no request has")]
    Flags(u32),
    /// No such request.
    #[error("request {0} is unknown")]
    UnknownRequest(u32),
    /// A body of the wrong size.
    #[error("{request:?} cannot have a body of {size} bytes")]
    Size {
        /// The message.
        request: FrontendReq,
        /// Size that it claims.
        size: u32,
    },
    /// More descriptors than the message may have.
    #[error("{} came with more than {limit} file descriptors", named(*.request))]
    TooManyFiles {
        /// The message, where that was to be seen.
        request: Option<FrontendReq>,
        /// How many it may have.
        limit: usize,
    },
    /// A descriptor is missing.
    #[error("{0:?} came without its file descriptor")]
    NoFile(FrontendReq),
    /// Not as many descriptors as regions.
    #[error("a memory table of {regions} regions came with {files} file descriptors")]
    FileCount {
        /// Regions of the table.
        regions: usize,
        /// Descriptors beside it.
        files: usize,
    },
    /// It belongs to something that is not offered here.
    #[error("{0:?} is for something that this port does not offer")]
    Unsupported(FrontendReq),
    /// It belongs to a protocol feature that was not agreed on.
    #[error("{request:?} needs the protocol feature {feature}, which was not agreed on")]
    NotNegotiated {
        /// The message.
        request: FrontendReq,
        /// What it needs.
        feature: &'static str,
    },
    /// Features that were not offered.
    #[error("features {0:#x} were not offered")]
    Features(u64),
    /// Features cannot change while rings run.
    #[error("queue {queue}: features cannot change from {from:#x} to {to:#x} while it runs")]
    FeaturesFrozen {
        /// A queue that runs.
        queue: usize,
        /// Features of now.
        from: u64,
        /// Features asked for.
        to: u64,
    },
    /// A driver of before virtio 1.
    #[error(
        "queue {queue}: its driver did not agree to VIRTIO_F_VERSION_1; give the guest a driver of virtio 1, and the VM a device that offers it (QEMU: disable-modern=off)"
    )]
    Legacy {
        /// Index of the queue.
        queue: usize,
    },
    /// A queue that the port does not have.
    #[error("there is no queue {queue}: the port has {pairs} queue pairs; give it queues={}, or the VM fewer", .queue / 2 + 1)]
    NoSuchQueue {
        /// Index of the queue.
        queue: u32,
        /// Queue pairs of the port.
        pairs: usize,
    },
    /// Geometry of a running ring.
    #[error("queue {queue}: {request:?} cannot be while it runs")]
    Frozen {
        /// Index of the queue.
        queue: usize,
        /// What was asked.
        request: FrontendReq,
    },
    /// A size that no ring has.
    #[error("queue {queue}: a {format} ring cannot have {size} descriptors")]
    RingSize {
        /// Index of the queue.
        queue: usize,
        /// Format of the ring.
        format: &'static str,
        /// Size asked for.
        size: u32,
    },
    /// A base that no ring has.
    #[error("queue {queue}: a ring cannot stand at {base:#x}")]
    RingBase {
        /// Index of the queue.
        queue: usize,
        /// Base asked for.
        base: u32,
    },
    /// Flags that no ring address has, or an address that is not aligned.
    #[error("queue {queue}: the {what} {value:#x} of the ring cannot be")]
    RingAddress {
        /// Index of the queue.
        queue: usize,
        /// Which value.
        what: &'static str,
        /// The value.
        value: u64,
    },
    /// A ring cannot start.
    #[error("queue {queue}: {error}")]
    Ring {
        /// Index of the queue.
        queue: usize,
        /// Why.
        error: RingError,
    },
    /// An event file descriptor that cannot serve.
    #[error("queue {queue}: the descriptor of {request:?}: {reason}")]
    Event {
        /// Index of the queue.
        queue: usize,
        /// What was asked.
        request: FrontendReq,
        /// What is wrong with it.
        reason: String,
    },
    /// A number that cannot be.
    #[error("{request:?}: {what} {value:#x} cannot be")]
    Value {
        /// What was asked.
        request: FrontendReq,
        /// Which number.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// Memory that cannot serve.
    #[error(transparent)]
    Memory(#[from] GuestError),
    /// The in-flight region cannot serve.
    #[error("in-flight region: {0}")]
    Inflight(String),
    /// Memory of the guest was cut off while it was in use.
    #[error("it took memory of its guest away while that was in use")]
    MemoryLost,
    /// The port stops.
    #[error("the port stops")]
    Stopping,
    /// The system failed us.
    #[error("cannot {action}: {errno}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

fn named(request: Option<FrontendReq>) -> String {
    request.map_or_else(|| "a message".into(), |request| format!("{request:?}"))
}

impl Breach {
    /// A peer that asks to hear of errors may go on after this one: what it asked for did not happen, and nothing else did. After any
    /// other, the stream or the state of the session makes no sense any more.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::NoFile(_)
            | Self::FileCount { .. }
            | Self::Unsupported(_)
            | Self::NotNegotiated { .. }
            | Self::Features(_)
            | Self::FeaturesFrozen { .. }
            | Self::Legacy { .. }
            | Self::NoSuchQueue { .. }
            | Self::Frozen { .. }
            | Self::RingSize { .. }
            | Self::RingBase { .. }
            | Self::RingAddress { .. }
            | Self::Ring { .. }
            | Self::Event { .. }
            | Self::Value { .. }
            | Self::Memory(_)
            | Self::Inflight(_) => true,
            Self::Closed
            | Self::Truncated(_)
            | Self::Stalled { .. }
            | Self::NotReading
            | Self::Version(_)
            | Self::Flags(_)
            | Self::UnknownRequest(_)
            | Self::Size { .. }
            | Self::TooManyFiles { .. }
            | Self::MemoryLost
            | Self::Stopping
            | Self::System { .. } => false,
        }
    }
}
