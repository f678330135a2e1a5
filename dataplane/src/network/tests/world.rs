//! A brain with ports, and frames to ask it about.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use crate::flow::{Action, Domain, FlowKey, Output};
use crate::headers;
use crate::network::topology::Place;
use crate::network::{Bound, Brain, Config, Decision, First};
use crate::switch::Reason;

/// A brain whose ports are all there, and a clock.
pub(super) struct World {
    pub(super) brain: Brain,
    pub(super) now: Duration,
}

/// The slot of the port that has this number.
pub(super) const SLOTS: u32 = 100;

impl World {
    /// The configuration is in force, and its ports are there, numbered by their place in it.
    pub(super) fn new(text: &str) -> Self {
        let mut world = Self { brain: Brain::new(), now: Duration::from_secs(10) };
        world.apply(text);
        let names: Vec<String> = world.brain.config().ports.iter().map(|port| port.name.clone()).collect();
        for (place, name) in names.iter().enumerate() {
            let number = u32::try_from(place).unwrap();
            world.brain.bind(name, Bound { number, slot: u16::try_from(number + SLOTS).unwrap() });
        }
        world
    }

    pub(super) fn apply(&mut self, text: &str) -> crate::network::Stale {
        let config = Config::from_toml(text, Path::new("test.toml")).unwrap();
        let change = self.brain.plan(config).unwrap();
        self.brain.apply(change)
    }

    pub(super) fn number(&self, port: &str) -> u32 {
        self.brain.bound(port).unwrap().number
    }

    /// What is decided on a frame that a port sends.
    pub(super) fn send(&mut self, port: &str, frame: &[u8]) -> Decision {
        let domain = Domain::port(self.number(port));
        self.ask(domain, frame)
    }

    /// What is decided on a frame out of a tunnel.
    pub(super) fn ask(&mut self, domain: Domain, frame: &[u8]) -> Decision {
        let headers = headers::parse(frame, frame.len());
        let key = FlowKey::of(&headers, frame, domain);
        self.brain.decide(&First { key, headers: &headers, view: frame, now: self.now })
    }

    /// Where the packet goes, in names: `vm0`, `vm0+vm1`, `tunnel 192.0.2.7`, or the reason for which it is dropped.
    pub(super) fn goes(&self, action: &Action) -> String {
        let named = |place| match place {
            Place::Port(_) => self.brain.topology().attachment(place).unwrap().config.name.clone(),
            Place::Tunnel(number) => format!("tunnel {}", self.brain.topology().tunnels.get(&number).unwrap().remote),
        };
        match action.output {
            Output::Drop(code) => REASONS
                .iter()
                .find(|reason| **reason as u8 == code)
                .map_or_else(|| format!("reason {code}"), |reason| format!("{reason:?}")),
            Output::Port(slot) => {
                let ports = &self.brain.config().ports;
                let own = |name: &str| self.brain.bound(name).is_some_and(|bound| bound.slot == slot);
                ports.iter().find(|port| own(&port.name)).map_or("gone".into(), |port| port.name.clone())
            }
            Output::Tunnel(number) => named(Place::Tunnel(number)),
            Output::Replicate(number) => {
                let (_, members) = self.brain.sets().find(|(set, _)| *set == number).unwrap();
                let names: BTreeSet<String> = members.iter().map(|member| named(member.place)).collect();
                names.into_iter().collect::<Vec<_>>().join("+")
            }
            Output::Up => "up".into(),
            Output::Local => "local".into(),
        }
    }

    /// Where a frame that a port sends goes.
    pub(super) fn sends(&mut self, port: &str, frame: &[u8]) -> String {
        let decision = self.send(port, frame);
        self.goes(&decision.action)
    }
}

const REASONS: [Reason; 8] = [
    Reason::Denied,
    Reason::Spoofed,
    Reason::NoRoute,
    Reason::Isolated,
    Reason::Filtered,
    Reason::SliceFull,
    Reason::Malformed,
    Reason::NoPort,
];

/// The Ethernet address that ends in this.
pub(super) const fn mac(last: u8) -> [u8; 6] {
    [0x52, 0x54, 0, 0, 0, last]
}

/// The router's Ethernet address.
pub(super) const ROUTER: [u8; 6] = crate::network::topology::ROUTER_MAC.0;

pub(super) const EVERYBODY: [u8; 6] = [0xff; 6];

/// A frame with this payload.
pub(super) fn frame(source: [u8; 6], destination: [u8; 6], ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&destination, &source, ether_type.to_be_bytes().as_slice(), payload].concat()
}

/// An IP packet with this payload. Checksums are zero: nobody here looks at them.
pub(super) fn ip(source: &str, destination: &str, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    let length = u16::try_from(payload.len()).unwrap();
    match (source.parse().unwrap(), destination.parse().unwrap()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (length + 20).to_be_bytes();
            let start = [0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
            (0x0800, [&start[..], &source.octets(), &destination.octets(), payload].concat())
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let total = length.to_be_bytes();
            let start = [0x60, 0, 0, 0, total[0], total[1], protocol, 255];
            (0x86dd, [&start[..], &source.octets(), &destination.octets(), payload].concat())
        }
        _ => panic!("two families"),
    }
}

/// A UDP packet of four bytes.
pub(super) fn udp(macs: ([u8; 6], [u8; 6]), addresses: (&str, &str), ports: (u16, u16)) -> Vec<u8> {
    let datagram = [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0, 12, 0, 0], b"data"].concat();
    let (ether_type, packet) = ip(addresses.0, addresses.1, 17, &datagram);
    frame(macs.0, macs.1, ether_type, &packet)
}

/// An ICMP message of type and code.
pub(super) fn icmp(macs: ([u8; 6], [u8; 6]), addresses: (&str, &str), kind: u8, body: &[u8]) -> Vec<u8> {
    let protocol = if addresses.0.contains(':') { 58 } else { 1 };
    let message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], body].concat();
    let (ether_type, packet) = ip(addresses.0, addresses.1, protocol, &message);
    frame(macs.0, macs.1, ether_type, &packet)
}

/// An ARP packet.
pub(super) fn arp(source: [u8; 6], operation: u8, sender: ([u8; 6], &str), target: &str) -> Vec<u8> {
    let octets = |address: &str| address.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let start = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [&start[..], &sender.0, &octets(sender.1), &[0; 6], &octets(target)].concat();
    frame(source, EVERYBODY, 0x0806, &payload)
}

/// A packet of neighbour discovery with a target and one option of an Ethernet address.
pub(super) fn discovery(
    macs: ([u8; 6], [u8; 6]),
    addresses: (&str, &str),
    kind: u8,
    target: &str,
    claimed: [u8; 6],
) -> Vec<u8> {
    let target = target.parse::<std::net::Ipv6Addr>().unwrap().octets();
    let option = if kind == 136 { 2 } else { 1 };
    icmp(macs, addresses, kind, &[&target[..], &[option, 1], &claimed].concat())
}

/// The same frame with a VLAN tag in front.
pub(super) fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    [&frame[..12], &[0x81, 0], &vlan.to_be_bytes(), &frame[12..]].concat()
}
