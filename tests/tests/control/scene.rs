//! A switch with two machines that talk all the time.

use anyhow::{Result, ensure};
use lab::tenants::{Crowd, Daemon, Envelope, Ports, Stream, mac};
use serde_json::{Value, json};

pub(crate) const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &["host0"] };

/// Something of everything.
pub(crate) const TOML: &str = r#"
[[slice]]
name = "gold"
flows = 5000

[[network]]
name = "red"
vni = 100
slice = "gold"
routers = ["10.0.0.1/24"]

[[network]]
name = "blue"
vni = 200
vlan = 20
routers = ["10.1.0.1/24"]

[[group]]
name = "some"
rules = [
    { direction = "out", action = "allow" },
    { direction = "in", action = "allow", protocol = "udp", ports = "9-20" },
]

[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
groups = ["some"]

[[port]]
name = "vm1"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
groups = ["some"]

[[port]]
name = "host0"
network = "blue"
anti-spoofing = false

[[route]]
network = "red"
prefix = "10.1.0.0/24"
to = "blue"
"#;

/// Starts it, and lets the machines begin.
pub(crate) fn set(more: &[&str]) -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, more)?;
    let mut crowd = Crowd::attach(&daemon, PORTS.machines)?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    crowd.talk(Stream::new(1, there, 50), 0, &[1]);
    crowd.talk(Stream { port: 10, ..Stream::new(2, back, 50) }, 1, &[0]);
    crowd.exchange(500)?;
    Ok((daemon, crowd))
}

/// Waits for the last datagrams, and ends everybody: nothing was lost, and nothing came that nobody was to get.
pub(crate) fn close(daemon: Daemon, mut crowd: Crowd) -> Result<()> {
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Everything that a change of the configuration could touch.
pub(crate) fn state(daemon: &Daemon) -> Result<Value> {
    let statistics = daemon.statistics()?;
    let ports = daemon.call("port.list", json!({}))?;
    let flows = daemon.call("flow.list", json!({ "most": 1000 }))?;
    let flows: Vec<Value> =
        flows["flows"].as_array().into_iter().flatten().map(|flow| json!([flow["index"], flow["action"]])).collect();
    ensure!(flows.len() >= 100, "only {} flows: {flows:?}", flows.len());
    let port = |port: &Value| json!([port["name"], port["kind"], port["spec"], port["state"]]);
    let ports: Vec<Value> = ports["ports"].as_array().into_iter().flatten().map(port).collect();
    Ok(json!({
        "ports": ports,
        "flows": flows,
        "slices": statistics["slices"],
        "networks": statistics["networks"],
        "switched": statistics["ports"],
        "raised": statistics["sums"]["packets"]["raised"],
        "config": daemon.call("config.get", json!({}))?,
    }))
}
