//! First packets of flows: they go up, come back, and those behind them wait.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::tenants::{Crowd, Daemon, Envelope, Ports, Stream, mac};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };
/// Groups, so that each flow is one of its own, and a connection.
const TOML: &str = r#"
flows = 400000
[[network]]
name = "red"
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
"#;

fn scene(more: &[&str]) -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, more)?;
    let crowd = Crowd::attach(&daemon, PORTS.machines)?;
    Ok((daemon, crowd))
}

/// New flows one after another, in groups whose datagrams take turns: `each` of every flow.
fn new_flows(id: u16, flows: u32, turns: u32, each: u32) -> Result<Stream> {
    let envelope = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    Ok(Stream { turns, each, payload: (20, 120), ..Stream::new(id, envelope, flows) })
}

/// A look at what the switch made of it.
fn must_have_waited(daemon: &Daemon, flows: u64) -> Result<()> {
    let statistics = daemon.statistics()?;
    let sum = |name: &str| statistics["sums"]["packets"][name].as_u64().unwrap_or(0);
    let (raised, waited) = (sum("raised"), sum("waited"));
    println!("  {raised} packets went to control, {waited} waited behind them");
    ensure!(raised >= flows, "{raised} packets went to control, for {flows} flows");
    ensure!(waited > 0, "none ever waited for a flow: this shows little");
    Ok(())
}

fn pass(crowd: &mut Crowd, flows: u32) -> Result<()> {
    let started = Instant::now();
    crowd.pass()?;
    println!("  {:.0} new flows a second", f64::from(flows) / started.elapsed().as_secs_f64());
    crowd.must_have_no_strays()
}

pub(crate) fn many() -> Result<()> {
    const FLOWS: u32 = 100_000;
    let (daemon, mut crowd) = scene(&[])?;
    // Datagrams of a flow follow each other at once, or a few of others lie between them.
    crowd.talk(new_flows(1, FLOWS / 2, 1, 6)?, 0, &[1]);
    crowd.talk(Stream { port: 15, ..new_flows(2, FLOWS / 2, 16, 4)? }, 0, &[1]);
    pass(&mut crowd, FLOWS)?;
    must_have_waited(&daemon, FLOWS.into())?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Both directions, with an engine for each port: packets cross over, and so do those that control gives back.
pub(crate) fn two_engines() -> Result<()> {
    const FLOWS: u32 = 20_000;
    let (daemon, mut crowd) = scene(&["--cores", "0-1"])?;
    let there = new_flows(1, FLOWS, 8, 4)?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    crowd.talk(there, 0, &[1]);
    crowd.talk(Stream { id: 2, sent: back, seen: back, port: 15, ..there }, 1, &[0]);
    pass(&mut crowd, 2 * FLOWS)?;
    must_have_waited(&daemon, u64::from(2 * FLOWS))?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// The sender chooses the pace.
pub(crate) fn sustained() -> Result<()> {
    const FLOWS: u32 = 30_000;
    const EACH: u32 = 3;
    let (daemon, mut crowd) = scene(&[])?;
    let talk = crowd.talk(new_flows(1, FLOWS, 4, EACH)?, 0, &[1]);
    if let Some(talk) = crowd.talks.get_mut(talk) {
        talk.pace = Some(Duration::from_secs(1) / (10_000 * EACH));
        talk.window = u64::MAX;
    }
    pass(&mut crowd, FLOWS)?;
    must_have_waited(&daemon, FLOWS.into())?;
    crowd.leave()?;
    daemon.end().map(drop)
}
