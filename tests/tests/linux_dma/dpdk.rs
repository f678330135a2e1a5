//! DPDK's driver on the engines: its own test of copy engines, through the kernel's real VFIO.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lab::suite::Suite;

use crate::{Booted, DEVICES, Site};

/// Completions come some time after the copies. The guest's processors are emulated, and slower than an engine that is not: DPDK's driver
/// (22.11) loses count of a completion that comes between its recovery of a channel and its next look, for which no real engine is fast enough.
pub(crate) const SLOW: &str = "complete-late@0+";

/// For the whole test.
const LIMIT: Duration = Duration::from_secs(400);

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("dpdk::autotest-passes", || autotest(site.up()?));
    suite.check("dpdk::model-recorded-only-what-the-test-does-on-purpose", || records(site.up()?));
}

/// Copies and fills of all kinds on both engines. On the first one, whose version is 3.4, also copies from address 0 in the middle of batches, and
/// recovery from them.
fn autotest(site: &mut Booted) -> Result<()> {
    for device in DEVICES {
        let folder = format!("/sys/bus/pci/devices/{device}");
        site.guest.must(&format!(
            "echo vfio-pci > {folder}/driver_override && echo {device} > /sys/bus/pci/drivers_probe && \
             readlink {folder}/driver | grep -q vfio-pci"
        ))?;
    }
    site.guest.must("mkdir -p /var/run && echo 128 > /proc/sys/vm/nr_hugepages")?;
    let [first, second] = DEVICES;
    let line = format!(
        "DPDK_TEST=dmadev_autotest /tools/dpdk-test --iova-mode=va --no-telemetry -l 0,1 -a {first} -a {second} \
         < /dev/null"
    );
    let answer = site.guest.run(&line, LIMIT)?;
    // It counts in place.
    let lines: Vec<&str> =
        answer.output.split(['\n', '\r']).filter(|line| !line.starts_with("Ops submitted")).collect();
    let says = |words: &str| lines.iter().any(|line| line.contains(words));
    let instances = [first, second].map(|device| format!("[{device}]"));
    let expected = ["Running error handling", "Running fill", "Test OK"].into_iter();
    for words in expected.chain(instances.iter().map(String::as_str)) {
        if answer.status != 0 || !says(words) {
            bail!("status {}, or no `{words}`:\n{}", answer.status, lines.join("\n"));
        }
    }
    Ok(())
}

/// It read at address 0, where nothing is mapped, and nowhere else.
fn records(site: &mut Booted) -> Result<()> {
    let mut refused = 0;
    for engine in &mut site.engines {
        let shown = engine.show()?;
        let card = &shown["cards"][0];
        let faults = card["dma_faults"].as_array().context("no dma_faults")?;
        let on_purpose =
            |fault: &serde_json::Value| fault.as_str().is_some_and(|fault| fault.ends_with(" at IOVA 0x0"));
        if !faults.iter().all(on_purpose) || card["violations"].as_array().is_none_or(|list| !list.is_empty()) {
            bail!("the model recorded {card:#}");
        }
        refused += faults.len();
    }
    println!("    {refused} reads at address 0 refused");
    if refused == 0 {
        bail!("nothing was refused: the test of errors did not run");
    }
    Ok(())
}
