//! Frames between virtual machines whose large copies a device does: every one arrives once, whole and in order, whatever the device does.
//!
//! The forwarder runs in this process, and so does the device, a software I/OAT on a thread of its own, which lies and fails as it is told. Machines are
//! emulated, with split and with packed rings; lengths are mixed so that copies of the CPU and of the device follow each other in every batch. What the
//! IOMMU of the device refuses is on its record, and nothing may be.

use std::process::ExitCode;

use lab::suite::Suite;

mod faults;
mod leaving;
mod order;
mod scene;

fn main() -> ExitCode {
    lab::leftovers::remove();
    let mut suite = Suite::from_arguments();
    suite.check("frames-of-mixed-lengths-arrive-as-without-a-device", order::mixed);
    suite.check("frames-both-ways-arrive-as-without-a-device", order::both_ways);
    suite.check("large-segments-arrive-whole", order::large);
    suite.check("completions-come-late-and-in-bursts", order::late);
    suite.check("copies-are-finished-in-reverse", order::reversed);
    suite.check("an-error-at-each-position-of-a-batch-costs-nothing", faults::each_position);
    suite.check("a-device-that-halts-at-random-moments-costs-nothing", faults::halting);
    suite.check("a-device-that-vanishes-is-replaced-by-the-cpu-and-comes-back", faults::vanishing);
    suite.check("machines-leave-while-copies-are-in-flight", leaving::detaching);
    suite.check("memory-is-cut-off-while-copies-are-in-flight", leaving::truncating);
    suite.finish()
}
