//! How fast the software copy engine copies: a driver of a few lines on one core, the engine on another one.
//!
//! `cargo run --release -p mirach-models --example rate_ioat`. For each length: what the engine copies a second, and what a copy costs the
//! driver, which hands over batches of 32 and looks for their completion.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use drivers::bus::{Bar, PciFunction};
use hugemem::{Iova, Region};
use models::card::{self, Options};
use models::ioat::{Config, Ioat};
use models::wire::Null;

/// Descriptors of the ring, and of a batch.
const RING: u64 = 128;
const BATCH: u64 = 32;
const BASE: u64 = 0x4000_0000;
/// Where source and target are.
const SOURCE: u64 = 1 << 20;
const TARGET: u64 = 16 << 20;
const RUN: Duration = Duration::from_millis(500);

fn main() {
    println!("{:>8} {:>12} {:>12} {:>16}", "bytes", "copies/s", "GB/s", "driver ns/copy");
    for bytes in [64, 512, 1518, 4096, 9000, 65_536] {
        let (copies, elapsed, busy) = run(bytes);
        let seconds = elapsed.as_secs_f64();
        let rate = copies as f64 / seconds;
        let cost = busy.as_nanos() as f64 / copies as f64;
        println!("{bytes:>8} {rate:>12.0} {:>12.2} {cost:>16.1}", rate * bytes as f64 / 1e9);
    }
}

/// Copies, the time that they took, and the time that the driver was not just waiting.
fn run(bytes: u64) -> (u64, Duration, Duration) {
    let (mut function, device) = card::new(Options::default(), Ioat::new(Config::default()), Null).unwrap();
    let region = Region::on_heap(32 << 20, Iova::new(BASE)).unwrap();
    function.map(&region).unwrap();
    function.set_bus_master(true).unwrap();
    let memory = region.array::<AtomicU64>((32 << 20) / 8, 4096).unwrap();
    // Pages that nobody has written are all the same one.
    memory.iter().for_each(|word| word.store(1, Ordering::Relaxed));
    let word = |at: u64| &memory[usize::try_from(at / 8).unwrap()];
    let bar = function.bar(0).unwrap();
    let _engine = device.run().unwrap();
    // The completion is at 0, the ring at 4096; CHANCMP and CHAINADDR.
    word(0).store(0, Ordering::Relaxed);
    bar.store(0x98, BASE);
    bar.store(0x90, BASE + 4096);
    let place = |index: u64| 4096 + 64 * (index % RING);
    let (mut submitted, mut done, mut busy) = (0_u64, 0_u64, Duration::ZERO);
    let start = Instant::now();
    while start.elapsed() < RUN || done < submitted {
        let begin = Instant::now();
        let mut worked = false;
        if submitted - done <= RING - 2 * BATCH && start.elapsed() < RUN {
            for index in submitted..submitted + BATCH {
                let at = place(index);
                // The last one of a batch reports.
                let control = u64::from(index + 1 == submitted + BATCH) << 3;
                word(at).store(control << 32 | bytes, Ordering::Relaxed);
                word(at + 8).store(BASE + SOURCE + 65_536 * (index % 64), Ordering::Relaxed);
                word(at + 16).store(BASE + TARGET + 65_536 * (index % 64), Ordering::Relaxed);
                word(at + 24).store(BASE + place(index + 1), Ordering::Relaxed);
            }
            submitted += BATCH;
            bar.publish(0x86, u16::try_from(submitted & 0xffff).unwrap());
            worked = true;
        }
        let completed = word(0).load(Ordering::Acquire) & !0x3f;
        while done < submitted && is_done(completed, done, submitted, place) {
            done += BATCH;
            worked = true;
        }
        if worked {
            busy += begin.elapsed();
        } else {
            std::hint::spin_loop();
        }
    }
    (done, start.elapsed(), busy)
}

/// The batch that begins at `first` is done: the completion is of its last descriptor, or of that of a later batch.
fn is_done(completed: u64, first: u64, submitted: u64, place: impl Fn(u64) -> u64) -> bool {
    (first..submitted).step_by(32).any(|batch| completed == BASE + place(batch + BATCH - 1))
}
