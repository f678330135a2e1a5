//! The virtual router.

use super::world::*;
use crate::flow::Output;
use crate::network::Task;
use crate::switch::Reason;

const WORLD: &str = r#"
underlay = { port = "uplink", addresses = ["192.0.2.1/24"] }
network = [
    { name = "red", vni = 1, routers = ["10.0.0.1/24", "fd00::1/64"] },
    { name = "blue", vni = 2, routers = ["10.1.0.1/24", "fd01::1/64"], router-mac = "02:00:00:00:00:99" },
    { name = "alone", routers = ["10.2.0.1/24"] },
]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.11", "fd00::11"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.12"] },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:03"], addresses = ["10.1.0.11", "fd01::11"] },
    { name = "gate", network = "blue", anti-spoofing = false },
    { name = "alone1", network = "alone", macs = ["52:54:00:00:00:05"], addresses = ["10.2.0.11"] },
]
route = [
    { network = "red", prefix = "10.1.0.0/24", to = "blue" },
    { network = "red", prefix = "fd01::/64", to = "blue" },
    { network = "red", prefix = "10.0.0.0/8", to = "blue", via = "10.1.0.254" },
    { network = "blue", prefix = "10.0.0.0/24", to = "red" },
]
tunnel = [{ network = "blue", remote = "192.0.2.7", learn = false, stations = [
    { mac = "52:54:00:00:00:77", addresses = ["10.1.0.77", "10.7.0.0/16"] },
] }]
"#;

fn routed(source: &str, destination: &str) -> Vec<u8> {
    udp((mac(1), ROUTER), (source, destination), (1000, 2000))
}

#[test]
fn a_routed_packet_gets_new_addresses_and_a_hop_less() {
    let mut world = World::new(WORLD);
    for (source, destination, place, station) in [
        ("10.0.0.11", "10.1.0.11", "blue1", mac(3)),
        ("fd00::11", "fd01::11", "blue1", mac(3)),
        ("10.0.0.11", "10.1.0.77", "tunnel 192.0.2.7", mac(0x77)),
    ] {
        let action = world.send("red1", &routed(source, destination)).action;
        assert_eq!(world.goes(&action), place, "{destination}");
        assert_eq!(action.rewrite.destination_mac.unwrap().0, station);
        assert_eq!(
            action.rewrite.source_mac.unwrap().0,
            [2, 0, 0, 0, 0, 0x99],
            "the router of the network that it leaves into"
        );
        assert!(action.rewrite.decrement_ttl);
    }
    let same = world.send("red1", &routed("10.0.0.11", "10.0.0.12")).action;
    assert_eq!(world.goes(&same), "red2");
    assert!(same.rewrite.decrement_ttl);
    let switched = world.send("red1", &udp((mac(1), mac(2)), ("10.0.0.11", "10.0.0.12"), (1, 2))).action;
    assert_eq!(switched.rewrite, crate::flow::Rewrite::default(), "within the network nothing changes");
}

#[test]
fn there_is_no_way_but_by_a_route() {
    let mut world = World::new(WORLD);
    assert_eq!(world.sends("red1", &routed("10.0.0.11", "192.168.0.1")), "NoRoute");
    assert_eq!(world.sends("red1", &routed("10.0.0.11", "224.0.0.5")), "NoRoute");
    let alone = udp((mac(5), ROUTER), ("10.2.0.11", "10.0.0.11"), (1, 2));
    assert_eq!(world.sends("alone1", &alone), "NoRoute", "a network that nothing leads out of");
    assert_eq!(world.sends("red1", &routed("10.0.0.11", "10.2.0.11")), "NoRoute", "the next router there is not known");
    // The Ethernet address of a station of another network is nobody's here.
    let direct = udp((mac(1), mac(3)), ("10.0.0.11", "10.1.0.11"), (1, 2));
    assert_eq!(world.sends("red1", &direct), "NoRoute");
    let ping = icmp((mac(1), ROUTER), ("10.0.0.11", "10.0.0.1"), 8, &[]);
    assert_eq!(world.send("red1", &ping).task, Some(Task::Echo));
    assert_eq!(world.sends("red1", &routed("10.0.0.11", "10.0.0.1")), "Filtered", "nothing listens on a router");
}

#[test]
fn the_router_asks_for_whom_it_does_not_know() {
    let mut world = World::new(WORLD);
    let packet = routed("10.0.0.11", "10.200.0.1");
    let first = world.send("red1", &packet);
    assert_eq!(first.action.output, Output::Drop(Reason::NoRoute as u8));
    let Some(Task::Ask { address, router, .. }) = first.task else { panic!("{first:?}") };
    assert_eq!(
        (address.to_string().as_str(), router.to_string().as_str()),
        ("10.1.0.254", "10.1.0.1"),
        "of the next router"
    );
    assert_eq!(first.key, None, "the next packet is asked about again");
    assert_eq!(world.send("red1", &packet).task, None, "but not at once");
    world.send("gate", &arp(mac(9), 2, (mac(9), "10.1.0.254"), "10.1.0.1"));
    let now = world.send("red1", &packet);
    assert_eq!((world.goes(&now.action).as_str(), now.action.rewrite.destination_mac.unwrap().0), ("gate", mac(9)));
    let lie = world.send("gate", &arp(mac(9), 2, (mac(9), "10.1.0.11"), "10.1.0.1"));
    assert!(lie.stale.is_none());
    assert_eq!(world.sends("red1", &routed("10.0.0.11", "10.1.0.11")), "blue1", "the configuration knows better");
}

#[test]
fn why_says_each_step() {
    let mut world = World::new(WORLD);
    let frame = routed("10.0.0.11", "10.1.0.11");
    let headers = crate::headers::parse(&frame, frame.len());
    let domain = crate::flow::Domain::port(world.number("red1"));
    let key = crate::flow::FlowKey::of(&headers, &frame, domain);
    let first = crate::network::First { key, headers: &headers, view: &frame, now: world.now };
    let (decision, steps, _) = world.brain.why(&first);
    assert_eq!(world.goes(&decision.action), "blue1");
    let text = steps.join("\n");
    for part in
        ["route 10.1.0.0/24 leads into network blue", "52:54:00:00:00:03 at port blue1", "so it goes to port blue1"]
    {
        assert!(text.contains(part), "{text}");
    }
}
