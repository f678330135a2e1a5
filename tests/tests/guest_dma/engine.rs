//! What every engine has to go through.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::checks::Interface;
use lab::suite::Suite;
use lab::wait;

use crate::site::{Booted, ENGINES, Engine, Site};

/// For all checks of the conformance suite.
const LIMIT: Duration = Duration::from_secs(400);

/// How long the driver has for noticing what happened to its engine.
const NOTICE: Duration = Duration::from_secs(60);

/// From the kernel to us, all copies, back to the kernel, and memory that is not mapped.
pub(crate) fn all(suite: &mut Suite, site: &mut Site, interface: Interface, number: usize) {
    let engine = &ENGINES[number];
    let (kind, address, name) = (engine.kind, engine.address, interface.name());
    let prefix = format!("{name}::{kind}");
    let kernel_driver = site.kernel_driver(engine);
    suite.check(&format!("{prefix}::devices-and-doctor-know-it"), || is_known(site.up()?, engine, kernel_driver));
    suite.check(&format!("{prefix}::bind"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {address}"))?;
        has_driver(site, address, "vfio-pci")?;
        // There is nothing left to be done about it.
        let told = site.guest.must("mirach doctor")?;
        ensure!(told.contains(address) && !told.contains(&bind(engine)), "{told}");
        Ok(())
    });
    suite.adopt(&format!("{prefix}::conformance"), || conformance(site.up()?, engine, name, "all"));
    suite.check(&format!("{prefix}::the-engine-copied"), || {
        let copied = site.up()?.engines[number].counter("bytes")?.iter().sum::<u64>();
        println!("    {} KiB copied", copied >> 10);
        ensure!(copied > 1 << 20, "{copied} bytes");
        Ok(())
    });
    suite.check(&format!("{prefix}::no-dma-beside-what-was-mapped"), || site.up()?.nothing_on_record());
    suite.check(&format!("{prefix}::the-kernel-has-it-again"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach unbind {address}"))?;
        has_driver(site, address, kernel_driver)?;
        site.nothing_on_record()
    });
    suite.adopt(&format!("{prefix}::conformance::strays"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {address}"))?;
        conformance(site, engine, name, "strays")
    });
    suite.check(&format!("{prefix}::strays-are-on-both-records"), || {
        let site = site.up()?;
        ensure!(!site.guest.iommu_faults()?.is_empty(), "the guest's IOMMU reported nothing");
        ensure!(site.engines[number].recorded_nothing().is_err(), "the model recorded nothing");
        Ok(())
    });
}

/// The engine is pulled out while it copies.
pub(crate) fn removal(suite: &mut Suite, site: &mut Site, interface: Interface, number: usize) {
    let engine = &ENGINES[number];
    let (kind, address, name) = (engine.kind, engine.address, interface.name());
    suite.check(&format!("{name}::{kind}::an-engine-that-is-pulled-out-is-named"), || {
        let site = site.up()?;
        site.guest.must(&format!("mirach bind {address}"))?;
        site.guest.must(&format!("start copies copy-conformance {address} {name} removal"))?;
        says(site, "copies run")?;
        site.engines[number].tell("remove all")?;
        // Its end is not waited for: to close a device that does not answer takes the kernel minutes.
        let told = says(site, "noticed: ")?;
        ensure!(told.contains(address) && !told.contains("not noticed"), "{told}");
        Ok(())
    });
}

fn conformance(site: &mut Booted, engine: &Engine, interface: &str, part: &str) -> Result<String> {
    Ok(site.guest.run(&format!("copy-conformance {} {interface} {part}", engine.address), LIMIT)?.output)
}

/// `mirach devices` lists the engine and its drivers, theirs and ours, and `mirach doctor` says what to do.
fn is_known(site: &mut Booted, engine: &Engine, kernel_driver: &str) -> Result<()> {
    let Engine { kind, address, .. } = engine;
    has_driver(site, address, kernel_driver)?;
    let devices = site.guest.must("mirach devices")?;
    let line = devices.lines().find(|line| line.contains(address)).context("it is not in the list")?;
    ensure!(line.contains(kernel_driver) && line.trim_end().ends_with(kind), "{line}");
    let told = site.guest.must("mirach doctor")?;
    ensure!(told.contains(&bind(engine)), "no `{}` in\n{told}", bind(engine));
    Ok(())
}

/// What `mirach doctor` tells the user to do with an engine that is not bound.
fn bind(engine: &Engine) -> String {
    format!("mirach bind {}", engine.address)
}

fn has_driver(site: &mut Booted, address: &str, wanted: &str) -> Result<()> {
    let driver = site.driver(address)?;
    if driver != wanted {
        bail!("{address} has the driver `{driver}`, not `{wanted}`");
    }
    Ok(())
}

/// Waits until the program that copies says a word; what it said.
fn says(site: &mut Booted, word: &str) -> Result<String> {
    wait::until(&format!("`{word}` from the program that copies"), NOTICE, || {
        let said = site.guest.must("cat /tmp/copies.log")?;
        Ok(said.contains(word).then_some(said))
    })
}
