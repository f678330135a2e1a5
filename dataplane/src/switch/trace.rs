//! Traces: what the elements really did to some packets of a port, told to a reader on another thread.
//!
//! A [`Tracer`] follows one packet of a batch, no more often than its interval says, and writes down what is known of it behind each element. What goes up to
//! control, waits, or goes to a coprocessor is recognised by its key when it comes back, and followed further. The engine neither allocates nor
//! waits: what the reader has no room for is counted and not told.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rtrb::{Consumer, Producer};

use super::explain::{Explained, Seen, Story};
use super::layout::Layout;
use super::outputs::PortSlot;
use super::pipeline::Observer;
use super::reason::Reason;
use super::set::Set;
use super::slots::{Slot, Slots, Verdict};
use super::stage::Stage;
use crate::flow::FlowKey;

/// Packets that a tracer expects back at a time; of more, it loses the track.
const EXPECTED: usize = 16;

/// Tracers that an engine has room for.
pub const MOST_TRACERS: usize = 4;

/// Which packets are traced: those for which everything that is given is true.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TraceFilter {
    /// From or to this IP address.
    pub address: Option<IpAddr>,
    /// Of this IP protocol.
    pub protocol: Option<u8>,
    /// From or to this port of TCP, UDP or SCTP.
    pub port: Option<u16>,
}

impl TraceFilter {
    fn fits(&self, key: &FlowKey) -> bool {
        self.address.is_none_or(|wanted| key.source() == Some(wanted) || key.destination() == Some(wanted))
            && self.protocol.is_none_or(|wanted| key.is_ip() && key.protocol() == wanted)
            && self.port.is_none_or(|wanted| [key.source_port(), key.destination_port()].contains(&wanted))
    }

    fn is_open(&self) -> bool {
        *self == Self::default()
    }
}

/// What is to be traced.
#[derive(Clone, Copy, Debug)]
pub struct TraceRequest {
    /// Number of the tracer, to end it by.
    pub number: u32,
    /// The port whose packets are followed.
    pub from: PortSlot,
    /// Which of them.
    pub filter: TraceFilter,
    /// Cycles between two of them.
    pub interval: u64,
    /// Packets that may wait for the reader.
    pub room: usize,
}

/// A packet behind an element.
#[derive(Clone, Copy, Debug)]
struct Step {
    slot: Slot,
    len: usize,
    live: bool,
}

/// What happened to a packet.
#[derive(Debug)]
pub struct Traced {
    /// Cycle at which its batch was received.
    pub cycle: u64,
    /// It came back from where the one before with the same key had gone.
    pub came_back: bool,
    key: FlowKey,
    /// By element.
    steps: [Option<Step>; Stage::COUNT],
}

impl Traced {
    /// The same in words.
    #[must_use]
    pub fn explained(&self, layout: &Layout) -> Vec<Explained> {
        let mut story = Story::default();
        for (stage, step) in Stage::ALL.iter().zip(&self.steps) {
            let Some(Step { slot, len, live }) = step else { continue };
            story.add(*stage, &Seen { slot, key: &self.key, len: *len, live: *live }, layout);
        }
        story.into_steps()
    }

    /// Why it was dropped, if it was.
    #[must_use]
    pub fn dropped(&self) -> Option<Reason> {
        match self.steps.last().copied().flatten()?.slot.verdict {
            Verdict::Drop(reason) => Some(reason),
            _ => None,
        }
    }
}

/// Numbers of a trace.
#[derive(Debug, Default)]
pub struct TraceCounters {
    missed: AtomicU64,
}

impl TraceCounters {
    /// Packets that were followed and not told, because the reader did not keep up.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

/// A trace, the reader's side.
#[derive(Debug)]
pub struct Trace {
    /// What was followed. Abandoned when the trace has ended and its tracer is freed.
    pub packets: Consumer<Traced>,
    /// Numbers.
    pub counters: Arc<TraceCounters>,
}

/// A trace, the engine's side.
pub struct Tracer {
    request: TraceRequest,
    /// Cycle from which the next packet is followed.
    due: u64,
    /// Keys of packets that come back later.
    expected: Vec<FlowKey>,
    to: Producer<Traced>,
    counters: Arc<TraceCounters>,
}

impl Tracer {
    /// A tracer, and who hears of it.
    #[must_use]
    pub fn new(request: &TraceRequest) -> (Box<Self>, Trace) {
        let (to, packets) = rtrb::RingBuffer::new(request.room);
        let counters = Arc::<TraceCounters>::default();
        let expected = Vec::with_capacity(EXPECTED);
        let tracer = Self { request: *request, due: 0, expected, to, counters: Arc::clone(&counters) };
        (Box::new(tracer), Trace { packets, counters })
    }

    /// The packet that is to be followed, when it is known what they are.
    fn pick(&mut self, slots: &Slots, came_back: bool) -> Option<usize> {
        let known = |place: usize| {
            slots.live.contains(place) || matches!(slots.get(place).verdict, Verdict::Up(_)) || {
                // It has no key.
                self.request.filter.is_open() && slots.get(place).verdict == Verdict::Drop(Reason::Malformed)
            }
        };
        let mut places = (0..slots.packets.len()).filter(|place| slots.returned.contains(*place) == came_back);
        if came_back {
            let expected = |place: &usize| self.expected.iter().position(|key| key == slots.key(*place));
            let (place, number) = places.find_map(|place| Some((place, expected(&place)?)))?;
            self.expected.remove(number);
            return Some(place);
        }
        places.find(|place| {
            known(*place) && (self.request.filter.is_open() || self.request.filter.fits(slots.key(*place)))
        })
    }

    fn tell(&mut self, traced: Traced) {
        if self.to.push(traced).is_err() {
            let missed = &self.counters.missed;
            missed.store(missed.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Follows one packet of a batch.
pub(super) struct Follower<'a> {
    tracer: &'a mut Tracer,
    now: u64,
    came_back: bool,
    place: Option<usize>,
    steps: [Option<Step>; Stage::COUNT],
    over: bool,
}

impl<'a> Follower<'a> {
    pub(super) fn new(tracer: &'a mut Tracer, now: u64, came_back: bool) -> Self {
        Self { tracer, now, came_back, place: None, steps: [None; Stage::COUNT], over: false }
    }

    fn note(&mut self, stage: Stage, place: usize, slots: &Slots) {
        let slot = *slots.get(place);
        let len = slots.packets.as_slice().get(place).map_or(0, hugemem::Packet::len);
        if let Some(step) = self.steps.get_mut(stage as usize) {
            *step = Some(Step { slot, len, live: slots.live.contains(place) });
        }
    }
}

impl Observer for Follower<'_> {
    fn passed(&mut self, stage: Stage, set: Set, slots: &Slots, _: &Layout) {
        if self.over {
            return;
        }
        if stage == Stage::Parse {
            self.place = self.tracer.pick(slots, self.came_back);
            if let Some(place) = self.place.filter(|place| slots.underlay.contains(*place)) {
                self.note(Stage::Decapsulate, place, slots);
            }
        }
        let Some(place) = self.place.filter(|place| set.contains(*place)) else { return };
        self.note(stage, place, slots);
        if stage != Stage::Queue {
            return;
        }
        self.over = true;
        let key = *slots.key(place);
        if !self.came_back {
            self.tracer.due = self.now.saturating_add(self.tracer.request.interval);
        }
        let goes_on = matches!(slots.get(place).verdict, Verdict::Up(_) | Verdict::Hold(_) | Verdict::Coprocessor(_));
        if goes_on && self.tracer.expected.len() < EXPECTED {
            self.tracer.expected.push(key);
        }
        let traced = Traced { cycle: self.now, came_back: self.came_back, key, steps: self.steps };
        self.tracer.tell(traced);
    }
}

/// The tracers of an engine.
#[derive(Debug, Default)]
pub(super) struct Tracers {
    tracers: [Option<Box<Tracer>>; MOST_TRACERS],
    count: usize,
}

impl Tracers {
    /// Adds a tracer.
    ///
    /// # Errors
    /// Gives it back when there is no room.
    pub(super) fn add(&mut self, tracer: Box<Tracer>) -> Result<(), Box<Tracer>> {
        match self.tracers.iter_mut().find(|place| place.is_none()) {
            Some(place) => {
                *place = Some(tracer);
                self.count += 1;
                Ok(())
            }
            None => Err(tracer),
        }
    }

    /// Takes out the tracer of that number.
    pub(super) fn remove(&mut self, number: u32) -> Option<Box<Tracer>> {
        let is_meant = |tracer: &Tracer| tracer.request.number == number;
        let place = self.tracers.iter_mut().find(|place| place.as_deref().is_some_and(is_meant))?;
        self.count -= 1;
        place.take()
    }

    /// There is none.
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Lends the tracer that follows a packet of this port now; what is taken is put back.
    #[cold]
    pub(super) fn take_due(&mut self, from: PortSlot, now: u64) -> Option<Lent> {
        self.take_if(|tracer| tracer.request.from == from && tracer.due <= now)
    }

    /// Lends the tracer that expects packets back.
    #[cold]
    pub(super) fn take_expecting(&mut self) -> Option<Lent> {
        self.take_if(|tracer| !tracer.expected.is_empty())
    }

    fn take_if(&mut self, fits: impl Fn(&Tracer) -> bool) -> Option<Lent> {
        let mut places = self.tracers.iter_mut().enumerate();
        let (number, place) = places.find(|(_, place)| place.as_deref().is_some_and(&fits))?;
        Some(Lent { number, tracer: place.take()? })
    }

    /// Takes back what was lent.
    pub(super) fn put(&mut self, Lent { number, tracer }: Lent) {
        if let Some(place) = self.tracers.get_mut(number) {
            *place = Some(tracer);
        }
    }
}

/// A tracer outside of its place.
pub(super) struct Lent {
    number: usize,
    pub(super) tracer: Box<Tracer>,
}
