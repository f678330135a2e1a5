//! Control's end of the rings.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hugemem::Packet;
use rtrb::{Consumer, Producer, PushError};

use super::{ACTIVATIONS, Answer, Back, Injected, Order, Raised, Shared, Upcall, Why};
use crate::flow::{Action, Domain, FlowIndex, FlowKey, Table};
use crate::switch::capture::Tap;
use crate::switch::coprocessor::CoprocessorRings;
use crate::switch::layout::Layout;
use crate::switch::meter::Rate;
use crate::switch::outputs::PortSlot;
use crate::switch::trace::Tracer;

/// What an engine sent.
#[derive(Debug)]
pub enum Event {
    /// A packet to decide on.
    Upcall(Ticket),
    /// What was lent to the engine, to be freed.
    Back(Back),
}

/// A packet that is with control. It is to be answered, by [`Desk::inject`], [`Desk::dismiss`] or [`Desk::keep`]: until then nothing that
/// went up later can be finished with.
#[derive(Debug)]
#[must_use = "the engine waits for an answer"]
pub struct Ticket {
    /// The packet, whole.
    pub packet: Packet,
    /// The port that it came from.
    pub from: PortSlot,
    /// Its domain, as in its key.
    pub domain: Domain,
    /// Its narrow key.
    pub key: FlowKey,
    /// Why it went up.
    pub why: Why,
    sequence: u64,
    since: u64,
    done: u16,
}

/// Control's end of the rings to one engine. Nothing here blocks: what the engine has no room for waits, and goes with the next
/// [`Desk::flush`].
pub struct Desk {
    raised: Consumer<Raised>,
    answer: Producer<Answer>,
    shared: Arc<Shared>,
    /// Answers for which the ring had no room.
    waiting: VecDeque<Answer>,
    /// Flows to activate, which wait for others.
    activations: VecDeque<FlowIndex>,
    activated: u64,
    /// All upcalls up to this number are answered.
    handled: u64,
    /// Which of the upcalls after that are answered.
    answered: VecDeque<bool>,
}

impl Desk {
    pub(super) fn new(raised: Consumer<Raised>, answer: Producer<Answer>, shared: Arc<Shared>) -> Self {
        Self {
            raised,
            answer,
            shared,
            waiting: VecDeque::new(),
            activations: VecDeque::new(),
            activated: 0,
            handled: 0,
            answered: VecDeque::new(),
        }
    }

    /// The next thing that the engine sent.
    pub fn next_event(&mut self) -> Option<Event> {
        match self.raised.pop().ok()? {
            Raised::Back(back) => Some(Event::Back(back)),
            Raised::Upcall(Upcall { sequence, packet, from, domain, key, why, since, done }) => {
                self.answered.push_back(false);
                Some(Event::Upcall(Ticket { packet, from, domain, key, why, sequence, since, done }))
            }
        }
    }

    /// Sends a packet that came up on its way with this action, and counts it for the flow.
    pub fn inject(&mut self, ticket: Ticket, action: Action, index: Option<FlowIndex>) {
        let Ticket { packet, from, domain, sequence, since, done, .. } = ticket;
        self.mark(sequence);
        let injected = Injected { packet, action, index, from, domain, since: Some(since), done };
        self.send(Order::Inject(injected), Some(from));
    }

    /// Drops a packet that came up.
    pub fn dismiss(&mut self, ticket: Ticket) {
        drop(self.keep(ticket));
    }

    /// Keeps a packet that came up. The engine knows that it does not come back.
    pub fn keep(&mut self, ticket: Ticket) -> Packet {
        self.mark(ticket.sequence);
        self.send(Order::Nothing, Some(ticket.from));
        ticket.packet
    }

    /// Sends a packet that control made, as if it came from `from`.
    pub fn originate(&mut self, packet: Packet, from: PortSlot, domain: Domain, action: Action) {
        self.send(Order::Inject(Injected { packet, action, index: None, from, domain, since: None, done: 0 }), None);
    }

    /// Tells the engine that a flow which is pending there is decided on: all answers for it were given before.
    pub fn activate(&mut self, index: FlowIndex) {
        self.activations.push_back(index);
        self.flush();
    }

    /// Replaces flow table and layout together; what they replace comes back as an [`Event`]. Flows that the new table lacks have to be
    /// activated before, if they are pending.
    pub fn adopt(&mut self, table: Option<Arc<Table>>, layout: Option<Arc<Layout>>) {
        self.send(Order::Adopt { table, layout }, None);
    }

    /// Sets what a meter allows at this engine.
    pub fn set_meter(&mut self, number: u16, rate: Rate) {
        self.send(Order::Meter(number, rate), None);
    }

    /// Begins a capture.
    pub fn begin_capture(&mut self, tap: Box<Tap>) {
        self.send(Order::Tap(tap), None);
    }

    /// Begins a trace, whose number no capture has.
    pub fn begin_trace(&mut self, tracer: Box<Tracer>) {
        self.send(Order::Trace(tracer), None);
    }

    /// Ends the capture or trace of that number; its tap or tracer comes back as an [`Event`].
    pub fn end_capture(&mut self, number: u32) {
        self.send(Order::Untap(number), None);
    }

    /// Attaches a coprocessor. Its rings come back as an [`Event`] when there is no room.
    pub fn attach_coprocessor(&mut self, rings: Box<CoprocessorRings>) {
        self.send(Order::Attach(rings), None);
    }

    /// Detaches a coprocessor; its rings come back as an [`Event`].
    pub fn detach_coprocessor(&mut self, number: u16) {
        self.send(Order::Detach(number), None);
    }

    /// The engine has taken everything that was sent to it, and is through with all activations.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
            && self.activations.is_empty()
            && self.answer.slots() == self.answer.buffer().capacity()
            && self.shared.settled() == self.activated
    }

    /// The engine has ended: nobody takes answers any more.
    #[must_use]
    pub fn is_abandoned(&self) -> bool {
        self.answer.is_abandoned()
    }

    /// Sends what waits, as far as there is room. Whether anything was sent: then the engine has to be woken.
    pub fn flush(&mut self) -> bool {
        let mut sent = false;
        while let Some(answer) = self.waiting.pop_front() {
            if let Err(PushError::Full(answer)) = self.answer.push(answer) {
                self.waiting.push_front(answer);
                return sent;
            }
            sent = true;
        }
        // No more than the engine has places for.
        while self.activated - self.shared.settled() < ACTIVATIONS as u64
            && let Some(index) = self.activations.pop_front()
        {
            self.activated += 1;
            let answer = self.stamp(Order::Activate(index), None);
            if let Err(PushError::Full(answer)) = self.answer.push(answer) {
                self.waiting.push_front(answer);
                return sent;
            }
            sent = true;
        }
        sent
    }

    fn mark(&mut self, sequence: u64) {
        let place = usize::try_from(sequence.wrapping_sub(self.handled + 1)).unwrap_or(usize::MAX);
        if let Some(answered) = self.answered.get_mut(place) {
            *answered = true;
        }
    }

    fn stamp(&mut self, order: Order, settles: Option<PortSlot>) -> Answer {
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.handled += 1;
        }
        Answer { handled: self.handled, settles, order }
    }

    fn send(&mut self, order: Order, settles: Option<PortSlot>) {
        let answer = self.stamp(order, settles);
        self.waiting.push_back(answer);
        self.flush();
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("handled", &self.handled)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}
