//! Traffic between guests, made by programs in them: ping and iperf3 in `/tools`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::guest::Guest;
use crate::traffic::Direction;
use crate::wait;

/// Guests are slow, and several of them share the processors of the host.
const SLACK: Duration = Duration::from_secs(120);

/// How long a series of echo requests takes at least: enough for some dozen of them.
const LEAST: Duration = Duration::from_secs(2);

/// For a path to come up.
const PATH: Duration = Duration::from_secs(90);

/// Where a command for a guest is run: nothing, or `ip netns exec NAME`.
pub const ROOT: &str = "";

/// Sends `count` echo requests to `address`, from the namespace that `within` says; every one has to be answered.
///
/// # Errors
///
/// One was not.
pub fn ping(guest: &mut Guest, within: &str, address: &str, count: u32) -> Result<()> {
    let command = format!("{within} /tools/ping -n -q -i 0.02 -W 20 -c {count} {address}");
    let printed = guest.run(&command, SLACK)?.output;
    if !printed.contains(" 0% packet loss") || printed.contains("duplicates") {
        bail!("ping lost packets: {}", printed.trim());
    }
    Ok(())
}

/// Waits until an echo request to `address` is answered.
///
/// # Errors
///
/// None is.
pub fn wait_for_path(guest: &mut Guest, within: &str, address: &str) -> Result<()> {
    wait::until(&format!("an answer from {address}"), PATH, || {
        let answer = guest.run(&format!("{within} /tools/ping -n -q -W 1 -c 1 {address}"), SLACK)?;
        Ok((answer.status == 0).then_some(()))
    })
}

/// A series of echo requests that goes on in the background of a guest.
#[derive(Clone, Copy, Debug)]
pub struct Pings {
    name: &'static str,
    since: Instant,
}

impl Pings {
    /// Starts them; `name` is that of no other program in the background of this guest.
    ///
    /// # Errors
    ///
    /// The guest did not answer.
    pub fn start(guest: &mut Guest, name: &'static str, address: &str) -> Result<Self> {
        guest.must(&format!("start {name} /tools/ping -n -q -i 0.05 -W 20 {address}"))?;
        Ok(Self { name, since: Instant::now() })
    }

    /// Ends them; every one has to have been answered, but the one that may be on its way.
    ///
    /// # Errors
    ///
    /// One was not, or there were hardly any.
    pub fn end(self, guest: &mut Guest) -> Result<()> {
        let Self { name, since } = self;
        // What happened meanwhile may have been quick, and has to be followed by some, too.
        std::thread::sleep(LEAST.saturating_sub(since.elapsed()));
        guest.must(&format!("kill -INT $(cat /tmp/{name}.pid)"))?;
        wait::until("the end of ping", SLACK, || {
            Ok((guest.run(&format!("cat /tmp/{name}.status"), SLACK)?.status == 0).then_some(()))
        })?;
        let log = guest.must(&format!("cat /tmp/{name}.log"))?;
        let (sent, received) = counts(&log).with_context(|| format!("ping printed {log}"))?;
        if sent < 10 || sent > received + 1 || log.contains("duplicates") {
            bail!("of {sent} echo requests meanwhile {received} were answered: {}", log.trim());
        }
        println!("    {received} echo requests meanwhile, all answered");
        Ok(())
    }
}

/// `N packets transmitted, N received, ..`
fn counts(printed: &str) -> Option<(u64, u64)> {
    let line = printed.lines().find(|line| line.contains(" packets transmitted, "))?;
    let mut numbers = line.split(", ").map(|part| part.split(' ').next().and_then(|word| word.parse().ok()));
    Some((numbers.next()??, numbers.next()??))
}

/// What iperf3 sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// As fast as it gets.
    Tcp,
    /// So many megabits per second.
    Udp(u32),
}

/// One run of iperf3.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// What is sent.
    pub protocol: Protocol,
    /// Who sends it.
    pub direction: Direction,
    /// For how long.
    pub seconds: u32,
    /// How many at a time.
    pub parallel: u32,
}

/// What the receiver of a stream got.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Bytes of payload.
    pub bytes: u64,
    /// Datagrams of UDP that did not come; at a rate that guests cannot keep up with, their stacks drop some.
    pub lost: u64,
    /// Datagrams of UDP that were sent.
    pub packets: u64,
}

/// Passes a stream between two guests.
///
/// # Errors
///
/// It broke, or carried nothing.
pub fn pass(client: &mut Guest, server: &mut Guest, address: &str, stream: Stream) -> Result<Received> {
    serve(server)?;
    let Stream { protocol, direction, seconds, parallel } = stream;
    let mut command = format!(
        "/tools/iperf3 --client {address} --time {seconds} --parallel {parallel} --json --connect-timeout 20000"
    );
    if let Protocol::Udp(megabits) = protocol {
        command.push_str(&format!(" --udp --bitrate {megabits}M --length 1400"));
    }
    if direction == Direction::Reverse {
        command.push_str(" --reverse");
    }
    let answer = client.run(&command, Duration::from_secs(seconds.into()) + SLACK)?;
    let report: Value =
        serde_json::from_str(&answer.output).with_context(|| format!("iperf3 printed no JSON: {}", answer.output))?;
    let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let received = match protocol {
        Protocol::Tcp => Received { bytes: number("/end/sum_received/bytes"), lost: 0, packets: 0 },
        Protocol::Udp(_) => {
            let [packets, lost] = [number("/end/sum/packets"), number("/end/sum/lost_packets")];
            Received { bytes: packets.saturating_sub(lost) * 1400, lost, packets }
        }
    };
    if received.bytes == 0 {
        bail!("the stream carried nothing: {}", answer.output);
    }
    Ok(received)
}

/// Keeps a TCP stream going from `client` to `server`, in the background of both, until [`unload`].
///
/// # Errors
///
/// iperf3 does not run.
pub fn load(client: &mut Guest, server: &mut Guest, address: &str) -> Result<()> {
    serve(server)?;
    client.must(&format!("start load /tools/iperf3 --client {address} --time 3600 --forceflush"))?;
    Ok(())
}

/// Ends what [`load`] started; what is left of it after a restart of the guest is no error.
///
/// # Errors
///
/// The guest did not answer.
pub fn unload(guest: &mut Guest) -> Result<()> {
    guest.run("killall -KILL iperf3 2> /dev/null; while pidof iperf3; do usleep 10000; done", SLACK)?;
    Ok(())
}

fn serve(guest: &mut Guest) -> Result<()> {
    // One that a failed check left behind would have the port.
    unload(guest)?;
    guest.must("start iperf /tools/iperf3 --server --one-off --forceflush")?;
    wait::until("iperf3's server in the guest", SLACK, || {
        Ok(guest.must("cat /tmp/iperf.log")?.contains("listening").then_some(()))
    })
}

/// Bytes that an interface received so far.
///
/// # Errors
///
/// There is no such interface.
pub fn received_bytes(guest: &mut Guest, interface: &str) -> Result<u64> {
    guest.must(&format!("cat /sys/class/net/{interface}/statistics/rx_bytes"))?.trim().parse().context("no number")
}

/// Waits until an interface has received `bytes` more than it has now.
///
/// # Errors
///
/// It does not.
pub fn wait_for_bytes(guest: &mut Guest, interface: &str, bytes: u64) -> Result<()> {
    let before = received_bytes(guest, interface)?;
    wait::until(&format!("{bytes} bytes on {interface}"), PATH, || {
        Ok((received_bytes(guest, interface)? >= before + bytes).then_some(()))
    })
}

#[cfg(test)]
mod tests {
    use super::counts;

    #[test]
    fn the_counts_of_ping_are_read() {
        let printed =
            "--- 10.0.0.1 ping statistics ---\n71 packets transmitted, 70 received, 1.4% packet loss, time 71ms";
        assert_eq!(counts(printed), Some((71, 70)));
        assert_eq!(counts("ping: unknown host"), None);
    }
}
