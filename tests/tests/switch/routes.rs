//! The virtual router between networks.

use anyhow::{Context, Result, ensure};
use lab::tenants::{Crowd, Daemon, Envelope, Host, Ports, Station, Stream, mac};

/// Of the network `blue`.
const BLUE_ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0x99];
/// Of the network `red`.
const RED_ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 0x98];
const TOML: &str = r#"
[[network]]
name = "red"
routers = ["10.0.0.1/24", "fd00::1/64"]
router-mac = "02:00:00:00:00:98"
[[network]]
name = "blue"
routers = ["10.1.0.1/24", "fd01::1/64"]
router-mac = "02:00:00:00:00:99"
[[network]]
name = "alone"
routers = ["10.2.0.1/24"]
[[port]]
name = "red"
network = "red"
macs = ["52:54:00:00:00:01"]
addresses = ["10.0.0.11", "fd00::11"]
[[port]]
name = "blue"
network = "blue"
macs = ["52:54:00:00:00:02"]
addresses = ["10.1.0.11", "fd01::11"]
[[port]]
name = "free"
network = "blue"
anti-spoofing = false
[[port]]
name = "alone"
network = "alone"
macs = ["52:54:00:00:00:04"]
addresses = ["10.2.0.11"]
[[route]]
network = "red"
prefix = "10.1.0.0/24"
to = "blue"
[[route]]
network = "red"
prefix = "fd01::/64"
to = "blue"
[[route]]
network = "blue"
prefix = "10.0.0.0/24"
to = "red"
[[route]]
network = "blue"
prefix = "fd00::/64"
to = "red"
"#;
const NAMES: [&str; 4] = ["red", "blue", "free", "alone"];

struct Hosts {
    daemon: Daemon,
    red: Host,
    blue: Host,
    free: Host,
    alone: Host,
}

fn network_stacks() -> Result<Hosts> {
    let daemon = Daemon::start(Ports { machines: &[], hosts: &NAMES }, TOML, &[])?;
    let red = Host::attach(&daemon, "red", mac(1), &["10.0.0.11/24", "fd00::11/64"])?;
    let blue = Host::attach(&daemon, "blue", mac(2), &["10.1.0.11/24", "fd01::11/64"])?;
    // Its addresses are in no configuration: the router has to ask.
    let free = Host::attach(&daemon, "free", mac(3), &["10.1.0.33/24", "fd01::33/64"])?;
    let alone = Host::attach(&daemon, "alone", mac(4), &["10.2.0.11/24"])?;
    for (host, routers) in
        [(&red, ["10.0.0.1", "fd00::1"]), (&blue, ["10.1.0.1", "fd01::1"]), (&free, ["10.1.0.1", "fd01::1"])]
    {
        for router in routers {
            host.gateway(router)?;
        }
    }
    alone.gateway("10.2.0.1")?;
    Ok(Hosts { daemon, red, blue, free, alone })
}

pub(crate) fn hosts() -> Result<()> {
    let Hosts { daemon, red, blue, free, alone } = network_stacks()?;
    for router in ["10.0.0.1", "fd00::1"] {
        red.ping(router, &[]).context("the router itself")?;
    }
    for address in ["10.1.0.11", "fd01::11"] {
        let printed = red.ping(address, &["-s", "1400"])?;
        ensure!(printed.contains("ttl=63"), "not one router on the way: {printed}");
    }
    for address in ["10.0.0.11", "fd00::11"] {
        blue.ping(address, &[])?;
    }
    // The first packets may be lost while the router asks for it.
    for address in ["10.1.0.33", "fd01::33"] {
        red.ping_until_answered(address)?;
        red.ping(address, &[])?;
    }
    ensure!(red.reaches(&free, "10.1.0.33:5000")?, "no TCP to whom the router had to ask for");
    ensure!(red.reaches(&blue, "[fd01::11]:5000")?, "no TCP over IPv6");
    // There is no way but by a route.
    alone.ping("10.2.0.1", &[])?;
    alone.ping_in_vain("10.0.0.11", &[])?;
    red.ping_in_vain("10.2.0.11", &[])?;
    daemon.end().map(drop)
}

/// As `traceroute` finds a router.
pub(crate) fn expired() -> Result<()> {
    // A port whose host goes is lost.
    let Hosts { daemon, red, blue: _blue, free: _free, alone: _alone } = network_stacks()?;
    for (address, router) in [("10.1.0.11", "10.0.0.1"), ("fd01::11", "fd00::1")] {
        // It ends with 1, as nobody answers.
        let printed = red.ping_in_vain(address, &["-t", "1"])?;
        let told = printed.lines().any(|line| {
            let line = line.to_ascii_lowercase();
            line.starts_with(&format!("from {router}")) && line.contains("time") && line.contains("exceeded")
        });
        ensure!(told, "{router} does not say that the time ran out: {printed}");
        red.ping(address, &["-t", "2"])?;
    }
    daemon.end().map(drop)
}

/// One hop less, the addresses of the next link, and every other byte as it was.
pub(crate) fn every_byte() -> Result<()> {
    let daemon = Daemon::start(Ports { machines: &NAMES, hosts: &[] }, TOML, &[])?;
    let stations = (1..).zip(NAMES).map(|(number, name)| Station::attach(&daemon, name, mac(number)));
    let mut crowd = Crowd::new(stations.collect::<Result<_>>()?);
    for (id, [red, blue]) in (1..).zip([["10.0.0.11", "10.1.0.11"], ["fd00::11", "fd01::11"]]) {
        let there = Envelope::new((mac(1), red), (RED_ROUTER, blue))?;
        let seen = there.routed(BLUE_ROUTER, mac(2));
        crowd.talk(Stream { seen, ..Stream::new(id, there, 32) }, 0, &[1]);
        let back = Envelope::new((mac(2), blue), (BLUE_ROUTER, red))?;
        let seen = back.routed(RED_ROUTER, mac(1));
        crowd.talk(Stream { seen, ..Stream::new(id + 10, back, 32) }, 1, &[0]);
    }
    crowd.exchange(5000)?;
    // By the Ethernet address of a station of another network nobody is reached.
    let mut direct = Vec::new();
    Envelope::new((mac(1), "10.0.0.11"), (mac(2), "10.1.0.11"))?.udp((1, 2), &[0; 40], &mut direct)?;
    crowd.station(0)?.send(std::iter::repeat_n(direct.as_slice(), 20))?;
    daemon.wait_for_drops("no_route", 20)?;
    crowd.settle()?;
    crowd.must_have_no_strays()?;
    crowd.leave()?;
    daemon.end().map(drop)
}

/// Who is asked for is answered for here, and nobody else hears the question.
pub(crate) fn neighbours() -> Result<()> {
    let daemon = Daemon::start(Ports { machines: &["free"], hosts: &["red", "blue", "alone"] }, TOML, &[])?;
    let listener = Station::attach(&daemon, "free", mac(3))?;
    let blue = Host::attach(&daemon, "blue", mac(2), &["10.1.0.11/24", "fd01::11/64"])?;
    for router in ["10.1.0.1", "fd01::1"] {
        blue.ping(router, &[])?;
    }
    let known = blue.namespace.ip(&["neighbour", "show"])?;
    ensure!(known.matches("02:00:00:00:00:99").count() == 2, "the router's address is not known: {known}");
    let mut crowd = Crowd::new(vec![listener]);
    crowd.settle()?;
    // The kernel announces groups that it is in; nothing else is for all.
    let questions: Vec<_> = crowd.strays.iter().filter(|(_, frame)| is_question(frame)).collect();
    ensure!(questions.is_empty(), "questions were passed on: {questions:02x?}");
    // For an address that nobody is known to have, everybody is asked.
    blue.ping_in_vain("10.1.0.33", &[])?;
    crowd.settle()?;
    ensure!(
        crowd.strays.iter().any(|(_, frame)| is_question(frame)),
        "a question for somebody unknown was not passed on"
    );
    crowd.leave()?;
    daemon.end().map(drop)
}

/// ARP, or a neighbour solicitation.
fn is_question(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6]) || (frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(54) == Some(&135))
}
