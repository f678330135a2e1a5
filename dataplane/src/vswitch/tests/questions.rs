//! What the switch tells about itself, and how it stands what it is asked.

use super::frames::*;
use super::rig::*;
use crate::switch::{Point, Reason, Stage};
use crate::vswitch::report::{FlowFilter, FlowOrder};
use crate::vswitch::{CaptureRequest, VswitchError};

const WORLD: &str = r#"
network = [{ name = "red", routers = ["10.0.0.254/24"] }, { name = "blue" }]
group = [{ name = "web", rules = [
    { direction = "in", action = "allow", protocol = "udp", ports = "80" },
    { direction = "out", action = "allow" },
] }]
port = [
    { name = "red1", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] },
    { name = "red2", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["web"] },
    { name = "red3", network = "red", anti-spoofing = false },
    { name = "blue1", network = "blue", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] },
    { name = "blue2", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] },
]
"#;

fn datagram(port: u16) -> Vec<u8> {
    udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (1000, port), b"hello")
}

#[test]
fn why_says_what_would_happen_and_changes_nothing() {
    let mut rig = Rig::configured(1, WORLD);
    let before = rig.handle.statistics().unwrap();
    let ask = |rig: &Rig, frame: Vec<u8>| rig.handle.why("red1", frame).unwrap();
    let passes = ask(&rig, datagram(80));
    assert_eq!(
        (passes.verdict.as_str(), passes.delivered.as_slice()),
        ("forwarded to port red2", &["red2".into()][..])
    );
    assert!(passes.reasons.iter().any(|reason| reason.contains("rule 1 of red2 allows it in")), "{passes:?}");
    assert!(passes.steps.iter().any(|step| step.element == "look up" && step.text.contains("no flow knows it")));
    let denied = ask(&rig, datagram(81));
    assert_eq!((denied.verdict.as_str(), denied.dropped.as_deref()), ("dropped: a rule denies it", Some("denied")));
    let spoofed = ask(&rig, udp((mac(2), mac(1)), ("10.0.0.2", "10.0.0.1"), (1, 2), b""));
    assert_eq!(spoofed.verdict, "dropped: its sender's address is not the port's");
    let many = ask(&rig, udp((mac(1), EVERYBODY), ("10.0.0.1", "255.255.255.255"), (1, 80), b""));
    assert_eq!(many.verdict, "copied to port red2, port red3");
    let asks = ask(&rig, arp(1, (mac(1), "10.0.0.1"), EVERYBODY, "10.0.0.254"));
    assert_eq!(asks.verdict, "answered by the switch: 10.0.0.254 is at 02:6d:69:72:00:01");
    let far = ask(&rig, udp((mac(1), ROUTER), ("10.0.0.1", "10.0.0.77"), (1, 2), b""));
    assert_eq!(far.verdict, "kept back: it is being asked who has 10.0.0.77");
    assert!(matches!(rig.handle.why("red1", vec![0; 13]), Err(VswitchError::Frame { len: 13, .. })));
    assert!(matches!(rig.handle.why("green1", datagram(80)), Err(VswitchError::NoPort(_))));
    let after = rig.handle.statistics().unwrap();
    assert_eq!((after.table, after.networks), (before.table, before.networks));
    assert!(rig.taken().is_empty());
    // The same when there is a flow.
    rig.send("red1", &datagram(80));
    assert_eq!(rig.reached(), ["red2"]);
    let counted = rig.handle.flows(&FlowFilter::default(), 9).unwrap().flows[0].packets;
    let again = ask(&rig, datagram(80));
    assert_eq!(again.verdict, "forwarded to port red2");
    assert!(again.steps.iter().any(|step| step.text.contains("knows it: to port red2")), "{again:?}");
    assert_eq!(rig.handle.flows(&FlowFilter::default(), 9).unwrap().flows[0].packets, counted);
}

#[test]
fn flows_are_found_by_what_they_are_of() {
    let mut rig = Rig::configured(1, WORLD);
    for _ in 0..3 {
        rig.send("red1", &datagram(80));
        rig.settle();
    }
    rig.send("blue1", &datagram(5));
    rig.settle();
    let find = |filter: FlowFilter, most| rig.handle.flows(&filter, most).unwrap();
    let all = find(FlowFilter::default(), 100);
    // One pair of ports in red, where there are rules; one flow that stands for all ports in blue.
    assert_eq!((all.total, all.matched, all.flows.len()), (2, 2, 2));
    let red = find(FlowFilter { network: Some("red".into()), order: FlowOrder::Packets, ..FlowFilter::default() }, 1);
    assert_eq!((red.matched, red.flows.len()), (1, 1));
    let flow = &red.flows[0];
    assert_eq!((flow.packets, flow.port.as_deref(), flow.action.as_str()), (3, Some("red1"), "to port red2"));
    assert_eq!((flow.source_port, flow.destination_port, flow.protocol), (Some(1000), Some(80), 17));
    let blue = find(FlowFilter { port: Some("blue1".into()), ..FlowFilter::default() }, 100);
    assert_eq!((blue.matched, blue.flows[0].destination_port), (1, None));
    let by_address = FlowFilter { address: Some("10.0.0.2".parse().unwrap()), ..FlowFilter::default() };
    assert_eq!((find(by_address.clone(), 0).matched, find(by_address, 0).flows.len()), (2, 0));
    assert_eq!(find(FlowFilter { protocol: Some(6), ..FlowFilter::default() }, 9).matched, 0);
    let unknown = FlowFilter { network: Some("green".into()), ..FlowFilter::default() };
    assert!(matches!(rig.handle.flows(&unknown, 9), Err(VswitchError::NoNetwork(_))));
}

#[test]
fn captures_see_packets_where_they_were_asked_to() {
    let mut rig = Rig::configured(2, WORLD);
    let request = CaptureRequest {
        points: vec![Point::Receive, Point::After(Stage::LookUp), Point::Drop],
        port: Some("red1".into()),
        network: Some("red".into()),
        bytes: 60,
    };
    let mut capture = rig.handle.capture(request).unwrap();
    rig.round();
    let red = rig.slot("red1");
    rig.send_at(1, red, &[&datagram(80)]);
    rig.settle();
    rig.send_at(0, red, &[&datagram(81)]);
    rig.send("blue1", &datagram(5));
    rig.settle();
    let mut seen = Vec::new();
    while let Some(captured) = capture.next() {
        assert_eq!((captured.port.as_str(), captured.network.as_deref()), ("red1", Some("red")));
        assert!(captured.bytes.len() <= 60 && datagram(80).starts_with(&captured.bytes[..36]));
        seen.push((captured.engine, captured.point, captured.reason));
    }
    let (there, dropped) = ((0, Point::Receive, None), (0, Point::Drop, Some(Reason::Denied)));
    assert!(seen.contains(&there) && seen.contains(&dropped), "{seen:?}");
    assert!(seen.contains(&(1, Point::Receive, None)), "{seen:?}");
    assert_eq!((capture.taken() as usize, capture.missed()), (seen.len(), 0));
    let all = CaptureRequest { points: vec![Point::Receive], port: None, network: None, bytes: 60 };
    let more: Vec<_> = (1..crate::switch::MOST_TAPS).map(|_| rig.handle.capture(all.clone()).unwrap()).collect();
    assert!(matches!(rig.handle.capture(all.clone()), Err(VswitchError::Capture(_))), "engines have no room for it");
    drop((capture, more));
    rig.until("there is room again", |rig| rig.handle.capture(all.clone()).is_ok());
}

#[test]
fn numbers_of_all_engines_are_added_up() {
    let mut rig = Rig::configured(2, WORLD);
    let red = rig.slot("red1");
    for engine in 0..2 {
        rig.send_at(engine, red, &[&datagram(80), &datagram(81)]);
    }
    rig.settle();
    rig.round();
    let told = rig.handle.statistics().unwrap();
    for (name, sum) in &told.sums.packets {
        assert_eq!(*sum, told.engines.iter().map(|engine| engine.counts.packets[name]).sum::<u64>());
    }
    assert_eq!((told.sums.packets["received"], told.sums.drops["denied"]), (4, 2));
    assert_eq!(told.control["upcalls"], told.sums.packets["raised"]);
    assert!(told.latency.with_control.count >= 2 && told.latency.with_control.maximum > 0);
    assert_eq!(told.ports.len(), 5);
    let json = serde_json::to_value(&told).unwrap();
    assert_eq!(serde_json::from_value::<crate::vswitch::report::VswitchStatistics>(json).unwrap(), told);
}

#[test]
fn a_request_that_panics_harms_nobody_and_the_end_is_told() {
    let mut rig = Rig::configured(1, WORLD);
    let panicked = rig.handle.ask(|_| -> Result<(), VswitchError> { panic!("on purpose") });
    assert!(matches!(panicked, Err(VswitchError::Fault)));
    rig.send("red1", &datagram(80));
    assert_eq!(rig.reached(), ["red2"]);
    let mut capture = rig
        .handle
        .capture(CaptureRequest { points: vec![Point::Receive], port: None, network: None, bytes: 60 })
        .unwrap();
    let slot = rig.slot("red1");
    drop(rig.vswitch.take());
    assert!(matches!(rig.handle.statistics(), Err(VswitchError::Gone)));
    // Engines go on with what they know.
    assert_eq!(rig.turns[0].run(slot, &[&datagram(80)]).len(), 1);
    rig.turns.clear();
    while capture.next().is_some() {}
    assert!(capture.is_over());
}

#[test]
fn packets_are_followed_to_the_decision_and_beyond() {
    let mut rig = Rig::configured(1, WORLD);
    let request = |port: &str| crate::vswitch::TraceRequest {
        port: port.to_owned(),
        address: None,
        protocol: Some(17),
        transport_port: None,
        per_second: 1000,
    };
    assert!(rig.handle.trace(request("nobody")).unwrap_err().to_string().contains("no port nobody"));
    let mut traces: Vec<_> = (0..4).map(|_| rig.handle.trace(request("red1")).unwrap()).collect();
    assert!(rig.handle.trace(request("red1")).unwrap_err().to_string().contains("4 traces already"));
    traces.truncate(1);
    rig.until("there is room again", |rig| rig.handle.trace(request("red2")).is_ok());
    rig.settle();
    rig.send("red1", &datagram(80));
    assert_eq!(rig.reached(), ["red2"]);
    let seen = traces[0].take(10);
    assert_eq!(seen.iter().map(|packet| packet.came_back).collect::<Vec<_>>(), [false, true], "{seen:?}");
    assert_eq!(seen[0].steps.last().unwrap().text, "it goes to control: no flow knows it");
    assert_eq!(seen[1].steps.last().unwrap().text, "it goes to port red2");
    assert!(traces[0].take(10).is_empty() && traces[0].missed() == 0 && !traces[0].is_over());
}
