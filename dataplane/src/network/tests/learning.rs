//! Stations that are not in the configuration.

use std::time::Duration;

use super::world::*;
use crate::flow::{Domain, Fate};
use crate::network::learning::HOLD;

const WORLD: &str = r#"
underlay = { port = "uplink", addresses = ["192.0.2.1/24"] }
network = [{ name = "red", vni = 1, learned-macs = 6, ageing-seconds = 60 }]
port = [
    { name = "a", network = "red", anti-spoofing = false, learned-macs = 4 },
    { name = "b", network = "red", anti-spoofing = false },
    { name = "c", network = "red", anti-spoofing = false },
]
tunnel = [{ network = "red", remote = "192.0.2.7" }]
"#;

fn hello(from: u8, to: u8) -> Vec<u8> {
    udp((mac(from), mac(to)), ("10.0.0.11", "10.0.0.12"), (1, 2))
}

#[test]
fn a_flow_to_a_station_that_shows_up_leads_there() {
    let mut world = World::new(WORLD);
    let flooded = world.send("a", &hello(1, 2));
    assert_eq!(world.goes(&flooded.action), "b+c+tunnel 192.0.2.7");
    let answer = world.send("b", &hello(2, 1));
    assert_eq!(world.goes(&answer.action), "a");
    let stale = answer.stale.expect("flows to it led everywhere");
    let (key, now) = (flooded.key.unwrap(), world.now);
    let Fate::Become(action) = world.brain.fate(&key, &flooded.action, &stale, now) else { panic!("{stale:?}") };
    assert_eq!(world.goes(&action), "b");
    // The flow of the answer was right already.
    assert_eq!(world.brain.fate(&answer.key.unwrap(), &answer.action, &stale, now), Fate::Stay);
    assert_eq!(world.send("b", &hello(2, 1)).stale, None, "nothing new");
}

#[test]
fn a_station_that_moves_takes_its_flows_along() {
    let mut world = World::new(WORLD);
    world.send("a", &hello(1, 9));
    let other = world.send("b", &hello(2, 3));
    let there = world.send("b", &hello(2, 1));
    assert_eq!(world.goes(&there.action), "a");
    let stale = world.send("c", &hello(1, 2)).stale.expect("it moved");
    let now = world.now;
    let Fate::Become(action) = world.brain.fate(&there.key.unwrap(), &there.action, &stale, now) else { panic!() };
    assert_eq!(world.goes(&action), "c");
    assert_eq!(world.brain.fate(&other.key.unwrap(), &other.action, &stale, now), Fate::Stay, "of other stations");
    // Two that both claim the address do not get to move it back and forth as fast as they send.
    assert_eq!(world.send("a", &hello(1, 2)).stale, None);
    assert_eq!(world.sends("b", &hello(2, 1)), "c");
    world.now += HOLD;
    assert!(world.send("a", &hello(1, 2)).stale.is_some());
    assert_eq!(world.sends("b", &hello(2, 1)), "a");
}

#[test]
fn a_first_move_is_believed_however_young_the_switch_is() {
    let mut world = World::new(WORLD);
    world.now = Duration::from_millis(20);
    world.send("a", &hello(1, 9));
    world.now += Duration::from_millis(20);
    assert!(world.send("b", &hello(1, 9)).stale.is_some());
    assert_eq!(world.sends("c", &hello(2, 1)), "b");
}

#[test]
fn a_station_that_moves_back_too_soon_is_heard_again_later() {
    let mut world = World::new(WORLD);
    world.send("a", &hello(1, 9));
    world.send("b", &hello(1, 9));
    // Not believed, and from here on its flow is known, so that nobody would hear of its packets again.
    let back = world.send("a", &hello(1, 9));
    assert_eq!(world.sends("c", &hello(2, 1)), "b");
    assert_eq!(world.brain.forget_stations(world.now), Default::default());
    world.now += HOLD;
    let (stale, now) = (world.brain.forget_stations(world.now), world.now);
    assert_eq!(world.brain.fate(&back.key.unwrap(), &back.action, &stale, now), Fate::Go);
    assert_eq!(world.brain.forget_stations(world.now), Default::default(), "once");
    world.send("a", &hello(1, 9));
    assert_eq!(world.sends("c", &hello(2, 1)), "a");
}

#[test]
fn a_router_knows_of_a_neighbour_that_moves_without_a_word() {
    let mut world = World::new(&WORLD.replace("ageing-seconds", "routers = [\"10.0.0.1/24\"], ageing-seconds"));
    world.send("a", &arp(mac(1), 1, (mac(1), "10.0.0.11"), "10.0.0.1"));
    let flow = world.send("c", &udp((mac(3), ROUTER), ("10.0.0.13", "10.0.0.11"), (1, 2)));
    assert_eq!(world.goes(&flow.action), "a");
    let stale = world.send("b", &hello(1, 3)).stale.expect("it moved");
    let (key, now) = (flow.key.unwrap(), world.now);
    let Fate::Become(action) = world.brain.fate(&key, &flow.action, &stale, now) else { panic!("{stale:?}") };
    assert_eq!(world.goes(&action), "b");
}

#[test]
fn who_claims_what_belongs_to_another_stays_out() {
    let mut world = World::new(&WORLD.replace(
        "{ name = \"b\", network = \"red\", anti-spoofing = false }",
        "{ name = \"b\", network = \"red\", macs = [\"52:54:00:00:00:02\"], addresses = [\"10.0.0.12\"] }",
    ));
    let claimed = world.send("a", &hello(2, 9));
    assert_eq!(world.goes(&claimed.action), "Spoofed");
    // Whatever else changes in the network.
    let stale = world.brain.unbind("c");
    assert_eq!(world.brain.fate(&claimed.key.unwrap(), &claimed.action, &stale, world.now), Fate::Go);
}

#[test]
fn a_port_cannot_fill_the_memory_of_others() {
    let mut world = World::new(WORLD);
    for station in 10..20 {
        world.send("a", &hello(station, 1));
    }
    assert_eq!(world.brain.learned(0).count(), 4, "what the port may have");
    for station in 20..30 {
        world.send("b", &hello(station, 1));
    }
    assert_eq!(world.brain.learned(0).count(), 6, "what the network may have");
    assert_eq!(world.sends("c", &hello(1, 10)), "a");
    assert_eq!(world.sends("c", &hello(1, 29)), "a+b+tunnel 192.0.2.7", "one that found no room");
}

#[test]
fn stations_are_forgotten_when_silent_and_when_their_port_goes() {
    let mut world = World::new(WORLD);
    world.send("a", &hello(1, 2));
    let flow = world.send("b", &hello(2, 1));
    world.now += Duration::from_secs(50);
    world.brain.seen(&flow.key.unwrap(), world.now);
    world.now += Duration::from_secs(20);
    let stale = world.brain.forget_stations(world.now);
    assert_eq!(stale.stations.iter().map(|station| station.0).collect::<Vec<_>>(), [mac(1)], "it was silent");
    assert_eq!(world.sends("c", &hello(3, 1)), "a+b+tunnel 192.0.2.7");
    assert_eq!(world.sends("c", &hello(3, 2)), "b", "its flow was used");
    let stale = world.brain.unbind("b");
    assert!(!stale.is_empty() && stale.stations.is_empty());
    assert_eq!(world.sends("c", &hello(3, 2)), "a+tunnel 192.0.2.7");
}

#[test]
fn a_station_behind_a_tunnel_is_learned_there() {
    let mut world = World::new(WORLD);
    let frame = hello(5, 1);
    let headers = crate::headers::parse(&frame, frame.len());
    let key = crate::flow::FlowKey::of(&headers, &frame, Domain::tunnel(0));
    let first = crate::network::First { key, headers: &headers, view: &frame, now: world.now };
    world.brain.decide(&first);
    assert_eq!(world.sends("a", &hello(1, 5)), "tunnel 192.0.2.7");
    // Gratuitous ARP, by which a machine that was moved announces itself, is always heard.
    world.now += HOLD;
    let announcement = world.send("b", &arp(mac(5), 1, (mac(5), "10.0.0.15"), "10.0.0.15"));
    assert!(announcement.key.is_none() && announcement.stale.is_some());
    assert_eq!(world.sends("a", &hello(1, 5)), "b");
}

#[test]
fn what_was_remembered_for_flows_goes_with_them() {
    let mut world = World::new(WORLD);
    let unknown = |number: u16| {
        let [high, low] = number.to_be_bytes();
        udp((mac(1), [0x02, 0, 0, 1, high, low]), ("10.0.0.11", "10.0.0.12"), (1, 2))
    };
    let first = world.send("a", &unknown(0));
    for number in 1..4096 {
        assert!(world.send("a", &unknown(number)).key.is_some());
    }
    assert_eq!(world.send("a", &unknown(5000)).key, None, "as many as are remembered");
    let (key, action) = (first.key.unwrap(), first.action);
    // A pass over all flows, of which one is left, and another one.
    for _ in 0..2 {
        world.brain.mark(&key, &action);
        assert_eq!(world.brain.sweep(), (false, Default::default()), "its set is in use");
    }
    assert!(world.send("a", &unknown(5000)).key.is_some());
    assert!(world.send("b", &hello(2, 1)).stale.is_none());
    let known = udp(([0x02, 0, 0, 1, 0, 0], mac(1)), ("10.0.0.12", "10.0.0.11"), (1, 2));
    assert!(world.send("b", &known).stale.is_some(), "the one with a flow is remembered");
    assert_eq!(world.brain.sets().count(), 1);
    for given_up in [false, true, false] {
        assert_eq!(world.brain.sweep().0, given_up);
    }
    assert_eq!(world.brain.sets().count(), 0);
}
