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

/// A link that goes away and comes back, and a card that resets itself, both under traffic.
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
    suite.check(&format!("{prefix}::model-recorded-nothing"), || site.up()?.models_recorded_nothing());
}

/// A card that is pulled out under traffic. In a guest of its own, as the card is gone for good.
pub(crate) fn removal(suite: &mut Suite, site: &mut Site, case: Case) {
    suite.check(&format!("{}::faults::surprise-removal-under-load-is-a-clean-error", case.interface.name()), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {}", DEVICES.join(" ")))?;
        loaded(site, case, |site| {
            tell(site, "fault removed")?;
            reports_removal(site)
        })
    });
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

/// mirach names the card and what happened to it. Its end is not waited for: to close a device that does not answer takes
/// the kernel more than two minutes.
fn reports_removal(site: &mut Booted) -> Result<()> {
    let [left, _] = DEVICES;
    let printed = wait::until("word of the removal", NOTICE, || {
        let printed = forwarder::log(&mut site.guest)?;
        let told = printed.lines().any(|line| line.contains(left) && line.contains("removed"));
        Ok(told.then_some(printed))
    })
    .with_context(|| forwarder::log(&mut site.guest).unwrap_or_default())?;
    if printed.contains("panicked") {
        bail!("it panicked: {printed}");
    }
    site.no_iommu_fault()
}
