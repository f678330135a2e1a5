//! Changes of the configuration: all or nothing, for the state and for each packet.

use std::sync::mpsc::{Receiver, TryRecvError, channel};

use super::frames::*;
use super::rig::*;
use crate::vswitch::VswitchError;

/// Two ports; to destination port 80 or to 81, one of which is allowed.
fn world(allowed: u16) -> String {
    let denied = 161 - allowed;
    format!(
        r#"
        network = [{{ name = "red" }}]
        group = [{{ name = "web", rules = [
            {{ direction = "in", action = "deny", protocol = "udp", ports = "{denied}" }},
            {{ direction = "in", action = "allow", protocol = "udp", ports = "{allowed}" }},
            {{ direction = "out", action = "allow" }},
        ] }}]
        port = [
            {{ name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] }},
            {{ name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"], groups = ["web"] }},
        ]
        "#
    )
}

/// A datagram of a conversation, to a port.
fn datagram(conversation: u16, port: u16, number: u32) -> Vec<u8> {
    let payload = [u32::from(port).to_be_bytes(), number.to_be_bytes()].concat();
    udp((mac(1), mac(2)), ("10.0.0.1", "10.0.0.2"), (conversation, port), &payload)
}

#[test]
fn each_packet_sees_all_of_the_old_rules_or_all_of_the_new_ones() {
    const CONVERSATIONS: u16 = 40;
    let mut rig = Rig::configured(2, &world(80));
    let from = rig.slot("a");
    let mut number = 0;
    for turn in 0..24_u16 {
        let (old, new) = if turn % 2 == 0 { (80_u32, 81_u32) } else { (81, 80) };
        // A pair of packets, one to each port, is in one batch: exactly one of them passes.
        let mut pairs = |rig: &mut Rig| {
            let first = number;
            for engine in 0..2 {
                for conversation in 0..CONVERSATIONS {
                    let pair = [80, 81].map(|port| datagram(1000 + conversation, port, number));
                    rig.send_at(engine, from, &[&pair[0], &pair[1]]);
                    number += 1;
                }
            }
            first..number
        };
        let before = pairs(&mut rig);
        // What goes up before is answered before.
        let mut passed = passed(&mut rig);
        assert!(before.clone().all(|number| passed.remove(&number) == Some(vec![old])), "old rules");
        let config = config(&world(new as u16));
        let (done, result) = channel();
        let handle = rig.handle.clone();
        let applying = std::thread::spawn(move || done.send(handle.apply(config)).unwrap());
        let mut meanwhile = before.end..before.end;
        while still_applies(&result) {
            meanwhile.end = pairs(&mut rig).end;
            rig.round();
        }
        applying.join().unwrap();
        let after = pairs(&mut rig);
        let mut passed = self::passed(&mut rig);
        for number in meanwhile {
            let ports = passed.remove(&number).unwrap_or_default();
            assert!(ports == [old] || ports == [new], "packet {number} passed to {ports:?}");
        }
        for number in after {
            assert_eq!(passed.remove(&number), Some(vec![new]), "it had been applied");
        }
        assert!(passed.is_empty());
    }
    rig.assert_balanced();
}

/// The ports that packets of each number came through to, when all is done.
fn passed(rig: &mut Rig) -> std::collections::HashMap<u32, Vec<u32>> {
    let mut passed: std::collections::HashMap<u32, Vec<u32>> = std::collections::HashMap::new();
    for (port, frame) in rig.taken() {
        assert_eq!(port, "b");
        let (to, number) = number_of(&frame);
        passed.entry(number).or_default().push(to);
    }
    passed
}

fn still_applies(result: &Receiver<Result<Vec<String>, VswitchError>>) -> bool {
    match result.try_recv() {
        Ok(result) => {
            assert_eq!(result.unwrap(), ["~ group web"]);
            false
        }
        Err(TryRecvError::Empty) => true,
        Err(TryRecvError::Disconnected) => panic!("apply failed"),
    }
}

#[test]
fn what_does_not_fit_changes_nothing() {
    let mut rig = Rig::configured(1, &world(80));
    rig.send("a", &datagram(1000, 80, 0));
    assert_eq!(rig.reached(), ["b"]);
    let before = rig.handle.config().unwrap();
    let flows = rig.handle.statistics().unwrap().table.flows;
    let mut bad = before.clone();
    bad.ports[0].network = "green".into();
    assert!(matches!(rig.handle.plan(bad.clone()), Err(VswitchError::Config(_))));
    let error = rig.handle.apply(bad).unwrap_err();
    assert!(error.to_string().contains("green"), "{error}");
    let refused = rig.handle.change(|_| Err("not today".into())).unwrap_err();
    assert_eq!(refused.to_string(), "not today");
    assert!(matches!(rig.handle.change(|_| panic!("on purpose")), Err(VswitchError::Fault)));
    assert_eq!(rig.handle.config().unwrap(), before);
    assert_eq!(rig.handle.statistics().unwrap().table.flows, flows);
    assert_eq!(rig.handle.apply(before).unwrap(), Vec::<String>::new(), "nothing to do");
    // It goes on.
    assert_eq!(rig.apply(&world(81)).unwrap(), ["~ group web"]);
    rig.send("a", &datagram(1000, 80, 1));
    rig.send("a", &datagram(1000, 81, 1));
    assert_eq!(rig.reached(), ["b"]);
}

#[test]
fn changes_from_everywhere_come_one_after_the_other() {
    let mut rig = Rig::configured(1, &world(80));
    let from = rig.slot("a");
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let handle = rig.handle.clone();
            std::thread::spawn(move || {
                handle.change(move |config| {
                    let network =
                        crate::network::config::NetworkConfig { name: format!("net{number}"), ..Default::default() };
                    config.networks.push(network);
                    Ok(())
                })
            })
        })
        .collect();
    let mut number = 0;
    while !threads.iter().all(std::thread::JoinHandle::is_finished) {
        // New flows all the while.
        rig.send_at(0, from, &[&datagram(2000 + number as u16 % 30_000, 80, number)]);
        number += 1;
        rig.round();
    }
    for (number, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap().unwrap(), [format!("+ network net{number}")]);
    }
    assert_eq!(rig.handle.config().unwrap().networks.len(), 9);
    assert_eq!(rig.taken().len(), number as usize, "all packets came through");
}

#[test]
fn a_limit_changes_without_touching_flows() {
    let mut rig = Rig::configured(1, &world(80));
    rig.send("a", &datagram(1000, 80, 0));
    rig.settle();
    let flow = rig.handle.flows(&Default::default(), 10).unwrap().flows[0].clone();
    let handle = rig.handle.clone();
    let changed = rig.asking(move |_| {
        handle.change(|config| {
            config.slices.push(crate::network::config::SliceConfig {
                name: "gold".into(),
                flows: Some(10),
                ..Default::default()
            });
            Ok(())
        })
    });
    assert_eq!(changed.unwrap(), ["+ slice gold"]);
    let same = rig.handle.flows(&Default::default(), 10).unwrap().flows[0].clone();
    assert_eq!((same.index, same.packets), (flow.index, flow.packets));
}

/// A port that gets broadcasts, and one that does so or does not.
fn crowd(both: bool) -> String {
    let action = if both { "allow" } else { "deny" };
    format!(
        r#"
        network = [{{ name = "red" }}]
        group = [{{ name = "maybe", rules = [
            {{ direction = "in", action = "{action}" }}, {{ direction = "out", action = "allow" }},
        ] }}]
        port = [
            {{ name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] }},
            {{ name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] }},
            {{ name = "c", network = "red", macs = ["52:54:00:00:00:03"], addresses = ["10.0.0.3"], groups = ["maybe"] }},
        ]
        "#
    )
}

#[test]
fn packets_for_everybody_stay_in_order_while_others_come_and_go() {
    let mut rig = Rig::configured(2, &crowd(false));
    let (a, b) = (rig.slot("a"), rig.slot("b"));
    let (mut number, mut expected) = (0, 0);
    for turn in 0..60 {
        let config = config(&crowd(turn % 2 == 0));
        let handle = rig.handle.clone();
        let applying = std::thread::spawn(move || handle.apply(config));
        let mut rounds = 0;
        while !applying.is_finished() || rounds < 20 {
            let frames: Vec<Vec<u8>> = (0..8)
                .map(|_| {
                    number += 1;
                    numbered((mac(1), EVERYBODY), ("10.0.0.1", "255.255.255.255"), 1, number - 1)
                })
                .collect();
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            rig.send_at(0, a, &frames);
            rig.round();
            rounds += 1;
            for (slot, frame) in rig.sent.drain(..) {
                if slot == b {
                    assert_eq!(number_of(&frame).1, expected, "turn {turn}");
                    expected += 1;
                }
            }
        }
        applying.join().unwrap().unwrap();
    }
    rig.until("all came", |rig| {
        for (slot, frame) in rig.sent.drain(..) {
            if slot == b {
                assert_eq!(number_of(&frame).1, expected);
                expected += 1;
            }
        }
        expected == number
    });
}
