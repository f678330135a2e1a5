//! A link that goes and comes back, and a driver that does.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::pair::Pair;
use lab::site::{Booted, Site};
use lab::suite::Suite;
use lab::traffic::ping;
use lab::wait;

use crate::{CARD, addressed};

/// How often the module is loaded again.
const RELOADS: u32 = 3;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("link::going-and-coming-is-seen", || {
        let site = site.up()?;
        addressed(site)?;
        for _ in 0..2 {
            tell(site, "link down")?;
            site.wait_for_link(CARD, false)?;
            log_ends_with(site, "NIC Link is Down")?;
            tell(site, "link up")?;
            site.wait_for_link(CARD, true)?;
            log_ends_with(site, "NIC Link is Up 10 Gbps")?;
            addressed(site)?;
            ping(&site.pair.left, Pair::GUEST, 20)?;
        }
        Ok(())
    });
    suite.check("module::reload", || {
        let site = site.up()?;
        for time in 0..RELOADS {
            site.guest.must("rmmod ixgbe")?;
            site.guest.must("insmod /modules/ixgbe.ko")?;
            addressed(site).with_context(|| format!("after reload {time}"))?;
            ping(&site.pair.left, Pair::GUEST, 20)?;
        }
        Ok(())
    });
}

fn tell(site: &mut Booted, line: &str) -> Result<()> {
    site.cards.first_mut().context("no card")?.tell(line)
}

/// The driver's last line about the link of the card.
fn log_ends_with(site: &mut Booted, words: &str) -> Result<()> {
    wait::until(&format!("`{words}` in the kernel's log"), Duration::from_secs(30), || {
        let log = site.guest.must("dmesg")?;
        let last = log.lines().rfind(|line| line.contains(CARD) && line.contains("NIC Link is"));
        match last {
            Some(last) if last.contains(words) => Ok(Some(())),
            Some(_) => Ok(None),
            None => bail!("the kernel says nothing of the link"),
        }
    })
}
