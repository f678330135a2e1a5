//! Senders that are not who they say.

use anyhow::{Context, Result};
use lab::tenants::{BROADCAST, Crowd, Daemon, Envelope, Ports, Stream, arp, mac, neighbour};

const PORTS: Ports<'_> = Ports { machines: &["vm", "victim", "bridge"], hosts: &[] };
const TOML: &str = r#"
[[network]]
name = "red"
routers = ["10.0.0.1/24", "fd00::1/64"]
[[port]]
name = "vm"
network = "red"
macs = ["52:54:00:00:00:00"]
addresses = ["10.0.0.10", "fd00::10"]
[[port]]
name = "victim"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11", "fd00::11"]
[[port]]
name = "bridge"
network = "red"
anti-spoofing = false
"#;

fn scene() -> Result<(Daemon, Crowd)> {
    let daemon = Daemon::start(PORTS, TOML, &[])?;
    let crowd = Crowd::attach(&daemon, PORTS.machines)?;
    Ok((daemon, crowd))
}

/// Frames of the first machine, none of which is its own.
fn forged() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut frames = Vec::new();
    let everybody = (BROADCAST, mac(0));
    for (what, from, to) in [
        ("another's Ethernet address", (mac(1), "10.0.0.10"), (mac(2), "10.0.0.12")),
        ("nobody's Ethernet address", (mac(9), "10.0.0.10"), (mac(1), "10.0.0.11")),
        ("everybody's Ethernet address", (BROADCAST, "10.0.0.10"), (mac(1), "10.0.0.11")),
        ("another's IPv4 address", (mac(0), "10.0.0.11"), (mac(1), "10.0.0.11")),
        ("the router's IPv4 address", (mac(0), "10.0.0.1"), (mac(1), "10.0.0.11")),
        ("another's IPv6 address", (mac(0), "fd00::11"), (mac(1), "fd00::11")),
        ("another's link-local address", (mac(0), "fe80::5054:ff:fe00:1"), (mac(1), "fd00::11")),
        ("no address", (mac(0), "0.0.0.0"), (BROADCAST, "255.255.255.255")),
    ] {
        let mut frame = Vec::new();
        Envelope::new(from, to).context(what)?.udp((67, 9), &[7; 40], &mut frame)?;
        frames.push((what, frame));
    }
    let [own, others, router] = ["10.0.0.10", "10.0.0.11", "10.0.0.1"].map(str::parse);
    let (own, others, router) = (own?, others?, router?);
    frames.extend([
        ("ARP with another's address", arp(everybody, 2, (mac(0), others), (mac(2), own), None)),
        ("ARP with the router's address", arp(everybody, 2, (mac(0), router), (mac(2), own), None)),
        ("ARP with another's Ethernet address", arp(everybody, 2, (mac(1), own), (mac(2), own), None)),
        ("ARP announcing another's address", arp(everybody, 1, (mac(0), others), ([0; 6], others), None)),
    ]);
    let [own, others, router] = ["fd00::10", "fd00::11", "fd00::1"].map(str::parse);
    let (own, others, router) = (own?, others?, router?);
    let to_victim = (mac(1), mac(0));
    frames.extend([
        ("advertising another's address", neighbour(to_victim, 136, (own, others), others, mac(0))?),
        ("advertising the router's address", neighbour(to_victim, 136, (own, others), router, mac(0))?),
        ("advertising another's Ethernet address", neighbour(to_victim, 136, (own, others), own, mac(1))?),
        ("soliciting with another's Ethernet address", neighbour(to_victim, 135, (own, others), others, mac(1))?),
    ]);
    Ok(frames)
}

pub(crate) fn spoofed() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let honest = Envelope::new((mac(0), "10.0.0.10"), (mac(1), "10.0.0.11"))?;
    crowd.talk(Stream::new(1, honest, 8), 0, &[1]);
    let mut count = 0;
    for round in [1_u64, 20] {
        for (what, frame) in forged()? {
            for _ in 0..round {
                crowd.station(0)?.send([frame.as_slice()])?;
                count += 1;
                // Between honest ones.
                crowd.exchange(2)?;
            }
            crowd.must_have_no_strays().context(what)?;
        }
        daemon.wait_for_drops("spoofed", count)?;
        crowd.settle()?;
        crowd.must_have_no_strays()?;
    }
    crowd.leave()?;
    daemon.end().map(drop)
}

pub(crate) fn honest() -> Result<()> {
    let (daemon, mut crowd) = scene()?;
    let link_local = Envelope::new((mac(0), "fe80::5054:ff:fe00:0"), (mac(1), "fd00::11"))?;
    crowd.talk(Stream::new(1, link_local, 8), 0, &[1]);
    let to_bridge = Envelope::new((mac(0), "fd00::10"), (mac(2), "fd00::12"))?;
    crowd.talk(Stream::new(2, to_bridge, 8), 0, &[2]);
    // One that may be anybody who is nobody else.
    let from_bridge = Envelope::new((mac(77), "10.0.0.77"), (mac(1), "10.0.0.11"))?;
    crowd.talk(Stream::new(3, from_bridge, 8), 2, &[1]);
    crowd.exchange(500)?;
    crowd.must_have_no_strays()?;
    let own = "10.0.0.10".parse()?;
    let announcement = arp((BROADCAST, mac(0)), 1, (mac(0), own), ([0; 6], own), None);
    crowd.station(0)?.send([announcement.as_slice()])?;
    crowd.settle()?;
    for station in [1, 2] {
        let seen = crowd.strays_of(station);
        anyhow::ensure!(seen == [announcement.clone()], "station {station} got {seen:02x?}");
    }
    anyhow::ensure!(daemon.dropped("spoofed")? == 0, "something was taken for a lie");
    crowd.leave()?;
    daemon.end().map(drop)
}
