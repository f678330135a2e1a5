//! A user of one engine, who watches every byte of the memory that is copied from and to.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, bail, ensure};
use drivers::copy_engine::{CopyDone, CopyEngine, CopyFailure, CopyJob, CopyOutcome, EngineState};
use hugemem::{DmaArray, Iova, Region};

use crate::conformance::patience::Wait;
use crate::peer_bench::flows::Random;

/// Bytes in front of and behind each target that are watched.
const GUARD: usize = 64;
/// What lies there, and where no job has been yet.
const UNTOUCHED: u8 = 0xc7;
/// What the user writes to the target of a job that failed: the engine must not write there any more.
const REDONE: u8 = 0x3d;
/// Jobs that are taken back with one look.
const LOOK: usize = 16;

/// A job that is underway, or that failed.
#[derive(Clone, Copy, Debug)]
struct Errand {
    token: u64,
    source: usize,
    target: usize,
    length: usize,
    /// One of its ends is memory that the engine must not reach.
    is_stray: bool,
}

impl Errand {
    /// Its target, with what is watched beside it.
    fn place(&self) -> Range<usize> {
        self.target - GUARD..self.target + self.length + GUARD
    }
}

/// A user with memory to copy from and memory to copy to, each a region of its own.
pub(super) struct User {
    pub(super) regions: [Region; 2],
    source: DmaArray<AtomicU8>,
    target: DmaArray<AtomicU8>,
    errands: VecDeque<Errand>,
    /// Targets of jobs that failed, which must stay as the user left them.
    redone: Vec<Errand>,
    /// Where the next target may be.
    head: usize,
    next: u64,
    random: Random,
    done: Vec<CopyDone>,
    /// Jobs that were copied.
    pub(super) copied: u64,
    /// Jobs that failed.
    pub(super) failed: Vec<(u64, CopyFailure)>,
}

impl User {
    /// A user of regions for `bytes` each.
    pub(super) fn new(regions: [Region; 2], bytes: usize, seed: u8) -> Result<Self> {
        let mut random = Random::new(seed);
        let [source, target] = [&regions[0], &regions[1]].map(|region| region.array::<AtomicU8>(bytes, 4096));
        let (source, target) = (source?, target?);
        for byte in source.iter() {
            byte.store(u8::try_from(random.below(256))?, Ordering::Relaxed);
        }
        fill(&target, 0..bytes, UNTOUCHED);
        let (errands, redone, failed) = (VecDeque::new(), Vec::new(), Vec::new());
        let done = Vec::with_capacity(LOOK);
        Ok(Self { regions, source, target, errands, redone, head: 0, next: 0, random, done, copied: 0, failed })
    }

    /// The longest job that there is memory for.
    pub(super) fn longest(&self) -> usize {
        self.source.len() - 4 * GUARD
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.random.below(u32::try_from(end).unwrap_or(u32::MAX)) as usize
    }

    /// Address of a byte to copy from.
    pub(super) fn source(&self, at: usize) -> Result<Iova> {
        self.source.iova_of(at).context("outside of the source")
    }

    /// Pushes a job of any length up to `longest` and any alignment, most of them as long as frames are. `false` when there is no room for it, in the engine or in memory.
    pub(super) fn push_any(&mut self, engine: &mut impl CopyEngine, longest: usize) -> Result<bool> {
        let length = match self.below(8) {
            0 => self.below(9),
            1 => self.below(longest),
            _ => self.below(longest.min(1600)),
        };
        let alignments = [self.below(64), self.below(64)];
        self.push(engine, alignments, length)
    }

    /// Pushes a job whose source and target begin so many bytes behind a multiple of 64.
    pub(super) fn push(&mut self, engine: &mut impl CopyEngine, alignments: [usize; 2], length: usize) -> Result<bool> {
        let [source, target] = alignments;
        let lines = (self.source.len() - length - source) / 64;
        let source = self.below(lines.max(1)) * 64 + source;
        for start in [self.head, 0] {
            let target = (start + GUARD).next_multiple_of(64) + target;
            if self.is_free(&Errand { token: 0, source, target, length, is_stray: false }) {
                return self.push_between(engine, source, target, length);
            }
        }
        Ok(false)
    }

    /// No job is underway to there, or beside it.
    fn is_free(&self, errand: &Errand) -> bool {
        let place = errand.place();
        let overlaps = |other: &Errand| other.place().start < place.end && place.start < other.place().end;
        place.end <= self.target.len() && !self.errands.iter().chain(&self.redone).any(overlaps)
    }

    /// Pushes a job between two places, to which nothing else may be underway.
    pub(super) fn push_between(
        &mut self,
        engine: &mut impl CopyEngine,
        source: usize,
        target: usize,
        length: usize,
    ) -> Result<bool> {
        let (from, to) = (self.source(source)?, self.target.iova_of(target).context("outside of the target")?);
        let errand = Errand { token: self.next, source, target, length, is_stray: false };
        let pushed = self.push_job(engine, from, to, errand)?;
        if pushed {
            self.head = errand.place().end;
        }
        Ok(pushed)
    }

    /// Pushes a job from an address that is not mapped to memory of this user, or the other way; its token.
    pub(super) fn push_stray(&mut self, engine: &mut impl CopyEngine, stray: Iova, is_source: bool) -> Result<u64> {
        let (target, length) = ((self.head + GUARD).next_multiple_of(64), 100);
        let own = self.target.iova_of(target).context("outside of the target")?;
        let (from, to) = if is_source { (stray, own) } else { (self.source(0)?, stray) };
        let errand = Errand { token: self.next, source: 0, target, length, is_stray: true };
        ensure!(self.is_free(&errand) && self.push_job(engine, from, to, errand)?, "no room for a job");
        self.head = errand.place().end;
        Ok(errand.token)
    }

    fn push_job(&mut self, engine: &mut impl CopyEngine, from: Iova, to: Iova, errand: Errand) -> Result<bool> {
        let length = u32::try_from(errand.length)?;
        let job = CopyJob::new(from, to, length, errand.token).context("the job leaves the address space")?;
        let room = engine.room();
        match engine.push(job) {
            Ok(()) => {
                self.errands.push_back(errand);
                self.next += 1;
                Ok(true)
            }
            Err(back) => {
                ensure!(back == job, "another job was handed back: {back:?} instead of {job:?}");
                ensure!(length > engine.unit() || room == 0, "a job was refused with room for {room}");
                Ok(false)
            }
        }
    }

    /// Jobs underway.
    pub(super) fn underway(&self) -> usize {
        self.errands.len()
    }

    /// Looks once for what came back; how many did.
    pub(super) fn look(&mut self, engine: &mut impl CopyEngine) -> Result<usize> {
        let mut done = std::mem::take(&mut self.done);
        let (count, capacity) = (engine.complete(&mut done), done.capacity());
        ensure!((count, capacity) == (done.len(), LOOK), "{count} jobs came back and {} are there", done.len());
        self.take(&done)?;
        done.clear();
        self.done = done;
        let (theirs, ours) = (engine.underway(), self.errands.len());
        ensure!(theirs == ours, "the engine says that {theirs} jobs are underway, and {ours} are");
        Ok(count)
    }

    /// Takes what came back, and looks at the bytes of what was copied.
    pub(super) fn take(&mut self, done: &[CopyDone]) -> Result<()> {
        for CopyDone { token, outcome } in done {
            let errand = self.errands.pop_front().context("a job came back that was not underway")?;
            ensure!(*token == errand.token, "job {token} came back when it was the turn of {}", errand.token);
            match outcome {
                CopyOutcome::Copied if errand.is_stray => bail!("a job was done that cannot be: {errand:?}"),
                CopyOutcome::Copied => {
                    self.is_copied(&errand)?;
                    self.clean(&errand);
                    self.copied += 1;
                }
                CopyOutcome::Failed(failure) => {
                    fill(&self.target, errand.target..errand.target + errand.length, REDONE);
                    self.redone.push(errand);
                    self.failed.push((*token, *failure));
                }
            }
        }
        Ok(())
    }

    /// All bytes are there, and none close beside them.
    fn is_copied(&self, errand: &Errand) -> Result<()> {
        let Errand { source, target, length, .. } = *errand;
        let pairs = self.source[source..source + length].iter().zip(&self.target[target..target + length]);
        let wrong = pairs.enumerate().find_map(|(at, (source, target))| {
            let (source, target) = (source.load(Ordering::Relaxed), target.load(Ordering::Relaxed));
            (source != target).then_some((at, source, target))
        });
        if let Some((at, source, target)) = wrong {
            bail!("{errand:?}: byte {at} is {target:#x} instead of {source:#x}");
        }
        let place = errand.place();
        self.is(place.start..target, UNTOUCHED).with_context(|| format!("in front of {errand:?}"))?;
        self.is(target + length..place.end, UNTOUCHED).with_context(|| format!("behind {errand:?}"))
    }

    /// All of these bytes of the target have this value.
    fn is(&self, range: Range<usize>, value: u8) -> Result<()> {
        let start = range.start;
        match self.target[range].iter().position(|byte| byte.load(Ordering::Relaxed) != value) {
            Some(at) => bail!("byte {} of the target was written", start + at),
            None => Ok(()),
        }
    }

    /// No byte of the target was written.
    pub(super) fn is_untouched(&self) -> Result<()> {
        self.is(0..self.target.len(), UNTOUCHED)
    }

    fn clean(&self, errand: &Errand) {
        fill(&self.target, errand.target..errand.target + errand.length, UNTOUCHED);
    }

    /// Nothing was written to memory that was given back with jobs that failed, nor beside it. It can be used again.
    pub(super) fn check_redone(&mut self) -> Result<()> {
        for errand in std::mem::take(&mut self.redone) {
            let what = || format!("after it was given back: {errand:?}");
            let place = errand.place();
            let (start, end) = (errand.target, errand.target + errand.length);
            self.is(place.start..start, UNTOUCHED).with_context(what)?;
            self.is(start..end, REDONE).with_context(what)?;
            self.is(end..place.end, UNTOUCHED).with_context(what)?;
            self.clean(&errand);
        }
        Ok(())
    }

    /// With no job underway: nothing was written that no job is to blame for.
    pub(super) fn check_all(&mut self) -> Result<()> {
        ensure!(self.errands.is_empty(), "{} jobs are underway", self.errands.len());
        self.check_redone()?;
        self.is_untouched().context("beside all jobs")
    }

    /// Submits, and waits until all jobs are back.
    pub(super) fn finish(&mut self, engine: &mut impl CopyEngine) -> Result<()> {
        engine.submit();
        let mut wait = Wait::new();
        while !self.errands.is_empty() {
            if self.look(engine)? > 0 {
                wait.progress();
                continue;
            }
            ensure!(engine.state() != EngineState::Broken, "the engine broke");
            wait.idle(|| format!("{} jobs do not come back ({:?})", self.errands.len(), engine.state()))?;
        }
        Ok(())
    }

    /// Copies `jobs` times, some with each round, and waits until all came back. None may fail.
    pub(super) fn run(&mut self, engine: &mut impl CopyEngine, jobs: usize, longest: usize) -> Result<()> {
        let (failed, mut left, mut wait) = (self.failed.len(), jobs, Wait::new());
        while left > 0 {
            // Mostly few, now and then as many as there is room for: whoever plays the device may have to wait for this processor.
            let most = if self.below(4) == 0 { usize::MAX } else { 7 };
            for _ in 0..=self.below(most) {
                if left == 0 || !self.push_any(engine, longest)? {
                    break;
                }
                left -= 1;
                wait.progress();
            }
            engine.submit();
            if self.look(engine)? > 0 {
                wait.progress();
            }
            ensure!(engine.state() != EngineState::Broken, "the engine broke");
            wait.idle(|| format!("{} jobs do not come back ({:?})", self.errands.len(), engine.state()))?;
        }
        self.finish(engine)?;
        let failed = self.failed.get(failed..).unwrap_or_default();
        ensure!(failed.is_empty(), "{} jobs failed, the first because of {:?}", failed.len(), failed.first());
        Ok(())
    }

    /// Takes all jobs underway for failed, once their engine is gone with them.
    pub(super) fn redo_all(&mut self) {
        for errand in self.errands.drain(..) {
            fill(&self.target, errand.place(), UNTOUCHED);
            fill(&self.target, errand.target..errand.target + errand.length, REDONE);
            self.redone.push(errand);
        }
    }
}

fn fill(bytes: &[AtomicU8], range: Range<usize>, value: u8) {
    bytes[range].iter().for_each(|byte| byte.store(value, Ordering::Relaxed));
}
