//! Ports that come and go.

use super::frames::*;
use super::rig::*;
use crate::switch::{PortSlot, Reason};
use crate::vswitch::{Attached, MOST_PORTS, VswitchError};

const WORLD: &str = r#"
network = [{ name = "red" }, { name = "blue" }]
port = [
    { name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] },
    { name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
    { name = "c", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
]
"#;

fn hello(ports: u16) -> Vec<u8> {
    udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (ports, 2), b"for b alone")
}

#[test]
fn a_slot_is_used_again_when_no_flow_leads_to_it() {
    let mut rig = Rig::new(2);
    rig.apply(WORLD).unwrap();
    let a = rig.attach("a").unwrap();
    for turn in 0..20 {
        let b = rig.attach("b").unwrap();
        for (engine, ports) in [(0, turn), (1, turn + 1000)] {
            rig.send_at(engine, a, &[&hello(ports)]);
        }
        assert_eq!(rig.reached(), ["b", "b"]);
        rig.handle.detach("b").unwrap();
        assert!(matches!(rig.handle.detach("b"), Err(VswitchError::NoPort(_))));
        // Somebody else's port takes the place. What is for the one that was there never gets to it.
        let handle = rig.handle.clone();
        let facts = Attached { number: 5000 + usize::from(turn), mtu: 0, mac: None };
        let coming = std::thread::spawn(move || handle.attach("c", facts));
        while !coming.is_finished() {
            rig.send_at(0, a, &[&hello(turn)]);
            rig.send_at(1, a, &[&hello(turn + 1000)]);
            rig.round();
        }
        let c = coming.join().unwrap().unwrap();
        let before: Vec<PortSlot> = rig.sent.drain(..).map(|(slot, _)| slot).collect();
        assert!(before.iter().all(|slot| *slot == b || *slot != c), "{before:?}");
        for ports in 0..20 {
            rig.send_at(usize::from(ports % 2), a, &[&hello(ports), &hello(ports + 1000)]);
        }
        let after = rig.taken();
        assert!(after.iter().all(|(port, _)| port != "c"), "{after:?}");
        rig.handle.detach("c").unwrap();
    }
    rig.until("the slots come back", |rig| {
        let b = rig.attach("b").unwrap();
        rig.handle.detach("b").unwrap();
        b.0 <= 2
    });
    rig.assert_balanced();
}

#[test]
fn a_number_is_not_taken_over_together_with_its_flows() {
    let mut rig = Rig::new(1);
    rig.apply(WORLD).unwrap();
    let facts = Attached { number: 7, mtu: 0, mac: None };
    let a = rig.asking(move |handle| handle.attach("a", facts)).unwrap();
    rig.attach("b").unwrap();
    rig.send_at(0, a, &[&hello(1)]);
    assert_eq!(rig.reached(), ["b"]);
    rig.handle.detach("a").unwrap();
    // The same number in another network, and the same frame from there.
    let c = rig.asking(move |handle| handle.attach("c", facts)).unwrap();
    rig.send_at(0, c, &[&hello(1)]);
    assert!(rig.reached().is_empty());
}

#[test]
fn there_are_no_more_ports_than_there_may_be() {
    let mut rig = Rig::new(1);
    for number in 0..MOST_PORTS {
        assert_eq!(rig.attach(&format!("port{number}")).unwrap(), PortSlot(number));
    }
    assert!(matches!(rig.attach("more"), Err(VswitchError::NoSlot { .. })));
    assert!(matches!(rig.attach("port3"), Err(VswitchError::Attached(_))));
    rig.handle.detach("port3").unwrap();
    assert_eq!(rig.attach("more").unwrap(), PortSlot(3));
}

#[test]
fn a_port_that_comes_later_gets_what_is_for_everybody() {
    let mut rig = Rig::new(1);
    rig.apply(WORLD).unwrap();
    assert!(rig.handle.is_switched("b") && !rig.handle.is_switched("x"));
    let a = rig.attach("a").unwrap();
    let broadcast = udp((mac(1), EVERYBODY), ("10.0.0.1", "255.255.255.255"), (1, 2), b"all");
    rig.send_at(0, a, &[&broadcast]);
    assert!(rig.reached().is_empty());
    rig.attach("b").unwrap();
    rig.until("b is in the set", |rig| {
        rig.send_at(0, a, &[&broadcast]);
        rig.reached() == ["b"]
    });
}

#[test]
fn an_engine_that_ends_is_not_waited_for() {
    let mut rig = Rig::configured(2, WORLD);
    let a = rig.slot("a");
    rig.send_at(1, a, &[&hello(1)]);
    assert_eq!(rig.reached(), ["b"]);
    // Its flow is pending there for ever.
    let ended = rig.turns.pop().unwrap();
    rig.turns[0].run(a, &[&hello(2)]);
    drop(ended);
    rig.until("it is noticed", |rig| !rig.handle.statistics().unwrap().engines[1].running);
    let changed = rig.asking(|handle| {
        handle.change(|config| {
            config.ports.retain(|port| port.name != "b");
            Ok(())
        })
    });
    assert_eq!(changed.unwrap(), ["- port b"]);
    rig.sent.clear();
    rig.send_at(0, a, &[&hello(1)]);
    rig.until("it is dropped", |rig| rig.drops(Reason::NoRoute) > 0);
    assert!(rig.sent.is_empty());
}
