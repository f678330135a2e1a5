//! A copy engine for tests: it does what a script says, and when.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::{Arc, Mutex};

use drivers::DeviceError;
use drivers::copy_engine::{CopyDevice, CopyDone, CopyEngine, CopyFailure, CopyJob, CopyOutcome, EngineState, Started};
use hugemem::{IovaSpace, Region};

use super::cpu::copy;
use super::device::Described;
use super::name::Threshold;
use super::owner::{Copying, Opened};

/// What the engine does. Tests and engine share it.
#[derive(Default, Debug)]
pub(crate) struct Script {
    /// Copies that are given back with the next look; more stay underway.
    pub(crate) let_through: usize,
    /// The last comes back first.
    pub(crate) reversed: bool,
    /// Numbers of copies, counted from 0, that fail without a byte copied.
    pub(crate) failing: Vec<u64>,
    /// It takes nothing any more.
    pub(crate) broken: bool,
    /// Starting it and opening it again fail.
    pub(crate) absent: bool,
    /// Copies that came to it.
    pub(crate) seen: u64,
    /// Times that it was stopped.
    pub(crate) stops: u64,
    windows: Vec<Region>,
}

impl Script {
    /// Windows that are mapped.
    pub(crate) fn windows(&self) -> usize {
        self.windows.len()
    }
}

/// A device with one channel that follows `script`, for ports with a threshold of `bytes`.
pub(crate) fn scripted(script: &Arc<Mutex<Script>>, bytes: u32) -> Arc<Copying> {
    let (seen, script) = (Arc::clone(script), Arc::clone(script));
    let open = move || {
        if script.lock().unwrap().absent {
            let (device, reason) = ("scripted".into(), "it is away".into());
            return Err(DeviceError::Device { device, reason }.into());
        }
        script.lock().unwrap().windows.clear();
        let device = Described { device: Scripted(Arc::clone(&script)), about: "follows a script".into() };
        Ok(Opened { device: Box::new(device), space: IovaSpace::unlimited() })
    };
    let copying = Copying::start("scripted".into(), Threshold::Bytes(bytes), Box::new(open)).unwrap();
    // What was copied to find the break-even does not count.
    seen.lock().unwrap().seen = 0;
    copying
}

struct Scripted(Arc<Mutex<Script>>);

impl CopyDevice for Scripted {
    type Engine = Followed;
    type Interrupt = ();

    fn name(&self) -> &str {
        "scripted"
    }

    fn start(&mut self) -> Result<Vec<Started<Self>>, DeviceError> {
        let mut script = self.0.lock().unwrap();
        if script.absent {
            return Err(DeviceError::Device { device: "scripted".into(), reason: "it is away".into() });
        }
        script.broken = false;
        Ok(vec![(Followed { script: Arc::clone(&self.0), jobs: Vec::new() }, None)])
    }

    fn stop(&mut self, engines: Vec<Followed>, back: &mut Vec<CopyDone>) -> Result<(), DeviceError> {
        self.0.lock().unwrap().stops += 1;
        for engine in engines {
            let unproven = CopyOutcome::Failed(CopyFailure::Unproven);
            back.extend(engine.jobs.iter().map(|(_, job)| CopyDone { token: job.token(), outcome: unproven }));
        }
        Ok(())
    }

    fn map(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.0.lock().unwrap().windows.push(region.clone());
        Ok(())
    }

    fn unmap(&mut self, region: &Region) -> Result<(), DeviceError> {
        self.0.lock().unwrap().windows.retain(|other| other.id() != region.id());
        Ok(())
    }

    fn check(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

struct Followed {
    script: Arc<Mutex<Script>>,
    jobs: Vec<(u64, CopyJob)>,
}

impl CopyEngine for Followed {
    fn room(&self) -> usize {
        64 - self.jobs.len().min(64)
    }

    fn unit(&self) -> u32 {
        u32::MAX
    }

    fn longest(&self) -> u32 {
        u32::MAX
    }

    fn push(&mut self, job: CopyJob) -> Result<(), CopyJob> {
        let mut script = self.script.lock().unwrap();
        self.jobs.push((script.seen, job));
        script.seen += 1;
        Ok(())
    }

    fn submit(&mut self) {}

    fn complete(&mut self, done: &mut Vec<CopyDone>) -> usize {
        let mut script = self.script.lock().unwrap();
        let count = script.let_through.min(self.jobs.len());
        script.let_through -= count;
        for _ in 0..count {
            let place = if script.reversed { self.jobs.len() - 1 } else { 0 };
            let (number, job) = self.jobs.remove(place);
            let outcome = if script.failing.contains(&number) {
                CopyOutcome::Failed(CopyFailure::Target)
            } else {
                copy(&script.windows, &job)
            };
            done.push(CopyDone { token: job.token(), outcome });
        }
        count
    }

    fn underway(&self) -> usize {
        self.jobs.len()
    }

    fn state(&self) -> EngineState {
        if self.script.lock().unwrap().broken { EngineState::Broken } else { EngineState::Working }
    }
}
