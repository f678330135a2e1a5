//! Limits of what a port may send.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Stream, mac};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };
/// So long is counted, after as long as a bucket takes to be empty.
const TIME: Duration = Duration::from_secs(3);
const WARM: Duration = Duration::from_secs(1);
/// What passes may be so much more or less than the limit says: clocks are read at different times, and this machine does other things.
const TOLERANCE: f64 = 0.1;

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

fn must_be_near(rate: f64, limit: f64, what: &str) -> Result<()> {
    println!("  {rate:.0} {what} a second pass of {limit:.0}");
    ensure!((rate / limit - 1.0).abs() < TOLERANCE, "{rate:.0} {what} a second pass, and the limit is {limit:.0}");
    Ok(())
}

fn datagrams(id: u16, payload: u16) -> Result<Stream> {
    let envelope = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    Ok(Stream { payload: (payload, payload), ..Stream::new(id, envelope, 4) })
}

pub(crate) fn packets() -> Result<()> {
    let (daemon, mut crowd) = scene(&toml("", "packets-per-second = 2000"))?;
    let rate = rate(&mut crowd, datagrams(1, 60)?, Duration::from_micros(150))?;
    must_be_near(rate, 2000.0, "packets")?;
    ensure!(daemon.dropped("rate_limited")? > 1000, "what did not pass is counted as something else");
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Counted are bytes of frames, as a port has them.
pub(crate) fn bits() -> Result<()> {
    let (daemon, mut crowd) = scene(&toml("", "bits-per-second = \"10M\""))?;
    for (id, payload) in [(1, 1458), (2, 458)] {
        let frame = 14.0 + 20.0 + 8.0 + f64::from(payload);
        let rate = rate(&mut crowd, datagrams(id, payload)?, Duration::from_micros(100))?;
        must_be_near(rate * frame * 8.0, 10e6, "bits")?;
    }
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Broadcasts, and nothing else.
pub(crate) fn broadcasts() -> Result<()> {
    for (network, port) in [("broadcast-packets-per-second = 500", ""), ("", "broadcast-packets-per-second = 500")] {
        let (daemon, mut crowd) = scene(&toml(network, port))?;
        let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
        let stream = Stream { payload: (60, 60), ..Stream::new(1, all, 4) };
        let seen = rate(&mut crowd, stream, Duration::from_micros(400))?;
        must_be_near(seen, 500.0, "broadcasts")?;
        let dropped = daemon.dropped("rate_limited")? + daemon.dropped("broadcast_limited")?;
        ensure!(dropped > 1000, "what did not pass is counted as something else");
        crowd.talks.clear();
        crowd.talk(datagrams(2, 60)?, 0, &[1]);
        crowd.exchange(10_000)?;
        crowd.must_have_no_strays()?;
        crowd.leave()?;
        daemon.end().map(drop)?;
    }
    Ok(())
}
