//! Limits of what a port may send.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Stream, mac};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };
/// So long is counted, after as long as a bucket takes to be empty.
const TIME: Duration = Duration::from_secs(3);
const WARM: Duration = Duration::from_secs(1);
/// What passes may be so much more or less than the limit says: clocks are read at different times, and this machine does other things.
const TOLERANCE: f64 = 0.1;
/// So often it is counted anew: a sender that this machine does not let run does not send as much as it may.
const TRIES: u32 = 6;

fn toml(network: &str, port: &str) -> String {
    format!(
        r#"
[[network]]
name = "red"
{network}
[[port]]
name = "vm0"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10"]
{port}
[[port]]
name = "vm1"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
"#
    )
}

fn scene(toml: &str) -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, toml, &[])?;
    let crowd = Crowd::attach(&daemon, PORTS.machines)?;
    Ok((daemon, crowd))
}

/// Datagrams of a talk that arrive in each second, while `pace` lies between two that are sent.
fn rate(crowd: &mut Crowd, stream: Stream, pace: Duration) -> Result<f64> {
    crowd.talks.clear();
    let talk = crowd.talk(stream, 0, &[1]);
    if let Some(talk) = crowd.talks.get_mut(talk) {
        talk.may_lose();
        talk.pace = Some(pace);
        // What is dropped is known to be lost only when a later one arrives.
        talk.window = u64::MAX;
    }
    let received = |crowd: &Crowd| crowd.talks.first().map_or(0, lab::tenants::Talk::received);
    crowd.run(WARM)?;
    let (before, started) = (received(crowd), Instant::now());
    crowd.run(TIME)?;
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = (received(crowd) - before) as f64 / started.elapsed().as_secs_f64();
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    Ok(rate)
}

/// What passes comes near the limit, and never far beyond it.
fn must_be_near(mut rate: impl FnMut(u16) -> Result<f64>, limit: f64, what: &str) -> Result<()> {
    let mut seen = Vec::new();
    for id in 0..TRIES {
        let rate = rate(u16::try_from(id)?)?;
        println!("  {rate:.0} {what} a second pass of {limit:.0}");
        ensure!(rate < limit * 1.5, "{rate:.0} {what} a second pass, and the limit is {limit:.0}");
        if (rate / limit - 1.0).abs() < TOLERANCE {
            return Ok(());
        }
        seen.push(rate.round());
    }
    bail!("{seen:?} {what} a second pass, and the limit is {limit:.0}")
}

fn datagrams(id: u16, payload: u16) -> Result<Stream> {
    let envelope = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    Ok(Stream { payload: (payload, payload), ..Stream::new(id, envelope, 4) })
}

pub(crate) fn packets() -> Result<()> {
    let (daemon, mut crowd) = scene(&toml("", "packets-per-second = 2000"))?;
    let pace = Duration::from_micros(150);
    must_be_near(|id| rate(&mut crowd, datagrams(id, 60)?, pace), 2000.0, "packets")?;
    ensure!(daemon.dropped("rate_limited")? > 1000, "what did not pass is counted as something else");
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Counted are bytes of frames, as a port has them.
pub(crate) fn bits() -> Result<()> {
    let (daemon, mut crowd) = scene(&toml("", "bits-per-second = \"10M\""))?;
    for (first, payload) in [(100, 1458), (200, 458)] {
        let bits = 8.0 * (14.0 + 20.0 + 8.0 + f64::from(payload));
        let pace = Duration::from_micros(100);
        must_be_near(|id| Ok(bits * rate(&mut crowd, datagrams(first + id, payload)?, pace)?), 10e6, "bits")?;
    }
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Broadcasts, and nothing else.
pub(crate) fn broadcasts() -> Result<()> {
    for (network, port) in [("broadcast-packets-per-second = 500", ""), ("", "broadcast-packets-per-second = 500")] {
        let (daemon, mut crowd) = scene(&toml(network, port))?;
        let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
        let stream = |id| Stream { payload: (60, 60), ..Stream::new(id, all, 4) };
        must_be_near(|id| rate(&mut crowd, stream(id), Duration::from_micros(400)), 500.0, "broadcasts")?;
        let dropped = daemon.dropped("rate_limited")? + daemon.dropped("broadcast_limited")?;
        ensure!(dropped > 1000, "what did not pass is counted as something else");
        crowd.talks.clear();
        crowd.talk(datagrams(100, 60)?, 0, &[1]);
        crowd.exchange(10_000)?;
        crowd.must_have_no_strays()?;
        crowd.leave()?;
        daemon.end().map(drop)?;
    }
    Ok(())
}
