//! The frames that are passed between two machines, whatever is between them.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::vm::{Check, Content, Passage, Seen, Series, Vm};

/// For a flood to reach the other side: this host may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long frames are sent in one direction.
const LIMIT: Duration = Duration::from_secs(4);

/// The frames of a passage.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// What is told of it.
    pub(crate) name: &'static str,
    content: Content,
    count: u64,
    /// For each queue pair. Rings have 256 descriptors, of which a long frame takes several.
    window: u64,
}

/// A million of the shortest frames.
pub(crate) const SHORT: Load =
    Load { name: "60 bytes", content: Content::Plain(60, 60), count: 1_000_000, window: 128 };
/// All lengths of a usual network.
pub(crate) const USUAL: Load =
    Load { name: "60 to 1514 bytes", content: Content::Plain(60, 1514), count: 200_000, window: 128 };
/// All lengths with large ones, in several buffers each.
pub(crate) const JUMBO: Load =
    Load { name: "60 to 9014 bytes", content: Content::Plain(60, 9014), count: 40_000, window: 24 };
/// TCP segments of almost 64 KiB, which would be cut by a card.
pub(crate) const LARGE: Load = Load { name: "64 KiB", content: Content::Large(65_000), count: 3_000, window: 4 };

/// The same over IPv6: DPDK's checksum engine, which it needs to send segments on, clears the checksum of IPv4 headers.
pub(crate) const LARGE_V6: Load = Load { content: Content::LargeV6(65_000), name: "64 KiB over IPv6", ..LARGE };

/// Passes the frames from one machine to the other, and as many back.
pub(crate) fn both_ways(machines: &mut [Vm; 2], load: Load) -> Result<()> {
    let [left, right] = machines;
    let series = Series { id: 1, content: load.content };
    let window = load.window * left.pairs() as u64;
    let passage = Passage { series, count: load.count, limit: LIMIT, window };
    Passage::wait_for_path(series, left, right)?;
    let there = passage.run(left, right)?;
    let back = Passage { series: Series { id: 2, ..series }, ..passage }.run(right, left)?;
    for passed in [there, back] {
        let whole = if load.content.is_large() { passed.count } else { 0 };
        ensure!(
            passed.large == whole,
            "of {} frames {} came as segments that are still to be cut",
            passed.count,
            passed.large
        );
    }
    let rate = |passed: lab::vm::Passed| passed.count as f64 * 1e-3 / passed.time.as_secs_f64();
    println!(
        "    {}: {} frames there, {} back, {:.1} and {:.1} thousand a second",
        load.name,
        there.count,
        back.count,
        rate(there),
        rate(back)
    );
    Ok(())
}

/// Fails unless these words are among the facts of both machines.
pub(crate) fn say(machines: &mut [Vm; 2], words: &str) -> Result<()> {
    for machine in machines {
        let facts = machine.describe();
        ensure!(facts.contains(words), "a machine does not say `{words}`: {facts}");
    }
    Ok(())
}

/// Sends frames as fast as they are taken, for as long as `go_on`, which is asked with each that arrives, says so: what is under way at its
/// end is left there.
pub(crate) fn flood(from: &mut Vm, to: &mut Vm, mut go_on: impl FnMut(u64) -> Result<bool>) -> Result<()> {
    let series = Series { id: 3, content: Content::Plain(60, 1514) };
    let mut check = Check::new(series, from.pairs());
    check.may_lose = true;
    let mut frame = Vec::new();
    let (mut number, mut on) = (0, true);
    let started = Instant::now();
    while on {
        let queue = usize::try_from(number % from.pairs() as u64)?;
        let metadata = series.write(number, 0, &mut frame);
        if from.stage(queue, &frame, metadata)? {
            number += 1;
        } else {
            from.flush();
            to.receive(|packet| {
                if check.accept(packet)? != Seen::Stranger {
                    on &= go_on(check.received)?;
                }
                Ok(())
            })?;
        }
        ensure!(started.elapsed() < PATIENCE, "{number} frames were sent, {} arrived", check.received);
    }
    Ok(())
}
