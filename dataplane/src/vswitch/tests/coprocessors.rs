//! Coprocessors: what a port's own thread does to its packets.

use super::frames::*;
use super::rig::*;

fn world(coprocessor: &str) -> String {
    format!(
        r#"
        network = [{{ name = "red" }}]
        group = [{{ name = "no81", rules = [
            {{ direction = "out", action = "deny", protocol = "udp", ports = "81" }},
            {{ direction = "out", action = "allow" }},
            {{ direction = "in", action = "deny", protocol = "udp", ports = "82" }},
            {{ direction = "in", action = "allow" }},
        ] }}]
        port = [
            {{ name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] {coprocessor} }},
            {{ name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] }},
            {{ name = "c", network = "red", macs = ["52:54:00:00:00:03"], addresses = ["10.0.0.3"] }},
        ]
        "#
    )
}

fn datagram(from: u8, to: u8, port: u16, number: u32) -> Vec<u8> {
    let address = |number: u8| format!("10.0.0.{number}");
    udp((mac(from), mac(to)), (&address(from), &address(to)), (1000, port), &number.to_be_bytes())
}

fn number(frame: &[u8]) -> u32 {
    u32::from_be_bytes(frame[42..46].try_into().unwrap())
}

const RULES: &str = r#", coprocessor = { acl = ["no81"] }"#;

#[test]
fn each_packet_passes_its_ports_coprocessor_and_comes_back_in_order() {
    let mut rig = Rig::configured(2, &world(RULES));
    for count in 0..200 {
        rig.send("a", &datagram(1, 2, 80, count));
        assert_eq!(number(&rig.next("b")), count);
    }
    let from = rig.slot("a");
    let frames: Vec<Vec<u8>> = (200..260).map(|count| datagram(1, 2, 80, count)).collect();
    rig.send_at(0, from, &frames.iter().map(Vec::as_slice).collect::<Vec<_>>());
    for count in 200..260 {
        assert_eq!(number(&rig.next("b")), count);
    }
    // What control decides on each time passes once, too.
    let question = arp(1, (mac(1), "10.0.0.1"), EVERYBODY, "10.0.0.99");
    for _ in 0..2 {
        rig.send("a", &question);
        assert_eq!((rig.next("b"), rig.next("c")), (question.clone(), question.clone()));
    }
    // Its rules are asked about each packet, in both directions.
    for (from, to, port, passes) in
        [(1, 2, 81, false), (2, 1, 82, false), (2, 1, 81, true), (1, 2, 82, true), (2, 3, 81, true)]
    {
        let [sender, receiver] = [from, to].map(|last| ["a", "b", "c"][usize::from(last) - 1]);
        let denied = |rig: &Rig| rig.handle.statistics().unwrap().coprocessors[0].denied;
        let before = denied(&rig);
        rig.send(sender, &datagram(from, to, port, 7));
        if passes {
            assert_eq!(number(&rig.next(receiver)), 7);
        } else {
            rig.until("it is denied", |rig| denied(rig) == before + 1);
        }
    }
    let report = rig.handle.statistics().unwrap().coprocessors.remove(0);
    assert_eq!((report.port.as_str(), report.running, report.denied, report.packets), ("a", true, 2, 264));
    rig.until("its processor time is noted", |rig| {
        rig.handle.statistics().unwrap().coprocessors[0].cpu_nanoseconds > 0
    });
    let flows = rig.handle.flows(&Default::default(), 100).unwrap().flows;
    assert!(flows.iter().any(|flow| flow.action.ends_with(", by coprocessor 1")), "{flows:?}");
    let told = rig.handle.why("a", datagram(1, 2, 80, 0)).unwrap();
    assert_eq!(told.delivered, ["b"], "{told:?}");
    assert!(told.steps.iter().any(|step| step.text == "it passes coprocessor 1"), "{told:?}");
    rig.assert_balanced();
}

#[test]
fn what_is_too_fast_waits_and_others_do_not() {
    // 1,000 bytes a second, and one packet at once.
    let slow = r#", coprocessor = { shape = { bits-per-second = 8000, burst-bytes = 1, queue-bytes = 200 } }"#;
    let mut rig = Rig::configured(1, &world(slow));
    let from = rig.slot("a");
    let frames: Vec<Vec<u8>> = (0..20).map(|count| datagram(1, 2, 80, count)).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    rig.send_at(0, from, &frames[..1]);
    assert_eq!(number(&rig.next("b")), 0);
    let start = std::time::Instant::now();
    rig.send_at(0, from, &frames[1..]);
    // Those of others go on meanwhile.
    rig.send("c", &datagram(3, 2, 80, 100));
    let first = number(&rig.next("b"));
    assert_eq!(first, 100);
    let report = |rig: &Rig| rig.handle.statistics().unwrap().coprocessors.remove(0);
    rig.until("the rest does not fit", |rig| report(rig).overflowed >= 15);
    let mut next = 1;
    for _ in 0..19 - report(&rig).overflowed {
        let got = number(&rig.next("b"));
        assert!(got >= next, "in order");
        next = got + 1;
    }
    // 46 bytes take 46 ms each: the four that fit the queue were not faster.
    assert!(start.elapsed() >= std::time::Duration::from_millis(3 * 46), "{:?}", start.elapsed());
    // Another rate is taken over by the one that runs, and without the key it goes.
    rig.apply(&world(r#", coprocessor = { shape = { bits-per-second = "10G" } }"#)).unwrap();
    rig.send_at(0, from, &frames);
    for count in 0..20 {
        assert_eq!(number(&rig.next("b")), count);
    }
    assert!(report(&rig).packets >= 24);
    rig.apply(&world("")).unwrap();
    rig.send_at(0, from, &frames);
    for count in 0..20 {
        assert_eq!(number(&rig.next("b")), count);
    }
    assert!(rig.handle.statistics().unwrap().coprocessors.is_empty());
    rig.assert_balanced();
}
