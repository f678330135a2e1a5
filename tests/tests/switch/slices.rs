//! Slices, made, changed and taken away through the API.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::tenants::{Crowd, Daemon, Envelope, Ports, Stream, mac};
use serde_json::{Value, json};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1", "vm2", "vm3"], hosts: &[] };
/// A tenant that stays, and the ports of one that comes and goes.
const TOML: &str = r#"
[[network]]
name = "red"
[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
[[port]]
name = "vm1"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
[[network]]
name = "yard"
[[port]]
name = "vm2"
network = "yard"
anti-spoofing = false
[[port]]
name = "vm3"
network = "yard"
anti-spoofing = false
"#;
/// How often the other tenant comes.
const TIMES: u16 = 10;
/// A request is carried out within this, at best.
const MILLISECONDS: Duration = Duration::from_millis(100);

fn scene() -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, &[])?;
    let mut crowd = Crowd::attach(&daemon, PORTS.machines)?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    crowd.talk(Stream::new(1, there, 100), 0, &[1]);
    crowd.talk(Stream { port: 10, ..Stream::new(2, back, 100) }, 1, &[0]);
    crowd.exchange(500)?;
    Ok((daemon, crowd))
}

/// How a slice fares.
fn slice(daemon: &Daemon, name: &str) -> Result<Option<Value>> {
    let slices = daemon.call("slice.list", json!({}))?;
    let slices = slices["slices"].as_array().context("no slices")?;
    Ok(slices.iter().find(|slice| slice["name"] == name).cloned())
}

/// Carries out requests while everybody talks; the time of each.
fn requests(daemon: &Daemon, crowd: &mut Crowd, all: &[(&str, Value)]) -> Result<Vec<Duration>> {
    crowd.busy(|| {
        let one = |(method, params): &(&str, Value)| {
            let started = Instant::now();
            daemon.call(method, params.clone())?;
            Ok(started.elapsed())
        };
        all.iter().map(one).collect()
    })
}

/// A tenant with its slice, network, ports and limits comes, is changed and goes; another one loses nothing meanwhile.
pub(crate) fn changed() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let port = |name: &str, number: u8, address: &str| json!({ "name": name, "network": "blue", "macs": [lab::tenants::text(mac(number))], "addresses": [address] });
    let come = [
        ("slice.set", json!({ "name": "gold", "flows": 1000, "packets-per-second": 1_000_000 })),
        ("network.set", json!({ "name": "blue", "vni": 77, "slice": "gold" })),
        ("attachment.del", json!({ "name": "vm2" })),
        ("attachment.del", json!({ "name": "vm3" })),
        // The same addresses as those of the other tenant.
        ("attachment.set", port("vm2", 0, "10.0.0.10")),
        ("attachment.set", port("vm3", 1, "10.0.0.11")),
    ];
    let change = [("slice.set", json!({ "name": "gold", "flows": 500, "bits-per-second": "5G", "share": 3 }))];
    let go = [
        ("attachment.del", json!({ "name": "vm2" })),
        ("attachment.del", json!({ "name": "vm3" })),
        ("network.del", json!({ "name": "blue" })),
        ("slice.del", json!({ "name": "gold" })),
        ("attachment.set", json!({ "name": "vm2", "network": "yard", "anti-spoofing": false })),
        ("attachment.set", json!({ "name": "vm3", "network": "yard", "anti-spoofing": false })),
    ];
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut note = |all: &[(&'static str, Value)], took: Vec<Duration>| {
        times.extend(all.iter().map(|(method, _)| *method).zip(took));
    };
    let sent = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    for time in 0..TIMES {
        let took = requests(&daemon, &mut crowd, &come)?;
        note(&come, took);
        let state = slice(&daemon, "gold")?.context("no slice `gold`")?;
        ensure!(state["flows"] == 1000, "{state}");
        crowd.talk(Stream { port: 20, ..Stream::new(100 + time, sent, 100) }, 2, &[3]);
        let talk = crowd.talks.len() - 1;
        let until = |crowd: &mut Crowd, count: u64| -> Result<()> {
            let started = Instant::now();
            while crowd.talks.get(talk).is_some_and(|talk| talk.received() < count) {
                crowd.turn(true)?;
                ensure!(
                    started.elapsed() < Duration::from_secs(60),
                    "the new tenant's machines do not reach each other"
                );
            }
            Ok(())
        };
        until(&mut crowd, 500)?;
        let took = requests(&daemon, &mut crowd, &change)?;
        note(&change, took);
        until(&mut crowd, 1000)?;
        let state = slice(&daemon, "gold")?.context("no slice `gold`")?;
        ensure!(state["flows"] == 500 && state["share"] == 3, "{state}");
        // It falls silent before it goes, so that what is lost is nobody's fault.
        if let Some(talk) = crowd.talks.get_mut(talk) {
            talk.limit = talk.sent;
        }
        while crowd.talks.get(talk).is_some_and(|talk| talk.received() < talk.sent) {
            crowd.turn(true)?;
        }
        crowd.talks.truncate(2);
        let took = requests(&daemon, &mut crowd, &go)?;
        note(&go, took);
        ensure!(slice(&daemon, "gold")?.is_none(), "the slice is still there");
        crowd.must_have_no_strays()?;
    }
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    for method in ["slice.set", "slice.del", "network.set", "network.del", "attachment.set", "attachment.del"] {
        let mut own: Vec<Duration> = times.iter().filter(|(name, _)| *name == method).map(|(_, time)| *time).collect();
        own.sort_unstable();
        let (best, median) = (own.first().copied(), own.get(own.len() / 2).copied());
        let (best, median) = best.zip(median).with_context(|| format!("{method} was never called"))?;
        println!("  {method}: {best:?} at best, {median:?} in the middle of {}", own.len());
        // At worst it takes what this machine does besides.
        ensure!(best < MILLISECONDS, "{method} takes {best:?}");
    }
    crowd.leave()?;
    daemon.end().map(drop)
}

/// What is more than its quota has no place in the table: each packet of it goes to control, or takes the place of an older flow of the same slice. Nothing is lost by that, and
/// others have as many as before.
pub(crate) fn quota() -> Result<()> {
    const QUOTA: u64 = 300;
    let (daemon, mut crowd) = scene()?;
    daemon.call("slice.set", json!({ "name": "small", "flows": QUOTA }))?;
    daemon.call("network.set", json!({ "name": "yard", "slice": "small" }))?;
    // Known addresses, and a group: each flow is one of its own.
    daemon.call(
        "group.set",
        json!({ "name": "some", "rules": [
            { "direction": "in", "action": "allow", "protocol": "udp", "ports": "1-60000" },
            { "direction": "out", "action": "allow" },
        ] }),
    )?;
    for (name, number, address) in [("vm2", 2, "10.0.0.12"), ("vm3", 3, "10.0.0.13")] {
        let (mac, groups) = (lab::tenants::text(mac(number)), ["some"]);
        daemon.call(
            "attachment.set",
            json!({ "name": name, "network": "yard", "macs": [mac], "addresses": [address], "groups": groups }),
        )?;
    }
    let there = Envelope::new((mac(2), "10.0.0.12"), (mac(3), "10.0.0.13"))?;
    let talk = crowd.talk(Stream { turns: 1, each: 1, ..Stream::new(3, there, 2000) }, 2, &[3]);
    if let Some(talk) = crowd.talks.get_mut(talk) {
        talk.may_lose();
        talk.window = u64::MAX;
        talk.pace = Some(Duration::from_micros(500));
    }
    let started = Instant::now();
    while crowd.talks.get(talk).is_some_and(|talk| talk.sent < talk.limit) {
        crowd.turn(true)?;
        ensure!(started.elapsed() < Duration::from_secs(60), "its frames are not taken any more");
    }
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    let received = crowd.talks.get(talk).map_or(0, lab::tenants::Talk::received);
    let dropped = daemon.dropped("slice_full")?;
    let own = flows(&daemon, "small")?;
    println!("  {received} of 2000 flows passed, {dropped} did not, {own} are in the table");
    ensure!((1..=QUOTA).contains(&own), "{own} flows are in the table");
    ensure!(received + dropped == 2000, "{received} passed, and {dropped} were dropped as too many");
    ensure!(flows_of_all(&daemon)? >= own + 2, "the other slice has none left");
    // With more room there are more.
    daemon.call("slice.set", json!({ "name": "small", "flows": 100_000 }))?;
    crowd.talk(Stream { port: 500, turns: 1, each: 2, ..Stream::new(4, there, 2000) }, 2, &[3]);
    for talk in crowd.talks.iter_mut().take(2) {
        talk.limit = talk.sent;
    }
    crowd.pass()?;
    crowd.must_have_no_strays()?;
    ensure!(flows(&daemon, "small")? > QUOTA, "with more room there are no more flows");
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Flows in the table that count against a slice.
fn flows(daemon: &Daemon, name: &str) -> Result<u64> {
    let statistics = daemon.statistics()?;
    let slices = statistics["slices"].as_array().context("no slices")?;
    let slice = slices.iter().find(|slice| slice["name"] == name).with_context(|| format!("no slice `{name}`"))?;
    slice["flows"].as_u64().context("no number of flows")
}

/// Flows in the table.
fn flows_of_all(daemon: &Daemon) -> Result<u64> {
    daemon.statistics()?["table"]["flows"].as_u64().context("no number of flows")
}
