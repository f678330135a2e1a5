//! Rules and connections.

use std::time::Duration;

use super::world::*;
use crate::flow::Fate;

/// A client that may open connections and take none, and a server that answers on one port.
const WORLD: &str = r#"
slice = [{ name = "small", connections = 3 }]
network = [{ name = "red", slice = "small" }]
group = [
    { name = "client", rules = [{ direction = "out", action = "allow" }] },
    { name = "server", rules = [
        { direction = "in", action = "deny", remote = "10.0.0.66" },
        { direction = "in", action = "allow", protocol = "udp", ports = "53" },
        { direction = "in", action = "allow", protocol = "icmp", icmp-type = 8 },
    ] },
    { name = "open", rules = [{ direction = "in", action = "allow" }, { direction = "out", action = "allow" }] },
]
port = [
    { name = "client", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["client"] },
    { name = "server", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["server"] },
    { name = "open", network = "red", macs = ["52:54:00:00:00:03"], addresses = ["10.0.0.3"], groups = ["open"] },
    { name = "free", network = "red", macs = ["52:54:00:00:00:04"], addresses = ["10.0.0.4"] },
    { name = "bad", network = "red", macs = ["52:54:00:00:00:06"], addresses = ["10.0.0.66"] },
]
"#;

/// A datagram between the ports that have these numbers in their addresses.
fn from(source: u8, destination: u8, ports: (u16, u16)) -> Vec<u8> {
    let address = |last: u8| if last == 6 { "10.0.0.66".into() } else { format!("10.0.0.{last}") };
    udp((mac(source), mac(destination)), (&address(source), &address(destination)), ports)
}

#[test]
fn answers_pass_and_nothing_else_does() {
    let mut world = World::new(WORLD);
    assert_eq!(world.sends("server", &from(2, 1, (53, 1000))), "Denied", "before it was asked");
    let question = world.send("client", &from(1, 2, (1000, 53)));
    assert_eq!(world.goes(&question.action), "server");
    assert!(!question.key.unwrap().is_wide(), "other ports are others' connections");
    assert_eq!(world.brain.connections().len(), 1);
    let answer = world.send("server", &from(2, 1, (53, 1000)));
    assert_eq!(world.goes(&answer.action), "client");
    let (key, action) = question.reverse.expect("answers are known beforehand");
    assert_eq!((Some(key), action), (answer.key, answer.action), "and are the same flow");
    for (what, port, frame) in [
        ("another port of the client", "server", from(2, 1, (53, 1001))),
        ("another port of the server", "server", from(2, 1, (54, 1000))),
        ("a port that is not open", "client", from(1, 2, (1000, 54))),
        ("one that a rule before denies", "bad", from(6, 2, (1000, 53))),
        ("the client, by somebody else", "free", from(4, 1, (53, 1000))),
        ("not IP", "client", frame(mac(1), mac(2), 0x88b5, &[0; 46])),
    ] {
        assert_eq!(world.sends(port, &frame), "Denied", "{what}");
    }
}

#[test]
fn where_both_directions_are_allowed_nothing_is_kept() {
    let mut world = World::new(WORLD);
    for (one, other, frame) in [("open", "free", from(3, 4, (1, 2))), ("free", "open", from(4, 3, (1, 2)))] {
        let decision = world.send(one, &frame);
        assert_eq!(world.goes(&decision.action), other);
        assert!(decision.key.unwrap().is_wide() && decision.reverse.is_none());
    }
    assert!(world.brain.connections().is_empty());
    // What can never pass needs one flow, too; what could with other ports needs one each.
    let never = world.send("bad", &from(6, 1, (1, 2)));
    assert_eq!(world.goes(&never.action), "Denied");
    assert!(!never.key.unwrap().is_wide(), "the client could ask it");
    assert!(world.send("bad", &from(6, 2, (1, 2))).key.unwrap().is_wide());
}

#[test]
fn a_slice_has_its_own_number_of_connections_and_they_end() {
    let mut world = World::new(WORLD);
    for port in 1000..1003 {
        assert_eq!(world.sends("client", &from(1, 2, (port, 53))), "server");
    }
    let full = world.send("client", &from(1, 2, (2000, 53)));
    assert_eq!((world.goes(&full.action).as_str(), full.key), ("SliceFull", None));
    world.now += Duration::from_secs(100);
    let used = world.send("server", &from(2, 1, (53, 1001)));
    world.now += Duration::from_secs(100);
    let stale = world.brain.forget_connections(world.now);
    assert_eq!(world.brain.connections().len(), 1, "the one that was used");
    assert_eq!(world.brain.fate(&used.key.unwrap(), &used.action, &stale, world.now), Fate::Stay);
    assert_eq!(world.sends("server", &from(2, 1, (53, 1000))), "Denied", "too late");
    assert_eq!(world.sends("client", &from(1, 2, (2000, 53))), "server", "there is room again");
}

#[test]
fn a_change_of_rules_ends_connections_that_they_would_not_allow() {
    let mut world = World::new(WORLD);
    let question = world.send("client", &from(1, 2, (1000, 53)));
    let answer = world.send("server", &from(2, 1, (53, 1000)));
    let other = world.send("open", &from(3, 4, (1, 2)));
    let stale = world.apply(&WORLD.replace("ports = \"53\"", "ports = \"54\""));
    assert!(world.brain.connections().is_empty());
    for flow in [&question, &answer] {
        let fate = world.brain.fate(&flow.key.unwrap(), &flow.action, &stale, world.now);
        assert_eq!(fate, Fate::Go, "{:?}", flow.key);
    }
    assert_eq!(world.brain.fate(&other.key.unwrap(), &other.action, &stale, world.now), Fate::Stay);
    assert_eq!(world.sends("client", &from(1, 2, (1000, 53))), "Denied");
    let stale = world.apply(WORLD);
    assert!(!stale.is_empty());
    assert_eq!(world.sends("client", &from(1, 2, (1000, 53))), "server");
}

#[test]
fn errors_and_pings_of_a_connection_pass() {
    let mut world = World::new(WORLD);
    let ping = icmp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), 8, &[]);
    let pong = icmp((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 0, &[]);
    assert_eq!(world.sends("server", &pong), "Denied");
    assert_eq!(world.sends("client", &ping), "server");
    assert_eq!(world.sends("server", &pong), "client");
    let question = from(1, 2, (1000, 53));
    world.send("client", &question);
    let report = |quoted: &[u8]| icmp((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), 3, quoted);
    let decision = world.send("server", &report(&question[14..]));
    assert_eq!(
        (world.goes(&decision.action).as_str(), decision.key),
        ("client", None),
        "what it quotes is not in the key"
    );
    for (what, quoted) in [
        ("another connection", &from(1, 2, (1001, 53))[14..]),
        ("a packet that the client did not send", &from(4, 2, (1000, 53))[14..]),
        ("half a packet", &question[14..30]),
        ("nothing", &[]),
    ] {
        assert_eq!(world.sends("server", &report(quoted)), "Denied", "{what}");
    }
}
