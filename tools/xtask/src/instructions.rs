//! `cargo xtask instructions`: what a packet costs in instructions, counted by valgrind.
//!
//! Instructions are the same on every machine and in every run, and need no counters of the processor, which virtual
//! machines seldom have.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::{cargo, passed, target};

const DRIVERS: [&str; 3] = ["ixgbe", "virtio-split", "virtio-packed"];
/// Rings and lengths of frames between virtual machines, in bursts of [`VM_BURST`].
const RINGS: [&str; 2] = ["split", "packed"];
const SIZES: [u32; 3] = [64, 256, 1518];
const VM_BURST: u32 = 32;
const BURSTS: [u32; 5] = [1, 8, 32, 64, 128];
/// Bursts that are counted.
const COUNTED: u32 = 200;
/// Functions of the example whose calls are counted.
const DIRECTIONS: [&str; 2] = ["*counted_receive*", "*counted_transmit*"];

/// Builds the example, runs it and prints a table.
pub(crate) fn run() -> Result<()> {
    passed(&mut cargo(&["build", "--release", "-p", "mirach-models", "--example", "instructions"]))?;
    println!("instructions a packet, frames of 64 bytes");
    println!("{:<14} {:>6} {:>9} {:>9} {:>9}", "driver", "burst", "receive", "transmit", "forward");
    for driver in DRIVERS {
        for burst in BURSTS {
            let arguments = [driver, &burst.to_string(), &COUNTED.to_string()];
            let [receive, transmit] = DIRECTIONS.map(|function| count("instructions", &arguments, function));
            let (receive, transmit) = (receive?, transmit?);
            println!("{driver:<14} {burst:>6} {receive:>9.0} {transmit:>9.0} {:>9.0}", receive + transmit);
        }
    }
    passed(&mut cargo(&["build", "--release", "-p", "mirach-dataplane", "--example", "vm_instructions"]))?;
    println!("\ninstructions a packet from VM to VM, bursts of {VM_BURST}");
    println!("{:<14} {:>6} {:>9} {:>9} {:>9}", "ring", "bytes", "receive", "transmit", "forward");
    for ring in RINGS {
        for size in SIZES {
            let arguments = [ring, &size.to_string(), &VM_BURST.to_string(), &COUNTED.to_string()];
            let [receive, transmit] = DIRECTIONS.map(|function| count("vm_instructions", &arguments, function));
            let (receive, transmit) = (receive?, transmit?);
            println!("{ring:<14} {size:>6} {receive:>9.0} {transmit:>9.0} {:>9.0}", receive + transmit);
        }
    }
    Ok(())
}

/// Instructions a packet in calls of `function` by `example`.
#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn count(example: &str, arguments: &[&str], function: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={function}"))
        .arg(target().join("release/examples").join(example))
        .args(arguments)
        .output()
        .context("cannot run valgrind: apt-get install valgrind")?;
    let (printed, report) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("the example failed under valgrind: {}", report.trim());
    }
    let packets: u64 = printed.trim().parse().context("the example printed no number")?;
    let collected = report.lines().find_map(|line| line.split("Collected :").nth(1));
    let instructions: u64 =
        collected.context("valgrind collected nothing")?.trim().parse().context("valgrind printed no number")?;
    if instructions == 0 || packets == 0 {
        bail!("{function} was never called");
    }
    Ok(instructions as f64 / packets as f64)
}
