//! The chips with copper ports, whose PHY the driver talks to.

use anyhow::{Context, Result, bail};
use lab::pair::Pair;
use lab::site::{Booted, INTERFACES, Site};
use lab::suite::Suite;
use lab::traffic::{ping, wait_for_path};

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    for (interface, name) in INTERFACES.into_iter().zip(["x540", "x550"]) {
        suite.check(&format!("copper::{name}-links-and-answers"), || answers(site.up()?, interface));
    }
}

fn answers(site: &mut Booted, interface: &str) -> Result<()> {
    site.link_up(interface)?;
    let printed = site.guest.must(&format!("/tools/ethtool {interface}"))?;
    // Not the kind of port: for what Linux 6.12 knows, the PHY of an X550 is an unknown one.
    let missing = ["Speed: 10000Mb/s", "Duplex: Full", "Auto-negotiation: on", "Link detected: yes"]
        .into_iter()
        .find(|word| !printed.contains(word));
    if let Some(missing) = missing {
        bail!("no `{missing}` in:\n{printed}");
    }
    site.guest.must(&format!("ip address add {}/24 dev {interface}", Pair::GUEST))?;
    let [near, _] = INTERFACES;
    let namespace = if interface == near { &site.pair.left } else { &site.pair.right };
    let result = wait_for_path(namespace, Pair::GUEST).and_then(|()| ping(namespace, Pair::GUEST, 50));
    site.guest.must(&format!("ip address flush dev {interface}"))?;
    result.with_context(|| site.guest.console())
}
