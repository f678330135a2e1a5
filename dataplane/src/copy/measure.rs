//! From which length on a copy costs an engine's core less when the device does it.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use drivers::copy_engine::{CopyDone, CopyJob, EngineState};
use hugemem::{DmaArray, IovaSpace, MemoryRequest, PageChoice};

use super::copier::Channel;
use super::device::Device;
use crate::clock::cycles;

/// Lengths that are tried, in bytes.
const LENGTHS: [u32; 9] = [256, 512, 1024, 1536, 2048, 4096, 9216, 16_384, 65_536];
/// Copies at a time, and how often they are done.
const BURST: u32 = 16;
const TIMES: usize = 24;
/// Bytes that the CPU copies from and to, so that they are no longer in the nearest caches.
const SPREAD: usize = 4 << 20;
/// What a copy costs beside the device: planning it, passing it on, and giving its chain back later, in cycles.
const KEEPING: u64 = 300;
/// How long an engine does something else before it looks again.
const ROUND: Duration = Duration::from_micros(5);
/// How long the device may take for all of them, and for one burst.
const LIMIT: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_millis(300);

/// The shortest of some lengths from which on the device is cheaper than the CPU; `u32::MAX` when it never is, or does not do what it should.
pub(super) fn break_even(device: &mut dyn Device, space: &mut IovaSpace, channel: &mut dyn Channel) -> u32 {
    measure(device, space, channel).unwrap_or(u32::MAX)
}

fn measure(device: &mut dyn Device, space: &mut IovaSpace, channel: &mut dyn Channel) -> Option<u32> {
    let longest = LENGTHS.last().copied()? as usize;
    let bytes = 2 * longest;
    let request = MemoryRequest { bytes, page: PageChoice::Auto, node: None };
    let region = request.allocate(space).ok()?.region;
    let (start, len) = (region.iova(), region.len() as u64);
    let target = start.checked_add(longest as u64)?;
    // Nobody writes to it but the device.
    let _whole: Arc<DmaArray<AtomicU64>> = Arc::new(region.array(bytes / 8, 64).ok()?);
    if device.map(&region).is_err() {
        space.release(start, len);
        return None;
    }
    let mut bench = Bench { channel, jobs: Vec::new(), done: Vec::with_capacity(BURST as usize), underway: 0 };
    let begun = Instant::now();
    let mut even = None;
    for length in LENGTHS.into_iter().rev() {
        let job = CopyJob::new(start, target, length, 0)?;
        let Some(spent) = bench.cost(job).filter(|_| begun.elapsed() < LIMIT) else { break };
        if spent + KEEPING >= by_cpu(length as usize) {
            break;
        }
        even = Some(length);
    }
    // What may still be written to stays mapped, and is not used again.
    if bench.underway == 0 && device.unmap(&region).is_ok() {
        space.release(start, len);
    }
    even
}

/// A channel under measurement.
struct Bench<'c> {
    channel: &'c mut dyn Channel,
    jobs: Vec<CopyJob>,
    done: Vec<CopyDone>,
    underway: u32,
}

impl Bench<'_> {
    /// Cycles of this core for one copy. `None` when the device fails.
    fn cost(&mut self, job: CopyJob) -> Option<u64> {
        let mut best = u64::MAX;
        for _ in 0..TIMES {
            self.jobs.extend((0..BURST).map(|_| job));
            let began = cycles();
            let status = self.channel.turn(&mut self.jobs, &mut self.done);
            let mut spent = cycles().wrapping_sub(began);
            self.underway += BURST - u32::try_from(self.jobs.len()).unwrap_or(BURST);
            if !self.jobs.is_empty() || status.state == EngineState::Broken {
                self.jobs.clear();
                return None;
            }
            spent += self.collect()?;
            best = best.min(spent / u64::from(BURST));
        }
        Some(best)
    }

    /// Waits for all copies; the cycles of the looks that found any.
    fn collect(&mut self) -> Option<u64> {
        let begun = Instant::now();
        let mut spent = 0;
        loop {
            let pause = Instant::now();
            while pause.elapsed() < ROUND {
                std::hint::spin_loop();
            }
            let began = cycles();
            self.channel.turn(&mut self.jobs, &mut self.done);
            if !self.done.is_empty() {
                spent += cycles().wrapping_sub(began);
            }
            self.underway = self.underway.saturating_sub(u32::try_from(self.done.len()).unwrap_or(u32::MAX));
            self.done.clear();
            if self.underway == 0 {
                return Some(spent);
            }
            if begun.elapsed() > PATIENCE {
                return None;
            }
            // A model may need this core.
            std::thread::yield_now();
        }
    }
}

/// Cycles for a copy by this core, from and to memory that was not used just now.
fn by_cpu(length: usize) -> u64 {
    let source = vec![1_u8; SPREAD];
    let mut target = vec![0_u8; SPREAD];
    let mut spent = 0;
    let mut count = 0;
    // The first time the system finds the pages.
    for _ in 0..2 {
        let began = cycles();
        count = 0;
        for (from, to) in source.chunks_exact(length).zip(target.chunks_exact_mut(length)) {
            to.copy_from_slice(from);
            count += 1;
        }
        spent = cycles().wrapping_sub(began);
        black_box(&target);
    }
    spent / count.max(1)
}
