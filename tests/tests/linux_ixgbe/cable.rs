//! Two cards joined by a cable, each in a network namespace of the guest: the kernel talks to itself through both.

use anyhow::Result;
use lab::site::{Booted, INTERFACES, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, tcp_in_guest};
use lab::wait;

use crate::offloads::ping_from_guest;
use crate::probe::SHORT;

/// Addresses of the two ends.
const NEAR: &str = "10.79.0.1";
const FAR: &str = "10.79.0.2";

/// In front of a command that is for the namespace at the far end.
pub(crate) const AT_FAR_END: &str = "/tools/ip netns exec far";

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("cable::ping", || {
        let site = site.up()?;
        joined(site)?;
        ping_from_guest(site, "-c 50", FAR)?;
        ping_from_guest(site, "-c 20 -s 20000", FAR)
    });
    suite.check("cable::tcp", || {
        let site = site.up()?;
        joined(site)?;
        for direction in [Direction::Forward, Direction::Reverse] {
            let bytes = tcp_in_guest(&mut site.guest, "", AT_FAR_END, FAR, direction, 3)?;
            println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / 3.0);
        }
        Ok(())
    });
}

/// Puts the second card into a namespace of its own, gives both ends addresses and waits until they reach each other.
pub(crate) fn joined(site: &mut Booted) -> Result<()> {
    let [near, far] = INTERFACES;
    // Done before, when another check was here first.
    if site.guest.run("ls /run/netns/far", SHORT)?.status != 0 {
        site.guest.must(&format!("/tools/ip netns add far && /tools/ip link set {far} netns far"))?;
        site.guest.must(&format!("/tools/ip address add {NEAR}/24 dev {near} && /tools/ip link set {near} up"))?;
        site.guest.must(&format!(
            "{AT_FAR_END} /tools/ip address add {FAR}/24 dev {far} && {AT_FAR_END} /tools/ip link set {far} up"
        ))?;
    }
    site.wait_for_link(near, true)?;
    answers(site, FAR)
}

/// Waits until the far end answers at this address.
pub(crate) fn answers(site: &mut Booted, address: &str) -> Result<()> {
    wait::until(&format!("an answer from {address} through the cable"), SHORT, || {
        let answer = site.guest.run(&format!("/tools/ping -n -q -W 1 -c 1 {address}"), SHORT)?;
        Ok((answer.status == 0).then_some(()))
    })
}
