//! Packets between ports with rules, through the switch's decisions and a flow table, beside a model of a stateful firewall that looks at every packet.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use dataplane::flow::{Action, Domain, FlowKey, KeyFields, Output};
use dataplane::headers;
use dataplane::network::config::{Config, Direction, GroupConfig, Mac, NetworkConfig, PortConfig, Prefix, RuleConfig};
use dataplane::network::{Bound, Brain, First};
use proptest::prelude::*;

use super::reference::{Packet, allows, rule};

const PORTS: u8 = 4;

fn address(port: u8) -> IpAddr {
    // Addresses that the rules' prefixes tell apart.
    IpAddr::from([10, 0, port, port])
}

/// A port's rules; `None` is a port without a group.
type Rules = Option<Vec<RuleConfig>>;

fn config(rules: &[Rules]) -> Config {
    let mut config = Config {
        networks: vec![NetworkConfig { name: "red".into(), ..NetworkConfig::default() }],
        ..Config::default()
    };
    for (number, rules) in (0..PORTS).zip(rules) {
        let name = format!("vm{number}");
        let mut port: PortConfig = toml::from_str(&format!("name = \"{name}\"\nnetwork = \"red\"")).unwrap();
        port.macs = vec![Mac([2, 0, 0, 0, 0, number])];
        port.addresses = vec![Prefix::host(address(number))];
        if let Some(rules) = rules {
            config.groups.push(GroupConfig { name: name.clone(), rules: rules.clone() });
            port.groups = vec![name];
        }
        config.ports.push(port);
    }
    config
}

/// The flow table: wide keys first, then narrow ones.
#[derive(Default)]
struct Table(HashMap<FlowKey, Action>);

impl Table {
    fn find(&self, key: &FlowKey) -> Option<Action> {
        self.0.get(&key.wide()).or_else(|| self.0.get(key)).copied()
    }
}

/// One packet: who sends to whom, with which protocol and ports.
type Sent = (u8, u8, bool, u16, u16);

fn frame(&(from, to, tcp, source, destination): &Sent) -> Vec<u8> {
    let octets = |address| match address {
        IpAddr::V4(address) => std::net::Ipv4Addr::octets(&address),
        IpAddr::V6(_) => [0; 4],
    };
    let transport = [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[0, 8, 0, 0]].concat();
    let body = if tcp { [&transport[..4], &[0; 8], &[0x50, 2, 0, 0, 0, 0, 0, 0]].concat() } else { transport };
    let length = u16::try_from(20 + body.len()).unwrap().to_be_bytes();
    [
        &[2, 0, 0, 0, 0, to][..],
        &[2, 0, 0, 0, 0, from],
        &[8, 0, 0x45, 0],
        &length,
        &[0, 0, 0, 0, 64, if tcp { 6 } else { 17 }, 0, 0],
        &octets(address(from)),
        &octets(address(to)),
        &body,
    ]
    .concat()
}

/// The model: what the rules of both sides say, and the set of what was allowed.
fn expected(rules: &[Rules], opened: &mut HashSet<Sent>, &(from, to, tcp, source, destination): &Sent) -> bool {
    let packet = |remote| Packet {
        remote: address(remote),
        protocol: if tcp { 6 } else { 17 },
        source_port: source,
        destination_port: destination,
    };
    let side = |port: u8, direction, remote| {
        rules[usize::from(port)].as_ref().is_none_or(|rules| allows(rules, direction, &packet(remote)))
    };
    if side(from, Direction::Out, to) && side(to, Direction::In, from) {
        opened.insert((from, to, tcp, source, destination));
        return true;
    }
    opened.contains(&(to, from, tcp, destination, source))
}

fn few_ports() -> impl Strategy<Value = u16> {
    (0..5_u16).prop_map(|port| 1000 + port)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_table_of_flows_does_what_a_look_at_every_packet_would(
        rules in proptest::collection::vec(proptest::option::weighted(0.8, proptest::collection::vec(rule(), 0..6)), usize::from(PORTS)),
        sent in proptest::collection::vec((0..PORTS, 0..PORTS, any::<bool>(), few_ports(), few_ports()), 1..250),
        forgotten in proptest::collection::vec(any::<bool>(), 250),
    ) {
        let mut brain = Brain::new();
        let change = brain.plan(config(&rules)).unwrap();
        brain.apply(change);
        for number in 0..PORTS {
            brain.bind(&format!("vm{number}"), Bound { number: number.into(), slot: u16::from(number) + 10 });
        }
        let (mut table, mut opened) = (Table::default(), HashSet::new());
        for (packet, forgets) in sent.iter().zip(&forgotten).filter(|((from, to, ..), _)| from != to) {
            let frame = frame(packet);
            let headers = headers::parse(&frame, frame.len());
            let key = FlowKey::of(&headers, &frame, Domain::port(packet.0.into()));
            let action = table.find(&key).unwrap_or_else(|| {
                let first = First { key, headers: &headers, view: &frame, now: Duration::from_secs(1) };
                let decision = brain.decide(&first);
                table.0.extend(decision.key.map(|key| (key, decision.action)));
                table.0.extend(decision.reverse);
                decision.action
            });
            let passes = match action.output {
                Output::Port(slot) => {
                    prop_assert_eq!(slot, u16::from(packet.1) + 10);
                    true
                }
                Output::Drop(_) => false,
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            prop_assert_eq!(passes, expected(&rules, &mut opened, packet), "{:?}", packet);
            // Flows go at any time: the connection is still known.
            if *forgets {
                table.0.remove(&key);
                table.0.remove(&key.wide());
            }
        }
    }
}

#[test]
fn ports_of_a_hundred_rules_are_told_apart() {
    let rule = |port: u16| -> RuleConfig {
        toml::from_str(&format!("direction = \"in\"\naction = \"allow\"\nprotocol = \"udp\"\nports = \"{port}\""))
            .unwrap()
    };
    let out: RuleConfig = toml::from_str("direction = \"out\"\naction = \"allow\"").unwrap();
    let rules: Vec<RuleConfig> = (0..100).map(|port| rule(2 * port)).chain([out]).collect();
    let mut brain = Brain::new();
    let change = brain.plan(config(&[Some(rules), None])).unwrap();
    brain.apply(change);
    for number in 0..2 {
        brain.bind(&format!("vm{number}"), Bound { number, slot: 7 });
    }
    for port in 0..220 {
        let fields = KeyFields {
            domain: Domain::port(1),
            destination_mac: drivers::nic::MacAddress([2, 0, 0, 0, 0, 0]),
            source_mac: drivers::nic::MacAddress([2, 0, 0, 0, 0, 1]),
            vlans: [None; 2],
            ether_type: 0x0800,
            addresses: Some((address(1), address(0))),
            protocol: 17,
            source_port: 9,
            destination_port: port,
            later_fragment: false,
        };
        let headers = headers::Headers::default();
        let first = First { key: FlowKey::from(&fields), headers: &headers, view: &[], now: Duration::ZERO };
        let passes = matches!(brain.decide(&first).action.output, Output::Port(7));
        assert_eq!(passes, port < 200 && port % 2 == 0, "{port}");
    }
}
