//! Engines that fail: the checks above would see it, and the driver recovers from the model as it does from hardware.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::card::Card;
use lab::suite::Suite;
use lab::wait;

use crate::copies::Run;
use crate::{Booted, DEVICES, Site, probe};

/// One channel of each engine.
const EACH: [&str; 2] = ["dma0chan0", "dma1chan0"];
const SMALL: Run<'_> = Run { channels: &EACH, threads: 1, copies: 50, bytes: 4 << 10, patience: 3 };

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    for (fault, words) in [
        ("copy-wrong@0+", "Self-test copy failed compare"),
        ("channels-none", "channel enumeration error"),
        ("reset-never-done", "Failed to reset"),
    ] {
        let (name, _) = fault.split_once('@').unwrap_or((fault, ""));
        suite.check(&format!("faults::{name}-fails-the-self-test"), || fails_probe(site.up()?, fault, words));
    }
    for (fault, words) in [
        // The driver handles these two as they happen, and takes whatever is under way as failed.
        ("error-read@20", ""),
        ("copy-partial@20", ""),
        // It notices these when nothing was completed for a while.
        ("hang@20", "Reset channel..."),
        ("halt-silent@20", "Channel halted"),
    ] {
        let (name, _) = fault.split_once('@').unwrap_or((fault, ""));
        suite.check(&format!("faults::driver-recovers-from-{name}"), || recovers(site.up()?, fault, words));
    }
    suite.check("faults::late-and-gathered-completions-are-no-failure", || {
        let site = site.up()?;
        tell(site, "complete-late@random:1:100,complete-burst@random:2:100")?;
        let failures = SMALL.start(site)?;
        tell(site, "none")?;
        if failures != 0 {
            bail!("{failures} copies failed");
        }
        Ok(())
    });
    suite.check("stray-dma::is-seen-by-the-iommu-and-by-the-model", || stray(site.up()?));
}

fn tell(site: &mut Booted, fault: &str) -> Result<()> {
    for engine in &mut site.engines {
        engine.tell(&format!("fault {fault}"))?;
        // It has heard when it answers.
        engine.show()?;
    }
    Ok(())
}

/// The driver gives the engines up, says why, and takes them again when they are right.
fn fails_probe(site: &mut Booted, fault: &str, words: &str) -> Result<()> {
    site.unload()?;
    let since = site.mark()?;
    tell(site, fault)?;
    site.load()?;
    let log = site.log(since)?;
    let drivers = DEVICES.map(|device| site.driver(device));
    tell(site, "none")?;
    site.unload()?;
    site.load()?;
    for device in DEVICES {
        for words in [words, "Intel(R) I/OAT DMA Engine init failed"] {
            if !log.iter().any(|line| line.contains(device) && line.contains(words)) {
                bail!("no `{words}` of {device} in\n{}", log.join("\n"));
            }
        }
    }
    for driver in drivers {
        if driver? == "ioatdma" {
            bail!("the driver keeps an engine that failed its test");
        }
    }
    probe::binds(site)?;
    probe::channels(site)
}

/// Copies fail while the fault is there, and none do once the driver has recovered the channel.
fn recovers(site: &mut Booted, fault: &str, words: &str) -> Result<()> {
    let since = site.mark()?;
    tell(site, fault)?;
    let failures = SMALL.start(site)?;
    tell(site, "none")?;
    let log = site.log(since)?;
    if failures == 0 {
        bail!("no copy failed:\n{}", log.join("\n"));
    }
    if !log.iter().any(|line| line.contains(words)) {
        bail!("no `{words}` in\n{}", log.join("\n"));
    }
    println!("    {failures} copies failed");
    let failures = SMALL.start(site)?;
    if failures != 0 {
        bail!("{failures} copies failed after the engine had become honest:\n{}", site.log(since)?.join("\n"));
    }
    site.engines_recorded_nothing()
}

/// The proof that the checks would see an engine that reaches where nothing is mapped.
fn stray(site: &mut Booted) -> Result<()> {
    site.no_iommu_fault()?;
    site.engines_recorded_nothing()?;
    tell(site, "dma-stray@0+")?;
    SMALL.start(site)?;
    wait::until("the fault in the kernel's log", Duration::from_secs(60), || {
        Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
    })?;
    if site.engines.iter_mut().map(Card::recorded_nothing).any(|recorded| recorded.is_ok()) {
        bail!("a model recorded nothing");
    }
    Ok(())
}
