//! Everything that the thread owns, and one round of its work.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use hugemem::PacketPool;

use super::ageing::Ageing;
use super::answers;
use super::change::Changes;
use super::coprocessors::Coprocessors;
use super::counters::Counters;
use super::engines::{Engine, Engines};
use super::error::VswitchError;
use super::flows::Queries;
use super::handle::Shared;
use super::layouts;
use super::limits;
use super::per_second::PerSecond;
use super::ports::Ports;
use super::shares::Shares;
use super::underlay::Underlay;
use super::waiting::Waiting;
use super::walk::Walk;
use super::why::Explainer;
use super::{MOST_PORTS, VswitchOptions};
use crate::bell::Bell;
use crate::clock::cycles;
use crate::flow::{FlowIndex, FlowKey, FlowState, MOST_FLOWS, TableError, Writer};
use crate::network::{Brain, Config};
use crate::overlay::Template;
use crate::switch::{Event, Layout, Pipeline, PipelineOptions, PortSlot, Rate};

/// Flows that a new table is made for; it grows.
const FIRST_CAPACITY: u32 = 65_536;
/// Things that one engine may send in a round before the next one has its turn.
const EVENTS: usize = 64;
/// Flows that each kind of long work may look at in a round.
const FLOWS: u32 = 1024;
/// Packets that may be with the thread, of one engine.
const UPCALLS: usize = 2048;
/// How long an engine may take to adopt something.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done when all engines have adopted something.
type Then = Box<dyn FnOnce(Result<(), VswitchError>) + Send>;

struct Adopting {
    number: u64,
    since: Duration,
    then: Then,
}

/// Everything that the thread owns.
pub(super) struct State {
    pub(super) options: VswitchOptions,
    start: Instant,
    pub(super) brain: Brain,
    pub(super) writer: Writer,
    pub(super) engines: Engines,
    /// Memory for packets that are made here.
    pub(super) own: PacketPool,
    /// What was sent to the engines last.
    pub(super) layout: Arc<Layout>,
    pub(super) known_sets: HashSet<u16>,
    /// Headers of tunnels that lead nowhere.
    pub(super) nowhere: Template,
    pub(super) ports: Ports,
    pub(super) underlay: Underlay,
    pub(super) waiting: Waiting,
    pub(super) walk: Walk,
    pub(super) changes: Changes,
    pub(super) ageing: Ageing,
    /// How often senders at each port were told something.
    pub(super) told: PerSecond<PortSlot>,
    /// How often each slice made room for a new flow among its own.
    pub(super) displaced: PerSecond<u16>,
    pub(super) queries: Queries,
    pub(super) explainer: Explainer,
    pub(super) counters: Counters,
    /// Meters and quotas that are in force.
    pub(super) limits: HashMap<u16, Vec<Rate>>,
    pub(super) shares: Shares,
    pub(super) quotas: HashMap<u16, u32>,
    /// Flows that may not be activated yet, because packets that came before wait here.
    pub(super) deferred: Option<Vec<(FlowIndex, u64)>>,
    /// Flows that were pending when they should have changed.
    pub(super) amends: Vec<FlowKey>,
    pub(super) coprocessors: Coprocessors,
    pub(super) next_capture: u32,
    /// Captures that go on.
    pub(super) captures: Vec<u32>,
    /// Traces that go on; they have numbers of their own.
    pub(super) traces: Vec<u32>,
    /// Till the walk of this number is through, flows may name what the configuration does not have any more.
    pub(super) keep_old: u64,
    /// Packets may wait for tunnels that lead somewhere by now; somebody goes on with such packets.
    pub(super) tunnels_changed: bool,
    pub(super) goes_on: bool,
    adopting: Vec<Adopting>,
    pub(super) shared: Arc<Shared>,
}

impl State {
    /// An empty switch, and a pipeline for each engine.
    pub(super) fn new(
        options: VswitchOptions,
        bells: Vec<Arc<Bell>>,
        pools: Vec<PacketPool>,
        own: PacketPool,
        shared: Arc<Shared>,
    ) -> Result<(Self, Vec<Pipeline>), VswitchError> {
        let count = options.engines;
        if bells.len() != count || pools.len() != count {
            let (pools, bells) = (pools.len(), bells.len());
            return Err(VswitchError::Engines { engines: count, pools, bells });
        }
        if options.flows > MOST_FLOWS {
            return Err(TableError::Capacity(options.flows).into());
        }
        let capacity = FIRST_CAPACITY.min(options.flows);
        let (writer, mut readers) = Writer::with_onlookers(capacity, count, 1)?;
        let layout = Arc::new(layouts::empty());
        let nowhere = layouts::nowhere().map_err(|error| VswitchError::Refused(error.to_string()))?;
        let last = readers.pop().ok_or(VswitchError::Gone)?;
        let explainer = Explainer::new(last, &layout, options.clock)?;
        let pipeline_options = PipelineOptions { upcalls: UPCALLS, ..PipelineOptions::new(MOST_PORTS, options.clock) };
        let (mut pipelines, mut ends) = (Vec::new(), Vec::new());
        for ((reader, pool), bell) in readers.into_iter().zip(pools).zip(bells) {
            let (pipeline, desk) = Pipeline::new(reader, Arc::clone(&layout), pool, &pipeline_options);
            ends.push((desk, Arc::clone(pipeline.cells()), bell));
            pipelines.push(pipeline);
        }
        let state = Self {
            options,
            start: Instant::now(),
            brain: Brain::new(),
            writer,
            engines: Engines::new(ends),
            own,
            layout,
            known_sets: HashSet::new(),
            nowhere,
            ports: Ports::new(),
            underlay: Underlay::default(),
            waiting: Waiting::default(),
            walk: Walk::default(),
            changes: Changes::default(),
            ageing: Ageing::default(),
            told: PerSecond::new(answers::TOLD_A_SECOND),
            displaced: PerSecond::new(limits::DISPLACED_A_SECOND),
            queries: Queries::default(),
            explainer,
            counters: Counters::default(),
            limits: HashMap::new(),
            shares: Shares::default(),
            quotas: HashMap::new(),
            deferred: None,
            amends: Vec::new(),
            coprocessors: Coprocessors::default(),
            next_capture: 1,
            captures: Vec::new(),
            traces: Vec::new(),
            keep_old: 0,
            tunnels_changed: false,
            goes_on: false,
            adopting: Vec::new(),
            shared,
        };
        Ok((state, pipelines))
    }

    /// Time since the switch began.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The configuration that is in force.
    pub(super) fn config(&self) -> &Config {
        self.brain.config()
    }

    /// What a configuration would change.
    pub(super) fn plan(&self, config: Config) -> Result<Vec<String>, VswitchError> {
        Ok(self.brain.plan(config)?.lines().to_vec())
    }

    /// Does what there is to do, a bounded piece of it. Whether there was anything.
    pub(super) fn round(&mut self) -> bool {
        let mut busy = self.take_events();
        self.tick();
        busy |= self.step_changes(FLOWS);
        busy |= self.step_walk(FLOWS);
        busy |= self.step_ageing(FLOWS);
        busy |= self.step_queries(FLOWS);
        self.make_amends();
        self.end_captures();
        self.finish_adoptions();
        self.free_slots();
        self.engines.flush();
        busy
    }

    /// When [`State::round`] is to be called again even if nobody calls.
    pub(super) fn patience(&self) -> Duration {
        let waits = !self.engines.are_settled() || !self.adopting.is_empty() || !self.amends.is_empty();
        let waits = waits || self.is_changing();
        if waits { Duration::from_millis(1) } else { self.ageing.until_tick(self.now()) }
    }

    /// Takes what the engines sent, each in its turn.
    fn take_events(&mut self) -> bool {
        let mut busy = false;
        for number in 0..self.engines.all.len() {
            for _ in 0..EVENTS {
                let Some(Engine { desk: Some(desk), .. }) = self.engines.all.get_mut(number) else { break };
                let Some(event) = desk.next_event() else {
                    if desk.is_abandoned() {
                        self.bury(number);
                    }
                    break;
                };
                busy = true;
                match event {
                    Event::Upcall(ticket) => self.upcall(number, ticket),
                    Event::Back(back) => {
                        if back.layout.is_some() || back.table.is_some() {
                            self.engines.gave_back(number);
                        }
                    }
                }
            }
        }
        // Soon, so that packets do not wait for what else there is to do.
        if busy {
            self.engines.flush();
        }
        busy
    }

    /// An engine has ended: nobody waits for it any more.
    fn bury(&mut self, number: usize) {
        if let Some(engine) = self.engines.all.get_mut(number) {
            // With its rings go the tables that it had not taken yet.
            engine.desk = None;
        }
        let holds = |state: FlowState| state.holds(number);
        let pending: Vec<FlowIndex> =
            self.writer.flows(0).filter(|(_, flow)| holds(flow.state)).map(|(index, _)| index).collect();
        for index in pending {
            self.writer.activate_for(index, number);
        }
    }

    /// Calls `then` when all engines have adopted what was sent under this number, or one of them does not in time.
    pub(super) fn when_adopted(&mut self, number: u64, then: impl FnOnce(Result<(), VswitchError>) + Send + 'static) {
        let since = self.now();
        self.adopting.push(Adopting { number, since, then: Box::new(then) });
    }

    /// Whether what was sent under this number is waited for still.
    pub(super) fn is_adopting(&self, number: u64) -> bool {
        self.adopting.iter().any(|adopting| adopting.number == number)
    }

    fn finish_adoptions(&mut self) {
        if self.adopting.is_empty() {
            return;
        }
        let now = self.now();
        let engines = &self.engines;
        let done = |it: &mut Adopting| engines.have_adopted(it.number) || it.since + PATIENCE <= now;
        for Adopting { number, then, .. } in self.adopting.extract_if(.., done) {
            then(match engines.laggard(number) {
                None => Ok(()),
                Some(engine) => Err(VswitchError::Laggard { engine, patience: PATIENCE }),
            });
        }
    }

    /// Tells engines that a flow is decided on, when all its packets that were here have gone before.
    pub(super) fn activate(&mut self, index: FlowIndex, mask: u64) {
        match &mut self.deferred {
            _ if mask == 0 => {}
            Some(deferred) => deferred.push((index, mask)),
            None => self.engines.activate(index, mask),
        }
    }

    /// Ends the captures and traces whose users have gone.
    fn end_captures(&mut self) {
        let ended = std::mem::take(&mut *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner));
        for number in ended {
            self.captures.retain(|running| *running != number);
            self.traces.retain(|running| *running != number);
            self.engines.end_capture(number);
        }
    }

    /// The cycle counter, in whose unit flows have their times.
    pub(super) fn cycles(&self) -> u64 {
        cycles()
    }
}
