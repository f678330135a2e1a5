//! What the session's thread and the port's control side share.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::EventfdFlags;
use rustix::io::Errno;

use super::announce::Announcement;
use super::limit::Limit;
use crate::guest::MapOptions;
use crate::port::vhost_user::notify::{Kick, Notifier};
use crate::port::vhost_user::queue::Vring;

/// The device that a VM meets, for the port's whole life, with or without a VM.
#[derive(Debug)]
pub(crate) struct Device {
    /// The port's name.
    pub(super) name: String,
    /// Handles of the queues: even ones lead to the VM, odd ones come from it.
    pub(super) vrings: Vec<Vring>,
    /// What wakes the engine of each queue pair when the VM has sent something.
    kicks: Vec<Mutex<Kick>>,
    /// Signals VMs.
    pub(super) notifier: Arc<Notifier>,
    /// An eventfd that wakes the session's thread: for a queue that needs it, for memory that was lost, to stop.
    pub(super) attention: Arc<OwnedFd>,
    /// How guest memory is mapped.
    pub(super) options: MapOptions,
    /// Largest payload of a frame, for VMMs that ask.
    pub(super) mtu: u16,
    /// Addresses that a peer wants announced, for the queue that announces them.
    pub(super) announcement: Arc<Announcement>,
    stopping: AtomicBool,
    status: Mutex<Status>,
    /// Keeps peers from flooding the log, however often they come.
    limit: Mutex<Limit>,
    /// How often a queue was taken from its engine.
    turns: AtomicU64,
    pub(super) counters: Counters,
}

/// What is to be seen of the session now.
#[derive(Clone, Default, Debug)]
pub(super) struct Status {
    /// Process at the other end, where there is one.
    pub(super) peer: Option<Peer>,
    /// Features that were agreed on.
    pub(super) features: u64,
    /// Features of the protocol that were agreed on.
    pub(super) protocol: u64,
    /// Rings that run and are enabled.
    pub(super) active: Vec<bool>,
    /// Largest payload as the VMM told it.
    pub(super) mtu: Option<u16>,
    /// Regions of the memory table.
    pub(super) regions: usize,
    /// Those of them that a copy engine reaches.
    pub(super) reached: usize,
    /// Why the last session ended.
    pub(super) ended: Option<String>,
}

/// The process at the other end, as the kernel knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Peer {
    /// Its process number; 0 when it is in another namespace.
    pub(super) pid: i32,
}

/// What happened since the port was opened.
#[derive(Default, Debug)]
pub(super) struct Counters {
    pub(super) connects: AtomicU64,
    pub(super) closed: AtomicU64,
    pub(super) breaches: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) memory_losses: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) ring_faults: AtomicU64,
    pub(super) messages: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) announcements: AtomicU64,
    pub(super) leaks: AtomicU64,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Device {
    pub(crate) fn new(
        name: &str,
        vrings: Vec<Vring>,
        kicks: Vec<Kick>,
        notifier: Arc<Notifier>,
        attention: Arc<OwnedFd>,
        options: MapOptions,
        mtu: u16,
    ) -> Self {
        Self {
            name: name.into(),
            vrings,
            kicks: kicks.into_iter().map(Mutex::new).collect(),
            notifier,
            options,
            attention,
            mtu,
            announcement: Arc::default(),
            stopping: AtomicBool::new(false),
            status: Mutex::default(),
            limit: Mutex::new(Limit::of_port()),
            turns: AtomicU64::new(0),
            counters: Counters::default(),
        }
    }

    /// Its queue pairs.
    pub(super) fn pairs(&self) -> usize {
        self.kicks.len()
    }

    /// What wakes the engine of the queue with this index, where that one comes from the VM. (Nobody waits for room in the others.)
    pub(super) fn kick(&self, queue: usize) -> Option<MutexGuard<'_, Kick>> {
        let kick = (queue % 2 == 1).then(|| self.kicks.get(queue / 2)).flatten()?;
        Some(kick.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        // Nothing is half done while it is locked.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The queue with this index, to do something with it that its engine has to wait for: that is counted.
    pub(super) fn vring(&self, queue: usize) -> Option<&Vring> {
        count(&self.turns);
        self.vrings.get(queue)
    }

    /// Lets go of memory that was kept for frames which have arrived meanwhile.
    pub(super) fn sweep(&self) {
        for vring in &self.vrings {
            // An engine that does not let go of a queue is told of elsewhere.
            let _ = vring.sweep();
        }
    }

    /// How often a queue was taken from its engine.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Warns of something that peers can make happen as often as they like.
    pub(super) fn warn(&self, message: &str) {
        self.limit.lock().unwrap_or_else(PoisonError::into_inner).warn(&self.name, message);
    }

    /// Wakes the session's thread.
    pub(super) fn wake(&self) {
        // When the counter is full it is awake anyway.
        let _ = rustix::io::write(&self.attention, &1u64.to_ne_bytes());
    }

    /// Tells the session's thread to end, or to go on where it is to be started anew.
    pub(super) fn set_stopping(&self, stopping: bool) {
        self.stopping.store(stopping, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Takes a pending wake-up.
    pub(super) fn consume(&self) {
        let mut counter = [0; 8];
        // There is none when nobody called.
        let _ = rustix::io::read(self.attention.as_fd(), &mut counter);
    }
}

/// An eventfd that never blocks, for [`Device::wake`] and whoever else needs the session's thread.
pub(crate) fn attention() -> Result<Arc<OwnedFd>, Errno> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new)
}
