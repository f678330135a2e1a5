//! The switch as an engine runs it: what ports and other engines give goes through the pipeline, and what comes out goes to outlets.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::input::Input;
use super::outlet::{Outlet, To};
use super::peers::{Passed, Peers, Phase, Step};
use super::round::{Pace, Round};
use super::sender::Sender;
use super::spread;
use crate::bell::Bell;
use crate::clock::cycles;
use crate::switch::{MOST_PACKETS, Outputs, Pipeline, PortSlot, Reason};
use hugemem::Batch;

/// Packets that may lie in the outputs for one destination: a batch, and all copies that one may make.
const ROOM: usize = MOST_PACKETS + 1024;
/// How often in a round control is asked for more, so that no amount of orders holds up packets.
const ORDERS: usize = 32;
/// Rounds without work between two looks at transmit queues that still have packets underway.
const RECLAIM_INTERVAL: u64 = 16;
/// How long to sleep when packets wait for their flow.
const HELD_PAUSE: Duration = Duration::from_millis(50);
/// In place of an outlet.
const NOWHERE: usize = usize::MAX;

/// What an engine needs to switch: the pipeline, and whom to wake.
pub struct Switching {
    pipeline: Pipeline,
    outputs: Outputs,
    /// For each slot, where its outlet stands in the roster.
    places: Box<[usize]>,
    /// Of the thread that decides on what the pipeline does not know.
    control: Arc<Bell>,
    peers: Peers,
    /// What other engines passed on to be switched.
    batch: Batch,
    /// Rounds in which nothing moved.
    empty_rounds: u64,
}

/// The ways out, out of a roster.
pub(super) struct Exits<'r> {
    pub(super) outlets: &'r mut [Outlet],
    pub(super) senders: &'r mut [Sender],
    /// The places of outlets in front of which packets wait.
    pub(super) waiting: &'r mut Vec<usize>,
}

/// What is done with packets that come out of the pipeline.
#[derive(Clone, Copy)]
pub(super) enum Leave<'p> {
    /// They are sent at once, as far as there is room.
    AtOnce(&'p Pace),
    /// They wait to be picked.
    InTurn,
}

impl Switching {
    /// Switching by `pipeline` between up to `ports` ports. `control` is the bell of the thread that has the other end of the pipeline's rings, `peers` the
    /// way to the other engines.
    #[must_use]
    pub fn new(pipeline: Pipeline, ports: u16, control: Arc<Bell>, peers: Peers) -> Self {
        Self {
            pipeline,
            outputs: Outputs::new(ports, ROOM),
            places: vec![NOWHERE; usize::from(ports)].into(),
            control,
            peers,
            batch: Batch::new(MOST_PACKETS),
            empty_rounds: 0,
        }
    }

    /// Its pipeline.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }

    /// Publishes its counters.
    pub(super) fn publish(&self) {
        self.pipeline.publish();
    }

    /// Notes where the outlets stand.
    pub(super) fn link(&mut self, outlets: &[Outlet]) {
        self.places.fill(NOWHERE);
        for (place, outlet) in outlets.iter().enumerate().filter(|(_, outlet)| !outlet.is_leaving()) {
            if let Some(known) = self.places.get_mut(usize::from(outlet.slot.0)) {
                *known = place;
            }
        }
    }

    /// The share of engine time of the port in `slot`.
    #[inline]
    pub(super) fn share(&self, slot: PortSlot) -> u64 {
        self.pipeline.layout().port(slot).map_or(1, |port| u64::from(port.share).max(1))
    }

    /// Does what control and other engines want. `false` when they wanted nothing.
    pub(super) fn attend(&mut self, exits: &mut Exits<'_>, now: &mut u64, leave: Leave<'_>) -> Round {
        let returned = self.pipeline.statistics().flowing.returned;
        let mut round = Round::default();
        for _ in 0..ORDERS {
            let more = self.pipeline.attend(*now, &mut self.outputs);
            round |= self.drain(exits, now, leave);
            if !more {
                break;
            }
        }
        round.moved |= self.pipeline.statistics().flowing.returned != returned;
        round |= self.take_over(exits, now, leave);
        round
    }

    /// Takes a burst from `input` through the pipeline. Gives the cycles that this took, without those of sending.
    #[inline]
    pub(super) fn poll(
        &mut self,
        input: &mut Input,
        exits: &mut Exits<'_>,
        now: &mut u64,
        leave: Leave<'_>,
    ) -> (u64, Round) {
        let (spent, received) = input.source.receive(&mut input.batch, now);
        if received == 0 {
            return (spent, Round::default());
        }
        let began = *now;
        if input.spread && self.peers.engines() > 1 {
            self.divide(input);
            self.pipeline.run(&mut self.batch, input.from, began, &mut self.outputs);
        } else {
            self.pipeline.run(&mut input.batch, input.from, began, &mut self.outputs);
        }
        *now = cycles();
        let spent = spent + now.wrapping_sub(began);
        let round = self.drain(exits, now, leave);
        (spent, Round { moved: true, ..round })
    }

    /// The round is over: who sleeps and got something is woken.
    #[inline]
    pub(super) fn end_round(&mut self, moved: bool, senders: &mut [Sender]) {
        if self.pipeline.take_news() {
            self.control.call();
        }
        self.peers.call();
        if !moved {
            self.empty_rounds = self.empty_rounds.wrapping_add(1);
            if self.empty_rounds.is_multiple_of(RECLAIM_INTERVAL) {
                reclaim(senders);
            }
        }
    }

    /// The engine begins.
    pub(super) fn begin(&mut self) {
        self.peers.set_phase(Phase::Running);
        self.wake();
    }

    /// A round of an engine that ends: it receives nothing any more. `false` when other engines will give nothing more, either.
    pub(super) fn wind_up(&mut self, exits: &mut Exits<'_>, now: &mut u64) -> bool {
        // What others have done is asked before the last look at what they passed on.
        let (quiet, silent) = (self.peers.others_are(Phase::Quiet), self.peers.others_are(Phase::Silent));
        let took = self.take_over(exits, now, Leave::InTurn).moved;
        self.end_round(true, exits.senders);
        if !took {
            self.peers.set_phase(if quiet { Phase::Silent } else { Phase::Quiet });
        }
        took || !silent
    }

    /// The engine has ended. What others passed on meanwhile goes home, and what a panic left.
    pub(super) fn end(&mut self) {
        self.sleep();
        let left = self.peers.end();
        let mut stuck = 0;
        self.outputs.drain(|_, batch| {
            stuck += batch.len() as u64;
            batch.clear();
        });
        let statistics = self.pipeline.statistics_mut();
        statistics.flowing.taken_over += left;
        // A batch that a panic cut short was not counted yet.
        statistics.flowing.delivered = statistics.flowing.delivered.saturating_sub(stuck);
        statistics.drop_packets(Reason::NoPort, left + stuck);
    }

    /// Others left something to do, which no queue's wake-up announces.
    pub(super) fn is_called(&self) -> bool {
        self.pipeline.has_orders() || self.pipeline.has_packets_back() || self.peers.has_packets()
    }

    /// The longest that it may sleep, if there is a limit: packets that wait for their flow do not wait for ever.
    pub(super) fn longest_sleep(&self) -> Option<Duration> {
        self.pipeline.is_waiting().then_some(HELD_PAUSE)
    }

    /// Nothing is looked up until [`Switching::wake`]: the flow table's writer need not wait for this engine.
    pub(super) fn sleep(&mut self) {
        self.pipeline.reader().sleep();
    }

    /// Flows are looked up again.
    pub(super) fn wake(&mut self) {
        self.pipeline.reader().wake();
    }

    /// Packets that other engines want to be switched or sent here.
    fn take_over(&mut self, exits: &mut Exits<'_>, now: &mut u64, leave: Leave<'_>) -> Round {
        let mut round = Round::default();
        for number in 0..self.peers.from.len() {
            let taken = self.take_from(number, exits.outlets, *now);
            if taken > 0 {
                round |= self.drain(exits, now, leave);
                round.moved = true;
            }
        }
        round
    }

    /// Takes what one of the other engines passed on, as much as goes into one batch.
    fn take_from(&mut self, number: usize, outlets: &[Outlet], now: u64) -> usize {
        let Self { pipeline, outputs, places, peers, batch, .. } = self;
        let Some(ring) = peers.from.get_mut(number) else { return 0 };
        let count = ring.slots().min(MOST_PACKETS);
        let Ok(chunk) = ring.read_chunk(count) else { return 0 };
        let mut from = PortSlot(0);
        let mut sent = 0_u64;
        let (mut homeless, mut full) = (0_u64, 0_u64);
        for Passed { packet, slot, step } in chunk {
            match step {
                Step::Switch => {
                    if slot != from {
                        switch(pipeline, batch, from, now, outputs);
                        from = slot;
                    }
                    // Never full: it has room for all that are taken.
                    let _ = batch.push(packet);
                }
                Step::Send => {
                    sent += 1;
                    // It is not passed on once more.
                    let place = places.get(usize::from(slot.0)).copied().unwrap_or(NOWHERE);
                    let ends = outlets.get(place).is_some_and(|outlet| matches!(outlet.to, To::Queue(_)));
                    if !ends {
                        homeless += 1;
                    } else if outputs.push(slot, packet).is_err() {
                        full += 1;
                    }
                }
            }
        }
        switch(pipeline, batch, from, now, outputs);
        let statistics = pipeline.statistics_mut();
        statistics.flowing.taken_over += sent;
        statistics.flowing.delivered += sent - homeless - full;
        statistics.drop_packets(Reason::NoPort, homeless);
        statistics.drop_packets(Reason::OutputFull, full);
        count
    }

    /// Passes on those packets of `input` whose flows belong to other engines. The others are in the batch then.
    fn divide(&mut self, input: &mut Input) {
        let Self { pipeline, peers, batch, .. } = self;
        let engines = peers.engines();
        for packet in input.batch.drain_front(MOST_PACKETS) {
            // Never full: it has room for all that are taken.
            let _ = match peers.staged(spread::engine_of(&packet, engines)) {
                Some(staged) => staged.push(packet),
                None => batch.push(packet),
            };
        }
        let (wanted, passed) = peers.pass_staged(input.from);
        let statistics = pipeline.statistics_mut();
        statistics.flowing.received += wanted;
        statistics.flowing.passed_on += passed;
        statistics.drop_packets(Reason::OutputFull, wanted - passed);
    }

    /// Gives what came out of the pipeline to the outlets.
    #[inline]
    fn drain(&mut self, exits: &mut Exits<'_>, now: &mut u64, leave: Leave<'_>) -> Round {
        let Self { pipeline, outputs, places, peers, .. } = self;
        let mut round = Round::default();
        outputs.drain(|slot, batch| {
            let Exits { outlets, senders, waiting } = exits;
            let place = places.get(usize::from(slot.0)).copied().unwrap_or(NOWHERE);
            let outlet = outlets.get_mut(place).map(|outlet| &mut outlet.to);
            let engine = match outlet {
                Some(To::Queue(to)) => {
                    if let Some(sender) = senders.get_mut(to.sender) {
                        match leave {
                            Leave::AtOnce(pace) if to.waiting.is_empty() => {
                                round |= pace.send(&mut to.waiting, batch, sender, now);
                            }
                            _ => to.waiting.append(batch, sender),
                        }
                        if !to.waiting.is_empty() && !to.listed {
                            to.listed = true;
                            // Never full: each outlet is in it once.
                            waiting.push(place);
                        }
                        return;
                    }
                    None
                }
                Some(To::Engine(engine)) => Some(*engine),
                None => None,
            };
            let wanted = batch.len() as u64;
            let passed = engine.map_or(0, |engine| peers.pass(engine, slot, Step::Send, batch));
            batch.clear();
            let statistics = pipeline.statistics_mut();
            statistics.flowing.delivered -= wanted;
            statistics.flowing.passed_on += passed;
            let reason = if engine.is_some() { Reason::OutputFull } else { Reason::NoPort };
            statistics.drop_packets(reason, wanted - passed);
        });
        round
    }
}

/// Takes what other engines received for `from` through the pipeline.
fn switch(pipeline: &mut Pipeline, batch: &mut Batch, from: PortSlot, now: u64, outputs: &mut Outputs) {
    let packets = batch.len() as u64;
    if packets > 0 {
        pipeline.run(batch, from, now, outputs);
        // It was received elsewhere.
        let flowing = &mut pipeline.statistics_mut().flowing;
        flowing.received -= packets;
        flowing.taken_over += packets;
    }
}

/// Takes back what devices have finished with.
pub(super) fn reclaim(senders: &mut [Sender]) {
    for sender in senders.iter_mut().filter(|sender| sender.is_underway()) {
        sender.reclaim();
    }
}

impl fmt::Debug for Switching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switching")
            .field("pipeline", &self.pipeline)
            .field("peers", &self.peers)
            .finish_non_exhaustive()
    }
}
