//! The copy path of one channel.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use hugemem::{DmaArray, OutOfMemory, Region};

use super::recovery::{Phase, Recovery};
use super::registers::{CHANCTRL, COMPLETED, Registers, State, chanctrl};
use super::report::{Cause, Record, Report};
use super::ring::Ring;
use crate::bus::{Bar, Clock};
use crate::copy_engine::{CopyDone, CopyEngine, CopyJob, EngineState};
use crate::stopped::Stopped;

/// How often the registers of a channel that has work and tells nothing are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One channel of an engine. A channel does its jobs in order.
pub struct Channel<B: Bar> {
    pub(super) registers: Registers<B>,
    pub(super) number: u8,
    pub(super) ring: Ring,
    pub(super) recovery: Recovery,
    pub(super) report: Arc<Report>,
    /// Where the engine writes which descriptor was done last.
    pub(super) completion: DmaArray<AtomicU64>,
    /// What was read there last.
    seen: u64,
    /// The last descriptor of this chain that was believed to be done, 0 for none.
    believed: u64,
    /// Position of the first descriptor of this chain.
    pub(super) chain: u64,
    pub(super) interrupts: bool,
    pub(super) clock: Arc<dyn Clock>,
    patience: Duration,
    /// When the channel was first found to have work and to tell nothing.
    idle_since: Option<Duration>,
    /// When its registers were looked at last.
    looked: Duration,
}

/// What is the same for all channels of an engine.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) unit: u32,
    pub(super) depth: u16,
    pub(super) patience: Duration,
}

impl<B: Bar> Channel<B> {
    /// Channel `number`, with a ring of its own.
    pub(super) fn new(bar: B, number: u8, memory: &Region, common: Common) -> Result<Self, OutOfMemory> {
        let Common { clock, unit, depth, patience } = common;
        Ok(Self {
            registers: Registers::new(bar, number),
            number,
            ring: Ring::new(memory, depth, unit)?,
            recovery: Recovery::default(),
            report: Arc::default(),
            completion: memory.array(8, 64)?,
            seen: 0,
            believed: 0,
            chain: 0,
            interrupts: false,
            clock,
            patience,
            idle_since: None,
            looked: Duration::ZERO,
        })
    }

    /// Its number on the engine.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.number
    }

    /// What happened to it so far.
    #[must_use]
    pub fn record(&self) -> Record {
        self.report.record()
    }

    /// A new chain begins at the first descriptor that is not settled: nothing of it is done yet.
    pub(super) fn begin_chain(&mut self) {
        if let Some(word) = self.completion.first() {
            word.store(0, Ordering::Relaxed);
        }
        (self.seen, self.believed, self.idle_since) = (0, 0, None);
        self.chain = self.ring.settled();
    }

    /// The channel is to be told of all that was issued.
    pub(super) fn ring_doorbell(&mut self) {
        self.registers.ring(self.ring.count_since(self.chain));
        self.idle_since = None;
    }

    /// The completion, ahead of the bytes that it is about.
    #[inline(always)]
    fn read_completion(&self) -> u64 {
        // Acquire: copied bytes are looked at only after this.
        self.completion.first().map_or(0, |word| u64::from_le(word.load(Ordering::Acquire)))
    }

    /// Believes a completion as far as it can be true. What the channel was doing then.
    #[inline(always)]
    fn believe(&mut self, word: u64) -> Result<State, Cause> {
        let (state, address) = (State::of(word), word & COMPLETED);
        if state == State::Reserved {
            return Err(Cause::Lied);
        }
        if address != self.believed {
            if !self.ring.prove(address) {
                return Err(Cause::Lied);
            }
            self.believed = address;
            self.idle_since = None;
            self.recovery.worked();
        }
        Ok(state)
    }

    /// Takes the last completion of a channel that has stopped.
    pub(super) fn last_words(&mut self) -> Result<(), Cause> {
        let word = self.read_completion();
        if word == self.seen { Ok(()) } else { self.believe(word).map(drop) }
    }

    /// Looks what is done.
    #[inline(always)]
    fn look(&mut self) {
        if !self.ring.is_underway() {
            return;
        }
        let word = self.read_completion();
        if word == self.seen {
            self.watch();
            return;
        }
        self.seen = word;
        match self.believe(word) {
            Ok(State::Halted) => self.fail(Cause::Halted),
            Ok(_) => {}
            Err(cause) => self.fail(cause),
        }
    }

    /// The channel has work and tells nothing new.
    fn watch(&mut self) {
        let now = self.clock.now();
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_sub(self.looked) < LOOK_EVERY {
            return;
        }
        self.looked = now;
        match self.registers.state() {
            None => self.gone(),
            Some(State::Halted | State::Suspended) => self.fail(Cause::Halted),
            Some(_) if now.saturating_sub(since) >= self.patience => self.fail(Cause::Hung),
            Some(_) => {}
        }
    }

    /// All jobs are the caller's again.
    pub(super) fn reset(&mut self, _: &Stopped) {
        // What the channel said before it was stopped still counts, unless it was not to be believed any more.
        if self.ring.is_told() && self.recovery.is_credible() {
            // A lie makes the rest unproven, which is what it is anyway.
            let _ = self.last_words();
        }
        self.ring.fail_all();
        self.recovery.phase = Phase::Broken { stopped: true };
    }
}

impl<B: Bar> CopyEngine for Channel<B> {
    fn room(&self) -> usize {
        if self.recovery.is_broken() { 0 } else { usize::try_from(self.ring.room()).unwrap_or(usize::MAX) }
    }

    fn unit(&self) -> u32 {
        self.ring.unit()
    }

    fn longest(&self) -> u32 {
        self.ring.longest()
    }

    #[inline]
    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        if self.recovery.is_broken() {
            return Err(job);
        }
        self.ring.push(job, self.interrupts)
    }

    #[inline]
    fn submit(&mut self) {
        let idle = !self.ring.is_underway();
        if !self.ring.issue() || self.recovery.phase != Phase::Working {
            // A channel that is being mended is told when it starts again.
            return;
        }
        self.registers.ring(self.ring.count_since(self.chain));
        if idle {
            self.idle_since = None;
        }
    }

    #[inline]
    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize {
        let before = self.ring.tell(done);
        if !self.ring.is_told() {
            return before;
        }
        match self.recovery.phase {
            Phase::Working => self.look(),
            _ => self.recover(),
        }
        before + self.ring.tell(done)
    }

    fn underway(&self) -> usize {
        self.ring.jobs()
    }

    fn state(&self) -> EngineState {
        match self.recovery.phase {
            Phase::Working => EngineState::Working,
            Phase::Broken { .. } => EngineState::Broken,
            _ => EngineState::Recovering,
        }
    }

    fn arm(&mut self) -> bool {
        if !self.interrupts || self.recovery.phase != Phase::Working || !self.ring.is_told() {
            return false;
        }
        self.registers.store(&CHANCTRL, chanctrl::INT_REARM | self.control());
        // A job that was done before interrupts were armed makes none. The read makes sure that they are armed by now.
        let state = self.registers.state();
        self.read_completion() == self.seen && !matches!(state, None | Some(State::Halted))
    }
}

impl<B: Bar> fmt::Debug for Channel<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("number", &self.number)
            .field("underway", &self.ring.jobs())
            .field("recovery", &self.recovery)
            .finish_non_exhaustive()
    }
}
