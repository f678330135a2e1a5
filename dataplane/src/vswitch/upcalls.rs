//! What becomes of packets that come up.

use hugemem::Packet;

use super::engines::Raised;
use super::state::State;
use super::waiting::Awaited;
use crate::flow::{Action, FlowIndex, FlowKey, FlowState, Output, Refused};
use crate::headers::{NetworkKind, parse, protocol};
use crate::network::{Decision, First, Task};
use crate::switch::{Reason, Ticket, Why};

/// An action that drops.
pub(super) fn drop_for(reason: Reason) -> Action {
    Action::to(Output::Drop(reason as u8))
}

impl State {
    /// A packet came up from an engine.
    pub(super) fn upcall(&mut self, engine: usize, ticket: Ticket) {
        self.counters.upcalls += 1;
        let why = ticket.why;
        let raised = Raised::new(engine, ticket);
        match why {
            Why::Miss | Why::Asked | Why::Local | Why::TooBig(0) => self.first_packet(raised),
            Why::TimeExceeded => self.tell_expired(raised),
            Why::TooBig(longest) => self.too_big(raised, longest),
            Why::Underlay => self.take_underlay(raised),
        }
    }

    /// Decides on a packet, unless somebody has, makes a flow of the decision, and sends the packet on.
    pub(super) fn first_packet(&mut self, raised: Raised) {
        if let Some(index) = self.writer.lookup(&raised.key)
            && let Some(flow) = self.writer.get(index)
        {
            self.counters.known += 1;
            if let Some(awaited) = self.leads_nowhere(flow.action.output) {
                return self.wait(raised, awaited);
            }
            return raised.send(&mut self.engines, flow.action, Some(index));
        }
        if self.has_to_wait(&raised.key) {
            return self.wait(raised, Awaited::Change);
        }
        let says_who = raised.key.network() == NetworkKind::Arp || raised.key.protocol() == protocol::ICMPV6;
        if !says_who && self.is_over_quota(&raised.key) {
            return raised.send(&mut self.engines, drop_for(Reason::SliceFull), None);
        }
        self.counters.decided += 1;
        let now = self.now();
        let view = raised.packet().bytes();
        let headers = parse(view, raised.packet().len());
        let decision = self.brain.decide(&First { key: raised.key, headers: &headers, view, now });
        let key = raised.key;
        self.carry_out(raised, decision);
        if says_who {
            self.go_on_with_addresses(&key);
        }
    }

    /// What is done to a packet that was decided on: by its flow, or, when there was no room for one, as it was.
    pub(super) fn action_for(&mut self, raised: &Raised) -> Action {
        if let Some(flow) = self.writer.lookup(&raised.key).and_then(|index| self.writer.get(index)) {
            return flow.action;
        }
        let now = self.now();
        let view = raised.packet().bytes();
        let headers = parse(view, raised.packet().len());
        self.brain.decide(&First { key: raised.key, headers: &headers, view, now }).action
    }

    fn carry_out(&mut self, raised: Raised, decision: Decision) {
        let Decision { action, key, reverse, task, unresolved, stale } = decision;
        if let Some(stale) = stale {
            self.walk.add(stale);
        }
        match task {
            Some(Task::Answer { mac, .. }) => return self.answer_question(raised, mac),
            Some(Task::Echo) => return self.answer_echo(raised),
            Some(Task::Ask { network, address, router, mac }) => self.ask_in_network(network, (router, mac), address),
            None => {}
        }
        if let Some((network, address)) = unresolved {
            return self.wait(raised, Awaited::Address(network, address));
        }
        if let Some(awaited) = self.leads_nowhere(action.output) {
            return self.wait(raised, awaited);
        }
        if !self.is_in_layout(action.output) || reverse.is_some_and(|(_, back)| !self.is_in_layout(back.output)) {
            self.publish();
        }
        let index = key.and_then(|key| self.insert(&key, &action));
        let back = reverse.and_then(|(key, action)| self.insert_back(&key, &action));
        raised.send(&mut self.engines, action, index);
        let mask = self.engines.mask();
        for index in [index, back].into_iter().flatten() {
            self.activate(index, mask);
        }
    }

    /// Makes a flow, which is pending in all engines: packets of it that some engine sent up before go first, and each engine takes the layout that the
    /// flow was made for before it.
    fn insert(&mut self, key: &FlowKey, action: &Action) -> Option<FlowIndex> {
        let mask = self.engines.mask();
        let cycles = self.cycles();
        for evicted in [false, true] {
            match self.writer.insert(key, action, FlowState::Pending(mask), cycles) {
                Ok(index) => {
                    self.counters.inserted += 1;
                    return Some(index);
                }
                // Its own flows first: nobody else has to make room for whoever makes many.
                Err(Refused::Quota { owner, .. }) if !evicted && self.evict(Some(owner)) => {}
                Err(Refused::Full { .. }) if !evicted && (self.evict(Some(action.owner)) || self.evict(None)) => {}
                Err(_) => break,
            }
        }
        self.counters.without_flow += 1;
        None
    }

    fn evict(&mut self, owner: Option<u16>) -> bool {
        let evicted = self.writer.evict(owner).is_some();
        self.counters.evicted += u64::from(evicted);
        evicted
    }

    /// Makes the flow of the answers, in the place of what the table has for them. Gives its index if engines have to be told.
    fn insert_back(&mut self, key: &FlowKey, action: &Action) -> Option<FlowIndex> {
        if self.writer.find(key).is_some() {
            self.amend(*key);
            return None;
        }
        self.insert(key, action)
    }

    /// What is to be waited for before packets can go there.
    fn leads_nowhere(&self, output: Output) -> Option<Awaited> {
        match output {
            Output::Tunnel(number) if self.underlay.resolved(number).is_none() => Some(Awaited::Tunnel(number)),
            _ => None,
        }
    }

    /// Lets a packet wait here, if there is room.
    fn wait(&mut self, raised: Raised, awaited: Awaited) {
        if !self.waiting.has_room(awaited, raised.from) {
            let reason = if awaited == Awaited::Change { Reason::UpcallFull } else { Reason::NoRoute };
            return raised.send(&mut self.engines, drop_for(reason), None);
        }
        self.counters.waited += 1;
        let now = self.now();
        if let Some(kept) = raised.kept(&mut self.engines) {
            self.waiting.push(awaited, kept, now);
        }
    }

    /// Goes on with packets that waited. Flows that are made of them become active when all of these have gone.
    pub(super) fn release(&mut self, awaited: impl IntoIterator<Item = Awaited>) {
        let outer = self.deferred.replace(Vec::new());
        for awaited in awaited {
            for raised in self.waiting.take(awaited) {
                self.first_packet(raised);
            }
        }
        let made = std::mem::replace(&mut self.deferred, outer).unwrap_or_default();
        for (index, mask) in made {
            self.activate(index, mask);
        }
    }

    /// Drops what waited for too long.
    pub(super) fn drop_expired(&mut self) {
        let now = self.now();
        for raised in self.waiting.expired(now) {
            self.counters.waited_in_vain += 1;
            raised.send(&mut self.engines, drop_for(Reason::NoRoute), None);
        }
    }

    /// Packets may wait for who was heard of just now.
    fn go_on_with_addresses(&mut self, key: &FlowKey) {
        if self.waiting.len() == 0 {
            return;
        }
        let Some(network) = self.brain.network_of(key) else { return };
        let mut found = self.waiting.addresses(network);
        found.retain(|address| self.brain.knows(network, *address));
        self.release(found.into_iter().map(|address| Awaited::Address(network, address)));
    }

    /// Goes on with packets that wait for tunnels that are resolved by now: before any that comes later can overtake them.
    pub(super) fn go_on_with_tunnels(&mut self) {
        self.tunnels_changed = true;
        // What these packets need may be published on the way. Whoever goes on with them already sees to it.
        if std::mem::replace(&mut self.goes_on, true) {
            return;
        }
        while std::mem::take(&mut self.tunnels_changed) {
            let mut found = self.waiting.tunnels();
            found.retain(|number| self.underlay.resolved(*number).is_some());
            self.release(found.into_iter().map(Awaited::Tunnel));
        }
        self.goes_on = false;
    }

    /// A packet made here that holds these bytes; `None` when there is no buffer.
    pub(super) fn made_of(&mut self, bytes: &[u8]) -> Option<Packet> {
        let made = self.own.take().and_then(|mut packet| packet.write(bytes).is_ok().then_some(packet));
        self.counters.no_buffer += u64::from(made.is_none());
        made
    }
}
