//! From one configuration to another.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::world::*;
use crate::flow::{Action, Domain, Fate, FlowKey, Output};
use crate::network::config::{Config, Problem};
use crate::network::{Bound, Brain};

/// What the random configurations are made of. Each number chooses one of a few variants; 0 leaves the part out.
#[derive(Clone, Debug)]
struct Recipe {
    networks: [u8; 3],
    groups: [u8; 2],
    ports: [u8; 6],
    routes: [u8; 3],
    tunnel: u8,
    slice: u8,
}

fn recipe() -> impl Strategy<Value = Recipe> {
    let networks = [0..4_u8, 0..4, 0..4];
    (networks, [0..3_u8, 0..3], prop::array::uniform6(0..24_u8), [0..2_u8, 0..2, 0..2], 0..4_u8, 0..3_u8).prop_map(
        |(networks, groups, ports, routes, tunnel, slice)| Recipe { networks, groups, ports, routes, tunnel, slice },
    )
}

impl Recipe {
    /// The configuration in TOML.
    fn text(&self) -> String {
        let mut text = String::from("[underlay]\nport = \"uplink\"\naddresses = [\"192.0.2.1/24\"]\n");
        if self.slice > 0 {
            text += &format!("[[slice]]\nname = \"s\"\npackets-per-second = {}000\n", self.slice);
        }
        for (number, variant) in self.networks.iter().enumerate().filter(|(_, variant)| **variant > 0) {
            text += &format!(
                "[[network]]\nname = \"n{number}\"\nvni = {}\nrouters = [\"10.{number}.0.1/24\"]\n",
                number + 1
            );
            match variant {
                2 => text += "router-mac = \"02:00:00:00:00:99\"\n",
                3 if self.slice > 0 => text += "slice = \"s\"\n",
                _ => {}
            }
        }
        for (number, variant) in self.groups.iter().enumerate().filter(|(_, variant)| **variant > 0) {
            let ports = 2000 + u16::from(*variant);
            text += &format!(
                "[[group]]\nname = \"g{number}\"\nrules = [\
                {{ direction = \"in\", action = \"allow\", protocol = \"udp\", ports = {ports} }},\
                {{ direction = \"out\", action = \"allow\" }}]\n"
            );
        }
        for (number, variant) in self.ports.iter().enumerate() {
            let network = usize::from(*variant) % 4;
            if network == 3 || self.networks[network] == 0 {
                continue;
            }
            text += &format!("[[port]]\nname = \"p{number}\"\nnetwork = \"n{network}\"\n");
            if number == 5 {
                text += "anti-spoofing = false\n";
            } else {
                text += &format!("macs = [\"52:54:00:00:00:0{number}\"]\naddresses = [\"10.{network}.0.1{number}\"]\n");
            }
            let group = usize::from(*variant) / 4 % 3;
            if group < 2 && self.groups[group] > 0 {
                text += &format!("groups = [\"g{group}\"]\n");
            }
        }
        for (number, _) in self.routes.iter().enumerate().filter(|(_, variant)| **variant > 0) {
            let to = (number + 1) % 3;
            if self.networks[number] > 0 && self.networks[to] > 0 {
                text += &format!("[[route]]\nnetwork = \"n{number}\"\nprefix = \"10.{to}.0.0/24\"\nto = \"n{to}\"\n");
            }
        }
        if self.tunnel > 0 && self.networks[0] > 0 {
            text += &format!("[[tunnel]]\nnetwork = \"n0\"\nremote = \"192.0.2.{}\"\n", self.tunnel);
            text = text.replace("remote = \"192.0.2.1\"", "remote = \"192.0.2.9\"");
        }
        text
    }

    fn config(&self) -> Config {
        let text = self.text();
        Config::from_toml(&text, Path::new("random.toml")).unwrap_or_else(|bad| panic!("{bad}\n{text}"))
    }
}

/// Ports are there whether networks have them or not.
fn bind(brain: &mut Brain) {
    for number in 0..6_u16 {
        brain.bind(&format!("p{number}"), Bound { number: number.into(), slot: number + 100 });
    }
}

/// A packet: from and to which port, networks of its two addresses, through the router, destination port.
type Sent = (u8, u8, u8, u8, bool, u16);

fn frame_of((from, to, one, other, routed, port): Sent) -> Vec<u8> {
    let destination = match to {
        6 => EVERYBODY,
        _ if routed => ROUTER,
        _ => mac(to),
    };
    let addresses = (format!("10.{one}.0.1{from}"), format!("10.{other}.0.1{to}"));
    udp((mac(from), destination), (&addresses.0, &addresses.1), (1000, port))
}

fn sent() -> impl Strategy<Value = Sent> {
    (0..6_u8, 0..7_u8, 0..3_u8, 0..3_u8, any::<bool>(), 2000..2004_u16)
}

/// An action in names: what flows do, whatever numbers are behind it.
fn named(world: &World, action: &Action) -> String {
    let topology = world.brain.topology();
    let mut meters = Vec::new();
    let mut meter = action.meter;
    while let Some(limit) = topology.meters.get(&meter) {
        meters.push((limit.packets, limit.bits));
        meter = limit.parent;
    }
    let owner = topology.slices.get(&action.owner).map(|slice| slice.name.clone());
    // What is dropped is counted for nobody.
    let rest = if matches!(action.output, Output::Drop(_)) { String::new() } else { format!("{owner:?} {meters:?}") };
    format!("{} {:?} {rest}", world.goes(action), action.rewrite)
}

fn world(config: &Config) -> World {
    let mut world = World { brain: Brain::new(), now: std::time::Duration::from_secs(10) };
    let change = world.brain.plan(config.clone()).unwrap();
    world.brain.apply(change);
    bind(&mut world.brain);
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_changed_brain_decides_as_a_fresh_one_and_its_flows_do_too(
        before in recipe(), after in recipe(), sent in proptest::collection::vec(sent(), 1..60),
    ) {
        let (before, after) = (before.config(), after.config());
        let mut changed = world(&before);
        let mut table: BTreeMap<[u64; 8], (FlowKey, Action, Vec<u8>)> = BTreeMap::new();
        for packet in &sent {
            let frame = frame_of(*packet);
            // In a copy: what was learned and which connections there are would rightly tell it from a fresh one.
            let mut copy = World { brain: changed.brain.clone(), now: changed.now };
            let decision = copy.ask(Domain::port(packet.0.into()), &frame);
            if let Some(key) = decision.key.filter(|_| copy.brain.connections().is_empty()) {
                table.insert(key.words(), (key, decision.action, frame));
            }
            // The sets that flows lead to are the only thing that stays.
            if matches!(decision.action.output, Output::Replicate(_)) && copy.brain.learned(0).count() == 0
                && copy.brain.learned(1).count() == 0 && copy.brain.learned(2).count() == 0 {
                changed.brain = copy.brain;
            }
        }
        let change = changed.brain.plan(after.clone()).unwrap();
        let nothing = change.is_empty();
        prop_assert_eq!(nothing, before == after);
        let stale = changed.brain.apply(change);
        prop_assert_eq!(stale.is_empty() || !nothing, true);
        prop_assert_eq!(changed.brain.config(), &after);
        let fresh = world(&after);
        for packet in &sent {
            let frame = frame_of(*packet);
            let decide = |world: &World| {
                let mut copy = World { brain: world.brain.clone(), now: world.now };
                let decision = copy.ask(Domain::port(packet.0.into()), &frame);
                (named(&copy, &decision.action), decision.key, decision.reverse.map(|(key, action)| (key, named(&copy, &action))))
            };
            prop_assert_eq!(decide(&changed), decide(&fresh), "{:?}", packet);
        }
        let now = changed.now;
        for (key, action, frame) in table.values() {
            let action = match changed.brain.fate(key, action, &stale, now) {
                Fate::Stay => *action,
                Fate::Become(action) => action,
                Fate::Go => continue,
            };
            if let Output::Replicate(set) = action.output {
                // A set that was made in a copy alone says nothing here.
                if changed.brain.sets().all(|(number, _)| number != set) {
                    continue;
                }
            }
            let mut copy = World { brain: fresh.brain.clone(), now };
            let decision = copy.ask(key.domain(), frame);
            prop_assert_eq!(named(&changed, &action), named(&copy, &decision.action), "{:?}", key);
        }
    }

    #[test]
    fn a_change_of_one_network_leaves_flows_of_others_alone(
        before in recipe(), port in 0..5_usize, sent in proptest::collection::vec(sent(), 1..40),
    ) {
        let mut after = before.clone();
        after.groups[0] = 0;
        after.ports[port] = 3;
        let (before, after) = (before.config(), after.config());
        let mut world = world(&before);
        let mut flows = Vec::new();
        for packet in &sent {
            let decision = world.ask(Domain::port(packet.0.into()), &frame_of(*packet));
            let network = world.brain.topology().attachments.values()
                .find(|it| it.config.name == format!("p{}", packet.0)).map(|it| it.config.network.clone());
            flows.extend(decision.key.map(|key| (key, decision.action, network)));
        }
        // Networks in which nothing changes, and that have no route into another one.
        let ports = |config: &Config, network: &str| {
            config.ports.iter().filter(|port| port.network == network).cloned().collect::<Vec<_>>()
        };
        let alone: Vec<&str> = before.networks.iter().map(|network| network.name.as_str())
            .filter(|network| ports(&before, network) == ports(&after, network))
            .filter(|network| before.routes.iter().all(|route| route.network != *network))
            .filter(|network| ports(&before, network).iter().all(|port| !port.groups.iter().any(|group| group == "g0")))
            .collect();
        let change = world.brain.plan(after.clone()).unwrap();
        let stale = world.brain.apply(change);
        let now = world.now;
        for (key, action, network) in flows {
            if network.is_some_and(|network| alone.contains(&network.as_str())) {
                prop_assert_eq!(world.brain.fate(&key, &action, &stale, now), Fate::Stay, "{:?}", key);
            }
        }
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut world = World::new(super::tenants::TENANTS);
    let packet = udp((mac(1), mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2));
    let before = world.send("red1", &packet);
    let in_force = world.brain.config().clone();
    let mut config = in_force.clone();
    config.ports[1].network = "green".into();
    config.networks.push(config.networks[0].clone());
    let Err(problem): Result<_, Problem> = world.brain.plan(config) else { panic!("it does not fit") };
    assert_eq!(problem.to_string(), "network[2].name: there is a network `red` already");
    assert_eq!(*world.brain.config(), in_force);
    assert_eq!(world.send("red1", &packet), before);
}

#[test]
fn a_change_says_what_it_is_before_it_is_made() {
    let world = World::new(super::tenants::TENANTS);
    let mut config = world.brain.config().clone();
    config.networks[0].broadcast_packets_per_second = Some(9);
    config.ports.remove(1);
    config.tunnels.clear();
    config.networks.push(crate::network::config::NetworkConfig { name: "green".into(), ..Default::default() });
    let change = world.brain.plan(config).unwrap();
    let expected =
        ["~ network red", "+ network green", "- port red2", "- tunnel blue 192.0.2.7", "- tunnel red 192.0.2.7"];
    assert_eq!(change.lines(), expected);
    assert!(world.brain.plan(world.brain.config().clone()).unwrap().is_empty());
}
