//! The kernel's `idxd` on Data Streaming Accelerators: set up with `accel-config`, queues of the kernel, copies by its own test.
//!
//! The driver does not load on a processor without MOVDIR64B, and QEMU's emulated processor has none. The driver is Debian's and unchanged; a module of
//! the lab carries the instruction out in its stead (`tests/lab/direct-store.c`), so that a descriptor crosses the bus in eight pieces.
//!
//! Devices are not disabled and the module is not unloaded: this kernel (6.12.107) then follows a null pointer in `idxd_device_evl_free`, for every
//! device that has no event log.

use std::time::Duration;

use anyhow::{Result, bail};
use lab::card::Card;
use lab::suite::Suite;
use lab::wait;

use crate::copies::Run;
use crate::{Booted, DEVICES, Site, complaints};

/// What is loaded, in this order.
pub(crate) const MODULES: [&str; 3] = ["direct-store", "idxd", "dmatest"];

/// The queues: device, number, entries. Each has a group and an engine of its own.
const QUEUES: [(u32, u32, u32); 3] = [(0, 0, 16), (0, 1, 32), (1, 0, 16)];

/// The channels that the kernel makes of them.
const CHANNELS: [&str; 3] = ["dma0chan0", "dma0chan1", "dma1chan0"];

/// Where the kernel has them.
const FOLDER: &str = "/sys/bus/dsa/devices";

const SMALL: Run<'_> = Run { channels: &CHANNELS, threads: 1, copies: 40, bytes: 4 << 10, patience: 3 };

pub(crate) fn all(suite: &mut Suite, site: &mut Site) {
    suite.check("idxd::driver-binds", || binds(site.up()?));
    suite.check("idxd::devices-say-what-they-can", || abilities(site.up()?));
    suite.check("idxd::accel-config-enables-queues-of-the-kernel", || enable(site.up()?));
    let run = |channels, threads, copies, bytes| Run { channels, threads, copies, bytes, patience: 20 };
    for (name, run) in [
        ("idxd::copies-of-any-length-and-alignment", run(&CHANNELS[..], 1, 200, 16 << 10)),
        ("idxd::copies-by-several-threads-on-a-queue", run(&CHANNELS[..], 4, 50, 4 << 10)),
        ("idxd::copies-of-a-mebibyte", run(&CHANNELS[1..], 1, 20, 1 << 20)),
    ] {
        suite.check(name, || copies(site.up()?, run));
    }
    suite.check("idxd::kernel-has-no-complaint", || {
        let log = site.up()?.log(0)?;
        let complaints = complaints(&log);
        if !complaints.is_empty() {
            bail!("the kernel complains:\n{}", complaints.join("\n"));
        }
        site.up()?.no_iommu_fault()
    });
    suite.check("idxd::model-recorded-nothing", || site.up()?.engines_recorded_nothing());
    for fault in ["error-page-fault@10", "copy-partial@10", "copy-wrong@10"] {
        let (name, _) = fault.split_once('@').unwrap_or((fault, ""));
        suite.check(&format!("idxd::{name}-is-seen"), || is_seen(site.up()?, fault));
    }
    suite.check("idxd::late-and-reversed-records-are-no-failure", || {
        let site = site.up()?;
        tell(site, "fault complete-late@random:1:100,complete-reverse@random:2:100")?;
        let copied = copies(site, SMALL);
        tell(site, "fault none")?;
        copied
    });
    suite.check("idxd::an-error-without-a-record-is-logged", || software_error(site.up()?));
    suite.check("idxd::stray-dma-is-seen-by-the-iommu-and-by-the-model", || stray(site.up()?));
}

fn binds(site: &mut Booted) -> Result<()> {
    for device in DEVICES {
        let driver = site.driver(device)?;
        if driver != "idxd" {
            bail!("{device} has the driver `{driver}`:\n{}", site.guest.must("dmesg | tail -n 30")?);
        }
    }
    let stores = site.guest.must("cat /sys/module/direct_store/parameters/stores")?;
    println!("    {} descriptors were written by the missing instruction", stores.trim());
    Ok(())
}

/// What the driver read from the registers.
fn abilities(site: &mut Booted) -> Result<()> {
    for (device, version, longest) in [("dsa0", "0x100", 1_u64 << 31), ("dsa1", "0x200", 1 << 21)] {
        for (name, value) in [
            ("version", version),
            ("max_work_queues", "8"),
            ("max_groups", "4"),
            ("max_engines", "4"),
            ("max_work_queues_size", "128"),
            ("max_batch_size", "1024"),
            ("configurable", "1"),
            ("state", "disabled"),
            ("max_transfer_size", &longest.to_string()),
        ] {
            let read = site.guest.must(&format!("cat {FOLDER}/{device}/{name}"))?;
            if read.trim() != value {
                bail!("{name} of {device} is {}, not {value}", read.trim());
            }
        }
    }
    Ok(())
}

/// With `accel-config`, as an administrator does. Older versions of it cannot name the driver of a queue, which newer kernels want.
fn enable(site: &mut Booted) -> Result<()> {
    for (device, queue, entries) in QUEUES {
        let name = format!("dsa{device}/wq{device}.{queue}");
        site.guest.must(&format!(
            "/tools/accel-config config-engine dsa{device}/engine{device}.{queue} --group-id={queue} && \
             /tools/accel-config config-wq {name} --group-id={queue} --mode=dedicated --type=kernel --name=copies{queue} \
             --priority=10 --wq-size={entries} && \
             echo dmaengine > {FOLDER}/wq{device}.{queue}/driver_name"
        ))?;
    }
    for device in 0..2 {
        let answer = site.guest.must(&format!("/tools/accel-config enable-device dsa{device} 2>&1"))?;
        println!("    {}", answer.trim());
    }
    for (device, queue, _) in QUEUES {
        let answer = site.guest.must(&format!("/tools/accel-config enable-wq dsa{device}/wq{device}.{queue} 2>&1"))?;
        println!("    {}", answer.trim());
        let state = site.guest.must(&format!("cat {FOLDER}/wq{device}.{queue}/state"))?;
        if state.trim() != "enabled" {
            bail!("queue {queue} of device {device} is {}", state.trim());
        }
    }
    let listed = site.guest.must("ls /sys/class/dma")?;
    let listed: Vec<&str> = listed.split_whitespace().collect();
    if listed != CHANNELS {
        bail!("the kernel has the channels {listed:?}");
    }
    Ok(())
}

fn copies(site: &mut Booted, run: Run<'_>) -> Result<()> {
    let before = site.counters("bytes")?.iter().sum::<u64>();
    let failures = run.start(site)?;
    if failures != 0 {
        bail!("{failures} copies failed:\n{}", site.guest.must("dmesg | grep dmatest | tail -n 20")?);
    }
    let copied = site.counters("bytes")?.iter().sum::<u64>() - before;
    println!("    {} KiB copied", copied >> 10);
    Ok(())
}

fn tell(site: &mut Booted, word: &str) -> Result<()> {
    for device in &mut site.engines {
        device.tell(word)?;
        // It has heard when it answers.
        device.show()?;
    }
    Ok(())
}

/// The kernel's test finds bytes that are wrong; the driver goes on.
fn is_seen(site: &mut Booted, fault: &str) -> Result<()> {
    tell(site, &format!("fault {fault}"))?;
    let failures = SMALL.start(site)?;
    tell(site, "fault none")?;
    if failures == 0 {
        bail!("no copy failed");
    }
    println!("    {failures} copies failed");
    copies(site, SMALL)
}

/// A completion record that cannot be written: SWERR, the first vector, and four words in the log.
fn software_error(site: &mut Booted) -> Result<()> {
    let since = site.mark()?;
    tell(site, "fault error-record-page-fault@10")?;
    let failures = SMALL.start(site)?;
    tell(site, "fault none")?;
    let log = site.log(since)?;
    if failures == 0 || !log.iter().any(|line| line.contains("idxd") && line.contains("err[0]")) {
        bail!("{failures} copies failed, and no error in\n{}", log.join("\n"));
    }
    Ok(())
}

/// The proof that the checks would see a device that reaches where nothing is mapped.
fn stray(site: &mut Booted) -> Result<()> {
    site.no_iommu_fault()?;
    tell(site, "fault dma-stray@0+")?;
    SMALL.start(site)?;
    wait::until("the fault in the kernel's log", Duration::from_secs(60), || {
        Ok((!site.guest.iommu_faults()?.is_empty()).then_some(()))
    })?;
    if site.engines.iter_mut().map(Card::recorded_nothing).any(|recorded| recorded.is_ok()) {
        bail!("a model recorded nothing");
    }
    Ok(())
}
