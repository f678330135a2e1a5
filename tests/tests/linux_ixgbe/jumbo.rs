//! Frames of up to 9000 bytes of payload.

use anyhow::{Result, bail};
use lab::ethtool;
use lab::pair::{INTERFACE, Pair};
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, tcp_to_guest, wait_for_path};

use crate::offloads::ping_from_guest;
use crate::probe::{SHORT, nothing_lost};
use crate::{CARD, addressed};

/// The largest payload that is tried, and the largest echo request in it (without IPv4's and ICMP's headers).
const JUMBO: &str = "9000";
const JUMBO_ECHO: u32 = 8972;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
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

fn mtu(site: &mut Booted, bytes: &str) -> Result<()> {
    site.pair.left.ip(&["link", "set", INTERFACE, "mtu", bytes])?;
    site.guest.must(&format!("/tools/ip link set {CARD} mtu {bytes}"))?;
    site.wait_for_link(CARD, true)
}

fn jumbo(site: &mut Booted) -> Result<()> {
    wait_for_path(&site.pair.left, Pair::GUEST)?;
    let before = ethtool::counters(&mut site.guest, CARD)?;
    // Not in pieces: one frame each.
    ping_from_guest(site, &format!("-c 50 -M do -s {JUMBO_ECHO}"), Pair::LEFT)?;
    ping_from_guest(site, "-c 10 -M do -s 4000", Pair::LEFT)?;
    for direction in [Direction::Forward, Direction::Reverse] {
        let bytes = tcp_to_guest(&site.pair.left, &mut site.guest, Pair::GUEST, direction, 2, 1)?;
        println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / 2.0);
    }
    nothing_lost(site, &before)?;
    let refused =
        site.guest.run(&format!("/tools/ping -n -q -c 1 -M do -s {} {}", JUMBO_ECHO + 1, Pair::LEFT), SHORT)?;
    if refused.status == 0 {
        bail!("a frame beyond the MTU was answered: {}", refused.output);
    }
    Ok(())
}
