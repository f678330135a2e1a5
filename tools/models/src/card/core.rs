//! All state of one card, behind one lock that is taken once per poll and per register access that is no shared page's.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bus::Bus;
use super::chip::{BlockWrite, Chip, Layout, Work};
use super::config_space::ConfigSpace;
use super::errands::Errands;
use super::options::Options;
use super::registers::Registers;
use crate::wire::Wire;

/// Where extended configuration space begins.
const EXTENDED: usize = 0x100;

/// Posted writes that may be under way to the chip; who posts one more waits until it has them.
const POSTED: usize = 1024;

/// 64 bytes that were written at once.
struct Posted {
    bar: u8,
    offset: u32,
    block: [u64; 8],
}

/// What is behind the lock.
pub(super) struct Core<C> {
    pub(super) chip: C,
    pub(super) bus: Bus,
    pub(super) space: ConfigSpace,
    /// Empty: memory for the posted writes that come next.
    spare: Vec<Posted>,
}

impl<C: Chip> Core<C> {
    /// Resets the function (PCI Express, section 6.6.2). Maps and vectors stay: they are the bus's.
    pub(super) fn reset(&mut self) {
        self.space.reset();
        self.bus.set_master(false);
        self.bus.forget();
        self.bus.begin_access();
        // A card that was pulled out stays so, whoever comes next.
        if !self.bus.is_gone() {
            self.chip.reset(&mut self.bus);
        }
    }

    /// Whoever used the card is gone, with all memory and vectors.
    pub(super) fn unplug(&mut self) {
        self.bus.vectors.iter_mut().for_each(|vector| *vector = super::bus::Vector::default());
        self.bus.memory.clear();
        self.bus.mail.connect(None);
        self.reset();
    }

    pub(super) fn set_bus_master(&mut self, enabled: bool) {
        self.space.set_bus_master(enabled);
        self.bus.set_master(enabled);
    }

    pub(super) fn read_config(&mut self, offset: usize, target: &mut [u8]) {
        self.space.read(offset, target);
        for (at, byte) in (offset..).zip(target).filter(|(at, _)| *at >= EXTENDED) {
            let word = u16::try_from(at & !3).ok().and_then(|word| self.chip.load_config(&mut self.bus, word));
            if let Some(word) = word {
                *byte = drivers::bus::Width::narrow(u64::from(word) >> (8 * (at & 3)));
            }
        }
    }

    pub(super) fn write_config(&mut self, offset: usize, bytes: &[u8]) {
        if self.space.write(offset, bytes) {
            self.reset();
        } else {
            self.bus.set_master(self.space.bus_master());
        }
        for (at, byte) in (offset..).zip(bytes).filter(|(at, _)| *at >= EXTENDED) {
            let Ok(word) = u16::try_from(at & !3) else { break };
            let shift = 8 * (at & 3);
            self.chip.store_config(&mut self.bus, word, u32::from(*byte) << shift, 0xff << shift);
        }
    }

    pub(super) fn poll(&mut self, wire: &mut dyn Wire, budget: usize) -> Work {
        self.bus.begin_poll();
        wire.begin();
        let work = self.chip.poll(&mut self.bus, wire, budget);
        self.bus.mail.end_poll();
        work
    }
}

/// What the halves of a card share.
pub(super) struct Shared<C> {
    pub(super) name: Arc<str>,
    pub(super) layout: Layout,
    pub(super) options: Options,
    /// By base address register.
    pub(super) windows: [Option<Arc<Registers>>; 6],
    core: Mutex<Core<C>>,
    /// What was written at once and has not arrived yet, in order. Its lock is never held for long; whoever takes the card's lock first delivers.
    posted: Mutex<Vec<Posted>>,
    /// There is some.
    has_posted: AtomicBool,
    /// Threads that want the lock: a polling device gives way to them.
    waiting: AtomicU32,
    /// The card was pulled out.
    gone: Arc<AtomicBool>,
}

impl<C: Chip> Shared<C> {
    pub(super) fn new(options: Options, mut chip: C) -> std::io::Result<Self> {
        let layout = chip.layout();
        let gone = Arc::new(AtomicBool::new(false));
        let mut bus = Bus::new(&layout, options.time, Arc::clone(&gone))?;
        chip.reset(&mut bus);
        let space = ConfigSpace::new(&layout);
        Ok(Self {
            name: options.name.as_str().into(),
            windows: bus.windows.clone(),
            core: Mutex::new(Core { chip, bus, space, spare: Vec::new() }),
            posted: Mutex::new(Vec::new()),
            has_posted: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            layout,
            options,
            gone,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Core<C>> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        self.deliver(&mut core);
        core
    }

    /// For the thread that polls, which nobody has to give way to. Says whether posted writes have arrived.
    fn lock_to_poll(&self) -> (MutexGuard<'_, Core<C>>, bool) {
        let mut core = self.core.lock().unwrap_or_else(PoisonError::into_inner);
        let delivered = self.deliver(&mut core);
        (core, delivered)
    }

    /// Posted writes arrive.
    fn deliver(&self, core: &mut Core<C>) -> bool {
        if !self.has_posted.load(Ordering::Acquire) {
            return false;
        }
        let mut arrived = std::mem::take(&mut core.spare);
        {
            let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *posted, &mut arrived);
            self.has_posted.store(false, Ordering::Relaxed);
        }
        let Core { chip, bus, .. } = core;
        bus.begin_access();
        for Posted { bar, offset, block } in arrived.drain(..) {
            if !bus.is_gone() {
                chip.store_block(bus, bar, offset, &block, BlockWrite::Posted);
            }
        }
        core.spare = arrived;
        true
    }

    #[inline]
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Does what had to wait for the lock to be free.
    pub(super) fn run(&self, errands: Option<Errands>) {
        let Some(errands) = errands else { return };
        errands.run(|work| {
            let mut core = self.lock();
            let bus = &mut core.bus;
            work(&mut bus.memory, &mut bus.mail);
        });
    }

    pub(super) fn poll(&self, wire: &mut dyn Wire, budget: usize) -> Work {
        if self.is_gone() {
            return Work::default();
        }
        let (mut work, errands) = {
            let (mut core, delivered) = self.lock_to_poll();
            let mut work = core.poll(wire, budget);
            work.other |= delivered;
            (work, core.bus.errands())
        };
        work.other |= errands.is_some();
        self.run(errands);
        if self.waiting.load(Ordering::Relaxed) != 0 {
            std::thread::yield_now();
        }
        work
    }

    /// The driver reads a register of a window.
    pub(super) fn load(&self, bar: u8, offset: u32, bytes: u32) -> u64 {
        if self.is_gone() {
            return u64::MAX;
        }
        let (value, errands) = {
            let mut core = self.lock();
            let Core { chip, bus, .. } = &mut *core;
            bus.begin_access();
            let value = chip.load(bus, bar, offset, bytes);
            (value, bus.quick_errands())
        };
        self.run(errands);
        if self.is_gone() { u64::MAX } else { value }
    }

    /// The driver writes a register of a window.
    pub(super) fn store(&self, bar: u8, offset: u32, bytes: u32, value: u64) {
        if self.is_gone() {
            return;
        }
        let errands = {
            let mut core = self.lock();
            let Core { chip, bus, .. } = &mut *core;
            bus.begin_access();
            chip.store(bus, bar, offset, bytes, value);
            bus.quick_errands()
        };
        self.run(errands);
    }

    /// The driver writes 64 bytes at once, and does not wait.
    pub(super) fn post_block(&self, bar: u8, offset: u32, block: &[u64; 8]) {
        while !self.is_gone() {
            {
                let mut posted = self.posted.lock().unwrap_or_else(PoisonError::into_inner);
                if posted.len() < POSTED {
                    posted.push(Posted { bar, offset, block: *block });
                    self.has_posted.store(true, Ordering::Release);
                    return;
                }
            }
            drop(self.lock());
        }
    }

    /// The driver writes 64 bytes at once, and wants to know whether they were taken.
    pub(super) fn store_block(&self, bar: u8, offset: u32, block: &[u64; 8], write: BlockWrite) -> bool {
        if self.is_gone() {
            return false;
        }
        let (taken, errands) = {
            let mut core = self.lock();
            let Core { chip, bus, .. } = &mut *core;
            bus.begin_access();
            let taken = chip.store_block(bus, bar, offset, block, write);
            (taken, bus.quick_errands())
        };
        self.run(errands);
        taken
    }
}
