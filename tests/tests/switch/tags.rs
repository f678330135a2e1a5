//! Networks by their VLAN tags.

use anyhow::Result;
use lab::conformance::frame::tagged;
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Station, Stream, mac};

const PORTS: Ports<'_> = Ports { machines: &["trunk", "plain", "blue", "green"], hosts: &[] };
const TOML: &str = r#"
[[network]]
name = "plain"
[[network]]
name = "blue"
vlan = 20
[[network]]
name = "green"
vlan = 30
[[port]]
name = "trunk"
network = "plain"
anti-spoofing = false
[[port]]
name = "trunk"
network = "blue"
tagged = true
anti-spoofing = false
[[port]]
name = "trunk"
network = "green"
tagged = true
anti-spoofing = false
[[port]]
name = "plain"
network = "plain"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
[[port]]
name = "blue"
network = "blue"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
[[port]]
name = "green"
network = "green"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11"]
"#;

/// At the three networks there is a machine with the same address each.
fn scene() -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, &[])?;
    let macs = [mac(0), mac(1), mac(1), mac(1)];
    let stations = PORTS.machines.iter().zip(macs).map(|(name, mac)| Station::attach(&daemon, name, mac));
    let crowd = Crowd::new(stations.collect::<Result<_>>()?);
    Ok((daemon, crowd))
}

pub(crate) fn trunk() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let back = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    let all = Envelope::new((mac(0), "10.0.0.10"), (BROADCAST, "10.0.0.255"))?;
    for (number, vlan) in [(1, None), (2, Some(20)), (3, Some(30))] {
        let id = u16::try_from(number)? * 10;
        let [there_tagged, all_tagged, back_tagged] =
            [there, all, back].map(|envelope| Envelope { tag: vlan, ..envelope });
        crowd.talk(Stream { seen: there, ..Stream::new(id, there_tagged, 8) }, 0, &[number]);
        crowd.talk(Stream { seen: all, ..Stream::new(id + 1, all_tagged, 8) }, 0, &[number]);
        crowd.talk(Stream { seen: back_tagged, ..Stream::new(id + 2, back, 8) }, number, &[0]);
    }
    crowd.exchange(2000)?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

pub(crate) fn hopping() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let there = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    let from_blue = Envelope::new((mac(1), "10.0.0.11"), (mac(0), "10.0.0.10"))?;
    let mut frames: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut one = |from, envelope: Envelope| -> Result<()> {
        let mut frame = Vec::new();
        envelope.udp((1, 2), &[0; 40], &mut frame)?;
        frames.push((from, frame));
        Ok(())
    };
    // A tag of no network, and tags at a port that has none.
    one(0, there.tagged(40))?;
    one(2, from_blue.tagged(30))?;
    one(2, from_blue.tagged(20))?;
    one(1, from_blue.tagged(20))?;
    // Behind the tag that is taken off there is another network's.
    let mut inner = Vec::new();
    there.tagged(30).udp((1, 2), &[0; 40], &mut inner)?;
    frames.push((0, tagged(&inner, 20)));
    let count = 50;
    for (from, frame) in &frames {
        crowd.station(*from)?.send(std::iter::repeat_n(frame.as_slice(), count))?;
    }
    daemon.wait_for_drops("isolated", (frames.len() * count) as u64)?;
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}
