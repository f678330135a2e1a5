//! The generator and sink: two virtio-user ports on one core, and what goes out of one is counted where it comes in.
//!
//! Throughput is counted in windows of some milliseconds. A window in which this thread, or one that it was told to watch, had to wait for
//! its core says nothing about the device under test, and is left out; the median of the others counts.

mod acquaint;
mod direction;
mod measure;
mod ports;

use std::time::Duration;

use anyhow::Result;
use dataplane::port::RingChoice;
use serde_json::Value;

use self::ports::Ports;
use super::scheduling::{Thread, pin};

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sockets of the two ports.
    pub sockets: [String; 2],
    /// Whether this side listens there.
    pub server: bool,
    /// Ring format.
    pub ring: RingChoice,
    /// Frames go in both directions.
    pub both_ways: bool,
    /// Bytes of a frame.
    pub size: usize,
    /// Frames are large TCP segments.
    pub large: bool,
    /// Flows of each direction, chosen at random for each frame. With more than one, each has to come through once before anything is measured.
    pub flows: u32,
    /// Frames in flight at most; `None`: as many as go.
    pub in_flight: Option<u64>,
    /// The core to run on.
    pub core: usize,
    /// Length of a window.
    pub window: Duration,
    /// Clean windows that are wanted.
    pub clean: usize,
    /// Windows after which it is enough, clean or not.
    pub most: usize,
    /// Time before the first window.
    pub warm: Duration,
    /// Threads of the device under test.
    pub watch: Vec<Thread>,
}

/// Runs the plan and gives what was measured.
///
/// # Errors
/// The device under test is not there, passes nothing, or damages frames.
pub fn run(plan: &Plan) -> Result<Value> {
    pin(plan.core)?;
    let own = Thread::current();
    // From the first message on: a device that is starved answers late.
    plan.watch.iter().chain([&own]).for_each(|thread| thread.prefer(true));
    let report = Ports::open(plan).and_then(|mut ports| {
        let report = ports.measure(plan);
        let stopped = ports.close();
        let report = report?;
        stopped.map(|()| report)
    });
    // Neither this thread nor a device that only polls must hold its core between measurements.
    plan.watch.iter().chain([&own]).for_each(|thread| thread.prefer(false));
    report
}
