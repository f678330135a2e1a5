//! A copy engine that is a thread: for a core that is free where there is no device, and to see what a device would do.
//!
//! Each channel has a thread of its own, which sleeps while there is nothing to copy. It reaches what was mapped for it and nothing else, as a device does
//! behind an IOMMU.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::Duration;

use drivers::DeviceError;
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine, CopyFailure, CopyJob, CopyOutcome, EngineState, Started};
use hugemem::{Iova, Region};
use rtrb::{Consumer, Producer, RingBuffer};

use crate::guest;

/// Copies that a channel can have underway.
const DEPTH: usize = 512;
/// Copies that are done with one look at what is mapped.
const BURST: usize = 32;
/// Looks for more before a thread sleeps, and how long it sleeps at most.
const LOOKS: u32 = 2000;
const SLEEP: Duration = Duration::from_millis(100);

/// The memory that the threads reach.
type Windows = Arc<Mutex<Vec<Region>>>;

/// Threads that copy.
pub(super) struct Cpu {
    windows: Windows,
    channels: u16,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Cpu {
    pub(super) fn new(channels: u16) -> Self {
        Self { windows: Windows::default(), channels, stop: Arc::default(), threads: Vec::new() }
    }

    fn halt(&mut self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has stopped as well.
            let _ = thread.join();
        }
    }
}

impl CopyDevice for Cpu {
    type Engine = CpuChannel;
    type Interrupt = ();

    fn name(&self) -> &str {
        "cpu"
    }

    fn start(&mut self) -> Result<Vec<Started<Self>>, DeviceError> {
        self.halt();
        self.stop = Arc::default();
        let mut channels = Vec::new();
        for number in 0..self.channels {
            let (jobs, their_jobs) = RingBuffer::new(DEPTH);
            let (their_done, done) = RingBuffer::new(DEPTH);
            let sleeps = Arc::new(AtomicBool::new(false));
            let worker = Worker {
                jobs: their_jobs,
                done: their_done,
                windows: Arc::clone(&self.windows),
                sleeps: Arc::clone(&sleeps),
                stop: Arc::clone(&self.stop),
            };
            let spawned = std::thread::Builder::new().name(format!("copy-cpu-{number}")).spawn(move || worker.run());
            let thread = spawned.map_err(|error| DeviceError::Request {
                device: "cpu".into(),
                reason: format!("cannot start a thread that copies: {error}"),
            })?;
            let channel = CpuChannel { jobs, done, sleeps, underway: 0, thread: thread.thread().clone() };
            channels.push((channel, None));
            self.threads.push(thread);
        }
        Ok(channels)
    }

    fn stop(&mut self, channels: Vec<CpuChannel>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        self.halt();
        for mut channel in channels {
            back.reserve(channel.underway);
            channel.complete(back);
            debug_assert_eq!(channel.underway, 0, "a thread empties its ring before it ends");
        }
        Ok(())
    }

    fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).push(region.clone());
        Ok(())
    }

    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| other.id() != region.id());
        Ok(())
    }

    fn check(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl Drop for Cpu {
    fn drop(&mut self) {
        self.halt();
    }
}

/// The end of a thread that gives it work.
pub(super) struct CpuChannel {
    jobs: Producer<CopyJob>,
    done: Consumer<CopyDone>,
    /// The thread sleeps, or is about to.
    sleeps: Arc<AtomicBool>,
    underway: usize,
    thread: Thread,
}

impl CopyEngine for CpuChannel {
    fn room(&self) -> usize {
        DEPTH - self.underway
    }

    fn unit(&self) -> u32 {
        u32::MAX
    }

    fn longest(&self) -> u32 {
        u32::MAX
    }

    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        if self.underway == DEPTH {
            return Err(job);
        }
        self.jobs.push(job).map_err(|rtrb::PushError::Full(job)| job)?;
        self.underway += 1;
        Ok(())
    }

    fn submit(&mut self) {
        // See `Worker::sleep`.
        fence(Ordering::SeqCst);
        if self.sleeps.load(Ordering::Relaxed) && self.sleeps.swap(false, Ordering::Relaxed) {
            self.thread.unpark();
        }
    }

    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize {
        let mut count = 0;
        while done.len() < done.capacity()
            && let Ok(job) = self.done.pop()
        {
            done.push(job);
            count += 1;
        }
        self.underway -= count;
        count
    }

    fn underway(&self) -> usize {
        self.underway
    }

    fn state(&self) -> EngineState {
        if self.done.is_abandoned() && self.underway > 0 && self.done.is_empty() {
            return EngineState::Broken;
        }
        EngineState::Working
    }
}

/// What a thread has.
struct Worker {
    jobs: Consumer<CopyJob>,
    done: Producer<CopyDone>,
    windows: Windows,
    sleeps: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn run(mut self) {
        let mut looks = 0;
        loop {
            let stopping = self.stop.load(Ordering::Acquire);
            if self.burst(stopping) {
                looks = 0;
            } else if stopping {
                return;
            } else if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                self.sleep();
                looks = 0;
            }
        }
    }

    /// Does what there is to do, or gives it back. `false` when there was nothing.
    fn burst(&mut self, stopping: bool) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        // Nothing is taken away while it is copied from or to.
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BURST {
            let Ok(job) = self.jobs.pop() else { break };
            let outcome = if stopping { CopyOutcome::Failed(CopyFailure::Unproven) } else { copy(&windows, &job) };
            // There is a place for each job that was pushed.
            let _ = self.done.push(CopyDone { token: job.token(), outcome });
        }
        true
    }

    /// Sleeps until it is woken. Both sides store before they load, with a fence in between, so that work is never left to a sleeper.
    fn sleep(&self) {
        self.sleeps.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.jobs.is_empty() && !self.stop.load(Ordering::Acquire) {
            std::thread::park_timeout(SLEEP);
        }
        self.sleeps.store(false, Ordering::Relaxed);
    }
}

pub(super) fn copy(windows: &[Region], job: &CopyJob) -> CopyOutcome {
    let Some(source) = find(windows, job.source(), job.length()) else {
        return CopyOutcome::Failed(CopyFailure::Source);
    };
    let Some(target) = find(windows, job.target(), job.length()) else {
        return CopyOutcome::Failed(CopyFailure::Target);
    };
    if guest::copy_windows(source, target, job.length()) {
        CopyOutcome::Copied
    } else {
        CopyOutcome::Failed(CopyFailure::Refused)
    }
}

/// The window that has all of the bytes, and where they begin in it.
fn find(windows: &[Region], at: Iova, length: u32) -> Option<(&Region, usize)> {
    windows.iter().find_map(|window| {
        let offset = usize::try_from(at.raw().checked_sub(window.iova().raw())?).ok()?;
        (offset.checked_add(length as usize)? <= window.len()).then_some((window, offset))
    })
}

impl fmt::Debug for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cpu").field("channels", &self.channels).finish_non_exhaustive()
    }
}
