//! The pipeline: its elements in their order, and what goes in and out beside packets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hugemem::{Batch, Packet, PacketPool};

use super::capture::{Point, Taps};
use super::coprocessor::{Coprocessors, Handed};
use super::copy;
use super::counters::{SwitchCells, SwitchStatistics};
use super::elements::{
    Context, Decapsulate, Element, Encapsulate, HandOver, LookUp, Metering, Mirror, Parse, Policy, Queue, Replicate,
    Rewriting, Sample,
};
use super::layout::Layout;
use super::meter::Meters;
use super::outputs::{Outputs, PortSlot};
use super::reason::Reason;
use super::set::Set;
use super::slots::Slots;
use super::stage::Stage;
use super::trace::{Follower, Tracers};
use super::upcall::{ACTIVATIONS, Answer, Back, Desk, Held, Hold, Injected, Order, rings};
use crate::clock::{CycleClock, cycles};
use crate::flow::{Action, Domain, FlowIndex, PackedAction, Reader};

/// Of so many batches, one is timed element by element. A power of two.
const TIMED: u64 = 16;

/// How large what belongs to a pipeline is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipelineOptions {
    /// Ports that there can be.
    pub ports: u16,
    /// Packets that may be with control at a time.
    pub upcalls: usize,
    /// Orders that control may have given without the engine having seen them.
    pub orders: usize,
    /// Packets that may wait for their flow, and flows that they may be of.
    pub held: u16,
    /// How long a packet may wait for its flow.
    pub hold: Duration,
    /// For conversions of time.
    pub clock: CycleClock,
}

impl PipelineOptions {
    /// What suits an engine with that many ports.
    #[must_use]
    pub fn new(ports: u16, clock: CycleClock) -> Self {
        Self { ports, upcalls: 1024, orders: 4096, held: 4096, hold: Duration::from_secs(1), clock }
    }
}

/// The pipeline of one engine. It has no thread and no queue: packets of a port go in by [`Pipeline::run`], what control has to say by
/// [`Pipeline::attend`], and what comes out lies in [`Outputs`].
pub struct Pipeline {
    slots: Slots,
    layout: Arc<Layout>,
    pool: PacketPool,
    coprocessors: Coprocessors,
    statistics: SwitchStatistics,
    cells: Arc<SwitchCells>,
    taps: Taps,
    tracers: Tracers,
    /// Longest that a packet may wait for its flow, in cycles.
    hold_limit: u64,
    /// Nothing is counted for flows.
    pub(super) explaining: bool,
    decapsulate: Decapsulate,
    parse: Parse,
    look_up: LookUp,
    policy: Policy,
    metering: Metering,
    pub(super) hand_over: HandOver,
    mirror: Mirror,
    rewriting: Rewriting,
    encapsulate: Encapsulate,
    replicate: Replicate,
    sample: Sample,
    queue: Queue,
}

/// Looks on as a batch passes the elements.
pub(super) trait Observer {
    /// The batch has passed `stage`, which had to do with the packets in `set`.
    fn passed(&mut self, stage: Stage, set: Set, slots: &Slots, layout: &Layout);
}

/// Nobody looks on.
impl Observer for () {
    #[inline(always)]
    fn passed(&mut self, _: Stage, _: Set, _: &Slots, _: &Layout) {}
}

impl Pipeline {
    /// A pipeline that looks flows up with `reader` and makes copies in buffers of `pool`, and control's end of its rings.
    #[must_use]
    pub fn new(reader: Reader, layout: Arc<Layout>, pool: PacketPool, options: &PipelineOptions) -> (Self, Desk) {
        let (link, desk) = rings(options.upcalls, options.orders, usize::from(options.ports));
        let meters = Meters::new(options.clock.cycles_per_second());
        let cells = SwitchCells::new(Arc::clone(meters.demand()));
        let pipeline = Self {
            slots: Slots::new(),
            layout,
            pool,
            coprocessors: Coprocessors::new(),
            statistics: SwitchStatistics::default(),
            cells: Arc::new(cells),
            taps: Taps::default(),
            tracers: Tracers::default(),
            hold_limit: options.clock.cycles_in(options.hold),
            explaining: false,
            decapsulate: Decapsulate,
            parse: Parse,
            look_up: LookUp::new(reader),
            policy: Policy,
            metering: Metering { meters },
            hand_over: HandOver::default(),
            mirror: Mirror,
            rewriting: Rewriting,
            encapsulate: Encapsulate,
            replicate: Replicate,
            sample: Sample,
            queue: Queue::new(link, Hold::new(options.held, options.held, ACTIVATIONS, options.ports)),
        };
        (pipeline, desk)
    }

    /// Where its numbers are published.
    #[must_use]
    pub fn cells(&self) -> &Arc<SwitchCells> {
        &self.cells
    }

    /// What it has counted.
    #[must_use]
    pub fn statistics(&self) -> &SwitchStatistics {
        &self.statistics
    }

    /// Its access to the flow table, for an engine that goes to sleep ([`Reader::sleep`]) and wakes.
    pub fn reader(&mut self) -> &mut Reader {
        &mut self.look_up.reader
    }

    /// What it has counted, for who counts what becomes of packets before and after it.
    pub(crate) fn statistics_mut(&mut self) -> &mut SwitchStatistics {
        &mut self.statistics
    }

    /// The world as it knows it.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether something was left for control since this was asked last: control is to be woken.
    #[inline]
    pub fn take_news(&mut self) -> bool {
        self.queue.link.take_news()
    }

    /// Control left something for [`Pipeline::attend`].
    #[must_use]
    pub fn has_orders(&self) -> bool {
        self.queue.link.peek().is_some()
    }

    /// Coprocessors left packets for [`Pipeline::attend`].
    #[must_use]
    pub fn has_packets_back(&self) -> bool {
        self.coprocessors.has_packets()
    }

    /// Packets wait for their flow: [`Pipeline::attend`] has to be called even when none come.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.queue.hold.len() > 0
    }

    /// Stores what it has counted where others may read it.
    pub fn publish(&self) {
        self.cells.publish(&self.statistics);
    }

    /// Takes all packets of `batch`, which port `from` gave at cycle `now`, through the pipeline. What comes out of it lies in `outputs` then.
    #[inline]
    pub fn run(&mut self, batch: &mut Batch, from: PortSlot, now: u64, outputs: &mut Outputs) {
        if !self.tracers.is_empty()
            && let Some(mut lent) = self.tracers.take_due(from, now)
        {
            self.observed(batch, from, now, outputs, &mut Follower::new(&mut lent.tracer, now, false));
            return self.tracers.put(lent);
        }
        self.observed(batch, from, now, outputs, &mut ());
    }

    #[inline]
    pub(super) fn observed(
        &mut self,
        batch: &mut Batch,
        from: PortSlot,
        now: u64,
        outputs: &mut Outputs,
        observer: &mut impl Observer,
    ) {
        while !batch.is_empty() {
            self.slots.begin();
            let facts = self.layout.port(from).copied();
            let domain = facts.map_or(Domain::port(0), |facts| facts.domain);
            self.slots.fill(batch, from, domain);
            self.statistics.flowing.received += self.slots.packets.len() as u64;
            match facts {
                Some(facts) if facts.underlay => self.slots.underlay = self.slots.live,
                Some(_) => {}
                None => self.slots.live.places().for_each(|place| self.slots.drop(place, Reason::NoPort)),
            }
            self.pass(now, outputs, observer);
        }
    }

    /// Does what control asks for and takes what comes back through the rest of the pipeline. To be called once a round, before
    /// packets are received, again as long as it gives `true`: then there is more. The engine holds no index of a flow meanwhile.
    pub fn attend(&mut self, now: u64, outputs: &mut Outputs) -> bool {
        self.look_up.reader.quiesce();
        self.slots.begin();
        self.drop_expired(now);
        let more = loop {
            if self.slots.packets.room() == 0 {
                break true;
            }
            if let Some(index) = self.queue.hold.ripe(self.queue.link.handled()) {
                self.release(index, now);
                continue;
            }
            let Some(answer) = self.queue.link.peek() else { break false };
            match answer.order {
                // What comes before is done by what held then.
                Order::Adopt { .. } if !self.slots.packets.is_empty() => break true,
                Order::Adopt { .. }
                | Order::Tap(_)
                | Order::Trace(_)
                | Order::Untap(_)
                | Order::Attach(_)
                | Order::Detach(_)
                    if !self.queue.link.can_give_back() =>
                {
                    break false;
                }
                _ => {}
            }
            let Some(Answer { handled, settles, order }) = self.queue.link.take() else { break false };
            self.queue.link.accept(handled, settles);
            self.carry_out(order, now);
        };
        while self.slots.packets.room() > 0
            && let Some(handed) = self.coprocessors.take()
        {
            self.resume(handed, now);
        }
        if !self.slots.packets.is_empty() {
            self.statistics.flowing.returned += self.slots.decided.or(self.slots.resumed).len() as u64;
            match self.tracers.take_expecting() {
                Some(mut lent) => {
                    self.pass(now, outputs, &mut Follower::new(&mut lent.tracer, now, true));
                    self.tracers.put(lent);
                }
                None => self.pass(now, outputs, &mut ()),
            }
        }
        more
    }

    fn carry_out(&mut self, order: Order, now: u64) {
        match order {
            Order::Nothing => {}
            Order::Inject(Injected { packet, action, index, from, domain, since, done }) => {
                if let Some(since) = since {
                    self.cells.with_control.record(now.saturating_sub(since));
                }
                self.insert(packet, action, index, (from, domain), done);
            }
            Order::Activate(index) => {
                if !self.queue.hold.ripen(index, self.queue.link.next()) {
                    // Control never asks for more than there is room for.
                    self.look_up.reader.activate(index);
                    self.queue.link.settle();
                }
            }
            Order::Adopt { table, layout } => {
                let table = table.map(|table| self.look_up.reader.swap(table));
                let layout = layout.map(|layout| std::mem::replace(&mut self.layout, layout));
                self.queue.link.give_back(Back { table, layout, ..Back::default() });
            }
            Order::Meter(number, rate) => {
                self.metering.meters.set(number, rate, now);
            }
            Order::Tap(tap) => {
                if let Err(tap) = self.taps.add(tap) {
                    self.queue.link.give_back(Back { tap: Some(tap), ..Back::default() });
                }
            }
            Order::Trace(tracer) => {
                if let Err(tracer) = self.tracers.add(tracer) {
                    self.queue.link.give_back(Back { tracer: Some(tracer), ..Back::default() });
                }
            }
            Order::Untap(number) => {
                let (tap, tracer) = (self.taps.remove(number), self.tracers.remove(number));
                self.queue.link.give_back(Back { tap, tracer, ..Back::default() });
            }
            Order::Attach(rings) => {
                if let Err(rings) = self.coprocessors.attach(rings) {
                    self.queue.link.give_back(Back { coprocessor: Some(rings), ..Back::default() });
                }
            }
            Order::Detach(number) => {
                let coprocessor = self.coprocessors.detach(number);
                self.queue.link.give_back(Back { coprocessor, ..Back::default() });
            }
        }
    }

    /// Puts a packet into the batch whose action is known, and which has passed the coprocessor `done`.
    fn insert(
        &mut self,
        packet: Packet,
        action: Action,
        index: Option<FlowIndex>,
        (from, domain): (PortSlot, Domain),
        done: u16,
    ) {
        if let Some(place) = self.slots.add(packet, from, domain) {
            self.slots.decided.insert(place);
            self.slots.returned.insert(place);
            self.slots.act(place, PackedAction::from(&action), index);
            if done != 0 {
                self.slots.resumed.insert(place);
                self.slots.get_mut(place).done = done;
            }
        }
    }

    /// Puts a packet into the batch that comes from a coprocessor, in a buffer that all can reach.
    fn resume(&mut self, handed: Handed, now: u64) {
        let Handed { packet, number, from, domain } = handed;
        // Its port may have gone, and its slot be another's.
        let is_there = domain.is_tunnel() || self.layout.port(from).is_some_and(|facts| facts.domain == domain);
        let whole = if is_there { copy::whole(&packet, &mut self.pool) } else { Err(Reason::NoPort) };
        match whole {
            Ok(packet) => {
                if let Some(place) = self.slots.add(packet, from, domain) {
                    self.slots.returned.insert(place);
                    self.slots.resumed.insert(place);
                    self.slots.get_mut(place).done = number;
                }
            }
            Err(reason) => {
                self.statistics.flowing.returned += 1;
                self.taps.drops(&packet, reason, (from, domain), now);
                self.statistics.drop(reason);
            }
        }
    }

    /// Puts the next packet into the batch that waits for the flow; when there is none, the flow's packets wait no more.
    fn release(&mut self, index: FlowIndex, now: u64) {
        match self.queue.hold.pop(index) {
            Some(Held { packet, from, domain, since }) => {
                self.cells.waited.record(now.saturating_sub(since));
                if let Some(place) = self.slots.add(packet, from, domain) {
                    self.slots.returned.insert(place);
                }
            }
            None => {
                self.look_up.reader.activate(index);
                self.queue.hold.settled();
                self.queue.link.settle();
            }
        }
        self.statistics.flowing.held = self.queue.hold.len() as u64;
    }

    fn drop_expired(&mut self, now: u64) {
        if self.queue.hold.len() == 0 {
            return;
        }
        let Some(index) = self.queue.hold.expired(now, self.hold_limit) else { return };
        while let Some(held) = self.queue.hold.pop(index) {
            self.taps.drops(&held.packet, Reason::HoldTimeout, (held.from, held.domain), now);
            self.statistics.drop(Reason::HoldTimeout);
        }
        self.statistics.flowing.held = self.queue.hold.len() as u64;
    }

    /// Takes the batch through the elements.
    #[inline]
    fn pass(&mut self, now: u64, outputs: &mut Outputs, observer: &mut impl Observer) {
        let Self { slots, layout, pool, coprocessors, statistics, cells, taps, explaining, .. } = self;
        let timed = statistics.flowing.batches.is_multiple_of(TIMED);
        statistics.flowing.batches += 1;
        taps.look(Point::Receive, slots, now);
        let explaining = *explaining;
        let context = Context { now, layout, pool, outputs, coprocessors, statistics, cells, taps };
        let mut walk = Walk { slots, context, timed, observer };
        walk.step(&mut self.decapsulate);
        walk.step(&mut self.parse);
        walk.step(&mut self.look_up);
        if !explaining {
            self.look_up.count(walk.slots.live.without(walk.slots.resumed), walk.slots, now);
        }
        walk.step(&mut self.policy);
        walk.step(&mut self.metering);
        walk.step(&mut self.hand_over);
        walk.step(&mut self.mirror);
        walk.step(&mut self.rewriting);
        walk.step(&mut self.encapsulate);
        walk.step(&mut self.replicate);
        if timed && !explaining {
            // A packet that waited was received earlier.
            walk.slots.sampled = walk.slots.live.without(walk.slots.returned).one();
        }
        walk.step(&mut self.sample);
        walk.context.taps.look(Point::Drop, walk.slots, now);
        walk.context.taps.look(Point::Deliver, walk.slots, now);
        walk.step(&mut self.queue);
        walk.context.coprocessors.call();
    }
}

/// A batch on its way.
struct Walk<'a, O> {
    slots: &'a mut Slots,
    context: Context<'a>,
    timed: bool,
    observer: &'a mut O,
}

impl<O: Observer> Walk<'_, O> {
    /// Takes the batch through one element.
    #[inline(always)]
    fn step<E: Element>(&mut self, element: &mut E) {
        let set = element.wanted(self.slots);
        if !set.is_empty() {
            let start = if self.timed { cycles() } else { 0 };
            element.process(set, self.slots, &mut self.context);
            let packets = set.len() as u64;
            if let Some(stage) = self.context.statistics.stages.get_mut(E::STAGE as usize) {
                stage.batches += 1;
                stage.packets += packets;
                if self.timed {
                    stage.timed_packets += packets;
                    stage.timed_cycles += cycles().saturating_sub(start);
                }
            }
        }
        self.context.taps.look(Point::After(E::STAGE), self.slots, self.context.now);
        self.observer.passed(E::STAGE, set, self.slots, self.context.layout);
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("queue", &self.queue).field("taps", &self.taps).finish_non_exhaustive()
    }
}
