//! First packets: decided on once, in order, and none lost.

use std::collections::HashMap;
use std::time::Duration;

use super::frames::*;
use super::rig::*;
use crate::switch::{PortSlot, Reason};

const LEARNING: &str = r#"
network = [{ name = "red" }]
port = [
    { name = "a", network = "red", anti-spoofing = false },
    { name = "b", network = "red", anti-spoofing = false },
    { name = "c", network = "red", anti-spoofing = false },
]
"#;

const TENANTS: &str = r#"
network = [{ name = "red" }, { name = "blue" }]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] },
    { name = "blue2", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
]
"#;

fn hello(from: u8, to: u8) -> Vec<u8> {
    udp((mac(from), mac(to)), ("10.0.0.1", "10.0.0.2"), (1, 2), b"hello")
}

#[test]
fn two_ports_learn_of_each_other_and_talk() {
    let mut rig = Rig::configured(1, LEARNING);
    rig.send("a", &hello(1, 2));
    assert_eq!(rig.reached(), ["b", "c"], "nobody knows where it is");
    rig.send("b", &hello(2, 1));
    assert_eq!(rig.reached(), ["a"]);
    // The flow that led everywhere leads to one port as soon as the walk has come by.
    rig.until("the flow is found out", |rig| {
        rig.send("a", &hello(1, 2));
        rig.reached() == ["b"]
    });
    let learned = &rig.handle.statistics().unwrap().networks[0].learned;
    let mut learned: Vec<String> = learned.iter().map(|it| format!("{} {}", it.mac, it.place)).collect();
    learned.sort();
    assert_eq!(learned, ["52:54:00:00:00:01 port a", "52:54:00:00:00:02 port b"]);
    rig.assert_balanced();
}

#[test]
fn tenants_with_the_same_addresses_never_see_each_other() {
    let mut rig = Rig::configured(2, TENANTS);
    for engine in [0, 1, 0] {
        for color in ["red", "blue"] {
            let one = rig.slot(&format!("{color}1"));
            let payload = format!("{color} secret");
            let frame = udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1, 2), payload.as_bytes());
            rig.send_at(engine, one, &[&frame]);
            let broadcast = udp((mac(1), EVERYBODY), ("10.0.0.1", "255.255.255.255"), (1, 2), payload.as_bytes());
            rig.send_at(engine, one, &[&broadcast]);
            let taken = rig.taken();
            assert_eq!(taken.len(), 2, "{taken:?}");
            for (port, got) in taken {
                assert_eq!(port, format!("{color}2"));
                assert!(got.ends_with(payload.as_bytes()));
            }
        }
    }
    let spoofed = udp((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), (1, 2), b"not mine");
    rig.send("red1", &spoofed);
    assert!(rig.taken().is_empty());
    assert_eq!(rig.drops(Reason::Spoofed), 1);
    rig.assert_balanced();
}

/// Sends `flows` flows, three packets of each close to one another, on both engines in turn, and looks that each comes once and in order.
fn in_order(rig: &mut Rig, flows: u32, engines: usize) {
    const PACKETS: u32 = 3;
    let (from, to) = (rig.slot("red1"), rig.slot("red2"));
    let mut next: HashMap<u32, u32> = HashMap::new();
    let mut check = |sent: &mut Vec<(PortSlot, Vec<u8>)>| {
        for (slot, frame) in sent.drain(..) {
            assert_eq!(slot, to);
            let (flow, number) = number_of(&frame);
            let expected = next.entry(flow).or_default();
            assert_eq!(number, *expected, "flow {flow}");
            *expected += 1;
        }
        next.values().map(|count| u64::from(*count)).sum::<u64>()
    };
    for first in (0..flows).step_by(16) {
        for number in 0..PACKETS {
            let frames: Vec<Vec<u8>> = (first..(first + 16).min(flows))
                .map(|flow| numbered((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), flow, number))
                .collect();
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            rig.send_at(first as usize / 16 % engines, from, &frames);
        }
        // No port may have more than 512 packets with control.
        let sent = u64::from((first + 16).min(flows) * PACKETS);
        rig.until("the ones before come through", |rig| sent < check(&mut rig.sent) + 400);
    }
    rig.until("all come through", |rig| check(&mut rig.sent) == u64::from(flows * PACKETS));
    rig.settle();
    assert!(rig.sent.is_empty());
    let statistics = rig.handle.statistics().unwrap();
    assert!(statistics.sums.drops.values().all(|count| *count == 0), "{:?}", statistics.sums.drops);
    rig.assert_balanced();
}

/// Groups make flows narrow, so that each pair of ports is one.
const NARROW: &str = r#"
network = [{ name = "red" }]
group = [{ name = "all", rules = [
    { direction = "in", action = "deny", protocol = "tcp", ports = "1" },
    { direction = "in", action = "deny", protocol = "udp", ports = "1" },
    { direction = "in", action = "allow" }, { direction = "out", action = "allow" },
] }]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["all"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["all"] },
]
"#;

#[test]
fn first_packets_of_100_000_flows_come_in_order_and_all_of_them() {
    let mut rig = Rig::configured(1, NARROW);
    // However slow the machine is: all are to be there at the end.
    rig.set_idle(Duration::from_secs(3600), Duration::from_secs(4));
    in_order(&mut rig, 100_000, 1);
    let table = rig.handle.statistics().unwrap().table;
    assert_eq!(table.flows, 100_000);
    assert!(table.capacity > 65_536, "it grew while packets came");
}

#[test]
fn flows_at_two_engines_come_in_order_too() {
    let mut rig = Rig::configured(2, NARROW);
    in_order(&mut rig, 10_000, 2);
}

const CLIENT: &str = r#"
network = [{ name = "red" }]
group = [
    { name = "client", rules = [{ direction = "out", action = "allow" }] },
    { name = "server", rules = [{ direction = "in", action = "allow", protocol = "udp", ports = "53" }] },
]
port = [
    { name = "client", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"], groups = ["client"] },
    { name = "server", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["server"] },
]
"#;

#[test]
fn answers_pass_however_many_were_denied_and_pending_when_they_were_asked_for() {
    const ALL: u16 = 4300;
    let mut rig = Rig::configured(2, CLIENT);
    let slots = ["client", "server"].map(|name| rig.slot(name));
    let mut sent = rig.handle.statistics().unwrap().control["upcalls"];
    // Engine 1 does not look up meanwhile, so that all flows stay pending.
    for from in [1, 0] {
        let (me, you) = (from as u8 % 2 + 1, 2 - from as u8 % 2);
        for first in (1000..1000 + ALL).step_by(100) {
            for port in first..first + 100 {
                let ports = if from == 0 { (port, 53) } else { (53, port) };
                let addresses = [me, you].map(|last| format!("10.0.0.{last}"));
                let frame = udp((mac(me), mac(you)), (&addresses[0], &addresses[1]), ports, b"x");
                rig.turns[0].run(slots[from], &[&frame]);
            }
            sent += 100;
            let start = std::time::Instant::now();
            while rig.handle.statistics().unwrap().control["upcalls"] < sent {
                assert!(start.elapsed() < DEADLINE);
                rig.turns[0].attend();
            }
        }
    }
    let denied = |rig: &Rig| {
        let flows = rig.handle.flows(&Default::default(), 10_000).unwrap().flows;
        (flows.len(), flows.iter().filter(|flow| flow.action.starts_with("drop")).count())
    };
    assert_eq!(denied(&rig), (2 * usize::from(ALL), usize::from(ALL)));
    rig.until("answers pass", |rig| denied(rig).1 == 0);
}
