//! Traffic of real network stacks: ping and iperf3.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guest::Guest;
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
    let words = client_words("iperf3", address, direction, seconds, 1);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    received(&run(&mut client.command(&words)).context("iperf3")?)
}

/// As [`tcp`], with so many streams at a time, to a server in the guest, where `address` is.
///
/// # Errors
///
/// The streams broke, or carried nothing.
pub fn tcp_to_guest(
    client: &Namespace,
    guest: &mut Guest,
    address: &str,
    direction: Direction,
    seconds: u32,
    streams: u32,
) -> Result<u64> {
    serve_in_guest(guest, "")?;
    let words = client_words("iperf3", address, direction, seconds, streams);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    received(&run(&mut client.command(&words)).context("iperf3")?)
}

/// As [`tcp`], from one namespace of the guest to another one; each is given as what to write in front of a command.
///
/// # Errors
///
/// The stream broke, or carried nothing.
pub fn tcp_in_guest(
    guest: &mut Guest,
    client: &str,
    server: &str,
    address: &str,
    direction: Direction,
    seconds: u32,
) -> Result<u64> {
    serve_in_guest(guest, server)?;
    let words = client_words("/tools/iperf3", address, direction, seconds, 1).join(" ");
    let answer = guest.run(&format!("{client} {words}"), Duration::from_secs(u64::from(seconds) + 120))?;
    received(&answer.output)
}

fn client_words(program: &str, address: &str, direction: Direction, seconds: u32, streams: u32) -> Vec<String> {
    let [seconds, streams] = [seconds, streams].map(|number| number.to_string());
    let mut words = vec![program, "--client", address, "--time", &seconds, "--parallel", &streams];
    words.extend(["--json", "--connect-timeout", "20000"]);
    if direction == Direction::Reverse {
        words.push("--reverse");
    }
    words.into_iter().map(str::to_owned).collect()
}

/// The bytes that the receiver got, as the client reports.
fn received(printed: &str) -> Result<u64> {
    let report: Value = serde_json::from_str(printed).with_context(|| format!("iperf3 printed no JSON: {printed}"))?;
    let bytes = report.pointer("/end/sum_received/bytes").and_then(Value::as_u64).unwrap_or(0);
    if bytes == 0 {
        bail!("the TCP stream carried nothing: {printed}");
    }
    Ok(bytes)
}

fn serve_in_guest(guest: &mut Guest, within: &str) -> Result<()> {
    // One that a failed check left behind would have the port.
    guest.run("killall iperf3 2> /dev/null; while pidof iperf3; do usleep 10000; done", Duration::from_secs(60))?;
    guest.must(&format!("start iperf {within} /tools/iperf3 --server --one-off --forceflush"))?;
    wait::until("iperf3's server in the guest", Duration::from_secs(60), || {
        Ok(guest.must("cat /tmp/iperf.log")?.contains("listening").then_some(()))
    })
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
