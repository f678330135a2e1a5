//! Changes: from one configuration to another, all or nothing, and of ports that come and go. Flows, connections and what was learned stay where
//! nothing changed for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::brain::{Bound, Brain};
use super::config::{Config, Mac, Problem};
use super::connection::{Ends, Tuple};
use super::decision::{Stale, Steps};
use super::judge::{Goal, Origin};
use super::rules::Question;
use super::topology::{AllNumbers, Place, Topology, attachment_name};
use crate::flow::{Action, Fate, FlowKey, Output};

/// Connections that [`Brain::forget_connections`] looks at.
const CONNECTIONS_A_TICK: usize = 4096;

/// What a new configuration changes. Nothing has happened yet.
#[derive(Clone, Debug)]
pub struct Change {
    config: Config,
    topology: Topology,
    numbers: AllNumbers,
    lines: Vec<String>,
    networks: BTreeSet<u16>,
}

impl Change {
    /// Whether everything stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// What changes, a line each: `+` comes, `-` goes, `~` changes.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// What will be.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Numbers of the networks whose flows have to be decided anew.
    #[must_use]
    pub fn networks(&self) -> &BTreeSet<u16> {
        &self.networks
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Brain {
    /// Finds out what a configuration would change.
    ///
    /// # Errors
    ///
    /// What does not fit in it; this brain stays as it is either way.
    pub fn plan(&self, config: Config) -> Result<Change, Problem> {
        config.check()?;
        let (topology, numbers) = Topology::build(&config, &self.numbers)?;
        let lines = lines(&self.config, &config);
        let networks = touched(&self.topology, &topology);
        Ok(Change { config, topology, numbers, lines, networks })
    }

    /// Makes a planned change. The change has to be of this brain as it is now.
    pub fn apply(&mut self, change: Change) -> Stale {
        let Change { config, topology, numbers, networks, .. } = change;
        self.config = config;
        self.topology = topology;
        self.numbers = numbers;
        self.memory.retain(|number, _| self.topology.networks.contains_key(number));
        for (number, memory) in &mut self.memory {
            let topology = &self.topology;
            memory.macs.forget_places(|place| topology.learns(*number, place));
            memory.neighbours.forget_places(|place| topology.learns(*number, place));
            // What the configuration says now need not be learned.
            if let Some(network) = topology.networks.get(number) {
                memory.macs.forget_keys(|mac| network.macs.contains_key(&mac) || mac == network.router_mac);
                memory.neighbours.forget_keys(|address| network.addresses.host(address).is_some());
            }
        }
        let topology = &self.topology;
        self.connections.retain(|tuple, ends| {
            let (from, to) = tuple.networks;
            let untouched = !networks.contains(&from) && !networks.contains(&to);
            untouched || topology.still_allows(tuple, ends)
        });
        self.sets.retain(|member| match member.place {
            Place::Port(_) => topology.attachment(member.place).is_some_and(|it| it.vlan == member.vlan),
            Place::Tunnel(number) => topology.tunnels.contains_key(&number),
        });
        self.find_entrances();
        Stale { networks, stations: BTreeSet::new() }
    }

    /// Notes that a port of the forwarder is there.
    pub fn bind(&mut self, name: &str, bound: Bound) -> Stale {
        self.bound.insert(name.to_owned(), bound);
        self.find_entrances();
        self.around(name)
    }

    /// Notes that a port of the forwarder is gone.
    pub fn unbind(&mut self, name: &str) -> Stale {
        self.bound.remove(name);
        self.find_entrances();
        let gone: BTreeSet<u16> = self.attachments_of(name).map(|(number, _)| number).collect();
        for memory in self.memory.values_mut() {
            let stays = |place| !matches!(place, Place::Port(number) if gone.contains(&number));
            memory.macs.forget_places(stays);
            memory.neighbours.forget_places(stays);
        }
        self.around(name)
    }

    /// What becomes of a flow when `stale` was said.
    pub fn fate(&mut self, key: &FlowKey, action: &Action, stale: &Stale, now: Duration) -> Fate {
        let Some(origin) = self.origin(key) else { return Fate::Go };
        let rewritten = action.rewrite.destination_mac;
        let macs = [Some(key.source_mac()), Some(key.destination_mac()), rewritten];
        let meant = |mac: &Mac| macs.iter().flatten().any(|other| other.0 == mac.0);
        if !stale.networks.contains(&origin.network)
            || (!stale.stations.is_empty() && !stale.stations.iter().any(meant))
        {
            return Fate::Stay;
        }
        // Who may not send any more is told so by its next packet.
        if self.admit(key, origin, None, &mut Steps::default()).is_err() || self.is_elsewhere(key, origin) {
            return Fate::Go;
        }
        let judged = self.judge(key, origin, &mut Steps::default());
        // Only its packets know which ports they have; and the next packet says whether it is of a connection.
        let dropped = matches!(judged.goal, Goal::Drop(_));
        let passed = !matches!(action.output, Output::Drop(_));
        if (key.is_wide() && judged.narrow) || (dropped && passed) || judged.unknown {
            return Fate::Go;
        }
        let decision = self.settle(key, origin, &judged, now, &mut Steps::default());
        match decision.key {
            None => Fate::Go,
            Some(_) if decision.action == *action => Fate::Stay,
            Some(_) => Fate::Become(decision.action),
        }
    }

    /// Notes that packets of a flow were seen lately.
    pub fn seen(&mut self, key: &FlowKey, now: Duration) {
        let Some(origin) = self.origin(key) else { return };
        if let Some(memory) = self.memory.get_mut(&origin.network) {
            memory.macs.touch(Mac(key.source_mac().0), now);
            if let Some(source) = key.source() {
                memory.neighbours.touch(source, now);
            }
        }
        let network = origin.network;
        let others = self.topology.networks.get(&network).into_iter().flat_map(|network| &network.reaches);
        let reached = others.copied().filter(|other| *other != network).chain([network]);
        for to in reached {
            if let Some(tuple) = super::judge::tuple(key, network, to) {
                self.connections.seen(&tuple, now);
            }
        }
    }

    /// Forgets stations that were not seen for long, and lets those be heard again that moved back too soon to be believed. To be called a few times a second.
    pub fn forget_stations(&mut self, now: Duration) -> Stale {
        let mut stale = Stale::default();
        for (number, memory) in &mut self.memory {
            let Some(network) = self.topology.networks.get(number) else { continue };
            let mut macs = memory.macs.forget_older(network.ageing, now);
            memory.neighbours.forget_older(network.ageing, now);
            macs.extend(memory.macs.claims_to_hear(now));
            if !macs.is_empty() {
                let networks = self.topology.neighbourhood(*number);
                stale.merge(Stale { networks, stations: macs.into_iter().collect() });
            }
        }
        stale
    }

    /// Forgets connections that were silent for long: bounded work, to be called a few times a second. Who forgets flows that were silent for
    /// [`SHORTEST_PATIENCE`](super::connection::SHORTEST_PATIENCE) need not look for those of these connections.
    pub fn forget_connections(&mut self, now: Duration) -> Stale {
        let mut stale = Stale::default();
        for tuple in self.connections.forget_silent(CONNECTIONS_A_TICK, now) {
            stale.merge(self.topology.around_connection(&tuple));
        }
        stale
    }

    /// Notes that there is such a flow. To be called for each flow, one after another: what there is for flows is kept by that.
    pub fn mark(&mut self, key: &FlowKey, action: &Action) {
        let Output::Replicate(number) = action.output else { return };
        self.sets.mark(number, self.pass);
        let Some(origin) = self.origin(key) else { return };
        if let Some(memory) = self.memory.get_mut(&origin.network) {
            memory.mark_unknown(Mac(key.destination_mac().0), self.pass);
        }
    }

    /// Gives up what is for flows that do not exist any more. To be called when all that there are were marked ([`Brain::mark`]) since it was called last; those
    /// that were decided on since then need not be. Whether sets were given up, and the flows that may find room by that.
    pub fn sweep(&mut self) -> (bool, Stale) {
        let given_up = self.sets.sweep(self.pass);
        self.memory.values_mut().for_each(|memory| memory.sweep_unknown(self.pass));
        self.pass += 1;
        let networks = if given_up { std::mem::take(&mut self.refused) } else { BTreeSet::new() };
        (given_up, Stale { networks, stations: BTreeSet::new() })
    }

    /// The network itself, and those that have routes into it.
    pub(super) fn neighbourhood(&self, network: u16) -> BTreeSet<u16> {
        self.topology.neighbourhood(network)
    }

    /// Whether the sender is believed to be somewhere else. Its next packet is to be heard: it may have moved.
    fn is_elsewhere(&self, key: &FlowKey, origin: Origin) -> bool {
        let learned = self.memory.get(&origin.network).and_then(|memory| memory.macs.find(Mac(key.source_mac().0)));
        learned.is_some_and(|station| station.place != origin.place)
            && self.topology.learns(origin.network, origin.place)
    }

    fn attachments_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (u16, u16)> + 'a {
        let own = self.topology.attachments.iter().filter(move |(_, it)| it.config.name == name);
        own.map(|(number, it)| (*number, it.network))
    }

    fn around(&self, name: &str) -> Stale {
        let networks = self.attachments_of(name).flat_map(|(_, network)| self.neighbourhood(network)).collect();
        Stale { networks, stations: BTreeSet::new() }
    }

    fn find_entrances(&mut self) {
        let bound = &self.bound;
        let found = self.topology.attachments.iter().filter_map(|(number, it)| {
            let port = bound.get(&it.config.name)?;
            Some(((port.number, it.vlan), *number))
        });
        self.entrances = found.collect();
    }
}

impl Topology {
    /// The network itself, and those that have routes into it.
    fn neighbourhood(&self, network: u16) -> BTreeSet<u16> {
        let leads = self.networks.iter().filter(|(_, other)| other.reaches.contains(&network));
        let others = leads.map(|(number, _)| *number);
        others.chain([network]).collect()
    }

    fn learns(&self, network: u16, place: Place) -> bool {
        self.has(network, place)
            && match place {
                Place::Port(number) => self.attachments.get(&number).is_some_and(|it| !it.config.anti_spoofing),
                Place::Tunnel(number) => self.tunnels.get(&number).is_some_and(|it| it.learn),
            }
    }

    /// The flows that a connection that ended let pass.
    fn around_connection(&self, tuple: &Tuple) -> Stale {
        let (from, to) = tuple.networks;
        let at = |network, address| {
            let network: Option<&super::topology::Network> = self.networks.get(&network);
            network.and_then(|network| network.addresses.host(address)).map(|station| station.mac)
        };
        let stations = match (at(from, tuple.source), at(to, tuple.destination)) {
            (Some(source), Some(destination)) => [source, destination].into(),
            _ => BTreeSet::new(),
        };
        Stale { networks: [from, to].into(), stations }
    }

    /// Whether the rules would let a connection be opened.
    fn still_allows(&self, tuple: &Tuple, (from, to): Ends) -> bool {
        let (from_network, to_network) = tuple.networks;
        if !self.has(from_network, from) || !self.has(to_network, to) {
            return false;
        }
        let question = |remote| Question {
            remote,
            protocol: tuple.protocol,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            later_fragment: false,
        };
        let sender = self.attachment(from);
        sender.is_none_or(|sender| sender.may_send(&question(tuple.destination)).allowed)
            && self.attachment(to).is_none_or(|receiver| receiver.may_receive(&question(tuple.source)).allowed)
    }
}

/// Numbers of the networks for which packets might go another way.
fn touched(before: &Topology, after: &Topology) -> BTreeSet<u16> {
    let mut changed = differing(&before.networks, &after.networks);
    for number in differing(&before.attachments, &after.attachments) {
        let either = [before, after].map(|topology| topology.attachments.get(&number).map(|it| it.network));
        changed.extend(either.into_iter().flatten());
    }
    for number in differing(&before.tunnels, &after.tunnels) {
        let either = [before, after].map(|topology| topology.tunnels.get(&number).map(|it| it.network));
        changed.extend(either.into_iter().flatten());
    }
    // A meter that only lets more or less through is the same meter to flows, and so is a larger slice.
    let around = changed.iter().flat_map(|number| {
        let both = before.neighbourhood(*number).into_iter().chain(after.neighbourhood(*number));
        both.collect::<Vec<_>>()
    });
    around.collect()
}

fn differing<T: PartialEq>(before: &BTreeMap<u16, T>, after: &BTreeMap<u16, T>) -> BTreeSet<u16> {
    let numbers = before.keys().chain(after.keys());
    numbers.filter(|number| before.get(number) != after.get(number)).copied().collect()
}

/// What differs between two configurations, a line each: `+` comes, `-` goes, `~` changes.
pub(crate) fn lines(before: &Config, after: &Config) -> Vec<String> {
    let mut lines = Vec::new();
    if before.underlay != after.underlay {
        let sign = match (&before.underlay, &after.underlay) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        lines.push(format!("{sign} underlay"));
    }
    let name = |name: &str| name.to_owned();
    compare(&mut lines, "slice", &before.slices, &after.slices, |it| name(&it.name));
    compare(&mut lines, "network", &before.networks, &after.networks, |it| name(&it.name));
    compare(&mut lines, "group", &before.groups, &after.groups, |it| name(&it.name));
    compare(&mut lines, "port", &before.ports, &after.ports, attachment_name);
    compare(&mut lines, "route", &before.routes, &after.routes, |it| format!("{} {}", it.network, it.prefix));
    compare(&mut lines, "mirror", &before.mirrors, &after.mirrors, |it| name(&it.name));
    compare(&mut lines, "tunnel", &before.tunnels, &after.tunnels, |it| format!("{} {}", it.network, it.remote));
    lines
}

fn compare<T: PartialEq>(lines: &mut Vec<String>, kind: &str, before: &[T], after: &[T], name: impl Fn(&T) -> String) {
    let by_name = |all: &[T]| -> BTreeMap<String, usize> {
        all.iter().enumerate().map(|(place, one)| (name(one), place)).collect()
    };
    let (old, new) = (by_name(before), by_name(after));
    for (name, place) in &old {
        match new.get(name) {
            None => lines.push(format!("- {kind} {name}")),
            Some(other) if before.get(*place) != after.get(*other) => lines.push(format!("~ {kind} {name}")),
            Some(_) => {}
        }
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        lines.push(format!("+ {kind} {name}"));
    }
}
