//! Timing calls of queues.

use dataplane::clock::cycles;
use drivers::nic::{RxQueue, TxQueue};
use hugemem::Batch;

/// What one packet cost in one run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Cost {
    /// Cycles for one packet.
    pub(crate) cycles: f64,
    /// Packets in each call that was counted.
    pub(crate) burst: f64,
}

/// Sums over calls.
#[derive(Clone, Copy, Default)]
struct Sum {
    cycles: u64,
    packets: u64,
    calls: u64,
}

impl Sum {
    fn add(&mut self, cycles: u64, packets: usize) {
        self.cycles += cycles;
        self.packets += packets as u64;
        self.calls += 1;
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    fn cost(&self) -> Option<Cost> {
        (self.packets > 0).then(|| Cost {
            cycles: self.cycles as f64 / self.packets as f64,
            burst: self.packets as f64 / self.calls as f64,
        })
    }
}

/// All calls of a kind, and those among them that moved a full burst.
#[derive(Clone, Copy, Default)]
struct Calls {
    full: Sum,
    all: Sum,
}

impl Calls {
    fn add(&mut self, cycles: u64, packets: usize, full: bool) {
        self.all.add(cycles, packets);
        if full {
            self.full.add(cycles, packets);
        }
    }

    /// Full bursts alone, unless there are too few to say anything.
    fn cost(&self) -> Option<Cost> {
        if self.full.calls >= 20 { self.full.cost() } else { self.all.cost() }
    }
}

/// Knows what reading the counter itself costs.
pub(crate) struct Meter {
    overhead: u64,
}

/// Polls without a packet after which a run is given up as dry.
const DRY: u32 = 200_000;
/// Longest wait for a packet to be sent, in tries.
const STUCK: u32 = 10_000_000;

impl Meter {
    /// Measures the counter.
    pub(crate) fn calibrate() -> Self {
        let overhead = (0..1000).map(|_| {
            let before = cycles();
            cycles().saturating_sub(before)
        });
        Self { overhead: overhead.min().unwrap_or(0) }
    }

    /// Moves packets from `rx` to `tx` in bursts of up to `burst` for about `limit` cycles. Gives the cost of receiving, of
    /// transmitting and of both; `None` where nothing moved.
    pub(crate) fn run(
        &self,
        rx: &mut dyn RxQueue,
        tx: &mut dyn TxQueue,
        burst: usize,
        limit: u64,
    ) -> [Option<Cost>; 3] {
        let mut batch = Batch::new(burst);
        let (mut receive, mut transmit, mut forward) = (Calls::default(), Calls::default(), Calls::default());
        let start = cycles();
        let mut dry = 0;
        // Breaks between bursts let a far end on another core fill and empty the rings; they are not counted.
        let mut pause = 0;
        while cycles().wrapping_sub(start) < limit {
            let before = cycles();
            let received = rx.receive(&mut batch);
            let between = cycles();
            if received == 0 {
                dry += 1;
                if dry > DRY {
                    break;
                }
                std::hint::spin_loop();
                if dry.is_multiple_of(1000) {
                    std::thread::yield_now();
                }
                continue;
            }
            dry = 0;
            let full = received == burst;
            let middle = cycles();
            let sent = tx.transmit(&mut batch);
            let after = cycles();
            let receiving = between.wrapping_sub(before).saturating_sub(self.overhead);
            let sending = after.wrapping_sub(middle).saturating_sub(self.overhead);
            receive.add(receiving, received, full);
            if sent == received {
                transmit.add(sending, sent, full);
                forward.add(receiving + sending, sent, full);
            }
            if !clear(&mut batch, tx) {
                break;
            }
            pause = if full && sent == received { pause / 2 } else { (pause * 2).clamp(64, 4096) };
            for _ in 0..pause {
                std::hint::spin_loop();
            }
        }
        // What is still underway must not count in the next run.
        let mut tries = 0;
        while tx.reclaim() > 0 && tries < STUCK / 100 {
            tries += 1;
            std::hint::spin_loop();
        }
        [receive.cost(), transmit.cost(), forward.cost()]
    }
}

/// Sends the rest of a burst that found no room, outside the measurement. `false` when the queue is stuck; the rest is
/// dropped then.
fn clear(batch: &mut Batch, tx: &mut dyn TxQueue) -> bool {
    let mut tries = 0;
    while !batch.is_empty() {
        if tx.transmit(batch) == 0 {
            tries += 1;
            if tries > STUCK {
                batch.clear();
                return false;
            }
            std::hint::spin_loop();
            if tries.is_multiple_of(1000) {
                std::thread::yield_now();
            }
        }
    }
    true
}
