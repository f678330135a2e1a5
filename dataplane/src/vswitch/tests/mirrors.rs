//! Mirrors: what is copied to whoever looks on.

use super::frames::*;
use super::rig::*;

fn world(mirrors: &str) -> String {
    format!(
        r#"
        network = [{{ name = "red" }}, {{ name = "blue" }}]
        port = [
            {{ name = "a", network = "red", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] }},
            {{ name = "b", network = "red", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] }},
            {{ name = "c", network = "red", macs = ["52:54:00:00:00:03"], addresses = ["10.0.0.3"] }},
            {{ name = "d", network = "blue", macs = ["52:54:00:00:00:01"], addresses = ["10.0.0.1"] }},
            {{ name = "e", network = "blue", macs = ["52:54:00:00:00:02"], addresses = ["10.0.0.2"] }},
        ]
        mirror = [{mirrors}]
        "#
    )
}

fn frame(from: u8, to: u8) -> Vec<u8> {
    let address = |number: u8| format!("10.0.0.{number}");
    udp((mac(from), mac(to)), (&address(from), &address(to)), (1, 2), &[from, to])
}

#[test]
fn what_a_port_or_a_network_sends_and_gets_is_copied_once() {
    let mut rig = Rig::configured(1, &world(""));
    rig.attach("probe").unwrap();
    rig.attach("other").unwrap();
    let everybody = udp((mac(3), EVERYBODY), ("10.0.0.3", "10.0.0.255"), (1, 2), b"all");
    let send = |rig: &mut Rig| {
        for (port, from, to) in [("a", 1, 2), ("b", 2, 1), ("b", 2, 3), ("d", 1, 2)] {
            rig.send(port, &frame(from, to));
        }
        rig.send("c", &everybody);
        rig.taken()
    };
    let got = |taken: &[(String, Vec<u8>)], name: &str| -> Vec<Vec<u8>> {
        taken.iter().filter(|(port, _)| port == name).map(|(_, frame)| frame.clone()).collect()
    };
    let all = [frame(1, 2), frame(2, 1), frame(2, 3), everybody.clone()];
    for (mirrors, expected) in [
        ("", vec![]),
        (r#"{ name = "m", port = "a", direction = "out", to = "probe" }"#, vec![&all[0]]),
        (r#"{ name = "m", port = "a", direction = "in", to = "probe" }"#, vec![&all[1], &all[3]]),
        (r#"{ name = "m", port = "a", to = "probe" }"#, vec![&all[0], &all[1], &all[3]]),
        (r#"{ name = "m", network = "red", to = "probe" }"#, all.iter().collect()),
        (r#"{ name = "m", network = "red", direction = "out", to = "probe" }"#, all.iter().collect()),
        (
            r#"{ name = "m", port = "a", to = "probe" }, { name = "n", network = "red", to = "probe" }, { name = "o", network = "red", to = "other" }"#,
            all.iter().collect(),
        ),
    ] {
        rig.apply(&world(mirrors)).unwrap();
        for turn in ["first packets", "known flows"] {
            let taken = send(&mut rig);
            assert_eq!(got(&taken, "probe").iter().collect::<Vec<_>>(), expected, "{turn}, {mirrors}");
            assert_eq!(got(&taken, "other").len(), if mirrors.contains("other") { 4 } else { 0 });
            // Others get what they get without.
            assert_eq!((got(&taken, "a").len(), got(&taken, "b").len(), got(&taken, "e").len()), (2, 2, 1));
        }
    }
    let flows = rig.handle.flows(&Default::default(), 100).unwrap().flows;
    assert!(flows.iter().any(|flow| flow.action.ends_with(", mirrored to probe, mirrored to other")), "{flows:?}");
    let told = rig.handle.why("a", frame(1, 2)).unwrap();
    assert!(told.steps.iter().any(|step| step.element == "mirror"), "{told:?}");
    rig.assert_balanced();
}

#[test]
fn a_mirror_port_that_is_not_there_is_nobodys_loss() {
    let mut rig = Rig::configured(1, &world(r#"{ name = "m", port = "a", to = "probe" }"#));
    rig.send("a", &frame(1, 2));
    assert_eq!(rig.reached(), ["b"]);
    rig.attach("probe").unwrap();
    rig.send("a", &frame(1, 2));
    assert_eq!(rig.reached(), ["b", "probe"]);
    rig.handle.detach("probe").unwrap();
    rig.send("a", &frame(1, 2));
    assert_eq!(rig.reached(), ["b"]);
    rig.assert_balanced();
}
