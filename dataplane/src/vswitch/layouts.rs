//! What engines know of the world: made of the configuration, the ports that are there, and the tunnels that are resolved.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use drivers::nic::MacAddress;

use super::state::State;
use super::underlay::UnderlayPort;
use crate::flow::{Domain, Output, Table};
use crate::network::Destination;
use crate::network::topology::{Place, Tunnel};
use crate::overlay::{
    Addresses, Arrival, BadEncapsulation, Encapsulation, Template, Termination, Terminations, TunnelKind,
};
use crate::switch::{Layout, MOST_MIRRORS, Member, NatTable, PortFacts, PortSlot, Target, TunnelTo};

/// Packets of a port that may be with the thread at a time, and as many may wait for their flow.
const UPCALLS: u16 = 512;

/// Nothing: no port, no tunnel.
pub(super) fn empty() -> Layout {
    Layout {
        ports: Vec::new(),
        tunnels: Vec::new(),
        sets: Vec::new(),
        terminations: Terminations::default(),
        mirrors: [None; MOST_MIRRORS],
        translations: Arc::new(NatTable::new(0)),
    }
}

impl State {
    /// Makes a layout of what is known now, and sends it to all engines. While a change is being made, the layout has what was and what will be: flows of both may
    /// be in the table. Gives the number by which it is known whether all have it.
    pub(super) fn publish(&mut self) -> u64 {
        self.publish_with(None)
    }

    /// The same, with another flow table that engines take together with the layout.
    pub(super) fn publish_with(&mut self, table: Option<&Arc<Table>>) -> u64 {
        self.layout = Arc::new(self.make_layout(self.is_changing() || self.walk.finished() < self.keep_old));
        self.known_sets = self.brain.sets().map(|(number, _)| number).collect();
        self.explainer.adopt(table, &self.layout);
        let number = self.engines.adopt(table, &self.layout);
        // What is sent from here on comes behind the layout.
        self.go_on_with_tunnels();
        number
    }

    pub(super) fn make_layout(&self, with_old: bool) -> Layout {
        let mut layout = empty();
        let topology = self.brain.topology();
        let underlay = self.brain.config().underlay.as_ref().map(|underlay| underlay.port.as_str());
        // A port in several slices has the greatest part of engine time.
        let mut shares: HashMap<&str, u16> = HashMap::new();
        for attachment in topology.attachments.values() {
            let owner = topology.networks.get(&attachment.network).map_or(0, |network| network.owner);
            let share = topology.slices.get(&owner).map_or(1, |slice| slice.share);
            let most = shares.entry(&attachment.config.name).or_insert(share);
            *most = share.max(*most);
        }
        for (slot, port) in self.ports.iter() {
            layout.ports.resize(layout.ports.len().max(usize::from(slot.0) + 1), None);
            let domain = Domain::port(u32::try_from(port.facts.number).unwrap_or(u32::MAX));
            let share = shares.get(port.name.as_str()).copied().unwrap_or(1).max(1);
            let underlay = underlay == Some(port.name.as_str());
            let facts = PortFacts { domain, underlay, mtu: port.facts.mtu, upcalls: UPCALLS, share };
            if let Some(place) = layout.ports.get_mut(usize::from(slot.0)) {
                *place = Some(facts);
            }
        }
        let mut terminations = Vec::new();
        for (number, tunnel) in &topology.tunnels {
            put(&mut layout.tunnels, usize::from(*number), self.tunnel_to(*number, tunnel), || self.unresolved());
            if let Some(addresses) = Addresses::new(tunnel.local, tunnel.remote) {
                let arrival = Arrival { network: tunnel.network.into(), tunnel: (*number).into() };
                let kind = tunnel.kind.into();
                terminations.push(Termination { kind, vni: tunnel.vni, addresses, zero_checksum: false, arrival });
            }
        }
        layout.terminations = Terminations::new(terminations);
        for (number, members) in self.brain.sets() {
            let members: Box<[Member]> = members.iter().filter_map(|member| self.member(*member)).collect();
            put(&mut layout.sets, usize::from(number), members, Box::default);
        }
        if with_old {
            let known: HashSet<usize> = self.brain.sets().map(|(number, _)| usize::from(number)).collect();
            for (number, members) in self.layout.sets.iter().enumerate() {
                if !members.is_empty() && !known.contains(&number) {
                    put(&mut layout.sets, number, members.clone(), Box::default);
                }
            }
            for (number, tunnel) in self.layout.tunnels.iter().enumerate() {
                let known = u16::try_from(number).is_ok_and(|number| topology.tunnels.contains_key(&number));
                if tunnel.longest > 0 && !known {
                    let TunnelTo { template, port, longest } = *tunnel;
                    put(&mut layout.tunnels, number, TunnelTo { template, port, longest }, || self.unresolved());
                }
            }
        }
        for (number, port) in &topology.mirrors {
            if let Some(place) = layout.mirrors.get_mut(usize::from(*number)) {
                *place = self.ports.find(port).map(|(slot, _)| slot);
            }
        }
        layout.translations = Arc::clone(&self.layout.translations);
        layout
    }

    /// A tunnel, or a place for it while nobody knows how to get there: its packets come up as too long.
    fn tunnel_to(&self, number: u16, tunnel: &Tunnel) -> TunnelTo {
        let made = || {
            let UnderlayPort { slot, mac, mtu, .. } = self.underlay.port()?;
            let destination = self.underlay.resolved(number)?;
            let addresses = Addresses::new(tunnel.local, tunnel.remote)?;
            let template = template(tunnel, addresses, (mac, destination), mtu)?;
            let longest = u16::try_from(template.room()).unwrap_or(u16::MAX);
            Some(TunnelTo { template, port: slot, longest })
        };
        made().unwrap_or_else(|| self.unresolved())
    }

    /// A member of a set as engines know it; `None` while it cannot be reached.
    fn member(&self, member: Destination) -> Option<Member> {
        let target = match member.place {
            Place::Port(_) => {
                let name = &self.brain.topology().attachment(member.place)?.config.name;
                Target::Port(PortSlot(self.brain.bound(name)?.slot))
            }
            Place::Tunnel(number) => {
                self.underlay.resolved(number)?;
                Target::Tunnel(number)
            }
        };
        Some(Member { target, vlan: member.rewrite() })
    }

    /// A tunnel that no packet fits through.
    fn unresolved(&self) -> TunnelTo {
        TunnelTo { template: self.nowhere, port: PortSlot(0), longest: 0 }
    }

    /// Whether engines know what this names, once they have the layout that was sent last.
    pub(super) fn is_in_layout(&self, output: Output) -> bool {
        match output {
            Output::Replicate(number) => self.known_sets.contains(&number),
            _ => true,
        }
    }
}

/// Puts `value` at its place, and something else into places before it that have nothing.
fn put<T>(all: &mut Vec<T>, place: usize, value: T, fill: impl Fn() -> T) {
    while all.len() <= place {
        all.push(fill());
    }
    if let Some(there) = all.get_mut(place) {
        *there = value;
    }
}

fn template(
    tunnel: &Tunnel,
    addresses: Addresses,
    (source, destination): (MacAddress, MacAddress),
    mtu: u16,
) -> Option<Template> {
    let encapsulation =
        Encapsulation { mtu, ..Encapsulation::new(tunnel.kind.into(), tunnel.vni, addresses, source, destination) };
    encapsulation.template().ok()
}

/// The headers of a tunnel that leads nowhere.
pub(super) fn nowhere() -> Result<Template, BadEncapsulation> {
    let addresses = Addresses::V4 { local: Ipv4Addr::UNSPECIFIED, remote: Ipv4Addr::UNSPECIFIED };
    let mac = MacAddress([0; 6]);
    Encapsulation::new(TunnelKind::Vxlan, 0, addresses, mac, mac).template()
}

impl State {
    /// Takes in what the configuration says of the network between hosts, and whether its port is there.
    pub(super) fn configure_underlay(&mut self) {
        let config = self.brain.config().underlay.clone();
        let port = config.as_ref().and_then(|config| {
            let (slot, port) = self.ports.find(&config.port)?;
            let number = u32::try_from(port.facts.number).unwrap_or(u32::MAX);
            // Locally administered, and another one for each number.
            let [a, b, c, d] = number.to_be_bytes();
            let own = MacAddress([0x02, 0x6d, a ^ 0x69, b, c, d]);
            Some(UnderlayPort { slot, number, mac: port.facts.mac.unwrap_or(own), mtu: config.mtu })
        });
        let now = self.now();
        self.underlay.configure(config.as_ref(), port, self.brain.topology(), now);
    }
}
