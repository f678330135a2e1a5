//! Tenants that use the same addresses.

use super::world::*;
use crate::flow::{Domain, Output, VlanRewrite};
use crate::network::Task;

/// Two networks that are alike, and a third one into which one of them has a route.
pub(super) const TENANTS: &str = r#"
underlay = { port = "uplink", addresses = ["192.0.2.1/24"] }
network = [
    { name = "red", vni = 100, vlan = 10, routers = ["10.0.0.1/24"], broadcast-packets-per-second = 500 },
    { name = "blue", vni = 200, vlan = 20, routers = ["10.0.0.1/24"] },
]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.11"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.12"] },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.11"] },
    { name = "blue2", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.12"] },
    { name = "trunk", network = "red", tagged = true, anti-spoofing = false },
    { name = "trunk", network = "blue", tagged = true, anti-spoofing = false },
]
tunnel = [
    { network = "red", remote = "192.0.2.7" },
    { network = "blue", remote = "192.0.2.7" },
]
"#;

#[test]
fn two_tenants_with_the_same_addresses_never_see_each_other() {
    let mut world = World::new(TENANTS);
    let to = |last, destination| udp((mac(1), mac(last)), ("10.0.0.11", destination), (1000, 2000));
    let own = |network: &str, place: &str| {
        let ports = [format!("{network}1"), format!("{network}2"), "trunk".into(), "tunnel 192.0.2.7".into()];
        place.split('+').all(|part| ports.iter().any(|port| port == part))
    };
    for network in ["red", "blue"] {
        let from = format!("{network}1");
        assert_eq!(world.sends(&from, &to(2, "10.0.0.12")), format!("{network}2"));
        let everybody = world.sends(&from, &udp((mac(1), EVERYBODY), ("10.0.0.11", "255.255.255.255"), (1, 2)));
        assert_eq!(everybody, format!("{network}2+trunk+tunnel 192.0.2.7"));
        let unknown = world.sends(&from, &to(9, "10.0.0.19"));
        assert_eq!(unknown, "trunk+tunnel 192.0.2.7", "ports with known addresses do not get it");
        assert!(own(network, &unknown) && own(network, &everybody));
        let asked = world.send(&from, &arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.12"));
        assert_eq!(world.goes(&asked.action), "local");
        assert!(matches!(asked.task, Some(Task::Answer { mac: answer, .. }) if answer.0 == mac(2)), "{asked:?}");
        // The other network is not reached through the router, either: both say that this prefix is theirs.
        let routed = udp((mac(1), ROUTER), ("10.0.0.11", "10.0.0.12"), (1000, 2000));
        assert_eq!(world.sends(&from, &routed), format!("{network}2"));
    }
    // Members of the two sets are tagged as their own network, and tunnels are their own as well.
    let tags: Vec<_> = world.brain.sets().flat_map(|(_, members)| members.to_vec()).filter_map(|it| it.vlan).collect();
    assert!(tags.contains(&10) && tags.contains(&20));
    let red = world.send("red1", &to(9, "10.0.0.19")).action.output;
    let blue = world.send("blue1", &to(9, "10.0.0.19")).action.output;
    assert_ne!(red, blue, "not the same set");
}

#[test]
fn a_tag_decides_the_network_on_a_shared_port() {
    let mut world = World::new(TENANTS);
    let hello = udp((mac(7), mac(2)), ("10.0.0.17", "10.0.0.12"), (1, 2));
    for (vlan, port) in [(10, "red2"), (20, "blue2")] {
        let decision = world.send("trunk", &tagged(&hello, vlan));
        assert_eq!(world.goes(&decision.action), port);
        assert_eq!(decision.action.rewrite.vlan, VlanRewrite::Pop);
        let back = world.send(port, &udp((mac(2), mac(7)), ("10.0.0.12", "10.0.0.17"), (2, 1)));
        assert_eq!((world.goes(&back.action).as_str(), back.action.rewrite.vlan), ("trunk", VlanRewrite::Push(vlan)));
    }
    assert_eq!(world.sends("trunk", &hello), "Isolated", "without a tag");
    assert_eq!(world.sends("trunk", &tagged(&hello, 30)), "Isolated", "a tag of no network");
    // Behind the tag that is taken off there is another network's.
    assert_eq!(world.sends("trunk", &tagged(&tagged(&hello, 20), 10)), "Isolated", "two tags");
    let own = udp((mac(1), mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2));
    assert_eq!(world.sends("red1", &tagged(&own, 20)), "Isolated", "a tag on an untagged port");
    let priority = world.send("red1", &tagged(&own, 0));
    assert_eq!((world.goes(&priority.action).as_str(), priority.action.rewrite.vlan), ("red2", VlanRewrite::Pop));
}

#[test]
fn what_comes_out_of_a_tunnel_stays_in_its_network_and_out_of_tunnels() {
    let mut world = World::new(TENANTS);
    for (number, network) in [(0, "blue"), (1, "red")] {
        let topology = world.brain.topology();
        let inside = topology.tunnels.get(&number).unwrap().network;
        let name = &topology.networks.get(&inside).unwrap().name;
        assert_eq!(name, network, "numbers follow names");
        let domain = Domain::tunnel(number.into());
        let one = world.ask(domain, &udp((mac(8), mac(1)), ("10.0.0.18", "10.0.0.11"), (5, 6)));
        assert_eq!(world.goes(&one.action), format!("{network}1"));
        let all = world.ask(domain, &udp((mac(8), EVERYBODY), ("10.0.0.18", "255.255.255.255"), (5, 6)));
        assert_eq!(world.goes(&all.action), format!("{network}1+{network}2+trunk"));
        let unknown = world.ask(domain, &udp((mac(8), mac(9)), ("10.0.0.18", "10.0.0.19"), (5, 6)));
        assert_eq!(world.goes(&unknown.action), "trunk");
    }
    let nobody = world.ask(Domain::tunnel(77), &udp((mac(8), mac(1)), ("10.0.0.18", "10.0.0.11"), (5, 6)));
    assert_eq!(world.goes(&nobody.action), "Isolated");
}

#[test]
fn broadcasts_pass_the_limits_of_port_network_and_slice() {
    let mut world = World::new(
        r#"
        slice = [{ name = "gold", packets-per-second = 100000 }]
        network = [
            { name = "red", slice = "gold", broadcast-packets-per-second = 500 },
            { name = "blue", slice = "gold" },
        ]
        port = [
            { name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"],
              broadcast-packets-per-second = 50, bits-per-second = "1G" },
            { name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
            { name = "c", network = "blue", macs = ["52:54:00:00:00:03"], addresses = ["10.0.0.3"] },
        ]
        "#,
    );
    let rates = |world: &World, mut meter| {
        let mut chain = Vec::new();
        while let Some(limit) = world.brain.topology().meters.get(&meter) {
            chain.push((limit.packets, limit.bits));
            meter = limit.parent;
        }
        chain
    };
    let (gold, network) = ((Some(100_000), None), (Some(500), None));
    let everybody = |last, address| udp((mac(last), EVERYBODY), (address, "255.255.255.255"), (1, 2));
    let a = world.send("a", &everybody(1, "10.0.0.1")).action.meter;
    assert_eq!(rates(&world, a), [(Some(50), None), network, gold]);
    let b = world.send("b", &everybody(2, "10.0.0.2")).action.meter;
    assert_eq!(rates(&world, b), [network, gold]);
    let c = world.send("c", &everybody(3, "10.0.0.3")).action.meter;
    assert_eq!(rates(&world, c), [gold]);
    let one = world.send("a", &udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1, 2))).action;
    assert_eq!(rates(&world, one.meter), [(None, Some(1_000_000_000)), gold]);
    assert_eq!(world.brain.topology().slices.get(&one.owner).unwrap().name, "gold");
}

#[test]
fn what_cannot_be_read_is_dropped_and_makes_no_flow() {
    let mut world = World::new(TENANTS);
    let mut short = udp((mac(1), mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2));
    short.truncate(30);
    let decision = world.send("red1", &short);
    assert_eq!((world.goes(&decision.action).as_str(), decision.key), ("Malformed", None));
    let bridge = frame(mac(1), [0x01, 0x80, 0xc2, 0, 0, 0x0e], 0x88cc, &[0; 46]);
    assert_eq!(world.sends("red1", &bridge), "Filtered");
    assert!(matches!(world.send("red1", &frame(mac(1), mac(2), 0x88b5, &[0; 46])).action.output, Output::Port(_)));
}
