//! What a frame costs the 82599 model alone: one thread plays the card and, in turn, a driver of a few lines.
//!
//! `cargo run --release -p mirach-models --example rate_ixgbe [FRAME_BYTES] [SECONDS]`

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::{Bar, PciFunction};
use drivers::nic::MacAddress;
use hugemem::{IovaSpace, MemoryRequest, PageChoice};
use models::card::{self, Options};
use models::ixgbe::{Config, Ixgbe};
use models::wire::{Traffic, TrafficPlan};

/// Descriptors of a ring, and bytes of a buffer.
const SIZE: usize = 512;
const BUFFER: u64 = 2048;
/// First registers of receive queue 0 and of transmit queue 0.
const RECEIVE: u32 = 0x1000;
const TRANSMIT: u32 = 0x6000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let frame_bytes = arguments.next().map_or(Ok(60), |text| text.parse())?;
    let seconds = arguments.next().map_or(Ok(2), |text| text.parse())?;
    for receives in [true, false] {
        let (mean, best) = run(receives, frame_bytes, Duration::from_secs(seconds))?;
        let direction = if receives { "receive" } else { "transmit" };
        println!("{direction}: {mean:.1} ns a frame of {frame_bytes} bytes, {best:.1} in the quickest of all polls");
    }
    Ok(())
}

/// Nanoseconds a frame: the mean, and those of the quickest poll, which other work on the machine did not disturb.
fn run(receives: bool, frame_bytes: usize, limit: Duration) -> Result<(f64, f64), Box<dyn std::error::Error>> {
    let config = Config { link_delay: Duration::ZERO, ..Config::default() };
    let target = MacAddress([0x02, 0x1b, 0x21, 0, 0, 1]);
    let count = if receives { u64::MAX } else { 0 };
    let wire = Traffic::alone(TrafficPlan { frame_bytes, count, target, ..TrafficPlan::default() });
    let (mut function, mut device) = card::new(Options::named("card"), Ixgbe::new(config), wire)?;
    let request = MemoryRequest { bytes: 4 << 20, page: PageChoice::Auto, node: None };
    let region = request.allocate(&mut IovaSpace::unlimited())?.region;
    function.map(&region)?;
    function.set_bus_master(true)?;
    let bar = function.bar(0)?;
    let ring = region.array::<AtomicU64>(2 * SIZE, 4096)?;
    let buffers = region.array::<AtomicU64>(SIZE * 256, 4096)?;
    let page = if receives { RECEIVE } else { TRANSMIT };
    let words =
        [(0x00, ring.iova().raw()), (0x04, ring.iova().raw() >> 32), (0x08, 16 * SIZE as u64), (0x14, 1 << 25 | 2)];
    for (register, value) in words.into_iter().filter(|(register, _)| receives || *register != 0x14) {
        bar.store::<u32>(page + register, u32::try_from(value & 0xffff_ffff)?);
    }
    bar.store::<u32>(page + 0x28, 1 << 25);
    // Everything is received; checksums and hashes as drivers want them.
    for (register, value) in [(0x5080, 0x700), (0x5000, 1 << 13), (0x4a80, 0x8100_0005), (0x3000, 1)] {
        bar.store::<u32>(register, value);
    }
    let length = frame_bytes as u64;
    let arm = |slot: usize| {
        ring[2 * slot].store(buffers.iova().raw() + BUFFER * slot as u64, Ordering::Relaxed);
        let command = length | 0x2b00_0000 | 3 << 20 | length << 46;
        ring[2 * slot + 1].store(if receives { 0 } else { command }, Ordering::Release);
    };
    (0..SIZE).for_each(arm);
    let (mut next, mut moved, mut playing, mut best) = (0, 0_u32, 0.0, f64::INFINITY);
    let mut tail = if receives { SIZE - 1 } else { 64 };
    let start = Instant::now();
    while start.elapsed() < limit {
        bar.publish::<u32>(page + 0x18, u32::try_from(tail)?);
        let before = Instant::now();
        let work = device.poll();
        let nanoseconds = before.elapsed().as_secs_f64() * 1e9;
        playing += nanoseconds;
        if work.received + work.transmitted == 64 {
            best = best.min(nanoseconds / 64.0);
        }
        let done = if receives { 1 } else { 1 << 32 };
        while ring[2 * next + 1].load(Ordering::Acquire) & done != 0 {
            arm(next);
            next = (next + 1) % SIZE;
            moved += 1;
            tail = (tail + 1) % SIZE;
        }
    }
    Ok((playing / f64::from(moved), best))
}
