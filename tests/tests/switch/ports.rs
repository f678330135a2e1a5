//! Ports that come and go while others are busy.

use anyhow::{Result, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Station, Stream, mac};
use serde_json::json;

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };
/// The visitor is configured before it comes.
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
[[port]]
name = "visitor"
network = "red"
macs = ["52:54:00:00:00:02"]
addresses = ["10.0.0.12"]
"#;
/// How often it comes.
const VISITS: u16 = 6;

pub(crate) fn come_and_go() -> Result<()> {
    let daemon = Daemon::start(PORTS, TOML, &[])?;
    let mut crowd = Crowd::attach(&daemon, PORTS.machines)?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    crowd.talk(Stream::new(1, there, 100), 0, &[1]);
    crowd.talk(Stream::new(2, back, 100), 1, &[0]);
    let to_visitor = Envelope::new((mac(0), "10.0.0.10"), (mac(2), "10.0.0.12"))?;
    let from_visitor = Envelope::new((mac(2), "10.0.0.12"), (mac(1), "10.0.0.11"))?;
    let all = Envelope::new((mac(2), "10.0.0.12"), (BROADCAST, "10.0.0.255"))?;
    for visit in 0..VISITS {
        let spec = daemon.machine("visitor");
        let mut frames_before = crowd.talks.first().map_or(0, |talk| talk.sent);
        crowd.busy(|| daemon.call("port.add", json!({ "spec": spec })).map(drop))?;
        let visitor = crowd.busy(|| Station::attach(&daemon, "visitor", mac(2)))?;
        crowd.stations.push(visitor);
        let id = 100 + visit * 10;
        // The second time with flows that were there the first time.
        crowd.talk(Stream::new(id, to_visitor, 50), 0, &[2]);
        crowd.talk(Stream::new(id + 1, from_visitor, 50), 2, &[1]);
        crowd.talk(Stream::new(id + 2, all, 5), 2, &[0, 1]);
        for talk in crowd.talks.iter_mut().skip(2) {
            talk.limit = 500;
        }
        while crowd.talks.iter().skip(2).any(|talk| talk.heard.iter().any(|(_, check)| check.received < 500)) {
            crowd.turn(true)?;
            ensure!(
                crowd.talks.first().is_none_or(|talk| talk.sent < frames_before + 50_000_000),
                "a visitor's frames are lost"
            );
        }
        crowd.must_have_no_strays()?;
        crowd.talks.truncate(2);
        let Some(visitor) = crowd.stations.pop() else { continue };
        if visit % 2 == 0 {
            // The machine goes first, or its port does.
            crowd.busy(|| visitor.vm.detach())?;
            crowd.busy(|| daemon.call("port.del", json!({ "name": "visitor" })).map(drop))?;
        } else {
            crowd.busy(|| daemon.call("port.del", json!({ "name": "visitor" })).map(drop))?;
            // Its switch is gone: that it is told so is no error.
            let _ = visitor.vm.detach();
        }
        frames_before = crowd.talks.first().map_or(0, |talk| talk.sent) - frames_before;
        ensure!(frames_before > 100, "the others were not busy: {frames_before} datagrams");
    }
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}
