//! Who owns the device: starts it, lets it reach memory, mends it, and ends it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};

use drivers::copy_engine::CopyDone;
use hugemem::{Iova, IovaSpace, Region};
use rtrb::{Consumer, Producer, RingBuffer};

use super::copier::{Channel, Copier, Fresh};
use super::desk::CopyDesk;
use super::device::Device;
use super::name::Threshold;
use super::{CopyError, measure, mender};
use crate::bell::Bell;
use crate::guest::Reach;

/// A device that was opened, and where addresses for it may lie.
pub(super) struct Opened {
    pub(super) device: Box<dyn Device>,
    pub(super) space: IovaSpace,
}

/// Opens the device, at first and again after it was lost.
pub(super) type Opener = Box<dyn FnMut() -> Result<Opened, CopyError> + Send>;

/// The device and what it reaches.
pub(super) struct Hardware {
    pub(super) open: Opener,
    /// Not there after it was lost.
    pub(super) device: Option<Box<dyn Device>>,
    pub(super) space: IovaSpace,
    /// What is mapped, to be mapped again when the device comes back.
    pub(super) windows: Vec<Region>,
}

/// Control's end of a copier.
pub(super) struct Seat {
    channels: Consumer<Box<dyn Channel>>,
    fresh: Producer<Fresh>,
    /// Its engine's.
    bell: Option<Arc<Bell>>,
    /// The copier, while no engine has it.
    parked: Option<Copier>,
    /// The channel is with the copier, or on its way here.
    out: bool,
    /// The channel, when it was handed in.
    home: Option<Box<dyn Channel>>,
}

/// How the device is, for whoever asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CopyState {
    /// It copies.
    Working,
    /// It failed and is being started anew: the CPU copies meanwhile.
    Mending,
    /// It failed and could not be started anew yet: the CPU copies, and it is tried again.
    Failed,
}

/// What control, sessions and copiers share.
pub(super) struct Shared {
    id: u32,
    pub(super) name: String,
    about: String,
    pub(super) hardware: Mutex<Hardware>,
    pub(super) seats: Mutex<Vec<Seat>>,
    /// All channels are to be handed in.
    pub(super) recall: AtomicBool,
    /// A channel failed.
    pub(super) alarm: AtomicBool,
    pub(super) stop: AtomicBool,
    state: AtomicU8,
    /// Length from which on the device is cheaper; `u32::MAX` when it never is.
    threshold: AtomicU32,
    pub(super) failures: AtomicU64,
    pub(super) restarts: AtomicU64,
    /// Windows that it reaches.
    windows: AtomicU64,
    refused_windows: AtomicU64,
    mender: OnceLock<Thread>,
}

/// A copy engine that virtual machines share: the device, a [`Copier`] for each engine that wants one, and a thread that mends the device
/// when it fails. Dropping it stops the device; all copiers are to be back by then.
pub struct Copying {
    shared: Arc<Shared>,
    default: Threshold,
    thread: Option<JoinHandle<()>>,
}

/// Nothing is half done while a lock is held that a panic would leave behind.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copying {
    /// Starts a device called `name`. Ports that say nothing get the threshold `default`.
    pub(super) fn start(name: String, default: Threshold, mut open: Opener) -> Result<Arc<Self>, CopyError> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let Opened { mut device, space } = open()?;
        let about = device.describe();
        let mut hardware = Hardware { open, device: None, space, windows: Vec::new() };
        let mut channels = device.start()?;
        let threshold = match channels.first_mut() {
            Some(channel) => measure::break_even(&mut *device, &mut hardware.space, &mut **channel),
            None => u32::MAX,
        };
        hardware.device = Some(device);
        let shared = Arc::new(Shared {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            about,
            hardware: Mutex::new(hardware),
            seats: Mutex::default(),
            recall: AtomicBool::new(false),
            alarm: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            state: AtomicU8::new(0),
            threshold: AtomicU32::new(threshold),
            failures: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            windows: AtomicU64::new(0),
            refused_windows: AtomicU64::new(0),
            mender: OnceLock::new(),
        });
        for (number, channel) in (0_u32..).zip(channels) {
            let (their_channels, channels) = RingBuffer::new(1);
            let (fresh, their_fresh) = RingBuffer::new(4);
            let copier = Copier::new(number, channel, their_channels, their_fresh, Arc::clone(&shared));
            lock(&shared.seats).push(Seat { channels, fresh, bell: None, parked: Some(copier), out: true, home: None });
        }
        let thread = mender::spawn(Arc::clone(&shared)).map_err(CopyError::Thread)?;
        let _ = shared.mender.set(thread.thread().clone());
        Ok(Arc::new(Self { shared, default, thread: Some(thread) }))
    }

    /// A copier for an engine that is woken by `bell`. `None` when the device has no channel left: the CPU copies on that engine.
    #[must_use]
    pub fn copier(&self, bell: &Arc<Bell>) -> Option<Copier> {
        let mut seats = lock(&self.shared.seats);
        let seat = seats.iter_mut().find(|seat| seat.parked.is_some())?;
        seat.bell = Some(Arc::clone(bell));
        seat.parked.take()
    }

    /// Takes the copier of an engine that has ended.
    pub fn take_back(&self, copier: Copier) {
        let mut seats = lock(&self.shared.seats);
        if let Some(seat) = seats.get_mut(copier.seat() as usize) {
            seat.bell = None;
            seat.parked = Some(copier);
        }
        drop(seats);
        // It may have copies underway.
        self.shared.wake();
    }

    /// A desk for a queue whose port says `threshold`, or nothing. `None` when the device is never to be used there.
    #[must_use]
    pub fn desk(&self, threshold: Option<Threshold>) -> Option<Arc<CopyDesk>> {
        let bytes = match threshold.unwrap_or(self.default) {
            Threshold::Off => return None,
            Threshold::Bytes(bytes) => bytes,
            Threshold::Auto => self.break_even()?,
        };
        Some(Arc::new(CopyDesk::new(self.shared.id, bytes)))
    }

    /// Bytes from which on a copy costs an engine less when the device does it, as measured at the start; `None` when it never does.
    #[must_use]
    pub fn break_even(&self) -> Option<u32> {
        Some(self.shared.threshold.load(Ordering::Relaxed)).filter(|bytes| *bytes < u32::MAX)
    }

    /// What lets it reach memory.
    #[must_use]
    pub fn reach(&self) -> Arc<dyn Reach> {
        Arc::clone(&self.shared) as Arc<dyn Reach>
    }

    /// How it is.
    #[must_use]
    pub fn state(&self) -> CopyState {
        self.shared.state()
    }

    /// One line of facts.
    #[must_use]
    pub fn describe(&self) -> String {
        let state = match self.state() {
            CopyState::Working => "UP",
            CopyState::Mending => "DOWN mending",
            CopyState::Failed => "DOWN",
        };
        let Shared { name, about, .. } = &*self.shared;
        let even = self.break_even().map_or_else(|| "never".to_owned(), |bytes| bytes.to_string());
        format!("{name} state {state} threshold {} break-even {even}: {about}", self.default)
    }

    /// Counters, by name.
    #[must_use]
    pub fn statistics(&self) -> Vec<(&'static str, u64)> {
        let shared = &self.shared;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        vec![
            ("dma_up", u64::from(self.state() == CopyState::Working)),
            ("dma_failures", read(&shared.failures)),
            ("dma_restarts", read(&shared.restarts)),
            ("dma_regions", read(&shared.windows)),
            ("dma_refused_regions", read(&shared.refused_windows)),
        ]
    }
}

impl Shared {
    /// The channel is to be handed in.
    #[inline]
    pub(super) fn is_recalled(&self) -> bool {
        self.recall.load(Ordering::Acquire)
    }

    /// A channel failed.
    pub(super) fn alarm(&self) {
        self.alarm.store(true, Ordering::Release);
        self.wake();
    }

    /// Wakes the thread that mends.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.mender.get() {
            thread.unpark();
        }
    }

    pub(super) fn state(&self) -> CopyState {
        match self.state.load(Ordering::Relaxed) {
            0 => CopyState::Working,
            1 => CopyState::Mending,
            _ => CopyState::Failed,
        }
    }

    pub(super) fn set_state(&self, state: CopyState) {
        let word = match state {
            CopyState::Working => 0,
            CopyState::Mending => 1,
            CopyState::Failed => 2,
        };
        self.state.store(word, Ordering::Relaxed);
    }
}

impl Seat {
    /// Takes the channel in, if it was handed in or can be had. `false` while an engine still has it.
    pub(super) fn collect(&mut self) -> bool {
        if let Ok(channel) = self.channels.pop() {
            self.home = Some(channel);
        }
        if let Some(copier) = &mut self.parked
            && let Some(channel) = copier.take_channel()
        {
            self.home = Some(channel);
        }
        self.home.is_some() || !self.out
    }

    /// The channel, if it is here.
    pub(super) fn take(&mut self) -> Option<Box<dyn Channel>> {
        let channel = self.home.take();
        self.out &= channel.is_none();
        channel
    }

    /// Gives the copier another channel.
    pub(super) fn give(&mut self, channel: Box<dyn Channel>) {
        self.out = true;
        if let Err(fresh) = self.send(Fresh { channel: Some(channel), ..Fresh::default() }) {
            self.home = fresh.channel;
        }
    }

    /// Wakes its engine.
    pub(super) fn call(&self) {
        if let Some(bell) = &self.bell {
            bell.call();
        }
    }

    /// Tells the copier something. What it has no room for comes back.
    pub(super) fn send(&mut self, fresh: Fresh) -> Result<(), Fresh> {
        if let Some(copier) = &mut self.parked {
            copier.renew(fresh);
            return Ok(());
        }
        self.fresh.push(fresh).map_err(|rtrb::PushError::Full(fresh)| fresh)?;
        self.call();
        Ok(())
    }

    /// Moves what a copier that no engine has still has underway.
    pub(super) fn tend(&mut self) -> bool {
        let Some(copier) = self.parked.as_mut().filter(|copier| copier.underway() > 0) else { return false };
        copier.round(0, |_| None);
        copier.underway() > 0
    }
}

/// What came back of a seat, out of all.
pub(super) fn of_seat(done: &[CopyDone], seat: usize) -> Vec<CopyDone> {
    done.iter().filter(|done| Copier::seat_of(done.token) as usize == seat).copied().collect()
}

impl Reach for Shared {
    fn id(&self) -> u32 {
        self.id
    }

    fn attach(&self, len: usize, window: Box<dyn FnOnce(Iova) -> Region + '_>) -> Result<Region, String> {
        let mut hardware = lock(&self.hardware);
        let Hardware { device, space, windows, .. } = &mut *hardware;
        let bytes = len as u64;
        // So that the IOMMU can use its largest pages.
        let alignment = if bytes >= 1 << 30 { 1 << 30 } else { 1 << 21 };
        let attached = space.allocate(bytes, alignment).map_err(|error| error.to_string()).and_then(|iova| {
            let region = window(iova);
            let mapped = device.as_mut().map_or(Ok(()), |device| device.map(&region));
            mapped.map(|()| region).map_err(|error| {
                space.release(iova, bytes);
                format!("{}: {error}; a limit on locked memory may be in the way: raise `ulimit -l`", self.name)
            })
        });
        match attached {
            Ok(region) => {
                windows.push(region.clone());
                self.windows.store(windows.len() as u64, Ordering::Relaxed);
                Ok(region)
            }
            Err(reason) => {
                // Virtual machines can make it happen as often as they like.
                let count = self.refused_windows.fetch_add(1, Ordering::Relaxed) + 1;
                if count.is_power_of_two() {
                    tracing::warn!(
                        "{} MiB of guest memory are copied from and to by the CPU alone: {reason} (refusal {count})",
                        len >> 20
                    );
                }
                Err(reason)
            }
        }
    }

    fn detach(&self, window: &Region) {
        let mut hardware = lock(&self.hardware);
        let Hardware { device, space, windows, .. } = &mut *hardware;
        windows.retain(|other| other.id() != window.id());
        self.windows.store(windows.len() as u64, Ordering::Relaxed);
        let unmapped = device.as_mut().map_or(Ok(()), |device| device.unmap(window));
        match unmapped {
            Ok(()) => space.release(window.iova(), window.len() as u64),
            // The address is not used again.
            Err(error) => tracing::warn!("{}: {error}", self.name),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, the device is stopped by its own drop.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Copying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copying").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("name", &self.name).field("state", &self.state()).finish_non_exhaustive()
    }
}
