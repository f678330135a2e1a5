//! Which flows there are, for those who ask. A large table is gone through a piece at a time.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::error::VswitchError;
use super::handle::Reply;
use super::report::{FlowFilter, FlowList, FlowOrder, FlowReport, FlowStatus};
use super::state::State;
use crate::flow::{Action, Domain, Flow, FlowIndex, FlowKey, FlowState, Output, VlanRewrite};
use crate::headers::NetworkKind;
use crate::network::topology::Place;
use crate::switch::{INCOMING, PortSlot, Reason};

/// Most flows in one answer.
const MOST: usize = 20_000;
/// Flows are put into words in so many times as many rounds as they are looked at.
const WORDY: u32 = 8;
/// Questions that may be underway.
const MOST_QUERIES: usize = 16;

/// Questions for flows that are underway.
#[derive(Default)]
pub(super) struct Queries(VecDeque<Query>);

struct Query {
    wanted: Wanted,
    order: FlowOrder,
    most: usize,
    cursor: u32,
    matched: u32,
    /// The best so far, the worst of them on top.
    best: BinaryHeap<Reverse<Ranked>>,
    /// When all were looked at: the best, those that come last first, and what they are in words.
    found: Option<Vec<u32>>,
    flows: Vec<FlowReport>,
    reply: Reply<FlowList>,
}

/// A filter with numbers in place of names.
struct Wanted {
    network: Option<u16>,
    port: Option<u32>,
    address: Option<std::net::IpAddr>,
    protocol: Option<u8>,
}

/// A flow by its rank, the greatest of which comes first; of equals that with the lowest index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    rank: u64,
    index: Reverse<u32>,
}

impl State {
    /// Takes in a question for flows.
    pub(super) fn flows(&mut self, filter: &FlowFilter, most: usize, reply: Reply<FlowList>) {
        let wanted = match self.numbers_of(filter) {
            Ok(wanted) => wanted,
            Err(error) => {
                let _ = reply.try_send(Err(error));
                return;
            }
        };
        if self.queries.0.len() >= MOST_QUERIES {
            let _ = reply.try_send(Err(VswitchError::Busy));
            return;
        }
        let (order, most) = (filter.order, most.min(MOST));
        let best = BinaryHeap::new();
        let (found, flows) = (None, Vec::new());
        self.queries.0.push_back(Query { wanted, order, most, cursor: 0, matched: 0, best, found, flows, reply });
    }

    fn numbers_of(&self, filter: &FlowFilter) -> Result<Wanted, VswitchError> {
        let network = filter.network.as_ref().map(|name| self.network_named(name)).transpose()?;
        let port = filter.port.as_ref().map(|name| {
            let found = self.ports.find(name).and_then(|(_, port)| u32::try_from(port.facts.number).ok());
            found.ok_or_else(|| VswitchError::NoPort(name.clone()))
        });
        Ok(Wanted { network, port: port.transpose()?, address: filter.address, protocol: filter.protocol })
    }

    /// The number of a network.
    pub(super) fn network_named(&self, name: &str) -> Result<u16, VswitchError> {
        let found = self.brain.topology().networks.iter().find(|(_, network)| network.name == name);
        found.map(|(number, _)| *number).ok_or_else(|| VswitchError::NoNetwork(name.to_owned()))
    }

    /// Goes on with the questions that are underway, each in its turn. Whether there is one.
    pub(super) fn step_queries(&mut self, budget: u32) -> bool {
        let Some(mut query) = self.queries.0.pop_front() else { return false };
        if let Some(found) = &mut query.found {
            for index in found.split_off(found.len().saturating_sub((budget / WORDY) as usize)).into_iter().rev() {
                query.flows.extend(self.flow_at(index));
            }
            if found.is_empty() {
                let Query { matched, flows, reply, .. } = query;
                let _ = reply.try_send(Ok(FlowList { total: self.writer.len(), matched, flows }));
            } else {
                self.queries.0.push_back(query);
            }
            return true;
        }
        let end = query.cursor.saturating_add(budget);
        for (index, flow) in self.writer.flows_in(query.cursor..end) {
            if !self.fits(&query.wanted, &flow.key) {
                continue;
            }
            query.matched += 1;
            let rank = match query.order {
                FlowOrder::Index => 0,
                FlowOrder::Packets => flow.counts.packets,
                FlowOrder::Bytes => flow.counts.bytes,
            };
            query.best.push(Reverse(Ranked { rank, index: Reverse(index.number()) }));
            if query.best.len() > query.most {
                query.best.pop();
            }
        }
        query.cursor = end;
        if end >= self.writer.bound() {
            let best = std::mem::take(&mut query.best).into_sorted_vec();
            query.found = Some(best.iter().rev().map(|Reverse(ranked)| ranked.index.0).collect());
        }
        self.queries.0.push_back(query);
        true
    }

    fn fits(&self, wanted: &Wanted, key: &FlowKey) -> bool {
        let Wanted { network, port, address, protocol } = wanted;
        let domain = key.domain();
        port.is_none_or(|port| domain == Domain::port(port))
            && address.is_none_or(|address| key.source() == Some(address) || key.destination() == Some(address))
            && protocol.is_none_or(|protocol| {
                matches!(key.network(), NetworkKind::Ipv4 | NetworkKind::Ipv6) && key.protocol() == protocol
            })
            && network.is_none_or(|network| self.brain.network_of(key) == Some(network))
    }

    /// The flow at an index, if it is there still.
    fn flow_at(&self, index: u32) -> Option<FlowReport> {
        let (index, flow) = self.writer.flows_in(index..index + 1).next()?;
        Some(self.report(index, &flow))
    }

    fn report(&self, index: FlowIndex, flow: &Flow) -> FlowReport {
        let Flow { key, action, state, counts, created } = flow;
        let topology = self.brain.topology();
        let network = self.brain.network_of(key).and_then(|number| topology.networks.get(&number));
        let domain = key.domain();
        let port = self.ports.numbered(domain.number()).filter(|_| !domain.is_tunnel());
        let has_ports = !key.is_wide()
            && !key.is_later_fragment()
            && matches!(key.network(), NetworkKind::Ipv4 | NetworkKind::Ipv6);
        let cycles = self.cycles();
        #[expect(clippy::cast_precision_loss, reason = "nobody asks for more than 50 bits of a second")]
        let seconds = |since: u64| self.options.clock.nanoseconds(cycles.saturating_sub(since)) as f64 / 1e9;
        let slice = topology.slices.get(&action.owner).map_or_else(String::new, |slice| slice.name.clone());
        FlowReport {
            index: index.number(),
            network: network.map(|network| network.name.clone()),
            port: port.map(|(_, port)| port.name.clone()),
            source_mac: key.source_mac().to_string(),
            destination_mac: key.destination_mac().to_string(),
            vlan: key.vlans().first().copied().flatten(),
            ether_type: key.ether_type(),
            source: key.source(),
            destination: key.destination(),
            protocol: key.protocol(),
            source_port: has_ports.then(|| key.source_port()),
            destination_port: has_ports.then(|| key.destination_port()),
            action: self.in_words(action),
            packets: counts.packets,
            bytes: counts.bytes,
            age_seconds: seconds(*created),
            idle_seconds: seconds(counts.last_seen),
            slice,
            state: if *state == FlowState::Active { FlowStatus::Active } else { FlowStatus::Pending },
        }
    }

    /// An action in words.
    fn in_words(&self, action: &Action) -> String {
        let mut words = match action.output {
            Output::Drop(code) => format!("drop: {}", Reason::of_code(code).name()),
            Output::Port(slot) => format!("to port {}", self.port_name(PortSlot(slot))),
            Output::Tunnel(number) => format!("into {}", self.brain.name_of(Place::Tunnel(number))),
            Output::Replicate(number) => {
                let members = self.brain.sets().find(|(other, _)| *other == number).map(|(_, members)| members);
                let names = members.unwrap_or_default().iter().map(|member| self.brain.name_of(member.place));
                format!("copied to {}", names.collect::<Vec<_>>().join(", "))
            }
            Output::Up | Output::Local => "to the switch itself".to_owned(),
        };
        let rewrite = &action.rewrite;
        if let Some(mac) = rewrite.destination_mac {
            words += &format!(", routed to {mac}");
        }
        match rewrite.vlan {
            VlanRewrite::Keep => {}
            VlanRewrite::Push(tag) => words += &format!(", vlan {} pushed", tag & 0xfff),
            VlanRewrite::Pop => words += ", vlan popped",
            VlanRewrite::Set(tag) => words += &format!(", vlan {}", tag & 0xfff),
        }
        for port in self.layout.mirrors(action.mirror) {
            words += &format!(", mirrored to {}", self.port_name(port));
        }
        for number in action.coprocessors.into_iter().filter(|number| *number != 0) {
            words += &format!(", by coprocessor {}", number & !INCOMING);
        }
        if action.meter != 0 {
            words += &format!(", meter {}", action.meter);
        }
        words
    }
}
