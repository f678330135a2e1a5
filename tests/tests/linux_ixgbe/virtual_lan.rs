//! VLAN tags, put in and taken out by the card or by the kernel, at each end of a cable.

use anyhow::{Context, Result, bail};
use lab::site::{Booted, INTERFACES, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, tcp_in_guest};

use crate::cable::{AT_FAR_END, answers, joined};
use crate::offloads::ping_from_guest;

/// Two VLANs, with the addresses of the two ends in the first one.
const VLAN: u16 = 77;
const NEAR: &str = "10.78.0.1";
const FAR: &str = "10.78.0.2";

/// The card at one end does the work, or the kernel: whoever does it, the other end has to understand.
pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    for (near, far) in [("on", "on"), ("on", "off"), ("off", "on")] {
        suite.check(&format!("vlan::offload-{near}-to-offload-{far}"), || {
            let site = site.up()?;
            joined(site)?;
            join(site, near, far)?;
            let before = tags(site)?;
            let result = traffic(site);
            let after = tags(site)?;
            leave(site)?;
            result?;
            // The cards have put tags in and taken tags out where they were asked to, and nowhere else.
            let busy: Vec<bool> = after.iter().zip(&before).map(|(after, before)| after > before).collect();
            let [near, far] = [near == "on", far == "on"];
            if busy != [near, far, near, far] {
                bail!("tags put in and taken out went from {before:?} to {after:?}");
            }
            Ok(())
        });
    }
}

/// Makes an interface for the VLAN at each end, with the card's help at those ends where it is on.
fn join(site: &mut Booted, near_offload: &str, far_offload: &str) -> Result<()> {
    let [near, far] = INTERFACES;
    for (within, interface, offload, address) in [("", near, near_offload, NEAR), (AT_FAR_END, far, far_offload, FAR)] {
        let lan = format!("{interface}.{VLAN}");
        site.guest.must(&format!("{within} /tools/ethtool -K {interface} rxvlan {offload} txvlan {offload}"))?;
        site.guest.must(&format!(
            "{within} /tools/ip link add link {interface} name {lan} type vlan id {VLAN} \
             && {within} /tools/ip address add {address}/24 dev {lan} && {within} /tools/ip link set {lan} up"
        ))?;
    }
    // Switching restarts the cards.
    site.wait_for_link(near, true)?;
    answers(site, FAR)
}

fn leave(site: &mut Booted) -> Result<()> {
    for (within, interface) in ["", AT_FAR_END].into_iter().zip(INTERFACES) {
        site.guest.must(&format!("{within} /tools/ip link delete {interface}.{VLAN}"))?;
        site.guest.must(&format!("{within} /tools/ethtool -K {interface} rxvlan on txvlan on"))?;
    }
    Ok(())
}

/// Tags that the near and the far card have put in, and taken out.
fn tags(site: &mut Booted) -> Result<Vec<u64>> {
    let card = site.cards.first_mut().context("no card")?;
    Ok([card.counter("tx_tags")?, card.counter("rx_tags")?].concat())
}

fn traffic(site: &mut Booted) -> Result<()> {
    ping_from_guest(site, "-c 50", FAR)?;
    ping_from_guest(site, "-c 20 -s 1472", FAR)?;
    for direction in [Direction::Forward, Direction::Reverse] {
        let bytes = tcp_in_guest(&mut site.guest, "", AT_FAR_END, FAR, direction, 2)?;
        println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / 2.0);
    }
    Ok(())
}
