//! The model: rules are read one after the other, as they are written.

use std::net::IpAddr;

use dataplane::network::config::{Direction, RuleAction, RuleConfig};
use proptest::prelude::*;

/// A packet as a rule sees it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Packet {
    pub(crate) remote: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
}

/// The first rule that fits, from 0.
pub(crate) fn first(rules: &[RuleConfig], direction: Direction, packet: &Packet) -> Option<usize> {
    rules.iter().position(|rule| rule.direction == direction && fits(rule, packet))
}

/// Whether the rules let the packet pass.
pub(crate) fn allows(rules: &[RuleConfig], direction: Direction, packet: &Packet) -> bool {
    first(rules, direction, packet).is_some_and(|rule| rules[rule].action == RuleAction::Allow)
}

fn fits(rule: &RuleConfig, packet: &Packet) -> bool {
    if let Some(remote) = rule.remote {
        let octets = |address| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let (wanted, own) = (octets(remote.address), octets(packet.remote));
        let bit = |octets: &[u8], at: usize| octets[at / 8] << (at % 8) & 0x80;
        let same = |at| bit(&wanted, at) == bit(&own, at);
        if wanted.len() != own.len() || !(0..usize::from(remote.length)).all(same) {
            return false;
        }
    }
    match rule.protocol {
        // ICMP is of IPv4, and ICMPv6 of IPv6.
        Some(protocol) if protocol.0 == 1 && packet.remote.is_ipv6() => return false,
        Some(protocol) if protocol.0 == 58 && packet.remote.is_ipv4() => return false,
        Some(protocol) if protocol.0 != packet.protocol => return false,
        _ => {}
    }
    let within = |range: Option<dataplane::network::config::PortRange>, port: u16| {
        range.is_none_or(|range| (range.first..=range.last).contains(&port))
    };
    within(rule.ports, packet.destination_port)
        && within(rule.source_ports, packet.source_port)
        && rule.icmp_type.is_none_or(|kind| packet.source_port >> 8 == u16::from(kind))
}

/// A few addresses that are near each other and a few that are not, so that prefixes matter.
pub(crate) fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        3 => (0..4_u8, 0..8_u8).prop_map(|(net, host)| IpAddr::from([10, 0, net, host])),
        1 => any::<[u8; 4]>().prop_map(IpAddr::from),
        2 => (0..4_u16, 0..8_u16).prop_map(|(net, host)| IpAddr::from([0xfd00, 0, 0, net, 0, 0, 0, host])),
        1 => any::<[u16; 8]>().prop_map(IpAddr::from),
    ]
}

/// Ports around the ends of ranges.
pub(crate) fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => (0..6_u16).prop_map(|port| 1000 + port), 1 => any::<u16>(), 1 => Just(0), 1 => Just(u16::MAX)]
}

/// Any rule that a configuration may have.
pub(crate) fn rule() -> impl Strategy<Value = RuleConfig> {
    let direction = prop_oneof![Just(Direction::In), Just(Direction::Out)];
    let action = prop_oneof![Just(RuleAction::Allow), Just(RuleAction::Deny)];
    let length = prop_oneof![3 => Just(128_u8), 2 => 20..33_u8, 1 => 0..129_u8, 1 => Just(64)];
    let remote = proptest::option::of((address(), length));
    let range = || proptest::option::weighted(0.6, (port(), port()));
    (
        direction,
        action,
        remote,
        0..6_u8,
        range(),
        range(),
        proptest::option::of(prop_oneof![Just(0_u8), Just(8), Just(3)]),
    )
        .prop_map(|(direction, action, remote, kind, ports, source_ports, icmp_type)| {
            use dataplane::network::config::{PortRange, Prefix, Protocol};
            let ordered = |(one, other): (u16, u16)| PortRange { first: one.min(other), last: one.max(other) };
            let remote = remote.map(|(address, length)| Prefix::of(address, length));
            let protocol = match kind {
                0 => None,
                1 => Some(Protocol::TCP),
                2 | 3 => Some(Protocol::UDP),
                4 if remote.is_some_and(|remote| remote.address.is_ipv6()) => Some(Protocol::ICMPV6),
                4 => Some(Protocol::ICMP),
                _ => Some(Protocol(47)),
            };
            let of_ports = protocol.is_some_and(Protocol::has_ports);
            RuleConfig {
                direction,
                action,
                protocol,
                remote,
                ports: ports.filter(|_| of_ports).map(ordered),
                source_ports: source_ports.filter(|_| of_ports).map(ordered),
                icmp_type: icmp_type.filter(|_| protocol.is_some_and(Protocol::has_types)),
            }
        })
}

/// Any packet, of few kinds so that rules fit. Packets without ports have zeroes there.
pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    (address(), prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(47), any::<u8>()], port(), port()).prop_map(
        |(remote, protocol, source_port, destination_port)| {
            let (source_port, destination_port) = match protocol {
                6 | 17 | 132 => (source_port, destination_port),
                1 | 58 => (u16::from_be_bytes([u8::try_from(source_port % 16).unwrap(), 0]), 0),
                _ => (0, 0),
            };
            Packet { remote, protocol, source_port, destination_port }
        },
    )
}
