//! Cards that fail while `mirach run` uses them, and the proof that stray DMA would be seen.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::checks::Case;
use lab::checks::forwarding::ends;
use lab::checks::lifecycle::{flows, loaded};
use lab::forwarder;
use lab::pair::Pair;
use lab::site::{Booted, DEVICES, Site};
use lab::suite::Suite;
use lab::traffic::{ping, wait_for_path};
use lab::wait;

/// How long mirach has for noticing what happened to a card.
const NOTICE: Duration = Duration::from_secs(60);

/// A link that goes away and comes back, a card that resets itself, and a card that is pulled out, all under traffic.
pub(crate) fn all(suite: &mut Suite, site: &mut Site, case: Case) {
    let prefix = format!("{}::faults", case.interface.name());
    suite.check(&format!("{prefix}::link-flaps-under-load"), || {
        loaded(site.up()?, case, |site| {
            for _ in 0..3 {
                tell(site, "link down")?;
                stands(site)?;
                tell(site, "link up")?;
                flows(site)?;
            }
            ends(site)
        })
    });
    suite.check(&format!("{prefix}::a-card-that-resets-itself-is-recovered-under-load"), || {
        loaded(site.up()?, case, |site| {
            tell(site, "fault reset-spontaneous")?;
            tell(site, "fault none")?;
            wait_for_path(&site.pair.left, Pair::RIGHT)?;
            flows(site)?;
            ends(site)
        })
    });
    suite.check(&format!("{prefix}::surprise-removal-under-load-is-a-clean-error"), || {
        loaded(site.up()?, case, |site| {
            tell(site, "fault removed")?;
            removed(site)
        })
    });
    suite.check(&format!("{prefix}::a-card-that-is-back-works-again"), || {
        let site = site.up()?;
        tell(site, "fault none")?;
        case.start(site)?;
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ends(site)
    });
    suite.check(&format!("{prefix}::model-recorded-nothing"), || site.up()?.models_recorded_nothing());
}

/// DMA to an address that nothing is mapped at shows up in the kernel's log and in the model's record.
pub(crate) fn stray_dma(suite: &mut Suite, site: &mut Site, case: Case) {
    suite.check(&format!("{}::stray-dma-is-seen", case.interface.name()), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {}", DEVICES.join(" ")))?;
        case.start(site)?;
        site.no_iommu_fault()?;
        site.models_recorded_nothing()?;
        tell(site, "fault dma-stray")?;
        wait::until("the fault in the kernel's log", NOTICE, || {
            // Something for the card to do.
            let _ = ping(&site.pair.left, Pair::RIGHT, 1);
            Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
        })?;
        if site.models_recorded_nothing().is_ok() {
            bail!("the model recorded nothing");
        }
        forwarder::clean_up(&mut site.guest)
    });
}

/// Tells the left card.
fn tell(site: &mut Booted, line: &str) -> Result<()> {
    site.cards.first_mut().context("no card")?.tell(line)
}

/// Waits until nothing passes any more.
fn stands(site: &mut Booted) -> Result<()> {
    let namespace = &site.pair.right;
    wait::until("traffic that stands still", NOTICE, || {
        let before = lab::traffic::received_bytes(namespace, lab::pair::INTERFACE)?;
        std::thread::sleep(Duration::from_millis(200));
        Ok((lab::traffic::received_bytes(namespace, lab::pair::INTERFACE)? == before).then_some(()))
    })
}

/// mirach ends by itself, as failed, and names the card and what happened to it.
fn removed(site: &mut Booted) -> Result<()> {
    let status = forwarder::ended(&mut site.guest)?;
    let printed = forwarder::log(&mut site.guest)?;
    let [left, _] = DEVICES;
    if status != 1 || !printed.contains(left) || !printed.contains("removed") || printed.contains("panicked") {
        bail!("status {status}, and no word of {left} being removed: {printed}");
    }
    site.no_iommu_fault()
}
