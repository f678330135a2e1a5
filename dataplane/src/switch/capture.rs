//! Captures: copies of packets as they are at any element, for a writer on another thread.
//!
//! A [`Tap`] brings its own buffers and its end of a ring, so that the engine neither allocates nor waits: what does not fit is counted and
//! not captured.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hugemem::{Packet, PacketPool};
use rtrb::{Consumer, Producer};

use super::outputs::PortSlot;
use super::reason::Reason;
use super::slots::{Slots, Verdict};
use super::stage::Stage;
use crate::flow::Domain;
use crate::whole;

/// Where packets are captured.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Point {
    /// As they come in from a port, once.
    Receive,
    /// As they leave an element.
    After(Stage),
    /// As they leave for a port, copies too.
    Deliver,
    /// When they are dropped, as they are then.
    Drop,
}

impl Point {
    const fn bit(self) -> u32 {
        match self {
            Self::Receive => 1 << 30,
            Self::Deliver => 1 << 29,
            Self::Drop => 1 << 31,
            Self::After(stage) => 1 << stage as u32,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Receive => f.write_str("receive"),
            Self::After(stage) => write!(f, "{stage}"),
            Self::Deliver => f.write_str("deliver"),
            Self::Drop => f.write_str("drop"),
        }
    }
}

/// What is captured.
#[derive(Clone, Debug)]
pub struct CaptureRequest {
    /// Number of the capture, to end it by.
    pub number: u32,
    /// Where.
    pub points: Vec<Point>,
    /// Only what came from this port or leaves for it.
    pub port: Option<PortSlot>,
    /// Only what is of these domains.
    pub domains: Option<Vec<Domain>>,
    /// Bytes of each packet that are kept.
    pub bytes: usize,
}

/// A packet that was captured.
#[derive(Debug)]
pub struct Captured {
    /// Its first bytes.
    pub packet: Packet,
    /// Bytes that it had.
    pub len: usize,
    /// Where it was captured.
    pub point: Point,
    /// The port that it came from.
    pub from: PortSlot,
    /// The port that it leaves for, at [`Point::Deliver`].
    pub to: Option<PortSlot>,
    /// Its domain.
    pub domain: Domain,
    /// Cycle at which its batch was received.
    pub cycle: u64,
    /// Why it was dropped, at [`Point::Drop`].
    pub reason: Option<Reason>,
}

/// Numbers of a capture.
#[derive(Debug, Default)]
pub struct CaptureCounters {
    taken: AtomicU64,
    missed: AtomicU64,
}

impl CaptureCounters {
    /// Packets that were captured.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Packets that were not captured for want of buffers or because the writer did not keep up.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// A capture, the engine's side.
pub struct Tap {
    number: u32,
    points: u32,
    port: Option<PortSlot>,
    /// In their order.
    domains: Option<Box<[Domain]>>,
    bytes: usize,
    pool: PacketPool,
    to: Producer<Captured>,
    counters: Arc<CaptureCounters>,
}

/// A capture, the writer's side.
#[derive(Debug)]
pub struct Capture {
    /// What was captured. Abandoned when the capture has ended and its tap is freed.
    pub packets: Consumer<Captured>,
    /// Numbers.
    pub counters: Arc<CaptureCounters>,
}

impl Tap {
    /// A capture with buffers of `pool`, of which one is lost to the writer for each packet until it drops it.
    #[must_use]
    pub fn new(request: &CaptureRequest, pool: PacketPool) -> (Box<Self>, Capture) {
        let (to, packets) = rtrb::RingBuffer::new(pool.capacity());
        let counters = Arc::new(CaptureCounters::default());
        let points = request.points.iter().fold(0, |bits, point| bits | point.bit());
        let CaptureRequest { number, port, bytes, .. } = *request;
        let domains = request.domains.clone().map(|mut domains| {
            domains.sort_unstable();
            domains.into_boxed_slice()
        });
        let tap = Self { number, points, port, domains, bytes, pool, to, counters: Arc::clone(&counters) };
        (Box::new(tap), Capture { packets, counters })
    }

    /// Number of the capture.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Takes a copy of a packet, if it is one of those that are wanted.
    fn take(&mut self, packet: &Packet, sight: &Sight, cycle: u64) {
        let Sight { point, from, domain, to, reason } = *sight;
        let port_fits = self.port.is_none_or(|port| port == from || Some(port) == to);
        let domain_fits = self.domains.as_ref().is_none_or(|wanted| wanted.binary_search(&domain).is_ok());
        if !port_fits || !domain_fits {
            return;
        }
        let captured =
            |packet_copy| Captured { packet: packet_copy, len: packet.len(), point, from, to, domain, cycle, reason };
        let copy = whole::copy(&mut self.pool, packet, self.bytes.max(1)).ok();
        let taken = copy.is_some_and(|copy| self.to.push(captured(copy)).is_ok());
        let counter = if taken { &self.counters.taken } else { &self.counters.missed };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// Where and how a packet is seen.
#[derive(Clone, Copy, Debug)]
struct Sight {
    point: Point,
    from: PortSlot,
    domain: Domain,
    to: Option<PortSlot>,
    reason: Option<Reason>,
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").field("number", &self.number).field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Captures that an engine has room for.
pub const MOST_TAPS: usize = 4;

/// The captures of an engine.
#[derive(Debug, Default)]
pub(super) struct Taps {
    taps: [Option<Box<Tap>>; MOST_TAPS],
    /// All points of all of them.
    points: u32,
}

impl Taps {
    /// Adds a capture.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub(super) fn add(&mut self, tap: Box<Tap>) -> Result<(), Box<Tap>> {
        match self.taps.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                self.points |= tap.points;
                *place = Some(tap);
                Ok(())
            }
            None => Err(tap),
        }
    }

    /// Takes out the capture of that number.
    pub(super) fn remove(&mut self, number: u32) -> Option<Box<Tap>> {
        let place = self.taps.iter_mut().find(|place| place.as_ref().is_some_and(|tap| tap.number == number))?;
        let tap = place.take();
        self.points = self.taps.iter().flatten().fold(0, |bits, tap| bits | tap.points);
        tap
    }

    /// Somebody captures there.
    #[inline(always)]
    pub(super) fn wants(&self, point: Point) -> bool {
        self.points & point.bit() != 0
    }

    /// Captures the packets that are there, if anybody wants to.
    #[inline(always)]
    pub(super) fn look(&mut self, point: Point, slots: &Slots, cycle: u64) {
        if self.wants(point) {
            self.capture(point, slots, cycle);
        }
    }

    /// Captures a packet that leaves for `to` outside of a batch, if anybody wants to.
    #[inline]
    pub(super) fn leaves(&mut self, packet: &Packet, to: PortSlot, (from, domain): (PortSlot, Domain), cycle: u64) {
        if self.wants(Point::Deliver) {
            self.see(packet, &Sight { point: Point::Deliver, from, domain, to: Some(to), reason: None }, cycle);
        }
    }

    /// Captures a packet that is dropped outside of a batch, if anybody wants to.
    #[inline]
    pub(super) fn drops(&mut self, packet: &Packet, reason: Reason, (from, domain): (PortSlot, Domain), cycle: u64) {
        if self.wants(Point::Drop) {
            self.see(packet, &Sight { point: Point::Drop, from, domain, to: None, reason: Some(reason) }, cycle);
        }
    }

    #[cold]
    fn see(&mut self, packet: &Packet, sight: &Sight, cycle: u64) {
        let wanting = self.taps.iter_mut().flatten().filter(|tap| tap.points & sight.point.bit() != 0);
        wanting.for_each(|tap| tap.take(packet, sight, cycle));
    }

    #[cold]
    fn capture(&mut self, point: Point, slots: &Slots, cycle: u64) {
        for (place, packet) in slots.packets.iter().enumerate() {
            let slot = slots.get(place);
            let seen = Sight { point, from: slot.from, domain: slot.domain, to: None, reason: None };
            let sight = match (point, slot.verdict) {
                (Point::Drop, Verdict::Drop(reason)) => Sight { reason: Some(reason), ..seen },
                (Point::Deliver, Verdict::Port(port)) => Sight { to: Some(port), ..seen },
                // What comes back was seen there when it came.
                (Point::Receive | Point::After(Stage::Decapsulate | Stage::Parse), _)
                    if slots.returned.contains(place) =>
                {
                    continue;
                }
                (Point::After(stage), _) if stage < Stage::Coprocessor && slots.resumed.contains(place) => continue,
                (Point::Receive | Point::After(_), _) if slots.live.contains(place) => seen,
                _ => continue,
            };
            self.see(packet, &sight, cycle);
        }
    }
}
