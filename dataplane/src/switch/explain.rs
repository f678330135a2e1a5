//! What happens to a packet, element by element, in words.

use std::net::SocketAddr;

use hugemem::{Batch, Packet};

use super::coprocessor::INCOMING;
use super::layout::Layout;
use super::outputs::{Outputs, PortSlot};
use super::pipeline::{Observer, Pipeline};
use super::set::Set;
use super::slots::{Slot, Slots, Verdict};
use super::stage::Stage;
use crate::flow::{FlowKey, Output};
use crate::headers::{Fragment, Headers, NetworkKind, TransportKind};

/// What an element did to a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// The element.
    pub stage: Stage,
    /// What it did, as a sentence without its full stop.
    pub text: String,
}

impl Pipeline {
    /// Takes one packet through the pipeline and says what each element did to it. Elements that have nothing to do with it are left out.
    ///
    /// For a pipeline of control's own, which looks flows up in the table that the engines use: nothing is counted for the flow. It allocates. What the
    /// packet's journey ends in, a packet in `outputs` or an upcall at the desk, really happens.
    pub fn explain(&mut self, packet: Packet, from: PortSlot, now: u64, outputs: &mut Outputs) -> Vec<Explained> {
        let mut batch = Batch::new(1);
        let _ = batch.push(packet);
        let mut writer = Writer(Story::default());
        let before = std::mem::replace(&mut self.explaining, true);
        self.hand_over.skips = true;
        self.observed(&mut batch, from, now, outputs, &mut writer);
        self.explaining = before;
        writer.0.into_steps()
    }
}

/// Writes down what happens to the first packet.
struct Writer(Story);

impl Observer for Writer {
    fn passed(&mut self, stage: Stage, set: Set, slots: &Slots, layout: &Layout) {
        if set.contains(0) {
            let len = slots.packets.as_slice().first().map_or(0, Packet::len);
            let seen = Seen { slot: slots.get(0), key: slots.key(0), len, live: slots.live.contains(0) };
            self.0.add(stage, &seen, layout);
        }
    }
}

/// A packet behind an element that had something to do with it.
pub(super) struct Seen<'a> {
    pub(super) slot: &'a Slot,
    pub(super) key: &'a FlowKey,
    /// Its bytes.
    pub(super) len: usize,
    /// It goes on to the next element.
    pub(super) live: bool,
}

/// What happens to a packet, element by element.
#[derive(Default)]
pub(super) struct Story {
    steps: Vec<Explained>,
    /// What becomes of the packet is settled.
    over: bool,
}

impl Story {
    pub(super) fn into_steps(self) -> Vec<Explained> {
        self.steps
    }

    pub(super) fn add(&mut self, stage: Stage, seen: &Seen<'_>, layout: &Layout) {
        if self.over && stage != Stage::Queue {
            return;
        }
        let slot = seen.slot;
        let text = match stage {
            Stage::Queue => end(slot.verdict),
            _ if !seen.live => {
                self.over = true;
                end(slot.verdict)
            }
            Stage::Decapsulate => {
                format!("it came in tunnel {}, whose headers are off now", slot.domain.number())
            }
            Stage::Parse => headers(seen),
            Stage::LookUp => match slot.index {
                Some(index) => format!("flow {} knows it: {}", index.number(), action(slot, layout)),
                None => action(slot, layout),
            },
            Stage::Policy => "the decision can be carried out".to_owned(),
            Stage::Meter => format!("it passes meter {}", slot.action.meter()),
            Stage::Coprocessor => format!("it passes coprocessor {}", slot.action.coprocessors()[0] & !INCOMING),
            Stage::Mirror => match layout.mirrors(slot.action.mirror()).next() {
                Some(port) => format!("a copy goes to {port}"),
                None => "a copy would go to a mirror port that is not there".to_owned(),
            },
            Stage::Rewrite => rewritten(slot),
            Stage::Encapsulate => format!("it has a tunnel header in front now, {} bytes in all", seen.len),
            Stage::Replicate => "copies go to the others of its set".to_owned(),
            Stage::Sample => "its latency is noted".to_owned(),
        };
        // What was settled before is not said again.
        if self.steps.last().is_none_or(|last| last.text != text) {
            self.steps.push(Explained { stage, text });
        }
    }
}

fn end(verdict: Verdict) -> String {
    match verdict {
        Verdict::Open | Verdict::Replicate(_) => "it is dropped: nobody knew what to do with it".to_owned(),
        Verdict::Port(port) => format!("it goes to {port}"),
        Verdict::Coprocessor(number) => format!("it goes to coprocessor {}", number & !INCOMING),
        Verdict::Up(why) => format!("it goes to control: {why}"),
        Verdict::Hold(index) => {
            format!("it waits: control has just decided on flow {}, whose first packets are underway", index.number())
        }
        Verdict::Drop(reason) => format!("it is dropped: {reason}"),
    }
}

fn headers(seen: &Seen<'_>) -> String {
    let (headers, key) = (&seen.slot.headers, seen.key);
    let mut text = match (headers.network, key.source(), key.destination()) {
        (NetworkKind::Arp, Some(from), Some(about)) => match key.protocol() {
            1 => format!("ARP, {from} asks for {about}"),
            2 => format!("ARP, {from} tells {about} of itself"),
            other => format!("ARP, operation {other}"),
        },
        (NetworkKind::Ipv4 | NetworkKind::Ipv6, Some(from), Some(to)) => {
            let version = if from.is_ipv4() { "IPv4" } else { "IPv6" };
            let end = |address, port| match headers.transport {
                TransportKind::Tcp | TransportKind::Udp | TransportKind::Sctp => {
                    SocketAddr::new(address, port).to_string()
                }
                _ => address.to_string(),
            };
            let (from, to) = (end(from, key.source_port()), end(to, key.destination_port()));
            format!("{version}, {} {from} > {to}, ttl {}", protocol(headers, key), headers.ttl)
        }
        _ => format!("EtherType {:#06x}", headers.ether_type),
    };
    if let Some(vlan) = headers.vlan_id() {
        text += &format!(", vlan {vlan}");
    }
    if headers.fragment != Fragment::Whole {
        text += &format!(", {} fragment", if headers.fragment == Fragment::First { "first" } else { "later" });
    }
    text
}

fn protocol(headers: &Headers, key: &FlowKey) -> String {
    let [kind, code] = key.source_port().to_be_bytes();
    match headers.transport {
        TransportKind::Tcp => "TCP".to_owned(),
        TransportKind::Udp => "UDP".to_owned(),
        TransportKind::Sctp => "SCTP".to_owned(),
        TransportKind::Icmp => format!("ICMP type {kind} code {code}"),
        TransportKind::Icmpv6 => format!("ICMPv6 type {kind} code {code}"),
        TransportKind::None => format!("protocol {}", headers.protocol),
    }
}

fn action(slot: &Slot, layout: &Layout) -> String {
    match slot.action.output() {
        Output::Drop(code) => format!("drop it, because {}", super::Reason::of_code(code)),
        Output::Port(port) => format!("to {}", PortSlot(port)),
        Output::Tunnel(number) => format!("into tunnel {number}"),
        Output::Replicate(set) => {
            let members = layout.sets.get(usize::from(set)).map_or(0, |set| set.len());
            format!("to the {members} members of set {set}")
        }
        Output::Up => "to control, each packet of it".to_owned(),
        Output::Local => "control answers it".to_owned(),
    }
}

fn rewritten(slot: &Slot) -> String {
    let rewrite = slot.action.rewrite();
    let mut parts = Vec::new();
    if let Some(mac) = rewrite.source_mac {
        parts.push(format!("source {mac}"));
    }
    if let Some(mac) = rewrite.destination_mac {
        parts.push(format!("destination {mac}"));
    }
    match rewrite.vlan {
        crate::flow::VlanRewrite::Keep => {}
        crate::flow::VlanRewrite::Push(tag) => parts.push(format!("vlan {} put in", tag & 0xfff)),
        crate::flow::VlanRewrite::Pop => parts.push("vlan taken out".to_owned()),
        crate::flow::VlanRewrite::Set(tag) => parts.push(format!("vlan {}", tag & 0xfff)),
    }
    if rewrite.decrement_ttl {
        parts.push("one hop less to live".to_owned());
    }
    if let Some(number) = rewrite.translation {
        parts.push(format!("addresses of translation {number}"));
    }
    parts.join(", ")
}
