//! One direction: frames out of one port and, through the device under test, into the other.

use anyhow::Result;
use dataplane::clock::cycles;
use drivers::nic::{RxQueue, TxQueue};
use hugemem::{Batch, PacketPool, Region};

use crate::peer_bench::flows::Random;
use crate::peer_bench::frame::{self, Template};
use crate::peer_bench::histogram::Histogram;

/// Frames that are sent and received at a time.
const BURST: usize = 32;

/// One direction: frames out of one port and, through the device under test, into the other.
pub(super) struct Direction {
    pub(super) tx: Box<dyn TxQueue>,
    pub(super) rx: Box<dyn RxQueue>,
    pub(super) pool: PacketPool,
    pub(super) template: Template,
    pub(super) waiting: Batch,
    pub(super) arrived: Batch,
    pub(super) sends: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) lost: u64,
    pub(super) expected: u64,
    pub(super) gaps: u64,
    pub(super) strangers: u64,
    pub(super) next: u64,
    pub(super) full: u64,
    pub(super) tries: u64,
    pub(super) last: u64,
    random: Random,
}

impl Direction {
    /// A direction that sends frames like `template` when told to, out of memory for `count` buffers of `room` bytes.
    pub(super) fn new(
        packets: &Region,
        (count, room): (usize, usize),
        tx: Box<dyn TxQueue>,
        rx: Box<dyn RxQueue>,
        template: Template,
        sends: bool,
    ) -> Result<Self> {
        let mut pool = packets.packets(count, room)?;
        frame::touch(&mut pool)?;
        Ok(Self {
            tx,
            rx,
            pool,
            random: Random::new(template.station()),
            template,
            waiting: Batch::new(BURST),
            arrived: Batch::new(BURST),
            sends,
            sent: 0,
            received: 0,
            lost: 0,
            expected: 0,
            gaps: 0,
            strangers: 0,
            next: 0,
            full: 0,
            tries: 0,
            last: 0,
        })
    }

    /// Takes in what has arrived.
    #[inline]
    pub(super) fn receive(&mut self, latency: &mut Histogram) -> bool {
        let count = self.rx.receive(&mut self.arrived);
        if count == 0 {
            return false;
        }
        let now = cycles();
        self.last = now;
        self.received += count as u64;
        for frame in self.arrived.iter() {
            match self.template.read(frame) {
                Some((number, time)) => {
                    self.gaps += u64::from(number != self.expected);
                    self.expected = number + 1;
                    latency.add(now.wrapping_sub(time));
                }
                None => self.strangers += 1,
            }
        }
        self.arrived.clear();
        true
    }

    /// Sends as many as go, and as `in_flight` allows.
    #[inline]
    pub(super) fn send(&mut self, in_flight: Option<u64>, lost_after: u64) -> bool {
        let now = cycles();
        let mut room = self.waiting.room();
        if let Some(most) = in_flight {
            let out = self.sent - self.received.min(self.sent) + self.waiting.len() as u64;
            let out = out.saturating_sub(self.lost);
            if out >= most {
                if now.saturating_sub(self.last) > lost_after {
                    self.lost += out;
                    self.last = now;
                }
                return false;
            }
            room = room.min(usize::try_from(most - out).unwrap_or(room));
        }
        // All are taken before the first is written, so that their lines travel together.
        let before = self.waiting.len();
        for _ in 0..room {
            let Some(frame) = Template::take(&mut self.pool) else { break };
            // There is room.
            let _ = self.waiting.push(frame);
        }
        let mut made = before;
        let flows = self.template.flows();
        for frame in self.waiting.as_mut_slice().get_mut(before..).unwrap_or_default() {
            let flow = if flows > 1 { self.random.below(flows) } else { 0 };
            if self.template.fill(frame, &mut self.pool, flow, self.next, now).is_none() {
                break;
            }
            self.next += 1;
            made += 1;
        }
        // The pool ran dry before the others were whole.
        self.waiting.truncate(made);
        let sent = self.tx.transmit(&mut self.waiting);
        self.sent += sent as u64;
        self.tries += 1;
        self.full += u64::from(!self.waiting.is_empty());
        sent > 0
    }
}
