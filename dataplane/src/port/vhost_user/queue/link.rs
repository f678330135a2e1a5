//! What both directions have in common: the ring, what belongs to it, and how the session changes that.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use drivers::nic::Offloads;
use drivers::virtio::Features;

use super::gate::{Control, Gate};
use super::{RingConfig, RingError, RingLog, Stopped};
use crate::guest::{GuestAddress, Memory, Piece};
use crate::port::vhost_user::notify::Call;
use crate::port::vhost_user::ring::{Chains, Format, Layout, Packed, Ring, RingFault, Split};

/// `VIRTIO_F_IN_ORDER` (6): buffers are used in the order in which they were made available.
const IN_ORDER: Features = Features::from_bits_retain(1 << 35);
/// What is slept between two looks whether all frames are home.
const PAUSE: Duration = Duration::from_micros(50);

/// A ring in either format. The format is looked at once for each burst; everything below is compiled for each on its own.
pub(super) enum AnyRing {
    Split(Split),
    Packed(Packed),
}

/// The same expression for whichever format it is.
macro_rules! each {
    ($ring:expr, $inner:ident => $body:expr) => {
        match $ring {
            AnyRing::Split($inner) => $body,
            AnyRing::Packed($inner) => $body,
        }
    };
}
pub(super) use each;

/// What belongs to a running ring, and whether it runs.
pub(crate) struct Link {
    pub(super) memory: Arc<Memory>,
    call: Option<Call>,
    log: Option<RingLog>,
    fault: Option<RingFault>,
    enabled: bool,
    /// Nobody kicks: the engine must not sleep on the ring.
    pub(super) polled: bool,
    /// The session is about to change something: nothing is taken.
    paused: bool,
    /// Frames go through the ring: it is there, enabled, not paused, and has no fault.
    pub(super) live: bool,
    /// The kernel refused a signal, which has to be tried again.
    owed: bool,
    attention: Arc<OwnedFd>,
}

impl Link {
    fn new(attention: Arc<OwnedFd>) -> Self {
        Self {
            memory: Memory::empty(),
            call: None,
            log: None,
            fault: None,
            enabled: false,
            polled: false,
            paused: false,
            live: false,
            owed: false,
            attention,
        }
    }

    /// Shows staged chains to the driver and signals it when it wishes so.
    #[inline(always)]
    pub(super) fn publish(&mut self, ring: &mut impl Ring) {
        let wished = ring.publish();
        if self.log.is_some() {
            self.log_ring(ring);
        }
        if wished || self.owed {
            self.signal();
        }
    }

    /// Looks for a wish for a signal that was made at the very moment of publishing.
    #[inline(always)]
    pub(super) fn settle(&mut self, ring: &mut impl Ring) {
        if (ring.is_unsettled() && ring.settle()) || self.owed {
            self.signal();
        }
    }

    /// A signal is still to be sent.
    pub(super) fn owes(&self) -> bool {
        self.owed
    }

    #[inline(never)]
    fn signal(&mut self) {
        self.owed = self.call.as_ref().is_some_and(|call| !call.signal());
    }

    /// Notes that the first `len` bytes of `piece` were written to.
    #[inline(always)]
    pub(super) fn wrote(&self, piece: Piece<'_>, len: u32) {
        if let Some(RingLog { log, .. }) = &self.log {
            log.mark(piece.guest(), len);
        }
    }

    /// Notes that `len` bytes from `at` (guest-physical) on were written to.
    pub(super) fn marked(&self, at: GuestAddress, len: u32) {
        if let Some(RingLog { log, .. }) = &self.log {
            log.mark(at, len);
        }
    }

    #[cold]
    fn log_ring(&self, ring: &mut impl Ring) {
        let Some(RingLog { log, used }) = &self.log else { return };
        ring.take_written(|offset, len| {
            if let Some(used) = used {
                log.mark(GuestAddress(used.saturating_add(offset)), len);
            }
        });
    }

    /// The ring stops, for `fault`, and the session hears of it.
    #[cold]
    pub(super) fn fail(&mut self, fault: RingFault) {
        // Zeroes where memory was taken away look like many a fault.
        self.fault = Some(if self.memory.is_lost() { RingFault::MemoryLost } else { fault });
        self.live = false;
        // The counter of an eventfd that nobody reads is as good as a new one.
        let _ = rustix::io::write(&self.attention, &1_u64.to_ne_bytes());
    }

    /// Frames should wait for the ring to go on, not be dropped.
    pub(super) fn is_waiting(&self) -> bool {
        self.enabled && (self.paused || matches!(self.fault, Some(RingFault::Miss { .. })))
    }
}

/// A direction.
pub(crate) trait Work: Send {
    /// The device writes into the buffers of this direction's rings.
    const WRITES: bool;

    /// A ring starts under `features`.
    fn begin(&mut self, features: Features);

    /// Gives chains back whose frames are home.
    fn collect<R: Ring>(&mut self, ring: &mut R, link: &mut Link);

    /// Chains that were taken and not given back.
    fn underway(&self) -> usize;

    /// Keeps `memory` until every frame that is underway came home, and for ever if one never does.
    fn keep(&mut self, memory: Arc<Memory>);

    /// Takes out memory that was kept and that no frame lies in any more.
    fn let_go(&mut self) -> Vec<Arc<Memory>>;

    /// Memory is kept.
    fn keeps(&self) -> bool;

    /// Forgets the chains that are underway.
    fn abandon(&mut self);

    /// The engine sleeps and waits for a kick.
    fn is_armed(&self) -> bool;

    /// What is done for frames under `features`.
    fn offloads(features: Features) -> Offloads;
}

/// What lies behind the gate.
pub(super) struct Queue<W: Work> {
    pub(super) ring: Option<AnyRing>,
    pub(super) link: Link,
    pub(super) chains: Chains,
    pub(super) work: W,
}

/// What engine and session share.
pub(crate) struct Shared<W: Work> {
    pub(super) gate: Gate<Queue<W>>,
    offloads: AtomicU32,
    /// Memory is kept for frames that did not come home in time.
    keeps: AtomicBool,
}

impl<W: Work> Queue<W> {
    fn refresh(&mut self) {
        let link = &mut self.link;
        link.live = self.ring.is_some() && link.enabled && !link.paused && link.fault.is_none();
    }

    /// Gives back what is home. `true` when nothing is underway.
    fn is_home(&mut self) -> bool {
        let Self { ring, link, work, .. } = self;
        if let Some(ring) = ring {
            each!(ring, inner => work.collect(inner, link));
        }
        work.underway() == 0
    }
}

impl<W: Work> Drop for Queue<W> {
    fn drop(&mut self) {
        // The engine gave the queue back, or died. Who still has a packet with pieces of it now will never say when that has gone.
        if self.work.underway() > 0 {
            std::mem::forget(Arc::clone(&self.link.memory));
        }
    }
}

impl<W: Work> Shared<W> {
    pub(super) fn new(work: W, attention: Arc<OwnedFd>) -> Arc<Self> {
        let queue = Queue { ring: None, link: Link::new(attention), chains: Chains::default(), work };
        Arc::new(Self {
            gate: Gate::new(queue),
            offloads: AtomicU32::new(Offloads::all().bits()),
            keeps: AtomicBool::new(false),
        })
    }

    /// What is done for frames now.
    #[inline]
    pub(super) fn offloads(&self) -> Offloads {
        Offloads::from_bits_truncate(self.offloads.load(Ordering::Relaxed))
    }

    pub(super) fn start(&self, config: RingConfig) -> Result<(), RingError> {
        let RingConfig { format, size, addresses, memory, features, base, call, log, inflight } = config;
        let layout = Layout {
            size,
            addresses,
            base,
            event_index: features.contains(Features::EVENT_IDX),
            indirect: features.contains(Features::INDIRECT_DESC),
            skip_used: features.contains(IN_ORDER) && !W::WRITES,
            reads_only: !W::WRITES,
            inflight,
        };
        let mut queue = self.gate.enter()?;
        if queue.ring.is_some() {
            return Err(RingError::Running);
        }
        let mut ring = match format {
            Format::Split => AnyRing::Split(Split::new(&memory, layout)?),
            Format::Packed => AnyRing::Packed(Packed::new(&memory, layout)?),
        };
        if queue.work.is_armed() {
            // Whatever is there is found after the session's nudge.
            let _ = each!(&mut ring, inner => inner.arm());
        }
        queue.ring = Some(ring);
        queue.chains.clear();
        let link = &mut queue.link;
        *link = Link {
            memory,
            call,
            log,
            enabled: link.enabled,
            polled: link.polled,
            ..Link::new(Arc::clone(&link.attention))
        };
        // Whoever had the ring before may have died between showing chains and signalling them.
        link.signal();
        queue.work.begin(features);
        queue.refresh();
        self.offloads.store(W::offloads(features).bits(), Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn enable(&self, on: bool) -> Result<(), RingError> {
        let mut queue = self.gate.enter()?;
        queue.link.enabled = on;
        queue.refresh();
        Ok(())
    }

    pub(super) fn stop(&self, limit: Duration) -> Result<Option<Stopped>, RingError> {
        let (mut queue, home) = self.pause(limit)?;
        queue.link.paused = false;
        let Some(mut ring) = queue.ring.take() else { return Ok(None) };
        let link = &mut queue.link;
        each!(&mut ring, inner => link.settle(inner));
        let memory = std::mem::replace(&mut link.memory, Memory::empty());
        if !home {
            queue.work.keep(Arc::clone(&memory));
            self.keeps.store(true, Ordering::Relaxed);
        }
        let link = &mut queue.link;
        *link = Link { enabled: link.enabled, polled: link.polled, ..Link::new(Arc::clone(&link.attention)) };
        queue.work.abandon();
        queue.refresh();
        self.offloads.store(Offloads::all().bits(), Ordering::Relaxed);
        let base = each!(&ring, inner => inner.base());
        drop(queue);
        drop(memory);
        Ok(Some(Stopped { base, leaked: !home }))
    }

    pub(super) fn set_memory(&self, memory: Arc<Memory>, drained: Option<Duration>) -> Result<bool, RingError> {
        let (mut queue, home) = match drained {
            Some(limit) => self.pause(limit)?,
            None => (self.gate.enter()?, true),
        };
        queue.link.paused = false;
        let Some(ring) = &mut queue.ring else { return Ok(true) };
        let outcome = each!(ring, inner => inner.set_memory(&memory));
        queue.chains.clear();
        let link = &mut queue.link;
        let old = std::mem::replace(&mut link.memory, memory);
        if !home {
            queue.work.keep(Arc::clone(&old));
            self.keeps.store(true, Ordering::Relaxed);
        }
        let link = &mut queue.link;
        match outcome {
            Ok(()) => link.fault = link.fault.filter(|fault| !matches!(fault, RingFault::Miss { .. })),
            Err(fault) => link.fault = Some(fault),
        }
        queue.refresh();
        // Mappings go when the engine has the queue again: that can take the kernel a while.
        drop(queue);
        drop(old);
        Ok(outcome.map(|()| home)?)
    }

    /// Lets go of memory that was kept for frames which have come home meanwhile.
    pub(super) fn sweep(&self) -> Result<(), RingError> {
        if !self.keeps.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut queue = self.gate.enter()?;
        let gone = queue.work.let_go();
        self.keeps.store(queue.work.keeps(), Ordering::Relaxed);
        drop(queue);
        drop(gone);
        Ok(())
    }

    pub(super) fn set_call(&self, call: Option<Call>) -> Result<(), RingError> {
        let mut queue = self.gate.enter()?;
        queue.link.call = call;
        // A signal to the one before may be lost.
        queue.link.signal();
        Ok(())
    }

    pub(super) fn set_polled(&self, polled: bool) -> Result<(), RingError> {
        self.gate.enter()?.link.polled = polled;
        Ok(())
    }

    pub(super) fn set_log(&self, log: Option<RingLog>) -> Result<(), RingError> {
        self.gate.enter()?.link.log = log;
        Ok(())
    }

    /// The ring is there; it is enabled; its fault.
    pub(super) fn state(&self) -> Result<(bool, bool, Option<RingFault>), RingError> {
        let queue = self.gate.enter()?;
        Ok((queue.ring.is_some(), queue.link.enabled, queue.link.fault))
    }

    /// Takes nothing more and waits for what is underway, at most for `limit`. Whether all came home.
    fn pause(&self, limit: Duration) -> Result<(Control<'_, Queue<W>>, bool), RingError> {
        let deadline = Instant::now() + limit;
        loop {
            let mut queue = self.gate.enter()?;
            queue.link.paused = true;
            queue.refresh();
            let home = queue.is_home();
            if home || Instant::now() >= deadline {
                return Ok((queue, home));
            }
            drop(queue);
            std::thread::sleep(PAUSE);
        }
    }
}
