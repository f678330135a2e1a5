//! From one configuration to another while it runs.

use anyhow::{Context, Result, ensure};
use lab::tenants::{BROADCAST, Envelope, Ports, Station, Stream, mac};
use serde_json::json;

use crate::scene::{PORTS, TOML, close, set, state};

const MORE: Ports<'_> = Ports { machines: &["vm0", "vm1", "vm2"], hosts: &["host0"] };

fn third() -> String {
    TOML.to_owned()
        + "[[port]]\nname = \"vm2\"\nnetwork = \"red\"\nmacs = [\"52:54:00:00:00:02\"]\naddresses = [\"10.0.0.12\"]\n"
}

/// A port comes and goes: those that stay go on counting, lose nothing, and their flows are those that they were.
pub(crate) fn least_change() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let before = daemon.counter("vm0", "rx_packets")?;
    let raised =
        |daemon: &lab::tenants::Daemon| -> Result<u64> { state(daemon)?["raised"].as_u64().context("no sums") };
    // What is for everybody, too, though there will be more of them.
    let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
    crowd.talk(Stream { port: 12, ..Stream::new(4, all, 2) }, 0, &[1]);
    crowd.exchange(200)?;
    let decided = raised(&daemon)?;
    // The same again.
    let said = crowd.busy(|| daemon.apply(PORTS, TOML))?;
    ensure!(!said.lines().any(|line| line.starts_with(['+', '-', '~'])), "nothing was to change: {said}");
    let said = crowd.busy(|| daemon.apply(MORE, &third()))?;
    ensure!(
        said.lines().any(|line| line.starts_with('+') && line.contains("vm2")),
        "what was done is not said: {said}"
    );
    ensure!(!said.contains("vm0") && !said.contains("host0"), "more was done than had to be: {said}");
    let again = raised(&daemon)? - decided;
    ensure!(again == 0, "{again} packets of others went to control when a port came");
    let visitor = crowd.busy(|| Station::attach(&daemon, "vm2", mac(2)))?;
    crowd.stations.push(visitor);
    let all = Envelope::new((mac(2), "10.0.0.12"), (BROADCAST, "10.0.0.255"))?;
    crowd.talk(Stream { port: 11, ..Stream::new(3, all, 1) }, 2, &[0, 1]);
    crowd.exchange(500)?;
    let heard = crowd.strays_of(2);
    ensure!(!heard.is_empty(), "what is for everybody does not reach the visitor");
    let other = heard.iter().find(|frame| !matches!(Stream::mark(frame), Some((4, _))));
    ensure!(other.is_none(), "{other:02x?} reached the visitor");
    crowd.must_have_no_strays()?;
    crowd.talks.truncate(3);
    // The visitor's own first packets are counted.
    let decided = raised(&daemon)?;
    if let Some(visitor) = crowd.stations.pop() {
        crowd.busy(|| visitor.vm.detach())?;
    }
    let said = crowd.busy(|| daemon.apply(PORTS, TOML))?;
    ensure!(
        said.lines().any(|line| line.starts_with('-') && line.contains("vm2")),
        "what was done is not said: {said}"
    );
    crowd.settle()?;
    let after = daemon.counter("vm0", "rx_packets")?;
    let talked: u64 = crowd.talks.first().map_or(0, |talk| talk.sent);
    ensure!(after > before && after >= talked, "vm0 counts {after} packets, after {before}, of {talked} that it sent");
    let ports = daemon.call("port.list", json!({}))?;
    ensure!(ports["ports"].as_array().map(Vec::len) == Some(3), "{ports}");
    let again = raised(&daemon)? - decided;
    ensure!(again == 0, "{again} packets of others went to control when a port went");
    close(daemon, crowd)
}

/// One port of the new configuration cannot be opened: none of it comes about.
pub(crate) fn all_or_nothing() -> Result<()> {
    let (daemon, mut crowd) = set(&[])?;
    let before = state(&daemon)?;
    for spec in ["vhost-user=/no-such-folder/socket,client=off,name=vm3", "tap=lo,name=vm3"] {
        // A good port before the bad one, and other networks and rules as well.
        daemon.write(MORE, &third().replace("9-20", "9-30").replace("flows = 5000", "flows = 6000"))?;
        let text = std::fs::read_to_string(daemon.file())?;
        std::fs::write(daemon.file(), text.replacen("]\n", &format!("    {spec:?},\n]\n"), 1))?;
        let port = "[[port]]\nname = \"vm3\"\nnetwork = \"red\"\nanti-spoofing = false\n";
        let text = std::fs::read_to_string(daemon.file())? + port;
        std::fs::write(daemon.file(), text)?;
        let file = daemon.file().display().to_string();
        let output = crowd.busy(|| daemon.command(&["apply", &file]))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success(), "{spec} was opened");
        ensure!(said.contains("vm3"), "it is not said which port cannot be opened: {said}");
        crowd.settle()?;
        let after = state(&daemon)?;
        ensure!(after == before, "{spec}: something changed: {after} was {before}");
        ensure!(!daemon.socket("vm2").exists(), "the socket of a port that did not come about is there");
    }
    close(daemon, crowd)
}
