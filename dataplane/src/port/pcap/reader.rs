//! Plays a capture.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use drivers::nic::{Counters, DropReason, RxQueue};
use hugemem::{Batch, Packet, PacketPool};

use super::Capture;

/// Shortest frame that is played: an Ethernet header.
const SHORTEST: usize = 14;
/// Longest frame that is played: the largest IP packet behind an Ethernet header with a VLAN tag.
const LONGEST: usize = 65_535 + 18;

/// Receives the frames of a capture, in order, each when it is asked for.
#[derive(Debug)]
pub struct PcapRx {
    capture: Capture,
    next: usize,
    /// Rounds to play, the present one included; `None` goes on for ever.
    rounds: Option<u64>,
    pool: PacketPool,
    counters: Counters,
    /// Told to control when the last frame was handed out.
    exhausted: Arc<AtomicBool>,
    done: bool,
}

/// Why a frame is not in a packet.
enum Refusal {
    /// No buffer is free right now.
    Later,
    /// It can never be played.
    Never(DropReason),
}

impl PcapRx {
    /// Plays `capture` `repeat` times (0 for ever) from buffers of `pool`, then sets `exhausted`. An empty capture sets nothing.
    #[must_use]
    pub fn new(capture: Capture, repeat: u64, pool: PacketPool, exhausted: Arc<AtomicBool>) -> Self {
        let done = capture.is_empty();
        let rounds = (repeat > 0).then_some(repeat);
        Self { capture, next: 0, rounds, pool, counters: Counters::default(), exhausted, done }
    }

    fn packet(pool: &mut PacketPool, frame: &[u8]) -> Result<Packet, Refusal> {
        if frame.len() < SHORTEST {
            return Err(Refusal::Never(DropReason::BadLength));
        }
        let segments = frame.len().div_ceil(pool.room());
        if frame.len() > LONGEST || segments > pool.capacity() {
            return Err(Refusal::Never(DropReason::TooLong));
        }
        if segments > 1 && pool.available() < segments {
            return Err(Refusal::Later);
        }
        let room = pool.room();
        let mut pieces = frame.chunks(room).map(|piece| {
            let mut packet = pool.take().ok_or(Refusal::Later)?;
            packet.write(piece).map_err(|_| Refusal::Never(DropReason::TooLong))?;
            Ok(packet)
        });
        let mut packet = pieces.next().unwrap_or(Err(Refusal::Never(DropReason::BadLength)))?;
        for piece in pieces {
            packet.append(piece?).map_err(|_| Refusal::Never(DropReason::TooLong))?;
        }
        Ok(packet)
    }

    /// Goes on to the next frame, or the next round.
    fn advance(&mut self) {
        self.next += 1;
        if self.next < self.capture.len() {
            return;
        }
        self.next = 0;
        if let Some(rounds) = &mut self.rounds {
            *rounds = rounds.saturating_sub(1);
            if *rounds == 0 {
                self.done = true;
            }
        }
    }
}

impl RxQueue for PcapRx {
    fn receive(&mut self, batch: &mut Batch) -> usize {
        let before = batch.len();
        // A round of frames that can never be played ends the call, not the processor's time.
        let mut looked_at = 0;
        while !self.done && batch.room() > 0 && looked_at < batch.capacity() {
            looked_at += 1;
            let Some(frame) = self.capture.frame(self.next) else { break };
            match Self::packet(&mut self.pool, frame) {
                Ok(packet) => {
                    self.counters.packets += 1;
                    self.counters.bytes += packet.len() as u64;
                    // There is room, as just asked.
                    let _ = batch.push(packet);
                }
                Err(Refusal::Later) => break,
                Err(Refusal::Never(reason)) => self.counters.drop_packets(reason, 1),
            }
            self.advance();
            if self.done {
                self.exhausted.store(true, Ordering::Release);
            }
        }
        batch.len() - before
    }

    fn arm(&mut self) -> bool {
        self.done
    }

    fn gives_large(&self) -> bool {
        false
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}
