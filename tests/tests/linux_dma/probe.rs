//! What the driver finds when it looks at the engines, and what it and the model say at the end.

use anyhow::{Result, bail};
use lab::suite::Suite;

use crate::{Booted, CHANNELS, DEVICES, Site, complaints};

/// The driver's own test copies so much.
const SELF_TEST: u64 = 2000;
/// How often the module is loaded again.
const RELOADS: u64 = 3;

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("probe::driver-binds", || binds(site.up()?));
    suite.check("probe::self-test-passes", || self_test(site.up()?));
    suite.check("probe::channels-appear", || channels(site.up()?));
    suite.check("probe::engines-say-what-they-can", || abilities(site.up()?));
    suite.check("probe::interrupts-have-vectors-of-their-own", || {
        let site = site.up()?;
        let interrupts = site.guest.must("grep ioat-msix /proc/interrupts")?;
        if interrupts.lines().count() != CHANNELS.len() {
            bail!("not one vector a channel:\n{interrupts}");
        }
        Ok(())
    });
}

/// The driver goes and comes back, and tests the engines each time.
pub(crate) fn reload(suite: &mut Suite, site: &mut Site) {
    suite.check("module::reload", || {
        let site = site.up()?;
        let before = site.counters("bytes")?;
        for _ in 0..RELOADS {
            site.unload()?;
            site.load()?;
            binds(site)?;
            channels(site)?;
        }
        let after = site.counters("bytes")?;
        for (before, after) in before.iter().zip(&after) {
            // Null descriptors move nothing.
            if after - before != RELOADS * SELF_TEST {
                bail!("{before} bytes before and {after} after {RELOADS} tests of {SELF_TEST}");
            }
        }
        Ok(())
    });
}

pub(crate) fn stays_clean(suite: &mut Suite, site: &mut Site) {
    suite.check("end::kernel-has-no-complaint", || {
        let log = site.up()?.log(0)?;
        let complaints = complaints(&log);
        if !complaints.is_empty() {
            bail!("the kernel complains:\n{}", complaints.join("\n"));
        }
        Ok(())
    });
    suite.check("end::no-iommu-fault", || site.up()?.no_iommu_fault());
    suite.check("end::model-recorded-nothing", || site.up()?.engines_recorded_nothing());
}

pub(crate) fn binds(site: &mut Booted) -> Result<()> {
    for device in DEVICES {
        let driver = site.driver(device)?;
        if driver != "ioatdma" {
            bail!("{device} has the driver `{driver}`:\n{}", site.guest.must("dmesg | grep -i ioat")?);
        }
    }
    Ok(())
}

/// The driver copies 2000 bytes with the first channel of each engine, and compares them.
fn self_test(site: &mut Booted) -> Result<()> {
    let log = site.log(0)?;
    if !log.iter().any(|line| line.contains("Intel(R) QuickData Technology Driver")) {
        bail!("the driver was not loaded");
    }
    let complaints = complaints(&log);
    if !complaints.is_empty() {
        bail!("the kernel complains:\n{}", complaints.join("\n"));
    }
    let bytes = site.counters("bytes")?;
    if bytes.iter().any(|bytes| *bytes != SELF_TEST) {
        bail!("{bytes:?} bytes were copied, not {SELF_TEST} by each");
    }
    Ok(())
}

pub(crate) fn channels(site: &mut Booted) -> Result<()> {
    let listed = site.guest.must("ls /sys/class/dma")?;
    let listed: Vec<&str> = listed.split_whitespace().collect();
    if listed != CHANNELS {
        bail!("the kernel has the channels {listed:?}");
    }
    Ok(())
}

/// What the driver read from the registers.
fn abilities(site: &mut Booted) -> Result<()> {
    for (channel, version) in [("dma0chan0", "3.4"), ("dma1chan0", "3.2")] {
        let folder = format!("/sys/class/dma/{channel}/quickdata");
        let read = site.guest.must(&format!("cat {folder}/version"))?;
        let can = site.guest.must(&format!("cat {folder}/cap"))?;
        if read.trim() != version || can.trim() != "copy intr" {
            bail!("{channel} has version {} and can `{}`", read.trim(), can.trim());
        }
    }
    Ok(())
}
