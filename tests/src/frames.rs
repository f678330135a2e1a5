//! Numbered frames: what is sent can be computed again by who receives it, byte for byte.
//!
//! A frame is an IPv4 UDP datagram (so that hashes spread the flows over queues) of 60 to 1514 bytes. Its number says
//! its flow, its size and all of its bytes. A window bounds how many are on their way, so that no queue on the way may
//! lawfully overflow: then every frame has to arrive.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::namespace::Namespace;
use crate::packet_socket::PacketSocket;

/// The smallest and the largest Ethernet frame, without its check sum.
const FRAME_BYTES: std::ops::RangeInclusive<u64> = 60..=1514;

/// Where the number of the run and of the frame are: after the Ethernet, IPv4 and UDP headers.
const NUMBERS: usize = 14 + 20 + 8;

/// An address that is nobody's, so that no network stack on the way answers.
const DESTINATION: [u8; 6] = [0x02, 0x6d, 0x69, 0x72, 0x00, 0x02];
const SOURCE: [u8; 6] = [0x02, 0x6d, 0x69, 0x72, 0x00, 0x01];

/// No frame for so long means that one is lost; guests without hardware help are slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// A series of frames to pass from one namespace to another.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// How many frames.
    pub count: u64,
    /// Over how many UDP flows they are spread, round robin; order is kept within each.
    pub flows: u64,
    /// How many frames may be on their way at a time.
    pub window: u64,
    /// Tells this series from others.
    pub run: u32,
}

/// What a series that arrived whole took.
#[derive(Clone, Copy, Debug)]
pub struct Passed {
    /// From the first frame sent to the last one received.
    pub time: Duration,
}

impl Series {
    /// Passes the series from the interface `lan0` of one namespace to that of the other.
    ///
    /// # Errors
    ///
    /// A frame did not arrive, or arrived twice, out of order within its flow, or changed.
    pub fn pass(self, from: &Namespace, to: &Namespace) -> Result<Passed> {
        let sender = PacketSocket::open(from, "lan0", PATIENCE)?;
        let receiver = PacketSocket::open(to, "lan0", PATIENCE)?;
        let received = AtomicU64::new(0);
        let stopped = AtomicBool::new(false);
        let started = Instant::now();
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send(&sender, &received, &stopped));
            let result = self.receive(&receiver, &received);
            stopped.store(true, Ordering::Relaxed);
            let sent = sending.join().map_err(|_| anyhow!("the sending thread panicked"))?;
            // When both failed, the sender's reason is the cause.
            sent.and(result)
        })?;
        Ok(Passed { time: started.elapsed() })
    }

    fn send(self, socket: &PacketSocket, received: &AtomicU64, stopped: &AtomicBool) -> Result<()> {
        let mut frame = Vec::new();
        for number in 0..self.count {
            while number - received.load(Ordering::Relaxed).min(number) >= self.window {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::yield_now();
            }
            self.frame(number, &mut frame);
            while !socket.send(&frame)? {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn receive(self, socket: &PacketSocket, received: &AtomicU64) -> Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut check = Check::new(self);
        while check.received < self.count {
            let length = socket.receive(&mut buffer)?.with_context(|| check.lost())?;
            let frame = buffer.get(..length).unwrap_or_default();
            if check.accept(frame)? {
                received.store(check.received, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Writes the frame of this number into `frame`.
    pub fn frame(self, number: u64, frame: &mut Vec<u8>) {
        let mut random = Random(u64::from(self.run) << 32 ^ number);
        let span = FRAME_BYTES.end() - FRAME_BYTES.start() + 1;
        // The first two are the smallest and the largest, whatever the random numbers say.
        let size = match number {
            0 => *FRAME_BYTES.start(),
            1 => *FRAME_BYTES.end(),
            _ => FRAME_BYTES.start() + random.next() % span,
        };
        let size = u16::try_from(size).unwrap_or(60);
        let port = u16::try_from(number % self.flows).unwrap_or(0).wrapping_add(10_000);

        frame.clear();
        frame.extend(DESTINATION);
        frame.extend(SOURCE);
        frame.extend([0x08, 0x00]);
        let internet = frame.len();
        frame.extend([0x45, 0]);
        frame.extend((size - 14).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        // 198.18.0.0/15 is for measurements of network devices (RFC 2544).
        frame.extend([198, 18, 0, 1, 198, 19, 0, 1]);
        let sum = checksum(frame.get(internet..).unwrap_or_default());
        frame.splice(internet + 10..internet + 12, sum.to_be_bytes());
        frame.extend(port.to_be_bytes());
        frame.extend(7_u16.to_be_bytes());
        frame.extend((size - 34).to_be_bytes());
        // 0: the datagram has no check sum, so that nobody on the way completes or checks it.
        frame.extend([0, 0]);
        frame.extend(self.run.to_be_bytes());
        frame.extend(number.to_be_bytes());
        while frame.len() < usize::from(size) {
            frame.extend(random.next().to_le_bytes());
        }
        frame.truncate(usize::from(size));
    }
}

/// The receiver's knowledge of a series.
pub(crate) struct Check {
    series: Series,
    /// Frames accepted so far.
    pub(crate) received: u64,
    /// For each flow, the number of the frame that has to come next.
    next: Vec<u64>,
    expected: Vec<u8>,
}

impl Check {
    pub(crate) fn new(series: Series) -> Self {
        Self { series, received: 0, next: (0..series.flows).collect(), expected: Vec::new() }
    }

    /// Looks at a frame; false when it is none of the series.
    pub(crate) fn accept(&mut self, frame: &[u8]) -> Result<bool> {
        let Some((run, rest)) = frame.get(NUMBERS..).and_then(<[u8]>::split_first_chunk::<4>) else { return Ok(false) };
        let Some(number) = rest.first_chunk::<8>().copied().map(u64::from_be_bytes) else { return Ok(false) };
        if frame.get(..12) != Some(&[DESTINATION, SOURCE].concat()) || u32::from_be_bytes(*run) != self.series.run {
            return Ok(false);
        }
        self.series.frame(number, &mut self.expected);
        if frame != self.expected {
            let at = frame.iter().zip(&self.expected).position(|(a, b)| a != b);
            bail!(
                "frame {number} changed: {} of {} bytes, first difference at {at:?}",
                frame.len(),
                self.expected.len()
            );
        }
        let flow = number % self.series.flows;
        let next = usize::try_from(flow).ok().and_then(|flow| self.next.get_mut(flow)).context("no such flow")?;
        if number != *next {
            bail!("flow {flow}: frame {number} came when {next} was due, after {} frames", self.received);
        }
        *next += self.series.flows;
        self.received += 1;
        Ok(true)
    }

    fn lost(&self) -> String {
        let first = self.next.iter().min().copied().unwrap_or_default();
        format!(
            "{} of {} frames arrived, none for {} s; frame {first} is the first missing",
            self.received,
            self.series.count,
            PATIENCE.as_secs()
        )
    }
}

/// RFC 1071.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 =
        header.chunks(2).map(|pair| (u32::from(pair[0]) << 8) + pair.get(1).map_or(0, |&low| u32::from(low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// SplitMix64: a number from a number, the same on both sides.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
