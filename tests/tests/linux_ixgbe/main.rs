//! The stock Linux driver on the software 82599, in QEMU guests with an Intel IOMMU.
//!
//! Debian's own kernel and its module `ixgbe`, which know nothing of this project, judge the model: what they find wrong
//! with the card shows in their log, and what passes through it is real traffic. In the first guest each card's wire
//! is a tap in a namespace, as in the second one, where the kernel joins them by a bridge; the third one has cards with copper
//! ports, and in the last one a cable joins the two cards.

mod cable;
mod changes;
mod copper;
mod counters;
mod filters;
mod jumbo;
mod offloads;
mod probe;
mod stray;
mod virtual_lan;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lab::cache::Kernel;
use lab::checks::forwarding;
use lab::pair::Pair;
use lab::site::{Booted, Devices, INTERFACES, Plan, Site};
use lab::suite::Suite;
use lab::traffic::wait_for_path;

/// The card that most checks use, and which the left namespace is behind.
const CARD: &str = INTERFACES[0];

/// The kernel maps all memory for its own drivers once, instead of each buffer before it is used, which QEMU has to tell
/// the card about each time: 20 times as many frames pass.
const WITHOUT_MAPPING: &str = "iommu=pt";

/// The driver uses as many queue pairs as there are processors.
const PROCESSORS: u32 = 4;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    let plan = |devices| Plan {
        programs: &["mirach"],
        tools: &["ethtool", "ip", "iperf3", "ping"],
        processors: PROCESSORS,
        ..Plan::new(Kernel::Stock, devices)
    };
    let mut site = Site::new(plan(Devices::Ixgbe));
    probe::all(&mut suite, &mut site);
    offloads::all(&mut suite, &mut site);
    counters::all(&mut suite, &mut site);
    filters::all(&mut suite, &mut site);
    jumbo::all(&mut suite, &mut site);
    changes::all(&mut suite, &mut site);
    probe::stays_clean(&mut suite, &mut site, "taps");
    probe::self_test_offline(&mut suite, &mut site);
    stray::dma(&mut suite, &mut site);
    drop(site);
    let mut fast = Site::new(Plan { parameters: WITHOUT_MAPPING, ..plan(Devices::Ixgbe) });
    forwarding::kernel_bridge(&mut suite, &mut fast, "bridge");
    probe::stays_clean(&mut suite, &mut fast, "bridged");
    drop(fast);
    let mut copper = Site::new(plan(Devices::IxgbeCopper));
    copper::all(&mut suite, &mut copper);
    probe::stays_clean(&mut suite, &mut copper, "copper");
    drop(copper);
    let mut joined = Site::new(plan(Devices::IxgbeJoined));
    cable::all(&mut suite, &mut joined);
    virtual_lan::all(&mut suite, &mut joined);
    probe::stays_clean(&mut suite, &mut joined, "cable");
    suite.finish()
}

/// Gives the guest an address on the card, and waits until the left namespace reaches it. Done before each check that
/// needs it, so that each can run alone.
fn addressed(site: &mut Booted) -> Result<()> {
    site.link_up(CARD)?;
    // It may have the address already.
    site.guest.run(&format!("ip address add {}/24 dev {CARD} 2> /dev/null", Pair::GUEST), probe::SHORT)?;
    wait_for_path(&site.pair.left, Pair::GUEST)
}

/// The lines of the kernel's log in which it finds fault with a card, with the IOMMU, or with itself. (The driver resets a card whose link
/// goes while frames are in its rings, to be rid of them: that is no complaint.)
fn complaints(site: &mut Booted) -> Result<Vec<String>> {
    let words = [
        "fail",
        "error",
        "timed out",
        "timeout",
        "hang",
        "warning",
        "reset adapter",
        "not functional",
        "unable",
        "invalid",
        "unsupported",
        "adapter removed",
        "call trace",
        "bug:",
    ];
    let log = site.guest.must("dmesg")?;
    let mut is_link_down = false;
    let mut of_interest = |line: &str| {
        let line = line.to_lowercase();
        if line.contains("nic link is") {
            is_link_down = line.contains("nic link is down");
        }
        if is_link_down && line.ends_with("reset adapter") {
            return false;
        }
        (line.contains("ixgbe")
            || line.contains("dmar: [")
            || line.contains("netdev watchdog")
            || line.contains("call trace"))
            && words.iter().any(|word| line.contains(word))
    };
    Ok(log.lines().filter(|line| of_interest(line.trim_end())).map(str::to_owned).collect())
}

/// Fails when there are complaints.
fn no_complaint(site: &mut Booted) -> Result<()> {
    let complaints = complaints(site)?;
    if !complaints.is_empty() {
        bail!("the kernel complains:\n{}", complaints.join("\n"));
    }
    Ok(())
}
