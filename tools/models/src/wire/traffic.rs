//! A wire that makes its own frames as fast as it can and checks what comes out of the other card: no queue, no allocation.
//!
//! Frames are Ethernet, IPv4 and UDP, so that anything can look at them. Behind the UDP header: a mark, the sequence number and the time of
//! sending. All frames of one flow must come back in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use drivers::nic::MacAddress;

use super::{Latency, Wire};

/// What a [`Traffic`] wire makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrafficPlan {
    /// Bytes of each frame without frame check sequence, at least 60.
    pub frame_bytes: usize,
    /// Frames to make; 0 only checks what arrives.
    pub count: u64,
    /// Flows (UDP source ports) that the frames belong to in turn, at least 1.
    pub flows: u16,
    /// Destination address.
    pub target: MacAddress,
    /// Source address.
    pub source: MacAddress,
    /// Frames on their way at most: made here and not yet seen by the other end. Keeps latency from being that of full
    /// queues; a frame that is lost on the way takes its place in the window with it. 0 is no limit.
    pub window: u64,
    /// Frames per second; 0 is as fast as they are taken. What is not taken in time is made up for up to a tenth of a second.
    pub rate: u64,
    /// Nothing is made until [`TrafficCounters::open`].
    pub shut: bool,
}

impl Default for TrafficPlan {
    /// Frames of 60 bytes without end in one flow.
    fn default() -> Self {
        Self {
            frame_bytes: 60,
            count: u64::MAX,
            flows: 1,
            target: MacAddress([0x52, 0x54, 0, 0, 0, 2]),
            source: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            window: 0,
            rate: 0,
            shut: false,
        }
    }
}

/// What has been counted on one wire, readable from any thread.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    /// Frames made and delivered to the card's driver.
    pub made: AtomicU64,
    /// Frames that the card's driver transmitted.
    pub seen: AtomicU64,
    /// Bytes of them.
    pub seen_bytes: AtomicU64,
    /// Of these: frames that are not ours, or whose contents changed.
    pub foreign: AtomicU64,
    /// Of these: frames behind a gap in the sequence or before their turn.
    pub disordered: AtomicU64,
    /// How long frames were underway.
    pub latency: Latency,
    shut: AtomicBool,
}

impl TrafficCounters {
    /// Lets the wire make frames.
    pub fn open(&self) {
        self.shut.store(false, Ordering::Release);
    }

    /// Lets the wire make no more frames. One may be counted as made just after this.
    pub fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }
}

/// Offset of the mark in a frame: behind Ethernet, IPv4 and UDP.
const MARK_AT: usize = 42;
const MARK: [u8; 2] = *b"mz";
const SEQUENCE_AT: usize = 44;
const STAMP_AT: usize = 52;
const HEAD: usize = Traffic::HEAD;
/// Largest frame without jumbo.
const LONGEST: usize = 1518;
const FIRST_PORT: u16 = 1024;

/// See the module. Makes frames for its card's driver and checks what that driver transmits: with a forwarder between two cards,
/// what one wire makes, the other one sees.
#[derive(Debug)]
pub struct Traffic {
    plan: TrafficPlan,
    counters: Arc<TrafficCounters>,
    /// Counters of the wire that sees what this one makes.
    other: Arc<TrafficCounters>,
    frame: Box<[u8]>,
    made: u64,
    /// Next frame of each flow to be made, and to be seen.
    flow: u16,
    sequence: u64,
    expected: Vec<u64>,
    start: Instant,
    now: u64,
    /// Time of the first poll, from which the rate counts.
    began: Option<u64>,
    ready: bool,
}

impl Traffic {
    /// Bytes of a frame that tell everything.
    pub(crate) const HEAD: usize = 60;

    /// One wire whose card has to send back what it receives.
    #[must_use]
    pub fn alone(plan: TrafficPlan) -> Self {
        let counters = Arc::<TrafficCounters>::default();
        Self::new(plan, Instant::now(), Arc::clone(&counters), counters, plan.flows)
    }

    /// Two wires for two cards with a forwarder between them. `start` of both is the same, so that times agree.
    #[must_use]
    pub fn pair(first: TrafficPlan, second: TrafficPlan) -> (Self, Self) {
        let start = Instant::now();
        let (a, b) = (Arc::<TrafficCounters>::default(), Arc::<TrafficCounters>::default());
        let one = Self::new(first, start, Arc::clone(&a), Arc::clone(&b), second.flows);
        (one, Self::new(second, start, b, a, first.flows))
    }

    fn new(
        plan: TrafficPlan,
        start: Instant,
        counters: Arc<TrafficCounters>,
        other: Arc<TrafficCounters>,
        arriving: u16,
    ) -> Self {
        counters.shut.store(plan.shut, Ordering::Relaxed);
        let plan = TrafficPlan { frame_bytes: plan.frame_bytes.clamp(HEAD, LONGEST), flows: plan.flows.max(1), ..plan };
        Self {
            frame: template(&plan),
            plan,
            counters,
            other,
            made: 0,
            flow: 0,
            sequence: 0,
            expected: vec![0; arriving.max(1).into()],
            start,
            now: 0,
            began: None,
            ready: false,
        }
    }

    /// The counters, which stay valid when the wire is gone.
    #[must_use]
    pub fn counters(&self) -> Arc<TrafficCounters> {
        Arc::clone(&self.counters)
    }

    /// Frames that the rate allows by now.
    fn due(&self) -> u64 {
        let elapsed = self.now.saturating_sub(self.began.unwrap_or(self.now));
        let due = u128::from(elapsed) * u128::from(self.plan.rate) / 1_000_000_000;
        u64::try_from(due).unwrap_or(u64::MAX)
    }

    /// Checks a frame that the card transmits, of which only the first bytes are of interest.
    #[inline]
    pub(crate) fn see(&mut self, head: Option<&[u8; Self::HEAD]>, len: usize) {
        self.check(head);
        add(&self.counters.seen, 1);
        add(&self.counters.seen_bytes, len as u64);
    }

    #[inline]
    fn check(&mut self, head: Option<&[u8; Self::HEAD]>) {
        let Some(head) = head else {
            add(&self.counters.foreign, 1);
            return;
        };
        let ours = head[MARK_AT..SEQUENCE_AT] == MARK;
        let port = u16::from_be_bytes([head[34], head[35]]);
        let expected = self.expected.get_mut(usize::from(port.wrapping_sub(FIRST_PORT)));
        let (true, Some(expected)) = (ours, expected) else {
            add(&self.counters.foreign, 1);
            return;
        };
        let sequence = word(head, SEQUENCE_AT);
        if sequence != *expected {
            add(&self.counters.disordered, 1);
        }
        *expected = sequence.wrapping_add(1);
        self.counters.latency.record(self.now.saturating_sub(word(head, STAMP_AT)));
    }
}

/// Adds to a counter that one thread writes.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

fn word(bytes: &[u8; HEAD], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn template(plan: &TrafficPlan) -> Box<[u8]> {
    let mut frame: Vec<u8> = (0_u8..=255).cycle().take(plan.frame_bytes).collect();
    let ip_len = u16::try_from(plan.frame_bytes - 14).unwrap_or(u16::MAX);
    frame[..6].copy_from_slice(&plan.target.0);
    frame[6..12].copy_from_slice(&plan.source.0);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
    let sum: u32 = frame[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap_or(0);
    frame[24..26].copy_from_slice(&folded.to_be_bytes());
    frame[36..38].copy_from_slice(&9_u16.to_be_bytes());
    frame[38..40].copy_from_slice(&(ip_len - 20).to_be_bytes());
    frame[40..42].copy_from_slice(&[0, 0]);
    frame[MARK_AT..SEQUENCE_AT].copy_from_slice(&MARK);
    frame.into_boxed_slice()
}

impl Wire for Traffic {
    #[inline]
    fn peek(&mut self) -> Option<&[u8]> {
        if !self.ready {
            let underway = || self.made.saturating_sub(self.other.seen.load(Ordering::Relaxed));
            if self.counters.shut.load(Ordering::Relaxed)
                || self.made >= self.plan.count
                || self.plan.window != 0 && underway() >= self.plan.window
            {
                return None;
            }
            if self.plan.rate != 0 && self.made >= self.due() {
                return None;
            }
            let port = FIRST_PORT.wrapping_add(self.flow);
            self.frame[34..36].copy_from_slice(&port.to_be_bytes());
            self.frame[SEQUENCE_AT..SEQUENCE_AT + 8].copy_from_slice(&self.sequence.to_be_bytes());
            self.frame[STAMP_AT..STAMP_AT + 8].copy_from_slice(&self.now.to_be_bytes());
            self.ready = true;
        }
        Some(&self.frame)
    }

    #[inline]
    fn advance(&mut self) {
        self.ready = false;
        self.made += 1;
        self.counters.made.store(self.made, Ordering::Relaxed);
        self.flow += 1;
        if self.flow == self.plan.flows {
            self.flow = 0;
            self.sequence += 1;
        }
    }

    #[inline]
    fn transmit(&mut self, frame: &[u8]) -> bool {
        self.see(frame.first_chunk(), frame.len());
        true
    }

    /// Times are those of the batch: reading the clock for each frame would cost more than the frame.
    fn begin(&mut self) {
        self.now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let began = *self.began.get_or_insert(self.now);
        // A card that no driver has taken yet is not owed all the time until one does.
        let lost = self.due().saturating_sub(self.made).saturating_sub((self.plan.rate / 10).max(1));
        if self.plan.rate != 0 && lost > 0 {
            let time = u128::from(lost) * 1_000_000_000 / u128::from(self.plan.rate);
            self.began = Some(began.saturating_add(u64::try_from(time).unwrap_or(u64::MAX)).min(self.now));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn rate_window_and_count_limit_what_is_made() {
        let quiet = TrafficPlan { count: 0, ..TrafficPlan::default() };
        let made = |plan: TrafficPlan, now: u64| {
            let (mut wire, _other) = Traffic::pair(plan, quiet);
            wire.began = Some(1000);
            wire.now = 1000 + now;
            (0..100).take_while(|_| wire.peek().is_some().then(|| wire.advance()).is_some()).count()
        };
        assert_eq!(made(TrafficPlan { rate: 1_000_000, ..TrafficPlan::default() }, 10_000), 10);
        assert_eq!(made(TrafficPlan { rate: 1_000_000, ..TrafficPlan::default() }, 0), 0);
        assert_eq!(made(TrafficPlan { window: 5, ..TrafficPlan::default() }, 0), 5);
        assert_eq!(made(TrafficPlan { count: 7, ..TrafficPlan::default() }, 0), 7);
        assert_eq!(made(TrafficPlan::default(), 0), 100);
        assert_eq!(made(TrafficPlan { shut: true, ..TrafficPlan::default() }, 0), 0);
    }

    #[test]
    fn what_nobody_took_for_long_is_not_made_up_for() {
        let mut wire = Traffic::alone(TrafficPlan { rate: 1000, ..TrafficPlan::default() });
        // A minute and a second ago.
        wire.began = Some(0);
        wire.start = Instant::now().checked_sub(std::time::Duration::from_secs(61)).unwrap();
        wire.begin();
        let made = (0..10_000).take_while(|_| wire.peek().is_some().then(|| wire.advance()).is_some()).count();
        assert!((99..=101).contains(&made), "{made}");
    }
}
