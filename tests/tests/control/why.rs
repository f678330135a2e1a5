//! `mirach why`: what would happen to a frame.

use anyhow::{Context, Result, ensure};
use lab::tenants::{BROADCAST, Envelope, arp, mac};
use serde_json::Value;

use crate::scene::{close, set};

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn frames() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let datagram = |from, to, port| -> Result<Vec<u8>> {
        let mut frame = Vec::new();
        Envelope::new(from, to)?.udp((5, port), &[0; 40], &mut frame)?;
        Ok(frame)
    };
    let (own, other) = ((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"));
    let passing = datagram(own, other, 9)?;
    let forged = datagram((mac(7), "10.0.0.10"), other, 9)?;
    let denied = datagram(own, other, 4000)?;
    let all = datagram(own, (BROADCAST, "10.0.0.255"), 9)?;
    let lost = datagram(own, (mac(77), "10.0.0.77"), 9)?;
    let question = arp((BROADCAST, mac(0)), 1, (mac(0), "10.0.0.10".parse()?), ([0; 6], "10.0.0.1".parse()?), None);
    let before = daemon.statistics()?["sums"]["packets"]["delivered"].clone();
    crowd.settle()?;
    for (what, frame, delivered, dropped) in [
        ("a datagram", &passing, Some("vm1"), None),
        ("one from another's address", &forged, None, Some("spoofed")),
        ("one that no rule allows", &denied, None, Some("denied")),
        ("a broadcast", &all, Some("vm1"), None),
        ("one to nobody", &lost, None, Some("no_route")),
        ("a question to the router", &question, None, None),
    ] {
        let text = daemon.say(&["why", "vm0", &hex(frame)]).context(what)?;
        ensure!(text.lines().count() >= 4, "{what}: it says little: {text}");
        ensure!(text.contains("red") || text.contains("parse"), "{what}: {text}");
        let json = daemon.say(&["why", "vm0", &hex(frame), "--json"]).context(what)?;
        let answer: Value = serde_json::from_str(json.lines().next().unwrap_or_default())
            .with_context(|| format!("{what}: no JSON: {json}"))?;
        let ports: Vec<&str> = answer["delivered"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        ensure!(ports.first().copied() == delivered, "{what} reaches {ports:?}: {answer}");
        ensure!(answer["dropped"].as_str() == dropped, "{what} is dropped as {}: {answer}", answer["dropped"]);
    }
    // To ask is not to send.
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    let after = daemon.statistics()?["sums"]["packets"]["delivered"].clone();
    ensure!(before == after, "{after} packets were delivered, before {before}");
    for words in [&["why", "nobody", "0011"][..], &["why", "vm0", "xyz"]] {
        let output = daemon.command(words)?;
        ensure!(!output.status.success() && !output.stderr.is_empty(), "{words:?} was answered");
    }
    close(daemon, crowd)
}
