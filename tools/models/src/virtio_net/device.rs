//! The device half of a card, and the handle that looks into it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drivers::nic::MacAddress;

use super::config::Config;
use super::core::{Core, Counters, Work, queue_count};
use super::fault::{Chaos, Fault};
use super::function::Function;
use super::pci::{NOTIFY, PciSpace, notify_bytes};
use super::specification::{Features, status};
use super::trick::Trick;
use super::wire::Wire;
use crate::memory::DmaFault;

/// What both halves share.
pub(super) struct Shared {
    pub(super) name: Arc<str>,
    core: Mutex<Core>,
    /// Threads that want the lock: a polling device gives way to them.
    waiting: AtomicU32,
    /// Number of rings of each queue's doorbell.
    pub(super) bells: Box<[AtomicU32]>,
    notify_end: u32,
    notify_multiplier: u32,
    /// Doorbell writes that name no queue, or another one than their address.
    wrong_bells: AtomicU32,
    /// The card was pulled out.
    pub(super) gone: AtomicBool,
    sleeping: AtomicBool,
    sleeper: Mutex<()>,
    bell: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        core
    }

    /// Rings the doorbell at `offset` of the BAR; `false` when there is none (section 4.1.5.2).
    #[inline]
    pub(super) fn ring_bell(&self, offset: u32, value: u64) -> bool {
        let Some(inside) = offset.checked_sub(NOTIFY).filter(|_| offset < self.notify_end) else { return false };
        let named = usize::try_from(value & 0xffff).unwrap_or(usize::MAX);
        let addressed = inside.checked_div(self.notify_multiplier).map_or(named, |queue| queue as usize);
        match self.bells.get(addressed) {
            Some(bell) if addressed == named => {
                // One thread rings a queue's bell, so this needs no locked addition.
                bell.store(bell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
            }
            _ => {
                self.wrong_bells.fetch_add(1, Ordering::Relaxed);
            }
        }
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            let _guard = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
            self.bell.notify_all();
        }
        true
    }

    fn rings(&self) -> u32 {
        self.bells.iter().fold(0, |sum, bell| sum.wrapping_add(bell.load(Ordering::Acquire)))
    }
}

/// Makes a card: the half for the driver, and the device half plugged into `wire`.
#[must_use]
pub fn new<W: Wire>(config: Config, wire: W) -> (Function, Device<W>) {
    let queues = queue_count(&config);
    let shared = Arc::new(Shared {
        name: config.name.as_str().into(),
        waiting: AtomicU32::new(0),
        bells: (0..queues).map(|_| AtomicU32::new(0)).collect(),
        notify_end: NOTIFY.saturating_add(notify_bytes(&config, queues)),
        notify_multiplier: config.notify_multiplier,
        wrong_bells: AtomicU32::new(0),
        gone: AtomicBool::new(config.fault == Some(Fault::Absent)),
        sleeping: AtomicBool::new(false),
        sleeper: Mutex::new(()),
        bell: Condvar::new(),
        core: Mutex::new(Core::new(config)),
    });
    let device = Device { shared: Arc::clone(&shared), wire, seen_rings: 0 };
    (Function::new(shared), device)
}

/// The card itself.
pub struct Device<W> {
    shared: Arc<Shared>,
    wire: W,
    seen_rings: u32,
}

impl<W: fmt::Debug> fmt::Debug for Device<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("name", &self.shared.name).field("wire", &self.wire).finish_non_exhaustive()
    }
}

/// Frames of one poll, in each direction and queue.
const BUDGET: usize = 64;

impl<W: Wire> Device<W> {
    /// Does what there is to do: commands, then up to 64 frames of each transmit queue, then up to 64 frames for the driver.
    pub fn poll(&mut self) -> Work {
        self.poll_batch(BUDGET)
    }

    /// As [`Device::poll`] with up to `budget` frames.
    pub fn poll_batch(&mut self, budget: usize) -> Work {
        let work = if self.shared.gone.load(Ordering::Relaxed) {
            Work::default()
        } else {
            let mut core = self.shared.core.lock().unwrap_or_else(PoisonError::into_inner);
            let work = core.poll(&mut self.wire, &self.shared.bells, budget);
            if core.trick.is_gone() {
                self.shared.gone.store(true, Ordering::Relaxed);
            }
            work
        };
        if self.shared.waiting.load(Ordering::Relaxed) != 0 {
            std::thread::yield_now();
        }
        work
    }

    /// Sleeps until a doorbell rings, at most `timeout`. Of use with [`super::Doorbells::Needed`]; what else happens on the
    /// wire does not wake it.
    pub fn wait(&mut self, timeout: Duration) {
        let guard = self.shared.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        self.shared.sleeping.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        let rings = self.shared.rings();
        if rings == self.seen_rings {
            let _woken = self.shared.bell.wait_timeout(guard, timeout);
        }
        self.seen_rings = rings;
        self.shared.sleeping.store(false, Ordering::SeqCst);
    }

    /// What it is plugged into.
    pub fn wire(&self) -> &W {
        &self.wire
    }

    /// What it is plugged into.
    pub fn wire_mut(&mut self) -> &mut W {
        &mut self.wire
    }

    /// A handle that looks into the card.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(Arc::clone(&self.shared))
    }
}

/// Looks into a card and meddles with it, from any thread.
#[derive(Clone)]
pub struct Control {
    shared: Arc<Shared>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Control {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Accesses to memory that is not mapped, the first 256 of them.
    #[must_use]
    pub fn faults(&self) -> Vec<DmaFault> {
        self.shared.lock().memory.faults()
    }

    /// Number of accesses to memory that is not mapped.
    #[must_use]
    pub fn fault_count(&self) -> u64 {
        self.shared.lock().memory.fault_count()
    }

    /// Rules of the specification that the driver broke, each in a sentence.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut violations = self.shared.lock().violations.clone();
        let wrong = self.shared.wrong_bells.load(Ordering::Relaxed);
        if wrong != 0 {
            violations.push(format!("{wrong} doorbells that name another queue than their address"));
        }
        violations
    }

    /// What the card has done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.lock().counters
    }

    /// How often doorbells rang.
    #[must_use]
    pub fn doorbells(&self) -> u32 {
        self.shared.rings()
    }

    /// Regions that are mapped.
    #[must_use]
    pub fn mapped_regions(&self) -> usize {
        self.shared.lock().memory.mapped()
    }

    /// Interrupt vectors that the driver has enabled.
    #[must_use]
    pub fn enabled_vectors(&self) -> usize {
        self.shared.lock().vectors.len()
    }

    /// The device status register.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.shared.lock().registers.status
    }

    /// The driver has said that it is ready.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.status() & status::DRIVER_OK != 0
    }

    /// The features that the driver accepted.
    #[must_use]
    pub fn negotiated(&self) -> Features {
        self.shared.lock().negotiated()
    }

    /// Active queue pairs.
    #[must_use]
    pub fn pairs(&self) -> u16 {
        self.shared.lock().net.steering.pairs
    }

    /// Receive-side scaling is set up.
    #[must_use]
    pub fn scales(&self) -> bool {
        self.shared.lock().net.steering.rss.is_some()
    }

    /// The card receives frames for every address.
    #[must_use]
    pub fn is_promiscuous(&self) -> bool {
        self.shared.lock().net.promiscuous
    }

    /// The Ethernet address that it filters by.
    #[must_use]
    pub fn mac(&self) -> MacAddress {
        MacAddress(self.shared.lock().net.mac)
    }

    /// Plugs the cable in or pulls it.
    pub fn set_link(&self, up: bool) {
        let mut core = self.shared.lock();
        core.net.link_up = up;
        core.configuration_changed();
    }

    /// Changes the link's speed, in megabits per second; `u32::MAX` is unknown.
    pub fn set_speed(&self, speed: u32) {
        let mut core = self.shared.lock();
        core.net.speed = speed;
        core.configuration_changed();
    }

    /// Lets the card fail: it asks for a reset and does nothing until then.
    pub fn need_reset(&self) {
        self.shared.lock().need_reset();
    }

    /// Makes the card lie from now on, or be honest again. What it did so far counts as honest.
    pub fn lie(&self, fault: Option<Fault>, chaos: Option<Chaos>) {
        let mut core = self.shared.lock();
        core.trick = Trick::new(fault, chaos);
        let stated = PciSpace::new(&core.config, queue_count(&core.config), fault);
        core.pci.restate(&stated);
        self.shared.gone.store(fault == Some(Fault::Absent), Ordering::Relaxed);
    }

    /// Pulls the card out: all registers read all ones and nothing happens any more.
    pub fn remove(&self) {
        self.lie(Some(Fault::Absent), None);
    }
}
