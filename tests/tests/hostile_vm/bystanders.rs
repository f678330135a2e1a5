//! Two machines that have nothing to do with the offender: numbered frames go between them all the time, and none may be lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use lab::vm::{Check, Content, Passage, Seen, Series, Vm};
use lab::wait;

use crate::engine::Engine;
use crate::scene::PATIENCE;

/// Between one pair of frames and the next, and between two looks at what has arrived.
const PACE: Duration = Duration::from_micros(300);
/// Frames of one direction that may be on their way, so that the sender's queue is never full.
const WINDOW: u64 = 200;

/// The machines, on a thread of their own.
pub(crate) struct Bystanders {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Shared {
    ends: AtomicBool,
    /// Frames that arrived.
    arrived: AtomicU64,
    /// The longest time that one was on its way, in nanoseconds.
    longest: AtomicU64,
    /// The longest of these times for which nobody but mirach is to blame, since it was last asked for, in nanoseconds.
    pause: AtomicU64,
}

/// A frame that is watched on its way.
struct Probe {
    number: u64,
    sent: Instant,
    /// What the engine had been kept from running by then.
    kept: Duration,
    /// When it had not arrived yet.
    missed: Instant,
}

impl Probe {
    /// It arrived: for how long it certainly was not there although the engine could run.
    fn pause(&self, engine: &Engine) -> Result<Duration> {
        let missed = self.missed.saturating_duration_since(self.sent);
        Ok(missed.saturating_sub(engine.kept()?.saturating_sub(self.kept)))
    }
}

impl Bystanders {
    /// Begins once the path is there, through this engine.
    pub(crate) fn start(mut machines: [Vm; 2], engine: Engine) -> Result<Self> {
        let [first, second] = &mut machines;
        Passage::wait_for_path(series(0), first, second)?;
        Passage::wait_for_path(series(1), second, first)?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("bystanders".into()).spawn(move || run(machines, &engine, &theirs))?;
        Ok(Self { shared, thread })
    }

    /// Frames that have arrived.
    pub(crate) fn arrived(&self) -> u64 {
        self.shared.arrived.load(Ordering::Relaxed)
    }

    /// The longest pause since this was last asked, of those for which nobody but mirach is to blame.
    pub(crate) fn pause(&self) -> Duration {
        Duration::from_nanos(self.shared.pause.swap(0, Ordering::Relaxed))
    }

    /// Waits until more frames than `arrived` have arrived.
    pub(crate) fn go_on(&self, arrived: u64) -> Result<()> {
        wait::until("the bystanders' frames", PATIENCE, || {
            ensure!(!self.thread.is_finished(), "the bystanders ended");
            Ok((self.arrived() > arrived + 10).then_some(()))
        })
    }

    /// Waits for what is still on its way; how many frames arrived, and how long one took at most.
    pub(crate) fn end(self) -> Result<(u64, Duration)> {
        self.shared.ends.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the bystanders panicked"))??;
        let longest = Duration::from_nanos(self.shared.longest.load(Ordering::Relaxed));
        Ok((self.shared.arrived.load(Ordering::Relaxed), longest))
    }
}

fn series(direction: u8) -> Series {
    Series { id: 10 + direction, content: Content::Plain(60, 1514) }
}

fn run(mut machines: [Vm; 2], engine: &Engine, shared: &Shared) -> Result<()> {
    let began = Instant::now();
    let mut checks = [Check::new(series(0), 1), Check::new(series(1), 1)];
    let mut sent = [0; 2];
    let mut probes: [Option<Probe>; 2] = [None, None];
    let mut frame = Vec::new();
    let mut last = Instant::now();
    loop {
        let ends = shared.ends.load(Ordering::Relaxed);
        let received = [checks[0].received, checks[1].received];
        if ends && received == sent {
            break;
        }
        if received != sent && last.elapsed() > PATIENCE {
            bail!("frames are lost: {received:?} of {sent:?} arrived, then none for {PATIENCE:?}");
        }
        for (direction, series) in [(0, series(0)), (1, series(1))] {
            let before = sent[direction];
            if !ends && sent[direction] - received[direction] < WINDOW {
                // The epoch is the time, in microseconds.
                let now = u32::try_from(began.elapsed().as_micros() & 0xffff_ffff)?;
                let metadata = series.write(sent[direction], now, &mut frame);
                if machines[direction].stage(0, &frame, metadata)? {
                    sent[direction] += 1;
                }
            }
            let (kept, flushed) = (engine.kept()?, machines[direction].flush());
            let now = Instant::now();
            let probe = &mut probes[direction];
            if probe.is_none() && flushed > 0 && sent[direction] > before {
                *probe = Some(Probe { number: before, sent: now, kept, missed: now });
            }
            let check = &mut checks[direction];
            let count = machines[1 - direction].receive(|packet| {
                match check.accept(packet)? {
                    Seen::Ours(then) => {
                        let now = u32::try_from(began.elapsed().as_micros() & 0xffff_ffff)?;
                        let micros = u64::from(now.wrapping_sub(then));
                        shared.longest.fetch_max(micros * 1000, Ordering::Relaxed);
                    }
                    // Of the time when the path was not there yet.
                    Seen::Stranger => {}
                }
                Ok(())
            });
            if count.with_context(|| format!("bystander {direction}"))? > 0 {
                last = Instant::now();
            }
            match probe {
                Some(probe) if check.received <= probe.number => probe.missed = now,
                Some(arrived) => {
                    let pause = u64::try_from(arrived.pause(engine)?.as_nanos())?;
                    shared.pause.fetch_max(pause, Ordering::Relaxed);
                    *probe = None;
                }
                None => {}
            }
        }
        shared.arrived.store(checks[0].received + checks[1].received, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
    machines.into_iter().try_for_each(Vm::detach)
}
