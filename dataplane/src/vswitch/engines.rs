//! The engines as the switch's thread sees them: a desk and a bell each.

use std::sync::Arc;

use hugemem::Packet;

use crate::bell::Bell;
use crate::flow::{Action, Domain, FlowIndex, FlowKey, Table};
use crate::switch::{Desk, Layout, PortSlot, Rate, SwitchCells, Tap, Ticket};

/// One engine.
pub(super) struct Engine {
    /// Its desk; `None` when it has ended.
    pub(super) desk: Option<Desk>,
    pub(super) cells: Arc<SwitchCells>,
    bell: Arc<Bell>,
    /// It got orders since it was last called.
    ordered: bool,
    /// Tables and layouts that it gave back.
    returned: u64,
}

/// All engines, by number.
pub(super) struct Engines {
    pub(super) all: Vec<Engine>,
    /// Tables and layouts that were sent to each.
    sent: u64,
}

impl Engines {
    pub(super) fn new(engines: impl IntoIterator<Item = (Desk, Arc<SwitchCells>, Arc<Bell>)>) -> Self {
        let engine = |(desk, cells, bell)| Engine { desk: Some(desk), cells, bell, ordered: false, returned: 0 };
        Self { all: engines.into_iter().map(engine).collect(), sent: 0 }
    }

    /// The desk of an engine that runs; it counts as having got an order.
    pub(super) fn desk(&mut self, engine: usize) -> Option<&mut Desk> {
        let engine = self.all.get_mut(engine)?;
        engine.ordered = true;
        engine.desk.as_mut()
    }

    /// What wakes an engine.
    pub(super) fn bell(&self, engine: usize) -> Option<&Arc<Bell>> {
        self.all.get(engine).map(|engine| &engine.bell)
    }

    /// Any engine that runs.
    pub(super) fn first(&self) -> Option<usize> {
        self.all.iter().position(|engine| engine.desk.is_some())
    }

    /// A bit for each engine that runs.
    pub(super) fn mask(&self) -> u64 {
        let running = self.all.iter().take(64).enumerate().filter(|(_, engine)| engine.desk.is_some());
        running.fold(0, |mask, (number, _)| mask | 1 << number)
    }

    fn each(&mut self, mut order: impl FnMut(&mut Desk)) {
        for engine in &mut self.all {
            if let Some(desk) = &mut engine.desk {
                order(desk);
                engine.ordered = true;
            }
        }
    }

    /// All of these engines are told that the flow is decided on.
    pub(super) fn activate(&mut self, index: FlowIndex, mask: u64) {
        for (number, engine) in self.all.iter_mut().enumerate().take(64) {
            if mask >> number & 1 == 1
                && let Some(desk) = &mut engine.desk
            {
                desk.activate(index);
                engine.ordered = true;
            }
        }
    }

    /// All engines take these from now on. Gives the number by which [`Engines::have_adopted`] knows.
    pub(super) fn adopt(&mut self, table: Option<&Arc<Table>>, layout: &Arc<Layout>) -> u64 {
        self.each(|desk| desk.adopt(table.cloned(), Some(Arc::clone(layout))));
        self.sent += 1;
        self.sent
    }

    /// All engines have taken the table or layout of this number, and those before it.
    pub(super) fn have_adopted(&self, number: u64) -> bool {
        self.all.iter().all(|engine| engine.desk.is_none() || engine.returned >= number)
    }

    /// The first engine that has not.
    pub(super) fn laggard(&self, number: u64) -> Option<usize> {
        self.all.iter().position(|engine| engine.desk.is_some() && engine.returned < number)
    }

    /// An engine gave back a table or a layout.
    pub(super) fn gave_back(&mut self, engine: usize) {
        if let Some(engine) = self.all.get_mut(engine) {
            engine.returned += 1;
        }
    }

    /// No more packets go to a coprocessor.
    pub(super) fn detach_coprocessor(&mut self, number: u16) {
        self.each(|desk| desk.detach_coprocessor(number));
    }

    /// Sets a meter in one engine.
    pub(super) fn set_meter(&mut self, engine: usize, number: u16, rate: Rate) {
        if let Some(desk) = self.desk(engine) {
            desk.set_meter(number, rate);
        }
    }

    /// Begins a capture in one.
    pub(super) fn begin_capture(&mut self, engine: usize, tap: Box<Tap>) {
        if let Some(desk) = self.desk(engine) {
            desk.begin_capture(tap);
        }
    }

    /// Ends a capture in all.
    pub(super) fn end_capture(&mut self, number: u32) {
        self.each(|desk| desk.end_capture(number));
    }

    /// Sends what waits at the desks, and wakes engines that got something.
    pub(super) fn flush(&mut self) {
        for engine in &mut self.all {
            // What had no room when it was ordered goes now, and the engine may sleep by now.
            let sent = engine.desk.as_mut().is_some_and(Desk::flush);
            if std::mem::take(&mut engine.ordered) | sent {
                engine.bell.call();
            }
        }
    }

    /// All engines are through with everything that they were sent.
    pub(super) fn are_settled(&self) -> bool {
        self.all.iter().filter_map(|engine| engine.desk.as_ref()).all(Desk::is_settled)
    }
}

/// A packet that came up, or came up and waited here.
pub(super) struct Raised {
    /// The engine that it came from, and goes back to.
    pub(super) engine: usize,
    pub(super) from: PortSlot,
    pub(super) domain: Domain,
    pub(super) key: FlowKey,
    body: Body,
}

enum Body {
    /// The engine waits for an answer.
    Ticket(Ticket),
    /// The engine knows that it does not come back; it is sent like one that is made here.
    Packet(Packet),
}

impl Raised {
    pub(super) fn new(engine: usize, ticket: Ticket) -> Self {
        Self { engine, from: ticket.from, domain: ticket.domain, key: ticket.key, body: Body::Ticket(ticket) }
    }

    pub(super) fn packet(&self) -> &Packet {
        match &self.body {
            Body::Ticket(ticket) => &ticket.packet,
            Body::Packet(packet) => packet,
        }
    }

    /// Sends it on its way with this action, and counts it for the flow if it did not wait here.
    pub(super) fn send(self, engines: &mut Engines, action: Action, index: Option<FlowIndex>) {
        let Self { engine, from, domain, body, .. } = self;
        let Some(desk) = engines.desk(engine) else { return };
        match body {
            Body::Ticket(ticket) => desk.inject(ticket, action, index),
            Body::Packet(packet) => desk.originate(packet, from, domain, action),
        }
    }

    /// Takes it away from the engine.
    pub(super) fn take(self, engines: &mut Engines) -> Option<Packet> {
        match self.body {
            Body::Ticket(ticket) => Some(engines.desk(self.engine)?.keep(ticket)),
            Body::Packet(packet) => Some(packet),
        }
    }

    /// Keeps it here: the engine need not wait for an answer.
    pub(super) fn kept(self, engines: &mut Engines) -> Option<Self> {
        let Self { engine, from, domain, key, .. } = self;
        let body = Body::Packet(self.take(engines)?);
        Some(Self { engine, from, domain, key, body })
    }
}
