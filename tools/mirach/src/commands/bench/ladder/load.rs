//! The load: one thread plays both machines, the same on every rung. It polls their cards, so that nothing but what is between them sleeps.
//!
//! For each length, first some frames go in both directions of which every byte is checked; then as many as go in one direction, with a bounded number on
//! their way, for the time given; then one frame at a time goes to and fro. Length, headers, number and order of every frame are checked throughout,
//! and every byte of one in [`WHOLE`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use dataplane::clock::{CycleClock, cycles};
use dataplane::histogram::Histogram;
use hugemem::Batch;

use super::account::Account;
use super::card::Card;
use super::frame::{Frames, Size};
use super::modes::Host;

/// Frames that are sent and received at a time.
const BURST: usize = 32;
/// Of so many frames one is made whole and checked whole while time is measured: making and checking take longer than passing on.
const WHOLE: u64 = 64;
/// Frames in each direction of which every byte is checked before anything is measured.
const CHECKED: u64 = 2000;
/// The same for the longest.
const CHECKED_LARGE: u64 = 200;
/// Time that a measurement is divided into; the median counts.
const SLICES: u32 = 10;
/// No frame for so long: it is lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time to warm up, of that of a measurement.
const WARM: u32 = 10;
/// Empty looks between two at everything else.
const SPINS: u32 = 2000;

/// The user wants no more.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted; nothing was written")
    }
}

impl std::error::Error for Interrupted {}

/// What passing frames of one length in one direction came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throughput {
    /// Length of the frames.
    pub(crate) size: Size,
    /// Frames each second: the median of slices of the time.
    pub(crate) packets_per_second: f64,
    /// Frames that passed while it was measured.
    pub(crate) frames: u64,
    /// How long that was, in seconds.
    pub(crate) seconds: f64,
    /// Seconds of a core that everything between the machines took for that.
    pub(crate) host_seconds: f64,
    /// Of these, seconds in which an engine looked for packets and found none.
    pub(crate) idle_seconds: f64,
    /// Frames of which every byte was checked, in both directions and in all of the run.
    pub(crate) whole: u64,
}

/// Times of frames to the other machine and back.
#[derive(Clone, Debug)]
pub(crate) struct RoundTrips {
    /// In nanoseconds.
    pub(crate) times: Histogram,
}

/// Who plays both machines.
pub(super) struct Load<'a> {
    /// The cards.
    pub(super) cards: [Card; 2],
    /// What is between.
    pub(super) host: &'a Mutex<Box<dyn Host>>,
    /// Says that it is over.
    pub(super) stop: &'a AtomicBool,
    /// Time of each measurement.
    pub(super) time: Duration,
    /// What is between runs on the same core.
    pub(super) shares_core: bool,
    /// The counter's rate.
    pub(super) clock: CycleClock,
}

/// What there is between two moments.
struct Reading {
    at: Instant,
    seen: u64,
}

impl<'a> Load<'a> {
    /// Passes frames of one length, as fast as they go.
    ///
    /// # Errors
    /// A frame is lost or changed, or it is over.
    pub(super) fn throughput(&mut self, size: Size) -> anyhow::Result<Throughput> {
        let [mut forth, mut back] = [0, 1].map(|from| self.passage(from, size, size.window()));
        self.acquaint(&mut forth, &mut back, if size == Size::Large { CHECKED_LARGE } else { CHECKED })?;
        let process = self.host().process();
        let account = Account::new(process);
        forth.every = WHOLE;
        let slice = self.time / SLICES;
        self.pass(&mut forth, self.time / WARM)?;
        let (idle, host) = (self.host().idle_cycles(), account.now());
        let mut readings = vec![forth.reading()];
        for _ in 0..SLICES {
            self.pass(&mut forth, slice)?;
            readings.push(forth.reading());
        }
        let host = account.now().saturating_sub(host);
        let idle = self.clock.nanoseconds(self.host().idle_cycles().saturating_sub(idle));
        self.settle(&mut forth)?;
        let (Some(first), Some(last)) = (readings.first(), readings.last()) else { bail!("nothing was measured") };
        let mut rates: Vec<f64> =
            readings.iter().zip(readings.iter().skip(1)).map(|(from, to)| rate(from, to)).collect();
        rates.sort_by(f64::total_cmp);
        Ok(Throughput {
            size,
            packets_per_second: rates.get(rates.len() / 2).copied().unwrap_or_default(),
            frames: last.seen - first.seen,
            seconds: (last.at - first.at).as_secs_f64(),
            host_seconds: host.as_secs_f64(),
            idle_seconds: Duration::from_nanos(idle).as_secs_f64(),
            whole: forth.whole + back.whole,
        })
    }

    /// Sends small frames to and fro, one at a time.
    ///
    /// # Errors
    /// A frame is lost or changed, or it is over.
    pub(super) fn round_trips(&mut self) -> anyhow::Result<RoundTrips> {
        let [mut forth, mut back] = [0, 1].map(|from| self.passage(from, Size::Small, 1));
        self.acquaint(&mut forth, &mut back, CHECKED)?;
        (forth.every, back.every) = (WHOLE, WHOLE);
        let mut times = Histogram::new();
        let start = Instant::now();
        let warm = start + self.time / WARM;
        let end = warm + self.time;
        loop {
            let before = cycles();
            self.one(&mut forth, 0)?;
            self.one(&mut back, 1)?;
            let took = cycles().saturating_sub(before);
            let now = Instant::now();
            if now >= warm {
                times.record(self.clock.nanoseconds(took));
            }
            if now >= end && times.count() > 0 {
                return Ok(RoundTrips { times });
            }
        }
    }

    /// Frames of a length from machine `from`, of which so many are on their way at most.
    fn passage(&self, from: u8, size: Size, window: u64) -> Passage<'a> {
        Passage::new(Frames::new(from, size), window, self.stop, self.shares_core)
    }

    fn host(&self) -> std::sync::MutexGuard<'_, Box<dyn Host>> {
        self.host.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Passes `count` frames in each direction of which every byte is checked. By then everybody on the way knows both machines.
    fn acquaint<'p>(&mut self, forth: &mut Passage<'p>, back: &mut Passage<'p>, count: u64) -> anyhow::Result<()> {
        for (index, passage) in [back, forth].into_iter().enumerate() {
            let (from, to) = self.ends(1 - index);
            passage.meet(from, to)?;
            while passage.seen < count {
                let (from, to) = self.ends(1 - index);
                passage.step(from, to, true)?;
            }
            let (from, to) = self.ends(1 - index);
            passage.settle(from, to)?;
        }
        Ok(())
    }

    /// Passes frames from the first machine to the second for `time`.
    fn pass(&mut self, passage: &mut Passage<'_>, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        loop {
            for _ in 0..16 {
                let (from, to) = self.ends(0);
                passage.step(from, to, true)?;
            }
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// Takes in what is on its way.
    fn settle(&mut self, passage: &mut Passage<'_>) -> anyhow::Result<()> {
        let (from, to) = self.ends(0);
        passage.settle(from, to)
    }

    /// Passes one frame from machine `from`.
    fn one(&mut self, passage: &mut Passage<'_>, from: usize) -> anyhow::Result<()> {
        let (from, to) = self.ends(from);
        let due = passage.seen + 1;
        passage.step(from, to, true)?;
        while passage.seen < due {
            passage.step(from, to, false)?;
        }
        Ok(())
    }

    /// The cards of machine `from` and of the other.
    fn ends(&mut self, from: usize) -> (&mut Card, &mut Card) {
        let [first, second] = &mut self.cards;
        if from == 0 { (first, second) } else { (second, first) }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(from: &Reading, to: &Reading) -> f64 {
    (to.seen - from.seen) as f64 / (to.at - from.at).as_secs_f64().max(1e-9)
}

/// Frames from one machine to the other.
struct Passage<'a> {
    stop: &'a AtomicBool,
    shares_core: bool,
    frames: Frames,
    /// One of so many is made and checked whole.
    every: u64,
    /// Frames on their way at most.
    window: u64,
    made: u64,
    seen: u64,
    whole: u64,
    outgoing: Batch,
    arrived: Batch,
    idle: u32,
    /// When a frame arrived last, as far as anybody looked.
    last: Instant,
}

impl<'a> Passage<'a> {
    fn new(frames: Frames, window: u64, stop: &'a AtomicBool, shares_core: bool) -> Self {
        let (outgoing, arrived) = (Batch::new(BURST), Batch::new(BURST));
        Self {
            stop,
            shares_core,
            frames,
            every: 1,
            window,
            made: 0,
            seen: 0,
            whole: 0,
            outgoing,
            arrived,
            idle: 0,
            last: Instant::now(),
        }
    }

    fn reading(&self) -> Reading {
        Reading { at: Instant::now(), seen: self.seen }
    }

    /// Sends until a frame has arrived: links may take a moment to come up, and lose what comes before. Then everything starts anew.
    fn meet(&mut self, from: &mut Card, to: &mut Card) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.made = 0;
            self.send(from, 1)?;
            let until = Instant::now() + Duration::from_millis(20);
            let mut came = false;
            // What comes late of earlier tries is taken in, too.
            while Instant::now() < until {
                to.rx.receive(&mut self.arrived);
                for frame in self.arrived.iter() {
                    if self.frames.is_ours(frame) {
                        self.frames.check(frame, 0, self.every == 1)?;
                        came = true;
                    }
                }
                self.arrived.clear();
                // The other way, nothing of ours is on its way.
                from.rx.receive(&mut self.arrived);
                self.arrived.clear();
                self.push(from);
                std::thread::yield_now();
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(Interrupted.into());
            }
            if came {
                (self.made, self.seen, self.last) = (0, 0, Instant::now());
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("nothing passes from one machine to the other for {} s", PATIENCE.as_secs());
            }
        }
    }

    /// Sends, unless there is to be no `more`, and receives.
    #[inline]
    fn step(&mut self, from: &mut Card, to: &mut Card, more: bool) -> anyhow::Result<()> {
        let room = self.window.saturating_sub(self.made - self.seen);
        let room = usize::try_from(room).unwrap_or(BURST).min(self.outgoing.room());
        if more && room > 0 {
            self.send(from, room)?;
        } else {
            self.push(from);
        }
        if self.receive(to)? {
            self.idle = 0;
            return Ok(());
        }
        self.idle += 1;
        std::hint::spin_loop();
        if self.idle.is_multiple_of(SPINS) {
            self.wait(from, to)?;
        }
        Ok(())
    }

    /// Looks whether it is over or frames are lost, and lets others have the core if they need it.
    #[cold]
    fn wait(&mut self, from: &mut Card, to: &mut Card) -> anyhow::Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Interrupted.into());
        }
        if self.idle == SPINS {
            self.last = Instant::now();
        } else if self.made > self.seen && self.last.elapsed() > PATIENCE {
            let (made, seen) = (self.made, self.seen);
            bail!("{} of {made} frames are lost: none has arrived for {} s", made - seen, PATIENCE.as_secs());
        }
        // Nothing of ours is on its way there, but others may have something to say.
        from.rx.receive(&mut self.arrived);
        self.arrived.clear();
        from.tx.reclaim();
        to.tx.reclaim();
        if self.shares_core {
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Makes up to `count` frames and sends what there is.
    fn send(&mut self, from: &mut Card, count: usize) -> anyhow::Result<()> {
        let pool = from.sources.of(&self.frames);
        let before = self.outgoing.len();
        // All first buffers are taken before one is written to, so that their lines travel together.
        for _ in 0..count {
            let Some(frame) = pool.take() else { break };
            frame.prefetch_to_write();
            // There is room.
            let _ = self.outgoing.push(frame);
        }
        let mut filled = before;
        for frame in self.outgoing.as_mut_slice().iter_mut().skip(before) {
            let whole = self.made.is_multiple_of(self.every);
            if self.frames.fill(frame, pool, self.made, whole).is_none() {
                break;
            }
            self.made += 1;
            filled += 1;
        }
        // The pool ran dry before the others were whole.
        self.outgoing.truncate(filled);
        self.push(from);
        Ok(())
    }

    /// Sends what was made.
    fn push(&mut self, from: &mut Card) {
        if self.outgoing.is_empty() || from.tx.transmit(&mut self.outgoing) == 0 {
            from.tx.reclaim();
        }
    }

    /// Takes in and checks what has arrived; whether anything of ours has.
    fn receive(&mut self, to: &mut Card) -> anyhow::Result<bool> {
        if to.rx.receive(&mut self.arrived) == 0 {
            return Ok(false);
        }
        let before = self.seen;
        for frame in self.arrived.iter() {
            let whole = self.seen.is_multiple_of(self.every);
            match self.frames.check(frame, self.seen, whole) {
                Ok(()) => {}
                Err(_) if !self.frames.is_ours(frame) => continue,
                Err(error) => return Err(error).with_context(|| format!("after {} frames", self.seen)),
            }
            self.seen += 1;
            self.whole += u64::from(whole);
        }
        self.arrived.clear();
        Ok(self.seen > before)
    }

    /// Takes in what is on its way.
    fn settle(&mut self, from: &mut Card, to: &mut Card) -> anyhow::Result<()> {
        while self.seen < self.made {
            self.step(from, to, false)?;
        }
        Ok(())
    }
}
