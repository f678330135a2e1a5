//! Traffic of real network stacks: ping and iperf3.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::namespace::Namespace;
use crate::process::{Running, run};
use crate::{leftovers, wait};

/// Sends `count` echo requests to `address`; every one has to be answered.
///
/// # Errors
///
/// One was not.
pub fn ping(from: &Namespace, address: &str, count: u32) -> Result<()> {
    let count = count.to_string();
    let printed = run(&mut from.command(&["ping", "-n", "-q", "-i", "0.02", "-W", "10", "-c", &count, address]))?;
    if !printed.contains(" 0% packet loss") || printed.contains("duplicates") {
        bail!("ping lost packets: {}", printed.trim());
    }
    Ok(())
}

/// Waits until an echo request to `address` is answered: links take a while to come up.
///
/// # Errors
///
/// None is.
pub fn wait_for_path(from: &Namespace, address: &str) -> Result<()> {
    wait::until(&format!("an answer from {address}"), Duration::from_secs(60), || {
        Ok(run(&mut from.command(&["ping", "-n", "-q", "-W", "1", "-c", "1", address])).ok().map(drop))
    })
}

/// The direction of a TCP stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Forward,
    /// From the server to the client.
    Reverse,
}

/// Runs one TCP stream for `seconds` and returns the bytes that its receiver got.
///
/// # Errors
///
/// The stream broke, or carried nothing.
pub fn tcp(client: &Namespace, server: &Namespace, address: &str, direction: Direction, seconds: u32) -> Result<u64> {
    let _server = serve(server)?;
    let seconds = seconds.to_string();
    let mut words = vec!["iperf3", "--client", address, "--time", &seconds, "--json", "--connect-timeout", "20000"];
    if direction == Direction::Reverse {
        words.push("--reverse");
    }
    let printed = run(&mut client.command(&words)).context("iperf3")?;
    let report: Value = serde_json::from_str(&printed).context("iperf3 printed no JSON")?;
    let bytes = report.pointer("/end/sum_received/bytes").and_then(Value::as_u64).unwrap_or(0);
    if bytes == 0 {
        bail!("the TCP stream carried nothing: {printed}");
    }
    Ok(bytes)
}

/// Keeps a TCP stream going from `client` to `server` until both values are dropped.
///
/// # Errors
///
/// iperf3 could not be started.
pub fn load(client: &Namespace, server: &Namespace, address: &str) -> Result<[Running; 2]> {
    let listening = serve(server)?;
    let mut command = client.command(&["iperf3", "--client", address, "--time", "600"]);
    let client = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok([Running(client), listening])
}

/// The bytes that `interface` in `namespace` received so far.
///
/// # Errors
///
/// No such interface.
pub fn received_bytes(namespace: &Namespace, interface: &str) -> Result<u64> {
    let path = format!("/sys/class/net/{interface}/statistics/rx_bytes");
    // `ip netns exec` shows the namespace's own /sys.
    run(&mut namespace.command(&["cat", &path]))?.trim().parse().context("no number in rx_bytes")
}

fn serve(namespace: &Namespace) -> Result<Running> {
    let folder = leftovers::folder("iperf")?;
    let path = folder.path().join("log");
    let mut command = namespace.command(&["iperf3", "--server", "--one-off", "--forceflush"]);
    let log = File::create(&path)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut server = Running(command.spawn().context("cannot start iperf3: run `cargo xtask setup`")?);
    wait::until("iperf3's server", Duration::from_secs(60), || {
        let printed = std::fs::read_to_string(&path)?;
        if server.has_ended() {
            bail!("iperf3's server ended: {printed}");
        }
        Ok(printed.contains("listening").then_some(()))
    })?;
    Ok(server)
}
