//! The proof that the checks would see a card that reaches where nothing is mapped.

use std::time::Duration;

use anyhow::{Context, bail};
use lab::pair::Pair;
use lab::site::Site;
use lab::suite::Suite;
use lab::wait;

use crate::addressed;

/// The fault by which the model reaches for memory that nobody mapped.
const FAULT: &str = "dma-stray";

pub(crate) fn dma(suite: &mut Suite, site: &mut Site) {
    suite.check("stray-dma::is-seen-by-the-iommu-and-by-the-model", || {
        let site = site.up()?;
        addressed(site)?;
        site.no_iommu_fault()?;
        let card = site.cards.first_mut().context("no card")?;
        card.recorded_nothing()?;
        card.tell(&format!("fault {FAULT}"))?;
        wait::until("the fault in the kernel's log", Duration::from_secs(60), || {
            // Something for the card to do.
            let _ = lab::process::run(&mut site.pair.left.command(&["ping", "-c", "1", "-W", "1", Pair::GUEST]));
            Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
        })?;
        let card = site.cards.first_mut().context("no card")?;
        if card.recorded_nothing().is_ok() {
            bail!("the model recorded nothing");
        }
        Ok(())
    });
}
