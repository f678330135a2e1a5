//! Configurations that change while packets pass.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hugemem::Metadata;
use lab::tenants::{Crowd, Daemon, Envelope, Ports, Station, Stream, mac};

const PORTS: Ports<'_> = Ports { machines: &["vm0", "vm1"], hosts: &[] };
/// Changes of the rules.
const CHANGES: usize = 30;
/// Datagrams that may be on their way.
const WINDOW: u64 = 128;

/// One machine may send the other datagrams for that port, and for no other.
fn toml(port: u16) -> String {
    format!(
        r#"
[[network]]
name = "red"
[[network]]
name = "other{port}"
[[group]]
name = "one"
rules = [{{ direction = "in", action = "allow", protocol = "udp", ports = "{port}" }}]
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
groups = ["one"]
"#
    )
}

fn scene() -> Result<(Daemon, [Station; 2])> {
    let daemon = Daemon::start(PORTS, &toml(1000), &[])?;
    let stations = [Station::attach(&daemon, "vm0", mac(0))?, Station::attach(&daemon, "vm1", mac(1))?];
    Ok((daemon, stations))
}

/// Datagrams for two ports take turns. The rules let the one through or the other, so that what arrives is of one kind until the rules
/// change, and then of the other: whatever is between two changes is all of one kind, and nothing of it is missing.
pub(crate) fn atomic() -> Result<()> {
    let (daemon, [mut sender, mut receiver]) = scene()?;
    let envelope = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    // One flow: its numbers are places in the order in which both kinds were sent.
    let stream = Stream { payload: (20, 20), ..Stream::new(1, envelope, 1) };
    let kinds = [1000, 2000].map(|port| Stream { port, ..stream });
    let mut frame = Vec::new();
    let mut sent = 0;
    let mut arrived: Vec<u64> = Vec::new();
    let mut turn = |sent: &mut u64, arrived: &mut Vec<u64>, sends: bool| -> Result<()> {
        // One of two does not arrive; what is on its way is after the last one that did.
        let last = arrived.last().map_or(0, |last| last + 1);
        while sends && *sent < last + 2 * WINDOW {
            let kind = kinds[usize::try_from(*sent % 2)?];
            kind.write(*sent, &kind.sent, &mut frame)?;
            if !sender.vm.stage(0, &frame, Metadata::default())? {
                break;
            }
            *sent += 1;
        }
        sender.vm.flush();
        receiver.receive(|frame| {
            if let Some((_, number)) = Stream::mark(frame) {
                arrived.push(number);
            }
            Ok(())
        })?;
        Ok(())
    };
    // Somebody else changes the rules, as often as can be.
    let done = std::thread::scope(|scope| -> Result<()> {
        let changing = scope.spawn(|| -> Result<()> {
            for change in 0..CHANGES {
                std::thread::sleep(Duration::from_millis(50));
                daemon.apply(PORTS, &toml([2000, 1000][change % 2]))?;
            }
            Ok(())
        });
        while !changing.is_finished() {
            turn(&mut sent, &mut arrived, true)?;
        }
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            turn(&mut sent, &mut arrived, false)?;
        }
        changing.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    });
    done?;
    let (mut changes, mut gaps) = (0, 0);
    for pair in arrived.windows(2) {
        let [before, after] = pair else { continue };
        ensure!(after > before, "datagram {after} came after {before}");
        if before % 2 == after % 2 {
            ensure!(
                after - before == 2,
                "of one kind, {before} was followed by {after}: one between them saw other rules"
            );
        } else {
            changes += 1;
            // After the change every datagram of the new kind passes: the first of them is the next one, or that after it.
            ensure!(after - before <= 3, "{before} was followed by {after} of the other kind");
            gaps += 1;
        }
    }
    println!("  {} datagrams, {changes} changes seen of {CHANGES}", arrived.len());
    ensure!(changes <= CHANGES, "{changes} times the other kind came, after {CHANGES} changes");
    ensure!(changes >= CHANGES / 2 && gaps > 0, "only {changes} of {CHANGES} changes were seen under load");
    ensure!(daemon.dropped("denied")? > 100, "what did not pass was counted as something else");
    sender.vm.detach()?;
    receiver.vm.detach()?;
    daemon.end().map(drop)
}

/// Networks, groups and ports of others come and go: nothing is lost here, and no flow is decided anew.
pub(crate) fn elsewhere() -> Result<()> {
    let (daemon, stations) = scene()?;
    let mut crowd = Crowd::new(stations.into());
    let envelope = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    crowd.talk(Stream { port: 1000, ..Stream::new(1, envelope, 500) }, 0, &[1]);
    crowd.exchange(2000)?;
    let raised = |daemon: &Daemon| -> Result<u64> {
        Ok(daemon.statistics()?["sums"]["packets"]["raised"].as_u64().unwrap_or(0))
    };
    let before = raised(&daemon)?;
    crowd.busy(|| {
        for change in 0..20 {
            let more = format!("[[network]]\nname = \"more{change}\"\n[[group]]\nname = \"more\"\nrules = []\n");
            daemon.apply(PORTS, &(toml(1000) + &more))?;
        }
        Ok(())
    })?;
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    let after = raised(&daemon)?;
    ensure!(after == before, "{} packets went to control for changes elsewhere", after - before);
    crowd.leave()?;
    daemon.end().map(drop)
}
