//! The floor: what it costs at least that bytes cross from core to core, however clever the program.
//!
//! One core writes a batch of buffers; the other, as soon as it may, copies them to memory of its own (reading), or copies
//! memory of its own onto them (writing). Only the copies are timed, and only the median of many batches counts.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hugemem::{IovaSpace, MemoryRequest, Packet};

use crate::peer_bench::scheduling::{Thread, pin};

/// Batches that are timed of each kind.
const ROUNDS: usize = 300;
/// How long the other core is waited for.
const LIMIT: Duration = Duration::from_secs(10);
/// Buffers of a batch: more than a first-level cache holds, as in a ring.
const BATCH: usize = 256;
/// Bytes that a buffer holds at most: longer copies are of several.
const ROOM: usize = 32 << 10;

/// What a copy of some length costs.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes.
    pub size: usize,
    /// Nanoseconds to read what the other core wrote.
    pub read: f64,
    /// Nanoseconds to write onto what the other core wrote.
    pub write: f64,
}

/// Measures copies of each of `sizes` bytes, with the writer on `far` and the reader on `near`.
///
/// # Errors
/// There are no such cores, or no memory.
pub fn measure(sizes: &[usize], near: usize, far: usize) -> Result<Vec<Cost>> {
    let (to_far, at_far) = channel::<Vec<Packet>>();
    let (to_near, at_near) = channel::<Vec<Packet>>();
    let writer = std::thread::spawn(move || write_batches(far, &at_far, &to_near));
    let measured: Result<Vec<Cost>> = std::thread::scope(|scope| {
        let reader = scope.spawn(move || -> Result<Vec<Cost>> {
            pin(near)?;
            Thread::current().prefer(true);
            let mut costs = Vec::with_capacity(sizes.len());
            for size in sizes {
                let read = median(*size, &to_far, &at_near, false)?;
                let write = median(*size, &to_far, &at_near, true)?;
                costs.push(Cost { size: *size, read, write });
            }
            Ok(costs)
        });
        reader.join().ok().context("the reader has panicked")?
    });
    writer.join().ok().context("the writer has panicked")??;
    measured
}

/// Writes to every buffer that comes, and sends it back.
fn write_batches(core: usize, from: &Receiver<Vec<Packet>>, to: &Sender<Vec<Packet>>) -> Result<()> {
    pin(core)?;
    Thread::current().prefer(true);
    let mut byte = 0_u8;
    loop {
        let mut batch = match from.try_recv() {
            Ok(batch) => batch,
            Err(std::sync::mpsc::TryRecvError::Empty) => {
                std::hint::spin_loop();
                continue;
            }
            Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
        };
        byte = byte.wrapping_add(1);
        for packet in &mut batch {
            packet.bytes_mut().fill(byte);
        }
        if to.send(batch).is_err() {
            return Ok(());
        }
    }
}

/// Nanoseconds that one copy of `size` bytes takes: onto the other core's lines when `write`, else from them.
fn median(size: usize, to: &Sender<Vec<Packet>>, from: &Receiver<Vec<Packet>>, write: bool) -> Result<f64> {
    let pieces = size.div_ceil(ROOM);
    let count = if pieces > 1 { 8 * pieces } else { BATCH };
    let mut batch = packets(count, size / pieces)?;
    // Few, so that they stay in this core's cache.
    let mut own = packets(if pieces > 1 { pieces } else { 32 }, size / pieces)?;
    let mut times = Vec::with_capacity(ROUNDS);
    let end = Instant::now() + LIMIT;
    for _ in 0..ROUNDS {
        to.send(batch).ok().context("the writer has ended")?;
        batch = loop {
            match from.try_recv() {
                Ok(batch) => break batch,
                Err(_) if Instant::now() < end => std::hint::spin_loop(),
                Err(_) => anyhow::bail!("the other core does not answer within {LIMIT:?}"),
            }
        };
        let start = Instant::now();
        for chunk in batch.chunks_mut(own.len()) {
            for (theirs, ours) in chunk.iter_mut().zip(&mut own) {
                let (target, source) = if write { (theirs, ours) } else { (ours, theirs) };
                target.bytes_mut().copy_from_slice(source.bytes());
            }
        }
        times.push(start.elapsed());
    }
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let copies = u32::try_from(count / pieces).unwrap_or(1);
    Ok(median.as_secs_f64() * 1e9 / f64::from(copies))
}

/// Packets of `size` bytes, on huge pages where there are any.
fn packets(count: usize, size: usize) -> Result<Vec<Packet>> {
    let bytes = count * (ROOM + hugemem::HEADROOM) + (1 << 16);
    let memory = MemoryRequest { bytes, ..MemoryRequest::default() }.allocate(&mut IovaSpace::unlimited())?;
    // A buffer takes as much as one for frames, so that copies fall on as many pages.
    let mut pool = memory.region.packets(count, size.max(2048))?;
    let mut packets = Vec::with_capacity(count);
    for _ in 0..count {
        let mut packet = pool.take().context("a pool has fewer buffers than it should")?;
        packet.resize(size).context("a buffer is too short")?;
        packet.bytes_mut().fill(0x5a);
        packets.push(packet);
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn copies_of_all_lengths_are_timed() {
        let costs = measure(&[64, 65_536], 0, 0).unwrap();
        assert_eq!(costs.iter().map(|cost| cost.size).collect::<Vec<_>>(), [64, 65_536]);
        assert!(costs.iter().all(|cost| cost.read > 0.0 && cost.write > 0.0));
    }
}
