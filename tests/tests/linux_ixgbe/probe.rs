//! What the driver finds when it looks at the card, and what it and the model say at the end.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::ethtool;
use lab::site::{Booted, DEVICES, INTERFACES, Site};
use lab::suite::Suite;

use crate::{CARD, addressed, no_complaint};

/// For what takes no time.
pub(crate) const SHORT: Duration = Duration::from_secs(60);

/// The driver's own waits sum up to less than 2 s a card when every answer comes at once; a card that lets it run into its
/// deadlines takes more than 10 s. Guests are slow, hence more.
const PROBE_SECONDS: f64 = 8.0;

/// The driver binds, likes what it reads, and shows it.
pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("probe::driver-binds", || binds(site.up()?));
    suite.check("probe::takes-no-deadline-of-the-driver", || probe_time(site.up()?));
    suite.check("probe::link-is-10-gigabits", || link(site.up()?));
    suite.check("probe::kernel-has-no-complaint", || no_complaint(site.up()?));
    suite.check("probe::address-is-the-cards-own", || address(site.up()?));
    suite.check("ethtool::information", || {
        let printed = site.up()?.guest.must(&format!("/tools/ethtool -i {CARD}"))?;
        contains(&printed, &["driver: ixgbe", "firmware-version: 0x", "bus-info: 0000:00:03.0"])
    });
    suite.check("ethtool::module-is-readable", || {
        let printed = site.up()?.guest.must(&format!("/tools/ethtool -m {CARD}"))?;
        contains(&printed, &["(SFP)", "Passive Cable", "Vendor name"])
    });
    suite.check("ethtool::registers-are-readable", || registers(site.up()?));
    suite.check("ethtool::memory-of-settings-is-readable", || eeprom(site.up()?));
    suite.check("ethtool::self-test-online-passes", || {
        let site = site.up()?;
        addressed(site)?;
        let answer = site.guest.run(&format!("/tools/ethtool -t {CARD} online"), SHORT)?;
        contains(&answer.output, &["PASS"])?;
        if answer.status != 0 {
            bail!("status {}: {}", answer.status, answer.output);
        }
        Ok(())
    });
}

/// The test that takes the card from its traffic: registers that keep patterns, settings, interrupts, and frames that come
/// back. It breaks rules on purpose, such as rings of any length, which the model records.
pub(crate) fn self_test_offline(suite: &mut Suite, site: &mut Site) {
    suite.check("ethtool::self-test-offline-passes", || {
        let site = site.up()?;
        // On the card whose registers all have the sizes that the datasheet gives them: shared memory keeps all bits.
        let [_, trapped] = INTERFACES;
        site.link_up(trapped)?;
        // The kernel may send while its own rings are gone for the test, and then falls over its driver; without IPv6 it has nothing to say.
        site.guest.must(&format!("echo 1 > /proc/sys/net/ipv6/conf/{trapped}/disable_ipv6"))?;
        let answer = site.guest.run(&format!("/tools/ethtool -t {trapped} offline"), Duration::from_secs(120))?;
        contains(&answer.output, &["PASS"])?;
        if answer.status != 0 {
            bail!("status {}: {}", answer.status, answer.output);
        }
        site.wait_for_link(trapped, true)
    });
}

/// After everything else: no complaint of the kernel, no DMA that strayed, and nothing that the model holds against the
/// driver.
pub(crate) fn stays_clean(suite: &mut Suite, site: &mut Site, prefix: &str) {
    suite.check(&format!("{prefix}::kernel-has-no-complaint"), || no_complaint(site.up()?));
    suite.check(&format!("{prefix}::no-iommu-fault"), || site.up()?.no_iommu_fault());
    suite.check(&format!("{prefix}::model-recorded-nothing"), || site.up()?.models_recorded_nothing());
}

fn binds(site: &mut Booted) -> Result<()> {
    for device in DEVICES {
        let driver = site.driver(device)?;
        if driver != "ixgbe" {
            bail!("{device} has the driver `{driver}`:\n{}", site.guest.must("dmesg | grep -i ixgbe")?);
        }
    }
    Ok(())
}

/// From the driver's first line in the kernel's log to its last about a card that it found.
fn probe_time(site: &mut Booted) -> Result<()> {
    let log = site.guest.must("dmesg")?;
    let times = |words: &'static str| log.lines().filter(move |line| line.contains(words)).filter_map(seconds);
    let start = times("ixgbe: Intel(R) 10 Gigabit PCI Express Network Driver").next().context("it was not loaded")?;
    let end = times("Intel(R) 10 Gigabit Network Connection").next_back().context("it found no card")?;
    println!("    {:.1} s for two cards", end - start);
    if end - start > 2.0 * PROBE_SECONDS {
        bail!("it took {:.1} s", end - start);
    }
    Ok(())
}

/// The time of a line in the kernel's log: `[    4.259780] ...`.
fn seconds(line: &str) -> Option<f64> {
    line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok()
}

fn link(site: &mut Booted) -> Result<()> {
    for interface in INTERFACES {
        site.link_up(interface)?;
        let printed = site.guest.must(&format!("/tools/ethtool {interface}"))?;
        contains(&printed, &["Speed: 10000Mb/s", "Duplex: Full", "Link detected: yes", "Port: Direct Attach Copper"])?;
        let log = site.guest.must("dmesg")?;
        if !log.lines().any(|line| line.contains(interface) && line.contains("NIC Link is Up 10 Gbps")) {
            bail!("the kernel says of no link of 10 Gbps on {interface}");
        }
    }
    Ok(())
}

/// Both cards have addresses, not those of each other, which survive `ethtool -P` (the address in the card's memory).
fn address(site: &mut Booted) -> Result<()> {
    let mut addresses = Vec::new();
    for interface in INTERFACES {
        let permanent = site.guest.must(&format!("/tools/ethtool -P {interface}"))?;
        let permanent = permanent.trim().rsplit(' ').next().unwrap_or_default().to_owned();
        let current = site.guest.must(&format!("cat /sys/class/net/{interface}/address"))?;
        if permanent != current.trim() || permanent == "00:00:00:00:00:00" {
            bail!("{interface} has the address {} and {permanent} in its memory", current.trim());
        }
        addresses.push(permanent);
    }
    addresses.dedup();
    if addresses.len() != INTERFACES.len() {
        bail!("both cards have the address {addresses:?}");
    }
    Ok(())
}

/// A dump of registers that ethtool takes apart: the link is up, and the card may be bus master.
fn registers(site: &mut Booted) -> Result<()> {
    addressed(site)?;
    let printed = site.guest.must(&format!("/tools/ethtool -d {CARD}"))?;
    contains(&printed, &["LINKS", "Link Status:", "RDH00", "TDH00", "EEC"])?;
    let link = printed.lines().find(|line| line.contains("Link Status:")).unwrap_or_default();
    if !link.trim_end().ends_with("up") {
        bail!("the link is not up by the registers: {link}");
    }
    Ok(())
}

/// The words whose sum the driver checks (82599 datasheet, 6.3.1), as ethtool reads them.
fn eeprom(site: &mut Booted) -> Result<()> {
    let printed = site
        .guest
        .must(&format!("/tools/ethtool -e {CARD} raw on offset 0 length 128 | hexdump -v -e '1/2 \"%u \"'"))?;
    let words: Vec<u16> = printed.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    if words.len() != 64 || words.iter().all(|word| *word == 0 || *word == 0xffff) {
        bail!("no settings: {printed}");
    }
    Ok(())
}

fn contains(printed: &str, words: &[&str]) -> Result<()> {
    match words.iter().find(|word| !printed.contains(**word)) {
        Some(word) => bail!("no `{word}` in:\n{printed}"),
        None => Ok(()),
    }
}

/// The counters that tell of frames that were lost or wrong.
pub(crate) fn nothing_lost(site: &mut Booted, since: &ethtool::Counters) -> Result<()> {
    let grown = ethtool::counters(&mut site.guest, CARD)?.since(since);
    let bad = grown.raised(&["error", "drop", "missed", "no_dma", "no_buffer", "timeout", "restart", "busy", "bad"]);
    // A queue that is full for a moment is no loss.
    let bad: Vec<_> = bad.into_iter().filter(|(name, _)| !matches!(*name, "tx_restart_queue" | "tx_busy")).collect();
    if !bad.is_empty() {
        bail!("{CARD} counted {bad:?}");
    }
    Ok(())
}
