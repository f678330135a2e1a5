//! Where a packet goes, from its key alone: nothing here changes anything, so that a flow can be judged again at any time.

use std::net::IpAddr;

use drivers::nic::MacAddress;

use super::brain::Brain;
use super::config::{Mac, Protocol};
use super::connection::Tuple;
use super::decision::{Steps, Task};
use super::learning::Station;
use super::rules::{Answer, Question};
use super::topology::{Attachment, Network, Place};
use crate::flow::FlowKey;
use crate::headers::NetworkKind;
use crate::switch::Reason;

/// Operation of an ARP request (RFC 826).
const ARP_REQUEST: u8 = 1;

/// Where a packet comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) network: u16,
    pub(super) place: Place,
    /// It has a tag, which goes.
    pub(super) tagged: bool,
    /// The packet that it reports an error about: no rule has to allow that when there is a connection.
    pub(super) quoted: Option<Tuple>,
}

/// Where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    Drop(Reason),
    To(Place),
    /// To many, or to nobody known.
    Flood(Vec<Place>),
    Control(Task),
    /// Nowhere, till it is known who has an address.
    Unresolved(Task),
}

/// A judgement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Judgement {
    pub(super) goal: Goal,
    /// New destination and source addresses; the time to live goes down with them.
    pub(super) routed: Option<(Mac, Mac)>,
    /// It might be another one for other ports.
    pub(super) narrow: bool,
    /// A connection that lets the answers pass.
    pub(super) connection: Option<(Tuple, (Place, Place))>,
    /// The packet answers a connection, or is of one.
    pub(super) of_connection: bool,
    /// Nobody knows the destination: it went to all that might have it.
    pub(super) unknown: bool,
}

impl Judgement {
    pub(super) fn of(goal: Goal) -> Self {
        Self { goal, routed: None, narrow: false, connection: None, of_connection: false, unknown: false }
    }
}

/// What rules say about a packet to one place.
struct Passage {
    allowed: bool,
    narrow: bool,
    stateful: bool,
    of_connection: bool,
}

impl Brain {
    /// Judges a packet that comes from where it says.
    pub(super) fn judge(&self, key: &FlowKey, origin: Origin, steps: &mut Steps) -> Judgement {
        let Some(network) = self.topology.networks.get(&origin.network) else {
            return Judgement::of(Goal::Drop(Reason::Isolated));
        };
        let destination = Mac(key.destination_mac().0);
        let [first, second, third, fourth, fifth, last] = destination.0;
        if [first, second, third, fourth, fifth] == [0x01, 0x80, 0xc2, 0, 0] && last < 0x10 {
            steps.say(|| format!("{destination} is not forwarded by bridges"));
            return Judgement::of(Goal::Drop(Reason::Filtered));
        }
        if let Some(task) = arp_task(network, key, origin) {
            steps.say(|| format!("network {}: answered here", network.name));
            return Judgement::of(Goal::Control(task));
        }
        if destination == network.router_mac && !network.routers.is_empty() {
            return self.judge_routed(key, origin, network, steps);
        }
        if destination.is_group() {
            steps.say(|| format!("network {}: {destination} is for everybody", network.name));
            return self.judge_many(key, origin, &network.members, steps);
        }
        let Some(place) = self.station(origin.network, network, destination) else {
            steps.say(|| format!("network {}: nobody knows where {destination} is", network.name));
            let mut judged = self.judge_many(key, origin, &network.learners, steps);
            judged.unknown = true;
            return judged;
        };
        steps.say(|| format!("network {}: {destination} is at {}", network.name, self.name_of(place)));
        if origin.place == place {
            steps.say(|| "it would go back to where it came from".into());
            return Judgement::of(Goal::Drop(Reason::Filtered));
        }
        self.judge_to(key, origin, (origin.network, place), steps)
    }

    /// Where a station is: by the configuration, or as learned.
    fn station(&self, number: u16, network: &Network, mac: Mac) -> Option<Place> {
        let learned = || self.memory.get(&number).and_then(|memory| memory.macs.find(mac));
        network.macs.get(&mac).copied().or_else(|| learned().map(|station| station.place))
    }

    /// A packet for one place.
    fn judge_to(&self, key: &FlowKey, origin: Origin, (to, place): (u16, Place), steps: &mut Steps) -> Judgement {
        let between_tunnels = matches!((origin.place, place), (Place::Tunnel(_), Place::Tunnel(_)));
        // The sender reaches that host itself, and two hosts must not send a frame round and round.
        if between_tunnels {
            steps.say(|| "what comes out of a tunnel does not go into one".into());
            return Judgement::of(Goal::Drop(Reason::Filtered));
        }
        let passage = self.passage(key, origin, to, place, steps);
        let mut judged = Judgement::of(Goal::To(place));
        judged.narrow = passage.narrow;
        judged.of_connection = passage.of_connection;
        if !passage.allowed {
            judged.goal = Goal::Drop(Reason::Denied);
        } else if passage.stateful
            && let Some(tuple) = tuple(key, origin.network, to)
        {
            judged.connection = Some((tuple, (origin.place, place)));
        }
        judged
    }

    /// A packet for all of `members` whose rules let it in.
    fn judge_many(&self, key: &FlowKey, origin: Origin, members: &[Place], steps: &mut Steps) -> Judgement {
        let from_tunnel = matches!(origin.place, Place::Tunnel(_));
        let (mut places, mut narrow, mut denied) = (Vec::new(), false, false);
        for place in members {
            let back = origin.place == *place || (from_tunnel && matches!(place, Place::Tunnel(_)));
            if back {
                continue;
            }
            let passage = self.passage(key, origin, origin.network, *place, &mut Steps::default());
            narrow |= passage.narrow;
            if passage.allowed { places.push(*place) } else { denied = true }
        }
        steps.say(|| format!("{} of {} may have it", places.len(), members.len()));
        let mut judged = Judgement::of(match (places.is_empty(), denied) {
            (false, _) => Goal::Flood(places),
            (true, true) => Goal::Drop(Reason::Denied),
            (true, false) => Goal::Drop(Reason::NoRoute),
        });
        judged.narrow = narrow;
        judged
    }

    /// A packet to a network's router.
    fn judge_routed(&self, key: &FlowKey, origin: Origin, network: &Network, steps: &mut Steps) -> Judgement {
        let (NetworkKind::Ipv4 | NetworkKind::Ipv6, Some(address)) = (key.network(), key.destination()) else {
            return Judgement::of(Goal::Drop(Reason::Filtered));
        };
        if network.is_router(address) {
            steps.say(|| format!("{address} is the router of network {}", network.name));
            let echo = match Protocol(key.protocol()) {
                Protocol::ICMP => key.source_port() == 8 << 8,
                Protocol::ICMPV6 => key.source_port() == 128 << 8,
                _ => false,
            };
            let goal = if echo { Goal::Control(Task::Echo) } else { Goal::Drop(Reason::Filtered) };
            return Judgement { narrow: true, ..Judgement::of(goal) };
        }
        let found = network.routes.find(address).filter(|_| !address.is_multicast());
        let target = found.and_then(|(prefix, hop)| Some((prefix, hop, self.topology.networks.get(&hop.network)?)));
        let Some((prefix, hop, to)) = target else {
            steps.say(|| format!("network {} has no route to {address}", network.name));
            return Judgement::of(Goal::Drop(Reason::NoRoute));
        };
        let next = hop.via.unwrap_or(address);
        steps.say(|| format!("route {prefix} leads into network {}, to {next}", to.name));
        if to.is_router(next) {
            steps.say(|| format!("{next} is the router of network {}", to.name));
            return Judgement::of(Goal::Drop(Reason::NoRoute));
        }
        let known = to.addresses.find(next).map(|(_, station)| *station);
        // It may have moved since it told its address.
        let moved =
            |told: Station| Station { place: self.station(hop.network, to, told.mac).unwrap_or(told.place), ..told };
        let learned = || self.memory.get(&hop.network).and_then(|memory| memory.neighbours.find(next)).map(moved);
        let Some(Station { place, mac }) = known.or_else(learned) else {
            steps.say(|| format!("nobody in network {} is known to have {next}", to.name));
            let near = to.routers.iter().find(|router| router.prefix.contains(next));
            let own = near.or_else(|| to.routers.iter().find(|router| router.address.is_ipv4() == next.is_ipv4()));
            return Judgement::of(match own {
                Some(router) => {
                    let (network, mac) = (hop.network, to.router_mac);
                    Goal::Unresolved(Task::Ask { network, address: next, router: router.address, mac })
                }
                None => Goal::Drop(Reason::NoRoute),
            });
        };
        steps.say(|| format!("{next} is {mac} at {}", self.name_of(place)));
        let mut judged = self.judge_to(key, origin, (hop.network, place), steps);
        judged.routed = Some((mac, to.router_mac));
        judged
    }

    /// Asks the rules of both sides, in both directions.
    fn passage(&self, key: &FlowKey, origin: Origin, to: u16, place: Place, steps: &mut Steps) -> Passage {
        let sender = self.topology.attachment(origin.place);
        let receiver = self.topology.attachment(place);
        let ruled = |side: Option<&Attachment>| side.is_some_and(|side| side.rules.is_some());
        let free = Passage { allowed: true, narrow: false, stateful: false, of_connection: false };
        if key.network() == NetworkKind::Arp || !(ruled(sender) || ruled(receiver)) {
            return free;
        }
        let (Some(outgoing), Some(tuple)) = (question(key), tuple(key, origin.network, to)) else {
            steps.say(|| "ports with rules take IP and ARP only".into());
            return Passage { allowed: false, ..free };
        };
        let incoming = Question { remote: tuple.source, ..outgoing };
        let out = sender.map_or(Answer::FREE, |sender| sender.may_send(&outgoing));
        let inward = receiver.map_or(Answer::FREE, |receiver| receiver.may_receive(&incoming));
        steps.say(|| format!("{}; {}", said(sender, "out", out), said(receiver, "in", inward)));
        let (back_out, back_in) = match tuple.reversed() {
            Some(back) => {
                let question = |remote| Question {
                    remote,
                    protocol: back.protocol,
                    source_port: back.source_port,
                    destination_port: back.destination_port,
                    later_fragment: outgoing.later_fragment,
                };
                (
                    receiver.map_or(Answer::FREE, |receiver| receiver.may_send(&question(back.destination))),
                    sender.map_or(Answer::FREE, |sender| sender.may_receive(&question(back.source))),
                )
            }
            None => (Answer::FREE, Answer::FREE),
        };
        let by_ports = |answers: [Answer; 2]| answers.iter().any(|answer| answer.by_ports);
        let back_allowed = back_out.allowed && back_in.allowed;
        if out.allowed && inward.allowed {
            if back_allowed {
                steps.say(|| "answers pass by the rules, too: no connection is kept".into());
            }
            // An ICMP message without an answer says nothing about those that have one.
            let narrow =
                by_ports([out, inward]) || by_ports([back_out, back_in]) || !back_allowed || tuple.reversed().is_none();
            let stateful = !back_allowed && !key.is_later_fragment() && !key.is_wide();
            return Passage { allowed: true, narrow, stateful, of_connection: self.connections.contains(&tuple) };
        }
        let answers = if key.is_later_fragment() {
            self.connections.answers_some(&tuple)
        } else {
            self.connections.answers(&tuple)
        };
        let related = origin.quoted.is_some_and(|quoted| {
            let opened = Tuple { networks: (to, origin.network), ..quoted };
            self.connections.contains(&opened) || self.connections.answers(&opened)
        });
        if answers || related {
            steps.say(|| format!("it {} a connection", if answers { "answers" } else { "reports an error of" }));
            return Passage { allowed: true, narrow: true, stateful: false, of_connection: true };
        }
        // A connection the other way would let it pass: only where there can be none, ports do not matter.
        let never = |answer: Answer| !answer.allowed && !answer.by_ports;
        let sealed = (never(out) || never(inward)) && (never(back_out) || never(back_in));
        Passage { allowed: false, narrow: !sealed, ..free }
    }
}

/// What rules are asked about a packet, seen from its sender.
pub(crate) fn question(key: &FlowKey) -> Option<Question> {
    if !matches!(key.network(), NetworkKind::Ipv4 | NetworkKind::Ipv6) {
        return None;
    }
    Some(Question {
        remote: key.destination()?,
        protocol: Protocol(key.protocol()),
        source_port: key.source_port(),
        destination_port: key.destination_port(),
        later_fragment: key.is_later_fragment(),
    })
}

/// The ends of a packet's conversation.
pub(super) fn tuple(key: &FlowKey, from: u16, to: u16) -> Option<Tuple> {
    let question = question(key)?;
    Some(Tuple {
        networks: (from, to),
        source: key.source()?,
        destination: question.remote,
        protocol: question.protocol,
        source_port: question.source_port,
        destination_port: question.destination_port,
    })
}

fn said(side: Option<&Attachment>, direction: &str, answer: Answer) -> String {
    let verb = if answer.allowed { "allows" } else { "denies" };
    let Some(side) = side else { return format!("nobody is asked about {direction}") };
    let name = &side.config.name;
    match answer.rule {
        _ if side.rules.is_none() => format!("{name} has no rules"),
        Some(rule) => format!("rule {} of {name} {verb} it {direction}", rule + 1),
        None => format!("no rule of {name} fits, which {verb} it {direction}"),
    }
}

/// Whether control answers an ARP request itself: for addresses that the configuration knows, and those of the router.
fn arp_task(network: &Network, key: &FlowKey, origin: Origin) -> Option<Task> {
    if key.network() != NetworkKind::Arp || key.protocol() != ARP_REQUEST {
        return None;
    }
    // Who asks for its own address tells it to everybody (RFC 5227, section 3).
    let address = key.destination().filter(|address| Some(*address) != key.source())?;
    let mac = known(network, address, origin)?;
    Some(Task::Answer { address, mac })
}

/// Who has an address, if that is not to be asked where it came from.
pub(super) fn known(network: &Network, address: IpAddr, origin: Origin) -> Option<Mac> {
    if network.is_router(address) {
        return Some(network.router_mac);
    }
    let station = network.addresses.host(address)?;
    // Another host answers for what it has, and this one for what is here.
    let ours = matches!(station.place, Place::Port(_)) || matches!(origin.place, Place::Port(_));
    (station.place != origin.place && ours).then_some(station.mac)
}

/// An Ethernet address as flows have it.
pub(super) fn wire(mac: Mac) -> MacAddress {
    MacAddress(mac.0)
}
