//! All slow state of the switch, and the decision on a first packet.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use super::config::{Config, Mac};
use super::connection::Connections;
use super::decision::{Decision, Destination, First, Stale, Steps, Task};
use super::guard::{self, Discovery};
use super::judge::{self, Goal, Judgement, Origin, tuple, wire};
use super::learning::{Noted, Station};
use super::memory::Memory;
use super::quoted;
use super::sets::Sets;
use super::topology::{AllNumbers, Attachment, Network, Place, Topology};
use crate::flow::{Action, FlowKey, KeyFields, Output, VlanRewrite};
use crate::headers::NetworkKind;
use crate::switch::{INCOMING, Reason};

/// Most addresses that a router asks for at a time.
const MOST_ASKED: usize = 1024;
/// How long it waits before it asks again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A port of the forwarder that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bound {
    /// Its number, which is the domain of its frames.
    pub number: u32,
    /// Its slot, which actions name.
    pub slot: u16,
}

/// All slow state of the switch: what shall be, what was learned, and which connections there are.
#[derive(Clone, Default, Debug)]
pub struct Brain {
    pub(super) config: Config,
    pub(super) topology: Topology,
    pub(super) numbers: AllNumbers,
    pub(super) bound: HashMap<String, Bound>,
    /// Attachments by port number and VLAN.
    pub(super) entrances: HashMap<(u32, Option<u16>), u16>,
    pub(super) memory: HashMap<u16, Memory>,
    pub(super) connections: Connections,
    pub(super) sets: Sets,
    /// Networks that got a set too few.
    pub(super) refused: BTreeSet<u16>,
    /// Passes over all flows so far ([`Brain::sweep`]).
    pub(super) pass: u64,
    asked: HashMap<(u16, IpAddr), Duration>,
}

impl Brain {
    /// Nothing: no network and no port.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration that is in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration, made ready.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Connections that are kept.
    #[must_use]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Sets of destinations by their number in actions.
    pub fn sets(&self) -> impl Iterator<Item = (u16, &[Destination])> {
        self.sets.iter()
    }

    /// Where a port of the forwarder is, when it is there.
    #[must_use]
    pub fn bound(&self, name: &str) -> Option<Bound> {
        self.bound.get(name).copied()
    }

    /// The Ethernet addresses that a network has learned.
    pub fn learned(&self, network: u16) -> impl Iterator<Item = (Mac, Station)> {
        self.memory.get(&network).into_iter().flat_map(|memory| memory.macs.iter())
    }

    /// What a place is called.
    #[must_use]
    pub fn name_of(&self, place: Place) -> String {
        match place {
            Place::Port(_) => match self.topology.attachment(place) {
                Some(attachment) => format!("port {}", attachment.config.name),
                None => "a port that is gone".into(),
            },
            Place::Tunnel(number) => match self.topology.tunnels.get(&number) {
                Some(tunnel) => format!("the tunnel to {}", tunnel.remote),
                None => "a tunnel that is gone".into(),
            },
        }
    }

    /// Number of the network that packets of a key are in.
    #[must_use]
    pub fn network_of(&self, key: &FlowKey) -> Option<u16> {
        self.origin(key).map(|origin| origin.network)
    }

    /// Whether it is known who has an address in a network.
    #[must_use]
    pub fn knows(&self, network: u16, address: IpAddr) -> bool {
        let learned = || self.memory.get(&network).and_then(|memory| memory.neighbours.find(address));
        let known = self.topology.networks.get(&network).and_then(|it| it.addresses.find(address));
        known.is_some() || learned().is_some()
    }

    /// The address of the router that the sender of such packets has: the nearest, of the same family.
    #[must_use]
    pub fn router_of(&self, key: &FlowKey) -> Option<IpAddr> {
        let network = self.topology.networks.get(&self.network_of(key)?)?;
        let source = key.source()?;
        let same = || network.routers.iter().filter(|router| router.address.is_ipv4() == source.is_ipv4());
        same().find(|router| router.prefix.contains(source)).or_else(|| same().next()).map(|router| router.address)
    }

    /// Decides on a packet that no flow is there for.
    pub fn decide(&mut self, first: &First<'_>) -> Decision {
        self.decide_saying(first, &mut Steps::default())
    }

    /// What would be decided, why, in sentences, and the members of the set that it goes to, if it does. Nothing is changed by asking.
    #[must_use]
    pub fn why(&mut self, first: &First<'_>) -> (Decision, Vec<String>, Vec<Destination>) {
        let mut steps = Steps::kept();
        // All but the connections, which may be very many, is copied.
        let mut connections = std::mem::take(&mut self.connections);
        let mut asked = self.clone();
        connections.set_dry(true);
        asked.connections = connections;
        let decision = asked.decide_saying(first, &mut steps);
        self.connections = std::mem::take(&mut asked.connections);
        self.connections.set_dry(false);
        let members = match decision.action.output {
            Output::Replicate(number) => asked.sets().find(|(other, _)| *other == number),
            _ => None,
        };
        let members = members.map_or_else(Vec::new, |(_, members)| members.to_vec());
        (decision, steps.into_sentences(), members)
    }

    fn decide_saying(&mut self, first: &First<'_>, steps: &mut Steps) -> Decision {
        let key = &first.key;
        if let Some(malformed) = first.headers.malformed {
            steps.say(|| format!("its headers make no sense: {malformed}"));
            return dropped(Reason::Malformed, None);
        }
        let Some(mut origin) = self.origin(key) else {
            steps.say(|| format!("{:?} with VLAN tags {:?} is in no network", key.domain(), key.vlans()));
            return dropped(Reason::Isolated, None);
        };
        let discovery = Discovery::read(key, first.headers, first.view);
        if let Err(reason) = self.admit(key, origin, discovery.as_ref(), steps) {
            // What neighbour discovery says is not in the key.
            let mut decision = dropped(reason, discovery.is_none().then_some(*key));
            decision.action.owner = self.topology.networks.get(&origin.network).map_or(0, |network| network.owner);
            return decision;
        }
        let stale = self.learn(key, origin, discovery.as_ref(), first.now);
        origin.quoted = quoted::tuple(first);
        let asks = discovery.filter(|it| it.kind == guard::SOLICITATION && !it.unclear);
        let judged = match asks.and_then(|asks| self.discovery_task(asks.target.into(), key, origin)) {
            Some(task) => {
                steps.say(|| "neighbour discovery: answered here".into());
                Judgement::of(Goal::Control(task))
            }
            None => self.judge(key, origin, steps),
        };
        let mut decision = self.settle(key, origin, &judged, first.now, steps);
        // What these say is not in their keys, or has to be heard each time.
        if discovery.is_some() || quoted::is_error(key) || key.network() == NetworkKind::Arp {
            decision.key = None;
        }
        decision.stale = stale;
        decision
    }

    /// Which network a packet is in.
    pub(super) fn origin(&self, key: &FlowKey) -> Option<Origin> {
        let number = key.domain().number();
        let [outer, inner] = key.vlans();
        if key.domain().is_tunnel() {
            let tunnel = u16::try_from(number).ok()?;
            let network = self.topology.tunnels.get(&tunnel)?.network;
            // RFC 7348, section 6.1: frames in a tunnel have no tags.
            let untagged = outer.is_none() && inner.is_none();
            let place = Place::Tunnel(tunnel);
            return untagged.then_some(Origin { network, place, tagged: false, quoted: None });
        }
        // A tag behind the one that is taken off would be read as one of a network's when the frame leaves.
        let attachment = self.entrances.get(&(number, outer.filter(|id| *id != 0))).filter(|_| inner.is_none())?;
        let network = self.topology.attachments.get(attachment)?.network;
        Some(Origin { network, place: Place::Port(*attachment), tagged: outer.is_some(), quoted: None })
    }

    /// Whether the sender may be who it says.
    pub(super) fn admit(
        &self,
        key: &FlowKey,
        origin: Origin,
        discovery: Option<&Discovery>,
        steps: &mut Steps,
    ) -> Result<(), Reason> {
        let source = Mac(key.source_mac().0);
        if source.is_group() || source.0 == [0; 6] {
            steps.say(|| format!("{source} is the address of no station"));
            return Err(Reason::Spoofed);
        }
        let Some(network) = self.topology.networks.get(&origin.network) else { return Err(Reason::Isolated) };
        let attachment = self.topology.attachment(origin.place);
        if let Some(attachment) = attachment.filter(|attachment| attachment.config.anti_spoofing) {
            if let Some(sentence) = guard::spoofed(attachment, key, discovery) {
                steps.say(|| sentence);
                return Err(Reason::Spoofed);
            }
            return Ok(());
        }
        // An address that the configuration gives to somebody is nobody else's, and the router's is nobody's.
        let claimed = network.macs.get(&source).is_some_and(|owner| *owner != origin.place);
        // Each host has the router, with one address: what a router elsewhere sends comes by a tunnel.
        let router = source == network.router_mac && attachment.is_some() && !network.routers.is_empty();
        if claimed || router {
            steps.say(|| format!("{source} belongs to somebody else"));
            return Err(Reason::Spoofed);
        }
        Ok(())
    }

    /// Learns from a packet of a port, or tunnel, whose addresses are not in the configuration.
    fn learn(&mut self, key: &FlowKey, origin: Origin, discovery: Option<&Discovery>, now: Duration) -> Option<Stale> {
        let place = origin.place;
        let learns = match place {
            Place::Port(number) => !self.topology.attachments.get(&number)?.config.anti_spoofing,
            Place::Tunnel(number) => self.topology.tunnels.get(&number)?.learn,
        };
        let network = self.topology.networks.get(&origin.network)?;
        let mac = Mac(key.source_mac().0);
        if !learns || mac == network.router_mac {
            return None;
        }
        let bounds = self.topology.bounds(network, place);
        let memory = self.memory.entry(origin.network).or_default();
        let station = Station { place, mac };
        let mut stale = false;
        if !network.macs.contains_key(&mac) {
            stale = match memory.macs.note(mac, station, bounds, now) {
                Noted::Moved => true,
                Noted::New => memory.was_unknown(mac),
                Noted::Known | Noted::Held | Noted::Full => false,
            };
        }
        let told = match (key.network(), discovery) {
            (NetworkKind::Arp, _) => {
                let own = key.arp_hardware().is_some_and(|[sender, _]| Mac(sender.0) == mac);
                key.source().filter(|_| own)
            }
            (_, Some(it)) if !it.unclear && it.claimed == Some(mac) => match it.kind {
                guard::ADVERTISEMENT => Some(it.target.into()),
                _ => key.source(),
            },
            _ => None,
        };
        let near =
            |address: &IpAddr| network.routers.iter().any(|it| it.prefix.contains(*address) && it.address != *address);
        if let Some(address) = told.filter(|it| near(it) && network.addresses.host(*it).is_none()) {
            stale |= memory.neighbours.note(address, station, bounds, now) == Noted::Moved;
        }
        stale.then(|| Stale { networks: self.neighbourhood(origin.network), stations: [mac].into() })
    }

    fn discovery_task(&self, address: IpAddr, key: &FlowKey, origin: Origin) -> Option<Task> {
        let network: &Network = self.topology.networks.get(&origin.network)?;
        if key.source().is_none_or(|source| source.is_unspecified()) {
            return None;
        }
        let mac = judge::known(network, address, origin)?;
        Some(Task::Answer { address, mac })
    }

    /// Makes an action of a judgement, and opens its connection.
    pub(super) fn settle(
        &mut self,
        key: &FlowKey,
        origin: Origin,
        judged: &Judgement,
        now: Duration,
        steps: &mut Steps,
    ) -> Decision {
        let owner = self.topology.networks.get(&origin.network).map_or(0, |network| network.owner);
        if let Some((tuple, ends)) = judged.connection {
            let limit = self.topology.slices.get(&owner).map_or(0, |slice| slice.connections);
            if self.connections.open(tuple, ends, owner, limit, now).is_err() {
                steps.say(|| "its slice has as many connections as it may".into());
                let mut decision = dropped(Reason::SliceFull, None);
                decision.action.owner = owner;
                return decision;
            }
            steps.say(|| "a connection is kept, by which answers pass".into());
        } else if judged.of_connection
            && let Some(tuple) = tuple(key, origin.network, self.network_reached(judged, origin))
        {
            self.connections.seen(&tuple, now);
        }
        let mut action = Action::to(Output::Drop(Reason::Denied as u8));
        action.owner = owner;
        let (mut task, mut unresolved) = (None, None);
        let mut lasting = true;
        let many = matches!(judged.goal, Goal::Flood(_));
        action.meter = self.meter(origin, owner, many);
        let vlan = |to: Option<u16>| match (origin.tagged, to) {
            (false, None) => VlanRewrite::Keep,
            (false, Some(id)) => VlanRewrite::Push(id),
            (true, None) => VlanRewrite::Pop,
            (true, Some(id)) => VlanRewrite::Set(id),
        };
        action.mirror = self.mirror(origin.place, &judged.goal);
        action.coprocessors = self.coprocessors(origin.place, &judged.goal);
        match &judged.goal {
            Goal::Drop(reason) => action.output = Output::Drop(*reason as u8),
            Goal::To(place) => {
                action.rewrite.vlan = vlan(self.topology.attachment(*place).and_then(|it| it.vlan));
                action.output = self.output(*place);
            }
            Goal::Flood(places) => {
                action.rewrite.vlan = vlan(None);
                let members = places.iter().filter(|place| self.is_there(**place)).map(|place| Destination {
                    place: *place,
                    vlan: self.topology.attachment(*place).and_then(|it| it.vlan),
                });
                let members: Vec<Destination> = members.collect();
                action.output = match self.sets.number(origin.network, members, self.pass) {
                    Some(number) => Output::Replicate(number),
                    None => {
                        self.refused.insert(origin.network);
                        Output::Drop(Reason::TableFull as u8)
                    }
                };
                let memory = self.memory.entry(origin.network).or_default();
                lasting = !judged.unknown || memory.remember_unknown(Mac(key.destination_mac().0), self.pass);
            }
            Goal::Control(wanted) => {
                action.output = Output::Local;
                task = Some(*wanted);
                lasting = false;
            }
            Goal::Unresolved(wanted) => {
                action.output = Output::Drop(Reason::NoRoute as u8);
                task = self.may_ask(*wanted, now).then_some(*wanted);
                if let Task::Ask { network, address, .. } = *wanted {
                    unresolved = Some((network, address));
                }
                lasting = false;
            }
        }
        if let Some((destination, source)) = judged.routed {
            action.rewrite.destination_mac = Some(wire(destination));
            action.rewrite.source_mac = Some(wire(source));
            action.rewrite.decrement_ttl = true;
        }
        steps.say(|| match &judged.goal {
            Goal::Drop(reason) => format!("so it is dropped: {reason}"),
            Goal::To(place) => format!("so it goes to {}", self.name_of(*place)),
            Goal::Flood(places) => {
                let names: Vec<String> = places.iter().map(|place| self.name_of(*place)).collect();
                format!("so it is copied to {}", names.join(", "))
            }
            Goal::Control(_) => "so it is answered here".into(),
            Goal::Unresolved(_) => "so it is kept back till that is known".into(),
        });
        let reverse = judged.connection.and_then(|_| self.reverse(key, judged, now));
        let is_ip = matches!(key.network(), NetworkKind::Ipv4 | NetworkKind::Ipv6);
        // Neighbour discovery is looked at one by one, so that no flow may stand for all of ICMPv6. Who has no address yet is judged by its ports.
        let narrow = judged.narrow
            || !is_ip
            || key.protocol() == 58
            || key.source().is_none_or(|address| address.is_unspecified());
        let key = lasting.then(|| if narrow { *key } else { key.wide() });
        Decision { action, key, reverse, task, unresolved, stale: None }
    }

    /// The flow of the answers to a packet that opened a connection.
    fn reverse(&mut self, key: &FlowKey, judged: &Judgement, now: Duration) -> Option<(FlowKey, Action)> {
        let (Goal::To(Place::Port(number)), Some((opened, _))) = (&judged.goal, judged.connection) else { return None };
        let attachment = self.topology.attachments.get(number)?;
        let back = opened.reversed()?;
        let (source_mac, destination_mac) = match judged.routed {
            Some((station, router)) => (wire(station), wire(router)),
            None => (key.destination_mac(), key.source_mac()),
        };
        let domain = crate::flow::Domain::port(self.bound.get(&attachment.config.name)?.number);
        let answer = FlowKey::from(&KeyFields {
            domain,
            destination_mac,
            source_mac,
            vlans: [attachment.vlan, None],
            ether_type: key.ether_type(),
            addresses: Some((back.source, back.destination)),
            protocol: back.protocol.0,
            source_port: back.source_port,
            destination_port: back.destination_port,
            later_fragment: false,
        });
        let from = self.origin(&answer)?;
        let spoofed = |reason: &Attachment| guard::spoofed(reason, &answer, None).is_some();
        if attachment.config.anti_spoofing && spoofed(attachment) {
            return None;
        }
        let judged = self.judge(&answer, from, &mut Steps::default());
        if !matches!(judged.goal, Goal::To(_)) || judged.connection.is_some() {
            return None;
        }
        let decision = self.settle(&answer, from, &judged, now, &mut Steps::default());
        decision.key.map(|key| (key, decision.action))
    }

    fn network_reached(&self, judged: &Judgement, origin: Origin) -> u16 {
        let place = match &judged.goal {
            Goal::To(place) => *place,
            _ => return origin.network,
        };
        match place {
            Place::Port(number) => self.topology.attachments.get(&number).map_or(origin.network, |it| it.network),
            Place::Tunnel(number) => self.topology.tunnels.get(&number).map_or(origin.network, |it| it.network),
        }
    }

    /// The meter of packets that come from there.
    fn meter(&self, origin: Origin, owner: u16, many: bool) -> u16 {
        if let Some(attachment) = self.topology.attachment(origin.place) {
            let [one, all] = attachment.meters;
            return if many { all } else { one };
        }
        let slice = self.topology.slices.get(&owner).map_or(0, |slice| slice.meter);
        let network = self.topology.networks.get(&origin.network).map_or(0, |network| network.broadcast_meter);
        if many && network != 0 { network } else { slice }
    }

    /// The coprocessors of who sends and of who gets, if it is one.
    fn coprocessors(&self, from: Place, goal: &Goal) -> [u16; 2] {
        let of = |place: Place| self.topology.attachment(place).map_or(0, |it| it.coprocessor);
        let to = match goal {
            Goal::To(place) => of(*place),
            Goal::Flood(_) => 0,
            Goal::Drop(_) | Goal::Control(_) | Goal::Unresolved(_) => return [0; 2],
        };
        match (of(from), to) {
            (from, 0) => [from, 0],
            (0, to) => [to | INCOMING, 0],
            (from, to) => [from, to | INCOMING],
        }
    }

    /// The ports that packets are copied to because of where they come from and where they go, a bit each.
    fn mirror(&self, from: Place, goal: &Goal) -> u16 {
        let of = |place: &Place| self.topology.mirrors_of(*place).incoming;
        match goal {
            Goal::To(place) => self.topology.mirrors_of(from).out | of(place),
            Goal::Flood(places) => {
                places.iter().fold(self.topology.mirrors_of(from).out, |bits, place| bits | of(place))
            }
            Goal::Drop(_) | Goal::Control(_) | Goal::Unresolved(_) => 0,
        }
    }

    /// Whether packets can be sent there now.
    fn is_there(&self, place: Place) -> bool {
        match self.topology.attachment(place) {
            Some(attachment) => self.bound.contains_key(&attachment.config.name),
            None => matches!(place, Place::Tunnel(number) if self.topology.tunnels.contains_key(&number)),
        }
    }

    fn output(&self, place: Place) -> Output {
        match place {
            Place::Tunnel(number) => Output::Tunnel(number),
            Place::Port(_) => {
                let bound = self.topology.attachment(place).and_then(|it| self.bound.get(&it.config.name));
                bound.map_or(Output::Drop(Reason::NoPort as u8), |bound| Output::Port(bound.slot))
            }
        }
    }

    /// Whether it was long enough ago that somebody was asked for.
    fn may_ask(&mut self, task: Task, now: Duration) -> bool {
        let Task::Ask { network, address, .. } = task else { return true };
        if self.asked.len() >= MOST_ASKED {
            self.asked.retain(|_, last| *last + ASK_AGAIN > now);
        }
        match self.asked.get(&(network, address)) {
            Some(last) if *last + ASK_AGAIN > now => false,
            None if self.asked.len() >= MOST_ASKED => false,
            _ => {
                self.asked.insert((network, address), now);
                true
            }
        }
    }
}

fn dropped(reason: Reason, key: Option<FlowKey>) -> Decision {
    let action = Action::to(Output::Drop(reason as u8));
    Decision { action, key, reverse: None, task: None, unresolved: None, stale: None }
}
