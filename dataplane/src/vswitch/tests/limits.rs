//! Quotas, rates, full tables, and what is forgotten.

use std::time::{Duration, Instant};

use super::frames::*;
use super::rig::*;
use crate::switch::Reason;
use crate::vswitch::per_second::PerSecond;

const SLICES: &str = r#"
slice = [{ name = "small", flows = 10 }]
network = [{ name = "red", slice = "small" }, { name = "blue" }]
group = [{ name = "all", rules = [
    { direction = "in", action = "deny", protocol = "udp", ports = "1" },
    { direction = "in", action = "allow" }, { direction = "out", action = "allow" },
] }]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["all"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["all"] },
    { name = "blue2", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["all"] },
]
"#;

fn datagram(flow: u16) -> Vec<u8> {
    udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (flow, 2), b"x")
}

#[test]
fn a_slice_makes_room_among_its_own_flows() {
    let mut rig = Rig::configured(1, SLICES);
    let [red, blue] = ["red1", "blue1"].map(|name| rig.slot(name));
    for flow in 0..5 {
        rig.send_at(0, blue, &[&datagram(100 + flow)]);
    }
    assert_eq!(rig.taken().len(), 5);
    for flow in 0..60 {
        rig.send_at(0, red, &[&datagram(100 + flow)]);
        assert_eq!(rig.reached(), ["red2"], "with a flow or without");
    }
    let statistics = rig.handle.statistics().unwrap();
    let flows = |name: &str| statistics.slices.iter().find(|slice| slice.name == name).unwrap().flows;
    assert_eq!((flows("small"), flows("common")), (10, 5));
    assert!(statistics.control["evicted"] >= 50);
}

#[test]
fn a_slice_that_is_full_does_not_keep_control_busy() {
    let mut rig = Rig::configured(1, SLICES);
    let often = 20;
    let set = rig.handle.ask(move |state| {
        state.displaced = PerSecond::new(often);
        Ok(())
    });
    set.unwrap();
    let [red, blue] = ["red1", "blue1"].map(|name| rig.slot(name));
    let started = Instant::now();
    for flow in 0..200 {
        rig.send_at(0, red, &[&datagram(100 + flow)]);
    }
    let passed = rig.taken().len() as u64;
    let most = 10 + u64::from(often) * (started.elapsed().as_secs() + 2);
    assert!((10 + u64::from(often)..=most).contains(&passed), "{passed} of 200");
    assert_eq!(rig.drops(Reason::SliceFull), 200 - passed);
    let decided = rig.handle.statistics().unwrap().control["decided"];
    assert_eq!(decided, passed, "what is dropped is not decided on");
    rig.send_at(0, blue, &[&datagram(100)]);
    assert_eq!(rig.reached(), ["blue2"], "others have nothing to do with it");
}

#[test]
fn a_table_that_is_full_loses_flows_and_no_packets() {
    let mut rig = Rig::with_flows(1, 64);
    rig.apply(SLICES).unwrap();
    for name in ["blue1", "blue2"] {
        rig.attach(name).unwrap();
    }
    let blue = rig.slot("blue1");
    for flow in 0..300 {
        rig.send_at(0, blue, &[&datagram(100 + flow)]);
        assert_eq!(rig.reached(), ["blue2"]);
    }
    let table = rig.handle.statistics().unwrap().table;
    assert_eq!((table.capacity, table.most), (64, 64));
    assert!(table.flows > 32, "{table:?}");
}

#[test]
fn a_port_sends_no_more_than_it_may() {
    let limited = SLICES.replace("name = \"blue1\",", "name = \"blue1\", packets-per-second = 10,");
    let mut rig = Rig::configured(1, &limited);
    let blue = rig.slot("blue1");
    rig.send_at(0, blue, &[&datagram(7)]);
    rig.settle();
    let frame = datagram(7);
    rig.send_at(0, blue, &vec![frame.as_slice(); 100]);
    let passed = rig.taken().len();
    assert!((1..=20).contains(&passed), "{passed} of 101");
    assert_eq!(rig.drops(Reason::RateLimited) as usize, 101 - passed);
    // The limit goes, and nothing is left of it.
    rig.apply(SLICES).unwrap();
    rig.send_at(0, blue, &vec![frame.as_slice(); 100]);
    assert_eq!(rig.taken().len(), 100);
}

#[test]
fn flows_that_nobody_uses_are_forgotten() {
    let mut rig = Rig::configured(1, SLICES);
    let blue = rig.slot("blue1");
    rig.set_idle(Duration::from_millis(600), Duration::from_millis(200));
    rig.send_at(0, blue, &[&datagram(1), &datagram(2)]);
    rig.until("one of two is forgotten", |rig| {
        rig.send_at(0, blue, &[&datagram(1)]);
        let list = rig.handle.flows(&Default::default(), 10).unwrap();
        list.flows.len() == 1 && list.flows[0].source_port == Some(1)
    });
    rig.until("the other one, too", |rig| rig.handle.statistics().unwrap().table.flows == 0);
    assert!(rig.handle.statistics().unwrap().control["expired"] >= 2);
}

#[test]
fn sets_that_no_flow_leads_to_are_given_up() {
    let mut rig = Rig::configured(1, &SLICES.replace("slice = \"small\"", ""));
    let blue = rig.slot("blue1");
    rig.set_idle(Duration::from_millis(600), Duration::from_millis(200));
    let sets = |rig: &Rig| rig.handle.ask(|state| Ok(state.brain.sets().count())).unwrap();
    let everybody = |ports| udp((mac(1), EVERYBODY), ("10.0.0.1", "255.255.255.255"), ports, b"x");
    rig.send_at(0, blue, &[&everybody((1, 2))]);
    assert_eq!(rig.reached(), ["blue2"]);
    let start = Instant::now();
    rig.until("several passes", |rig| {
        rig.send_at(0, blue, &[&everybody((1, 2))]);
        assert_eq!(sets(rig), 1, "it is in use");
        start.elapsed() > Duration::from_secs(1)
    });
    rig.until("flow and set are gone", |rig| sets(rig) == 0);
    let known = rig.handle.ask(|state| Ok(state.known_sets.len() + state.layout.sets.len())).unwrap();
    assert_eq!(known, 0, "engines do not have it any more");
    rig.settle();
    rig.sent.clear();
    rig.send_at(0, blue, &[&everybody((1, 2))]);
    assert_eq!(rig.reached(), ["blue2"]);
}

#[test]
fn a_limit_follows_its_packets_from_engine_to_engine() {
    let limited = SLICES.replace("name = \"blue1\",", "name = \"blue1\", packets-per-second = 10000,");
    let mut rig = Rig::configured(2, &limited);
    let blue = rig.slot("blue1");
    let rates = |rig: &Rig| {
        let rates = rig.handle.ask(|state| Ok(state.limits.values().next().unwrap().clone())).unwrap();
        [0, 1].map(|engine: usize| rates[engine].packets)
    };
    for engine in [1, 0, 1] {
        rig.until("nearly all of it is there", |rig| {
            rig.send_at(engine, blue, &[&datagram(7)]);
            rig.sent.clear();
            let rates = rates(rig);
            assert!(rates.iter().sum::<u64>() <= 10_000, "{rates:?}");
            rates[engine] > 9000
        });
    }
}
