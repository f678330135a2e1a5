//! Traffic through `mirach run`, or through the kernel's own bridge.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::checks::Case;
use crate::forwarder;
use crate::frames::Series;
use crate::pair::Pair;
use crate::site::{Booted, INTERFACES, Site};
use crate::suite::Suite;
use crate::traffic::{Direction, ping, tcp, wait_for_path};

/// How long a TCP stream runs.
const TCP_SECONDS: u32 = 3;

/// How many frames have to arrive in order and byte for byte.
const FRAMES: u64 = 100_000;

/// As many frames may be on their way as fit in one virtio-net ring of QEMU's default size, with room to spare.
const WINDOW: u64 = 128;

/// The checks of one point of the matrix, all with one run of mirach.
pub fn all(suite: &mut Suite, site: &mut Site, case: Case) {
    let prefix = case.name();
    suite.check(&format!("{prefix}::starts"), || case.start(site.up()?));
    suite.check(&format!("{prefix}::has-what-it-asked-for"), || case.took_effect(site.up()?));
    traffic(suite, site, &prefix, By::Mirach { queues: case.queues });
    suite.check(&format!("{prefix}::ends-on-sigterm"), || ends(site.up()?));
    suite.check(&format!("{prefix}::all-queues-were-used"), || used(site.up()?, case.queues));
}

/// Every queue of both ports carried packets, and the summary's numbers agree with each other.
fn used(site: &mut Booted, queues: u32) -> Result<()> {
    let summary = forwarder::summary(&mut site.guest)?;
    for port in summary["ports"].as_array().context("no ports")? {
        for list in ["rx_queues", "tx_queues"] {
            let packets: Vec<u64> =
                port[list].as_array().context("no queues")?.iter().filter_map(|it| it["packets"].as_u64()).collect();
            if packets.len() != usize::try_from(queues)? || packets.contains(&0) {
                bail!("{} {list} carried {packets:?} packets: {summary}", port["name"]);
            }
        }
    }
    let [received, sent] = ["rx_packets", "tx_packets"].map(|name| summary[name].as_u64().unwrap_or(0));
    let dropped: u64 = summary["drops"].as_object().context("no drops")?.values().filter_map(Value::as_u64).sum();
    if received < FRAMES + FRAMES / 10 || received != sent + dropped {
        bail!("received {received}, sent {sent}, dropped {dropped}: {summary}");
    }
    Ok(())
}

/// The same traffic through the guest's own bridge between the devices' interfaces.
pub fn kernel_bridge(suite: &mut Suite, site: &mut Site, prefix: &str) {
    suite.check(&format!("{prefix}::starts"), || {
        let site = site.up()?;
        site.guest.must("brctl addbr bridge0 && ip link set bridge0 up")?;
        for interface in INTERFACES {
            site.guest.must(&format!("brctl addif bridge0 {interface}"))?;
            site.link_up(interface)?;
        }
        wait_for_path(&site.pair.left, Pair::RIGHT)
    });
    traffic(suite, site, prefix, By::Kernel);
    suite.check(&format!("{prefix}::ends"), || {
        let guest = &mut site.up()?.guest;
        for interface in INTERFACES {
            guest.must(&format!("ip link set {interface} down && brctl delif bridge0 {interface}"))?;
        }
        guest.must("ip link set bridge0 down && brctl delbr bridge0").map(drop)
    });
}

/// What passes the traffic on in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `mirach run`, which has to run.
    Mirach {
        /// The queue pairs that it uses of each device.
        queues: u32,
    },
    /// The kernel.
    Kernel,
}

/// Pings, TCP streams and numbered frames between the namespaces.
pub fn traffic(suite: &mut Suite, site: &mut Site, prefix: &str, by: By) {
    let mut check = |name: &str, check: &dyn Fn(&mut Booted) -> Result<()>| {
        suite.check(&format!("{prefix}::{name}"), || {
            let site = site.up()?;
            if by != By::Kernel {
                forwarder::must_run(&mut site.guest)?;
            }
            check(site)
        });
    };
    check("ping-loses-nothing", &|site| {
        ping(&site.pair.left, Pair::RIGHT, 50)?;
        ping(&site.pair.right, Pair::LEFT, 50)
    });
    check("tcp-left-to-right", &|site| stream(site, Direction::Forward));
    check("tcp-right-to-left", &|site| stream(site, Direction::Reverse));
    check("frames-arrive-whole-and-in-order", &|site| {
        // Order is only promised within a flow, and one flow takes one queue. Linux picks a queue by the processor that
        // a frame happens to be on, and so promises no order at all: there each frame is a flow of its own.
        let flows = match by {
            By::Kernel => FRAMES,
            By::Mirach { queues: 1 } => 1,
            By::Mirach { .. } => 16,
        };
        let series = Series { count: FRAMES, flows, window: WINDOW, run: 1 };
        let passed = series.pass(&site.pair.left, &site.pair.right)?;
        println!("    {:.0} frames/s", FRAMES as f64 / passed.time.as_secs_f64());
        let back = Series { count: FRAMES / 10, run: 2, ..series };
        back.pass(&site.pair.right, &site.pair.left).map(drop)
    });
    check("no-iommu-fault", &Booted::no_iommu_fault);
}

fn stream(site: &mut Booted, direction: Direction) -> Result<()> {
    let bytes = tcp(&site.pair.left, &site.pair.right, Pair::RIGHT, direction, TCP_SECONDS)?;
    println!("    {:.0} Mbit/s", bytes as f64 * 8e-6 / f64::from(TCP_SECONDS));
    Ok(())
}

/// Ends mirach by a signal as systemd would, which has to be no failure.
///
/// # Errors
///
/// It is one, or a device strayed.
pub fn ends(site: &mut Booted) -> Result<()> {
    let status = forwarder::signal(&mut site.guest, "TERM")?;
    if status != 0 {
        bail!("mirach ended with status {status} after SIGTERM: {}", forwarder::log(&mut site.guest)?);
    }
    site.no_iommu_fault()
}
