//! Security groups, with the kernel's TCP on both sides.

use std::time::Duration;

use anyhow::{Result, ensure};
use lab::tenants::{Daemon, Host, Ports, mac};

const PORTS: Ports<'_> = Ports { machines: &[], hosts: &["client", "server"] };

/// The client may begin, and nobody may begin to talk to it; the server takes what `server` says.
fn toml(server: &str) -> String {
    format!(
        r#"
[[network]]
name = "red"
[[group]]
name = "outwards"
rules = [{{ direction = "out", action = "allow" }}]
[[group]]
name = "served"
rules = [{server}]
[[port]]
name = "client"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11", "fd00::11"]
groups = ["outwards"]
[[port]]
name = "server"
network = "red"
macs = ["52:54:00:00:00:02"]
addresses = ["10.0.0.12", "fd00::12"]
groups = ["served"]
"#
    )
}

const WEB: &str = r#"
    { direction = "in", action = "deny", protocol = "tcp", ports = "5002", remote = "10.0.0.0/24" },
    { direction = "in", action = "allow", protocol = "tcp", ports = "5001-5003" },
"#;

fn hosts(daemon: &Daemon) -> Result<[Host; 2]> {
    Ok([
        Host::attach(daemon, "client", mac(1), &["10.0.0.11/24", "fd00::11/64"])?,
        Host::attach(daemon, "server", mac(2), &["10.0.0.12/24", "fd00::12/64"])?,
    ])
}

pub(crate) fn tcp() -> Result<()> {
    let daemon = Daemon::start(PORTS, &toml(WEB), &[])?;
    let [client, server] = hosts(&daemon)?;
    for (address, expected) in [
        ("10.0.0.12:5001", true),
        ("[fd00::12]:5001", true),
        // The rule that denies it is about IPv4.
        ("10.0.0.12:5002", false),
        ("[fd00::12]:5002", true),
        ("10.0.0.12:5003", true),
        ("10.0.0.12:5004", false),
        ("[fd00::12]:5004", false),
    ] {
        ensure!(client.reaches(&server, address)? == expected, "{address}: expected {expected}");
    }
    // Answers pass the server's group, which lets nothing out by itself, and the client's, which lets nothing in.
    for address in ["10.0.0.11:5001", "[fd00::11]:5001"] {
        ensure!(!server.reaches(&client, address)?, "the server began to talk to {address}");
    }
    client.ping_in_vain("10.0.0.12", &[])?;
    ensure!(daemon.dropped("denied")? > 0, "nothing was counted as denied");
    daemon.end().map(drop)
}

/// Rules that are taken back hold for connections that they had let pass.
pub(crate) fn taken_back() -> Result<()> {
    let everything = r#"{ direction = "in", action = "allow" }"#;
    let daemon = Daemon::start(PORTS, &toml(everything), &[])?;
    let [client, server] = hosts(&daemon)?;
    let connection = client.connect(&server, "10.0.0.12:5001")?;
    connection.echo(Duration::from_secs(20))?;
    daemon.apply(PORTS, &toml(""))?;
    ensure!(connection.echo(Duration::from_secs(2)).is_err(), "a connection goes on that no rule allows any more");
    ensure!(!client.reaches(&server, "10.0.0.12:5005")?, "a new one came about");
    daemon.apply(PORTS, &toml(everything))?;
    // TCP had waited meanwhile.
    connection.echo(Duration::from_secs(60))?;
    ensure!(client.reaches(&server, "10.0.0.12:5006")?, "no new one comes about");
    daemon.end().map(drop)
}
