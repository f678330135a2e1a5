//! What would happen to a packet, and why: a pipeline of the thread's own that no port gives packets to, beside the sentences of the brain.

use std::fmt;
use std::sync::Arc;

use hugemem::{Iova, Packet, PacketPool, Region};

use super::MOST_PORTS;
use super::error::VswitchError;
use super::report::{Explanation, ExplanationStep};
use super::state::State;
use super::trace;
use crate::clock::CycleClock;
use crate::flow::{Domain, FlowKey, Output, Reader, Table};
use crate::headers::{ETHERNET, parse};
use crate::network::topology::Place;
use crate::network::{Destination, First, Task};
use crate::overlay::decapsulate;
use crate::switch::{
    Desk, Event, Explained, Layout, Outputs, Pipeline, PipelineOptions, PortSlot, Reason, SwitchStatistics, Why,
};
use crate::whole;

/// Longest frame that is explained.
const LONGEST: usize = 9216;
/// Buffers, enough for a copy for each port and the frame itself.
const BUFFERS: usize = MOST_PORTS as usize * 2;
const ROOM: usize = 2048;

/// A pipeline that no port gives packets to.
pub(super) struct Explainer {
    pipeline: Pipeline,
    desk: Desk,
    outputs: Outputs,
    pool: PacketPool,
    copies: PacketPool,
}

/// What the pipeline did.
struct Seen {
    steps: Vec<Explained>,
    /// Ports that would get it.
    ports: Vec<PortSlot>,
    /// Why it would come up.
    raised: Option<Why>,
    dropped: Option<Reason>,
}

fn pool(count: usize) -> Result<PacketPool, VswitchError> {
    let bytes = count * (ROOM + hugemem::HEADROOM) + ROOM;
    let made = Region::on_heap(bytes, Iova::new(0)).and_then(|region| region.packets(count, ROOM));
    made.map_err(|error| VswitchError::Refused(format!("there is no memory for explanations: {error}")))
}

impl Explainer {
    pub(super) fn new(mut reader: Reader, layout: &Arc<Layout>, clock: CycleClock) -> Result<Self, VswitchError> {
        // It looks at the table when it is asked and at no other time, so that nobody waits for it.
        reader.sleep();
        let options = PipelineOptions { upcalls: 8, orders: 64, held: 8, ..PipelineOptions::new(MOST_PORTS, clock) };
        let (pipeline, desk) = Pipeline::new(reader, Arc::clone(layout), pool(BUFFERS)?, &options);
        let outputs = Outputs::new(MOST_PORTS, BUFFERS);
        Ok(Self { pipeline, desk, outputs, pool: pool(16)?, copies: pool(16)? })
    }

    /// Takes what the engines take.
    pub(super) fn adopt(&mut self, table: Option<&Arc<Table>>, layout: &Arc<Layout>) {
        self.desk.adopt(table.cloned(), Some(Arc::clone(layout)));
        self.settle(0);
    }

    /// Does what it was told, and frees what it gives back.
    fn settle(&mut self, now: u64) {
        self.pipeline.reader().wake();
        while self.pipeline.attend(now, &mut self.outputs) {}
        self.pipeline.reader().sleep();
        self.outputs.drain(|_, batch| batch.clear());
        while let Some(event) = self.desk.next_event() {
            if let Event::Upcall(ticket) = event {
                self.desk.dismiss(ticket);
            }
        }
    }

    fn packet(pool: &mut PacketPool, frame: &[u8]) -> Result<Packet, VswitchError> {
        let fill = |at: usize, into: &mut [u8]| {
            let from = frame.get(at..at + into.len()).unwrap_or_default();
            into.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        };
        whole::assemble(pool, frame.len(), fill)
            .map_err(|_| VswitchError::Refused("there is no buffer for the frame".into()))
    }

    fn explain(&mut self, frame: &[u8], from: PortSlot, now: u64) -> Result<Seen, VswitchError> {
        let packet = Self::packet(&mut self.pool, frame)?;
        let before: SwitchStatistics = self.pipeline.statistics().clone();
        self.pipeline.reader().wake();
        let steps = self.pipeline.explain(packet, from, now, &mut self.outputs);
        self.pipeline.reader().sleep();
        let mut ports = Vec::new();
        self.outputs.drain(|port, batch| {
            ports.push(port);
            batch.clear();
        });
        let mut raised = None;
        while let Some(event) = self.desk.next_event() {
            if let Event::Upcall(ticket) = event {
                raised = Some(ticket.why);
                self.desk.dismiss(ticket);
            }
        }
        let drops = &self.pipeline.statistics().drops;
        let more = |reason: &&Reason| {
            let count = |drops: &[u64]| drops.get(**reason as usize).copied().unwrap_or(0);
            count(drops) > count(&before.drops)
        };
        let dropped = Reason::ALL.iter().find(more).copied();
        self.settle(now);
        Ok(Seen { steps, ports, raised, dropped })
    }
}

impl State {
    /// What would happen to a frame from a port.
    pub(super) fn why(&mut self, port: &str, frame: &[u8]) -> Result<Explanation, VswitchError> {
        let (slot, attached) = self.ports.find(port).ok_or_else(|| VswitchError::NoPort(port.to_owned()))?;
        if !(ETHERNET..=LONGEST).contains(&frame.len()) {
            return Err(VswitchError::Frame { len: frame.len(), most: LONGEST });
        }
        let number = u32::try_from(attached.facts.number).unwrap_or(u32::MAX);
        let underlay = self.underlay.port().is_some_and(|port| port.slot == slot);
        let cycles = self.cycles();
        let seen = self.explainer.explain(frame, slot, cycles)?;
        let steps = seen.steps.iter().map(|it| self.named_step(it)).collect();
        let mut told = Explanation { steps, ..Explanation::default() };
        let inside = self.inside(frame, Domain::port(number), underlay)?;
        let mut asked = None;
        if let Some((domain, inside)) = &inside {
            let headers = parse(inside, inside.len());
            let key = FlowKey::of(&headers, inside, *domain);
            let now = self.now();
            let (decision, reasons, members) = self.brain.why(&First { key, headers: &headers, view: inside, now });
            told.reasons = reasons;
            let known = self.writer.lookup(&key).and_then(|index| self.writer.get(index)).map(|flow| flow.action);
            asked = Some((known.unwrap_or(decision.action).output, decision, members));
        }
        match (seen.raised, asked) {
            (Some(Why::TimeExceeded), _) => told.drop_for(Reason::Expired, " (its sender is told)"),
            (Some(Why::TooBig(most)), _) if most > 0 => told.drop_for(Reason::TooLong, " (its sender is told)"),
            (Some(Why::Underlay), _) => {
                told.verdict = "taken by the switch itself: it came from other hosts, in no tunnel".into();
            }
            (Some(_), Some((output, decision, members))) => match (decision.task, decision.unresolved) {
                (Some(Task::Answer { address, mac }), _) => {
                    told.verdict = format!("answered by the switch: {address} is at {mac}");
                }
                (Some(Task::Echo), _) => told.verdict = "answered by the switch: the router is pinged".into(),
                (_, Some((_, address))) => {
                    told.verdict = format!("kept back: it is being asked who has {address}");
                }
                _ => self.conclude(output, &members, slot, &mut told),
            },
            (None, Some((output, _, members))) if !seen.ports.is_empty() => {
                self.conclude(output, &members, slot, &mut told);
            }
            _ => told.drop_for(seen.dropped.unwrap_or(Reason::NoPort), ""),
        }
        Ok(told)
    }

    /// A step with names in the place of slots.
    fn named_step(&self, step: &Explained) -> ExplanationStep {
        trace::named(step, |slot| self.port_name(slot))
    }

    /// The frame that is decided on, and its domain: the one in the tunnel if it came in one. `None` for other frames of an underlay port.
    fn inside(
        &mut self,
        frame: &[u8],
        domain: Domain,
        underlay: bool,
    ) -> Result<Option<(Domain, Vec<u8>)>, VswitchError> {
        if !underlay {
            return Ok(Some((domain, frame.to_vec())));
        }
        let mut packet = Explainer::packet(&mut self.explainer.copies, frame)?;
        let headers = parse(packet.bytes(), packet.len());
        Ok(match decapsulate(&mut packet, &headers, &self.layout.terminations) {
            Ok(Some(arrival)) => {
                let mut inside = vec![0; packet.len()];
                whole::read(&packet, 0, &mut inside);
                Some((Domain::tunnel(arrival.tunnel), inside))
            }
            _ => None,
        })
    }

    /// What an output means for a packet from `from`, as a verdict.
    fn conclude(&self, output: Output, members: &[Destination], from: PortSlot, told: &mut Explanation) {
        match output {
            Output::Drop(code) => told.drop_for(Reason::of_code(code), ""),
            Output::Port(slot) => {
                let name = self.port_name(PortSlot(slot));
                told.verdict = format!("forwarded to port {name}");
                told.delivered = vec![name];
            }
            Output::Tunnel(number) => {
                let remote = self.brain.topology().tunnels.get(&number).map(|tunnel| tunnel.remote);
                told.tunnels.extend(remote);
                let place = self.brain.name_of(Place::Tunnel(number));
                told.verdict = match self.underlay.resolved(number) {
                    Some(mac) => format!("sent into {place}, at {mac}"),
                    None => format!("kept back: {place} has no Ethernet address yet"),
                };
            }
            Output::Replicate(_) => self.conclude_many(members, from, told),
            Output::Up | Output::Local => told.verdict = "taken by the switch itself".into(),
        }
    }

    fn conclude_many(&self, members: &[Destination], from: PortSlot, told: &mut Explanation) {
        for Destination { place, .. } in members {
            match place {
                Place::Port(_) => {
                    let name = self.brain.topology().attachment(*place).map(|it| it.config.name.clone());
                    let here = |name: &String| self.ports.find(name).is_some_and(|(slot, _)| slot != from);
                    told.delivered.extend(name.filter(here));
                }
                Place::Tunnel(number) => {
                    told.tunnels.extend(self.brain.topology().tunnels.get(number).map(|tunnel| tunnel.remote));
                }
            }
        }
        let mut places: Vec<String> = told.delivered.iter().map(|name| format!("port {name}")).collect();
        places.extend(told.tunnels.iter().map(|remote| format!("the tunnel to {remote}")));
        told.verdict = match places.as_slice() {
            [] => "dropped: none of those who may have it is there".into(),
            places => format!("copied to {}", places.join(", ")),
        };
    }

    /// What a port is called.
    pub(super) fn port_name(&self, slot: PortSlot) -> String {
        self.ports.get(slot).map_or_else(|| format!("in slot {} (gone)", slot.0), |port| port.name.clone())
    }
}

impl Explanation {
    fn drop_for(&mut self, reason: Reason, more: &str) {
        self.dropped = Some(reason.name().to_owned());
        self.verdict = format!("dropped: {}{more}", reason.sentence());
    }
}

impl fmt::Debug for Explainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explainer").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}
