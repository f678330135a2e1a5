//! The queues of a VM port: the halves that engines poll, and the handle by which the session starts and stops what they poll.
//!
//! [`VmRx`] receives from the VM, [`VmTx`] sends to it. Both live with engines for as long as the port does; the rings
//! behind them come and go with the VM. A [`Vring`] is the session's end of one of them. Between the two is a [`gate`], which the
//! engine enters once a batch without waiting.
//!
//! Life cycle of a ring: [`Vring::start`] → [`Vring::enable`] → traffic, meanwhile [`Vring::set_memory`], [`Vring::set_call`],
//! [`Vring::set_log`] → [`Vring::stop`], which waits for all frames that still lie in the VM's memory to have gone their way.
//!
//! A ring that breaks the rules ([`RingFault`]) stops, its session is woken by the `attention` eventfd, and everything else
//! goes on. Frames that cannot be are dropped and counted.

mod control;
mod gate;
mod late;
mod link;
mod offload;
mod receive;
mod source;
mod taken;
mod transmit;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use drivers::virtio::Features;
use hugemem::PacketPool;

use super::notify::Call;
use super::ring::{Addresses, Base, Format, RingFault, inflight::Inflight};
use crate::copy::CopyDesk;
use crate::guest::{DirtyLog, Memory};

pub(super) use control::Vring;
pub(super) use receive::VmRx;
pub(super) use transmit::VmTx;

/// Registers the process for the barriers that gates need.
pub(super) fn prepare() {
    // Where there are none, gates do without.
    gate::has_barrier();
}

/// Frames of one VM queue that can be underway at a time: buffers of its pool.
pub(super) const SLOTS: usize = 1024;
/// Bytes of a frame that are copied and checked when it is received; the rest stays where it is until it is delivered.
pub(super) const SLOT_ROOM: usize = 128;
/// Pieces that the rest of a frame may consist of.
pub(super) const PIECES: u16 = 64;

/// What a ring is started with. It is frozen until the ring stops, but for what [`Vring`] can set.
#[derive(Debug)]
pub(super) struct RingConfig {
    /// Format of the ring.
    pub(super) format: Format,
    /// Descriptors in it.
    pub(super) size: u16,
    /// Where it lies, in the words of `VHOST_USER_SET_VRING_ADDR`.
    pub(super) addresses: Addresses,
    /// The VM's memory.
    pub(super) memory: Arc<Memory>,
    /// All features that were negotiated.
    pub(super) features: Features,
    /// Where it begins.
    pub(super) base: Base,
    /// Whom to signal; `None` when the driver polls.
    pub(super) call: Option<Call>,
    /// Where writes are noted during live migration.
    pub(super) log: Option<RingLog>,
    /// Where the state of taken frames is kept for the time after a crash.
    pub(super) inflight: Option<Inflight>,
}

/// Where a ring notes what it wrote.
#[derive(Clone, Debug)]
pub(super) struct RingLog {
    /// The log of the VM.
    pub(super) log: Arc<DirtyLog>,
    /// Guest-physical address of the used ring (packed: of the ring), when writes to it are to be noted, too (`log_guest_addr` under
    /// `VHOST_VRING_F_LOG`).
    pub(super) used: Option<u64>,
}

/// How a ring stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stopped {
    /// Where it stands.
    pub(super) base: Base,
    /// Frames that lay in the VM's memory did not come home in time. That memory stays mapped until they do ([`Vring::sweep`]), so that
    /// whoever still has them cannot touch anything else.
    pub(super) leaked: bool,
}

/// A ring cannot be started or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum RingError {
    /// It runs already.
    #[error("the ring runs already; stop it before it is set up anew")]
    Running,
    /// Its engine did not let go of it.
    #[error("the engine did not let go of the queue in time; this is a defect of mirach")]
    Busy,
    /// It is not one.
    #[error(transparent)]
    Fault(#[from] RingFault),
}

impl From<gate::Busy> for RingError {
    fn from(_: gate::Busy) -> Self {
        Self::Busy
    }
}

/// The queue that receives from the VM (its odd vring), with its pool of [`SLOTS`] buffers of [`SLOT_ROOM`] bytes and [`PIECES`] foreign
/// pieces. `attention` is an eventfd that does not block, written to when the session is to look at [`Vring::fault`].
pub(super) fn receive_queue(pool: PacketPool, attention: Arc<OwnedFd>) -> (VmRx, Vring) {
    let shared = receive::Shared::for_pool(pool, attention);
    (VmRx::new(Arc::clone(&shared)), Vring::Receive(shared))
}

/// The queue that sends to the VM (its even vring). `attention` as for [`receive_queue`]; large frames are left on `desk`, if there is one.
pub(super) fn transmit_queue(attention: Arc<OwnedFd>, desk: Option<Arc<CopyDesk>>) -> (VmTx, Vring) {
    let shared = transmit::Shared::new(transmit::Transmitter::new(desk), attention);
    (VmTx::new(Arc::clone(&shared)), Vring::Transmit(shared))
}

/// How long [`Vring::stop`] should wait for frames to come home. A batch that a full queue holds up is dropped long before.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
