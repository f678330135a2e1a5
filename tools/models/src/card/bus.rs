//! What a chip reaches: the driver's memory, interrupts, shared registers and time.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::chip::Layout;
use super::errands::{Errands, Fetched, Mail};
use super::options::Time;
use super::registers::Registers;
use crate::memory::{Access, Hint, Memory, Stretch};

/// An access to the driver's memory that did not happen (yet).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dma {
    /// Not mapped, or refused: recorded as a fault. It will not succeed.
    Refused,
    /// The bytes have to travel. Give this piece of work up with nothing changed, and try again at the next poll.
    Pending,
}

/// Longest part of a copy that is not within two maps.
const PART: usize = 16 << 10;

/// Violations kept; later ones are dropped.
const VIOLATIONS_KEPT: usize = 64;

/// An interrupt vector.
#[derive(Default)]
pub(super) struct Vector {
    pub(super) event: Option<Arc<OwnedFd>>,
    pub(super) masked: bool,
    /// Signalled while masked.
    pub(super) pending: bool,
}

/// See the module. A chip gets it with every call.
pub struct Bus {
    pub(super) memory: Memory,
    pub(super) mail: Mail,
    /// By base address register.
    pub(super) windows: [Option<Arc<Registers>>; 6],
    pub(super) vectors: Vec<Vector>,
    /// Vectors signalled since the last errands.
    raised: Vec<u16>,
    pub(super) signals: u64,
    /// Bus Master Enable.
    master: bool,
    /// A fault: no access succeeds.
    refusing: bool,
    gone: Arc<AtomicBool>,
    pub(super) violations: Vec<String>,
    time: Time,
    start: Instant,
    now: Duration,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("master", &self.master).field("now", &self.now).finish_non_exhaustive()
    }
}

impl Bus {
    pub(super) fn new(layout: &Layout, time: Time, gone: Arc<AtomicBool>) -> std::io::Result<Self> {
        let mut windows = [const { None }; 6];
        for window in layout.windows.iter().filter(|window| !window.shared.is_empty() || !window.doorbells.is_empty()) {
            if let Some(slot) = windows.get_mut(usize::from(window.bar)) {
                *slot = Some(Arc::new(Registers::new(window)?));
            }
        }
        Ok(Self {
            memory: Memory::default(),
            mail: Mail::default(),
            windows,
            vectors: (0..layout.vectors).map(|_| Vector::default()).collect(),
            raised: Vec::new(),
            signals: 0,
            master: false,
            refusing: false,
            gone,
            violations: Vec::new(),
            time,
            start: Instant::now(),
            now: Duration::ZERO,
        })
    }

    /// Reads the driver's memory. `hint` belongs to whoever reads a stretch again and again (a ring, a queue's buffers) and
    /// makes the next look-up quick. Aligned words of up to 256 bytes are each read whole.
    ///
    /// Read only what the driver has handed over (descriptors up to the tail): what travelled by message is kept, and read
    /// again, until [`Bus::commit`].
    ///
    /// # Errors
    /// See [`Dma`]. What `bytes` then holds is not said.
    #[inline]
    pub fn read(&mut self, hint: &mut Hint, address: u64, bytes: &mut [u8]) -> Result<(), Dma> {
        if self.is_open()
            && let Some(place) = self.memory.here(hint, address, bytes.len(), Access::Read)
        {
            place.read(bytes);
            return Ok(());
        }
        self.read_in_parts(address, bytes)
    }

    /// Writes the driver's memory. The last 8 bytes, when aligned, become visible last (a descriptor's status word).
    ///
    /// # Errors
    /// [`Dma::Refused`]; then nothing was written.
    #[inline]
    pub fn write(&mut self, hint: &mut Hint, address: u64, bytes: &[u8]) -> Result<(), Dma> {
        if self.is_open()
            && !self.mail.has_posted()
            && let Some(place) = self.memory.here(hint, address, bytes.len(), Access::Write)
        {
            place.write(bytes);
            return Ok(());
        }
        self.write_in_parts(address, bytes)
    }

    /// Copies up to `bytes` bytes within the driver's memory, at memory speed where both ends are in this process; says how many. `hints` are
    /// for the two ends, `scratch` holds what has to travel.
    ///
    /// # Errors
    /// See [`Dma`], and which end it was. Then nothing was copied.
    #[inline]
    pub fn copy(
        &mut self,
        hints: &mut [Hint; 2],
        source: u64,
        target: u64,
        bytes: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<usize, (Access, Dma)> {
        let [from, to] = hints;
        if self.is_open()
            && !self.mail.has_posted()
            && let Some(source) = self.memory.here(from, source, bytes, Access::Read)
            && let Some(target) = self.memory.here(to, target, bytes, Access::Write)
        {
            source.copy_to(target, bytes);
            return Ok(bytes);
        }
        let first = |address, access| self.memory.stretch(address, bytes, access).map_or(bytes, |(_, len)| len);
        let len = first(source, Access::Read).min(first(target, Access::Write)).min(PART);
        scratch.resize(len, 0);
        self.read(from, source, scratch).map_err(|error| (Access::Read, error))?;
        self.write(to, target, scratch).map_err(|error| (Access::Write, error))?;
        Ok(len)
    }

    /// A piece of work is done: what travelled for it is forgotten. Call it after each piece (a packet, a batch of descriptors) that
    /// was acted upon.
    #[inline]
    pub fn commit(&mut self) {
        self.mail.commit();
    }

    /// Signals an interrupt vector, if the driver has enabled it. It goes out after what was written.
    pub fn signal(&mut self, vector: u16) {
        if !self.raised.contains(&vector) {
            self.raised.push(vector);
        }
    }

    /// Reads a register on a shared page; all ones elsewhere.
    #[inline]
    #[must_use]
    pub fn register(&self, bar: u8, offset: u32) -> u32 {
        let word = self.windows.get(usize::from(bar)).and_then(Option::as_ref).and_then(|window| window.word(offset));
        word.map_or(u32::MAX, |word| word.load(Ordering::Acquire))
    }

    /// Writes a register on a shared page.
    #[inline]
    pub fn set_register(&mut self, bar: u8, offset: u32, value: u32) {
        let word = self.windows.get(usize::from(bar)).and_then(Option::as_ref).and_then(|window| window.word(offset));
        if let Some(word) = word {
            word.store(value, Ordering::Release);
        }
    }

    /// Time since the card was made, as of the beginning of this call of the chip.
    #[inline]
    #[must_use]
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The driver allows the card to access memory (Bus Master Enable). Otherwise every access is refused, and none recorded.
    #[inline]
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.master
    }

    /// Notes a rule of the datasheet that the driver broke, in a sentence. Keeps the first 64 that differ.
    #[cold]
    pub fn violation(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if self.violations.len() < VIOLATIONS_KEPT && !self.violations.contains(&sentence) {
            self.violations.push(sentence);
        }
    }

    /// Pulls the card out, for good: all registers read all ones, and the chip is not called any more.
    pub fn remove(&mut self) {
        self.gone.store(true, Ordering::Release);
        self.windows.iter().flatten().for_each(|window| window.fill(u32::MAX));
        self.mail.clear();
        self.raised.clear();
    }

    /// From now on every access to memory is refused and recorded, as if all maps were gone; or no longer.
    pub fn refuse_dma(&mut self, refuse: bool) {
        self.refusing = refuse;
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    #[inline]
    fn is_open(&self) -> bool {
        self.master & !self.refusing
    }

    pub(super) fn set_master(&mut self, master: bool) {
        self.master = master;
    }

    /// Time goes on: a poll begins.
    pub(super) fn begin_poll(&mut self) {
        match self.time {
            Time::Real => self.now = self.start.elapsed(),
            Time::PerPoll(step) => self.now = self.now.saturating_add(step),
        }
    }

    /// The driver accesses a register.
    pub(super) fn begin_access(&mut self) {
        if self.time == Time::Real {
            self.now = self.start.elapsed();
        }
    }

    /// What is to be done once the card is unlocked, if anything.
    #[inline]
    pub(super) fn errands(&mut self) -> Option<Errands> {
        let signals = if self.raised.is_empty() { Vec::new() } else { self.take_signals() };
        self.mail.errands(signals)
    }

    /// The same for a thread that must not wait for messages: they, and the signals that have to follow them, are left to the
    /// next poll.
    pub(super) fn quick_errands(&mut self) -> Option<Errands> {
        if self.mail.is_empty() { self.errands() } else { None }
    }

    /// The function was reset: nothing is in flight any more.
    pub(super) fn forget(&mut self) {
        self.raised.clear();
        self.mail.clear();
        self.vectors.iter_mut().for_each(|vector| vector.pending = false);
    }

    /// Lets a masked vector's signals through again.
    pub(super) fn mask(&mut self, vector: u16, masked: bool) {
        if let Some(state) = self.vectors.get_mut(usize::from(vector)) {
            state.masked = masked;
            if !masked && std::mem::take(&mut state.pending) {
                self.signal(vector);
            }
        }
    }

    fn take_signals(&mut self) -> Vec<Arc<OwnedFd>> {
        let mut signals = Vec::with_capacity(self.raised.len());
        for vector in self.raised.drain(..) {
            let Some(vector) = self.vectors.get_mut(usize::from(vector)) else { continue };
            if vector.masked {
                vector.pending = true;
            } else if let Some(event) = &vector.event {
                self.signals += 1;
                signals.push(Arc::clone(event));
            }
        }
        signals
    }

    /// An access that no single map in this process serves.
    #[cold]
    fn read_in_parts(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), Dma> {
        self.may_try(address, bytes.len(), Access::Read)?;
        let (mut at, mut rest, mut pending) = (address, bytes, false);
        while !rest.is_empty() {
            let Some((stretch, len)) = self.memory.stretch(at, rest.len(), Access::Read) else {
                self.memory.refuse(at, rest.len() as u64, Access::Read);
                self.mail.stray_read(at, rest.len());
                return Err(Dma::Refused);
            };
            let (part, behind) = rest.split_at_mut(len);
            match stretch {
                Stretch::Here(place) => place.read(part),
                Stretch::Away => match self.mail.find(at, part) {
                    Fetched::Yes => {}
                    Fetched::NotYet => pending = true,
                    Fetched::Refused => return Err(Dma::Refused),
                },
            }
            // Wraps only past the last address, where nothing is mapped.
            at = at.wrapping_add(len as u64);
            rest = behind;
        }
        if pending {
            self.mail.give_up();
            return Err(Dma::Pending);
        }
        Ok(())
    }

    #[cold]
    fn write_in_parts(&mut self, address: u64, bytes: &[u8]) -> Result<(), Dma> {
        self.may_try(address, bytes.len(), Access::Write)?;
        let (mut at, mut rest, mut away) = (address, bytes, self.mail.has_posted());
        while !rest.is_empty() {
            let Some((stretch, len)) = self.memory.stretch(at, rest.len(), Access::Write) else {
                self.memory.refuse(at, rest.len() as u64, Access::Write);
                self.mail.stray_write(at, rest);
                return Err(Dma::Refused);
            };
            away |= matches!(stretch, Stretch::Away);
            (at, rest) = (at.wrapping_add(len as u64), rest.get(len..).unwrap_or_default());
        }
        if away {
            // What is here waits too, so that nothing overtakes what travels.
            self.mail.post(address, bytes);
            return Ok(());
        }
        self.memory.write_parts(address, bytes, |_, _| {});
        Ok(())
    }

    fn may_try(&mut self, address: u64, bytes: usize, access: Access) -> Result<(), Dma> {
        if !self.master {
            return Err(Dma::Refused);
        }
        if self.refusing {
            self.memory.refuse(address, bytes as u64, access);
            return Err(Dma::Refused);
        }
        Ok(())
    }
}
