//! VLAN tags, put in and taken out by the card or by the kernel, and frames of 9000 bytes.

use anyhow::{Result, bail};
use lab::pair::{INTERFACE, Pair};
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, ping, tcp_to_guest, wait_for_path};

use crate::offloads::ping_from_guest;
use crate::probe::nothing_lost;
use crate::{CARD, addressed};

/// The VLAN, and the addresses in it of the namespace and of the guest.
const VLAN: &str = "77";
const FAR: &str = "10.78.0.1";
const NEAR: &str = "10.78.0.3";

/// The largest payload that is tried, and the largest echo request in it (without IPv4's and ICMP's headers).
const JUMBO: &str = "9000";
const JUMBO_ECHO: u32 = 8972;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    for state in ["on", "off"] {
        suite.check(&format!("vlan::traffic-with-offload-{state}"), || {
            let site = site.up()?;
            join(site)?;
            let switch = |site: &mut Booted, state: &str| {
                site.guest.must(&format!("/tools/ethtool -K {CARD} rxvlan {state} txvlan {state}"))
            };
            switch(site, state)?;
            let result = traffic(site);
            switch(site, "on")?;
            leave(site)?;
            result
        });
    }
    suite.check("jumbo::frames-of-9000-bytes", || {
        let site = site.up()?;
        addressed(site)?;
        mtu(site, JUMBO)?;
        let result = jumbo(site);
        mtu(site, "1500")?;
        result?;
        addressed(site)
    });
}

fn join(site: &mut Booted) -> Result<()> {
    addressed(site)?;
    let far = format!("{INTERFACE}.{VLAN}");
    site.pair.left.ip(&["link", "add", "link", INTERFACE, "name", &far, "type", "vlan", "id", VLAN])?;
    site.pair.left.ip(&["address", "add", &format!("{FAR}/24"), "dev", &far])?;
    site.pair.left.ip(&["link", "set", &far, "up"])?;
    let near = format!("{CARD}.{VLAN}");
    site.guest.must(&format!(
        "/tools/ip link add link {CARD} name {near} type vlan id {VLAN} && /tools/ip address add {NEAR}/24 dev {near} \
         && /tools/ip link set {near} up"
    ))?;
    wait_for_path(&site.pair.left, NEAR)
}

fn leave(site: &mut Booted) -> Result<()> {
    site.pair.left.ip(&["link", "delete", &format!("{INTERFACE}.{VLAN}")])?;
    site.guest.must(&format!("/tools/ip link delete {CARD}.{VLAN}")).map(drop)
}

fn traffic(site: &mut Booted) -> Result<()> {
    // Switching restarts the card.
    site.wait_for_link(CARD, true)?;
    wait_for_path(&site.pair.left, NEAR)?;
    let before = lab::ethtool::counters(&mut site.guest, CARD)?;
    ping(&site.pair.left, NEAR, 50)?;
    ping_from_guest(site, "-c 50 -s 1400", FAR)?;
    for direction in [Direction::Forward, Direction::Reverse] {
        tcp_to_guest(&site.pair.left, &mut site.guest, NEAR, direction, 2, 1)?;
    }
    nothing_lost(site, &before)
}

fn mtu(site: &mut Booted, bytes: &str) -> Result<()> {
    site.pair.left.ip(&["link", "set", INTERFACE, "mtu", bytes])?;
    site.guest.must(&format!("/tools/ip link set {CARD} mtu {bytes}"))?;
    site.wait_for_link(CARD, true)
}

fn jumbo(site: &mut Booted) -> Result<()> {
    wait_for_path(&site.pair.left, Pair::GUEST)?;
    let before = lab::ethtool::counters(&mut site.guest, CARD)?;
    // Not in pieces: one frame each.
    ping_from_guest(site, &format!("-c 50 -M do -s {JUMBO_ECHO}"), Pair::LEFT)?;
    ping_from_guest(site, "-c 10 -M do -s 4000", Pair::LEFT)?;
    for direction in [Direction::Forward, Direction::Reverse] {
        let bytes = tcp_to_guest(&site.pair.left, &mut site.guest, Pair::GUEST, direction, 2, 1)?;
        println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / 2.0);
    }
    nothing_lost(site, &before)?;
    let refused = site
        .guest
        .run(&format!("/tools/ping -n -q -c 1 -M do -s {} {}", JUMBO_ECHO + 1, Pair::LEFT), crate::probe::SHORT)?;
    if refused.status == 0 {
        bail!("a frame beyond the MTU was answered: {}", refused.output);
    }
    Ok(())
}
