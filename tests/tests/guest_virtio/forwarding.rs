//! Traffic through `mirach run`, for each kind of ring, number of queues and VFIO interface.

use anyhow::{Context, Result, bail};
use lab::forwarder::{self, User};
use lab::frames::Series;
use lab::pair::Pair;
use lab::site::{Booted, DEVICES, INTERFACES, Site};
use lab::suite::Suite;
use lab::traffic::{Direction, ping, tcp};
use serde_json::Value;

use crate::Interface;

/// One point of the matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) interface: Interface,
    pub(crate) rings: &'static str,
    pub(crate) queues: u32,
}

impl Case {
    /// The arguments of `mirach run`.
    ///
    /// One engine on the second processor: the first one is left to the guest's kernel.
    pub(crate) fn arguments(self) -> String {
        format!("{} --memory 32M --poll adaptive", self.ports())
    }

    /// Those arguments without the memory and the way of polling.
    pub(crate) fn ports(self) -> String {
        let options = format!("queues={},ring={},vfio={}", self.queues, self.rings, self.interface.name());
        let [left, right] = DEVICES.map(|device| format!("--port {device},{options}"));
        format!("{left} {right} --cores 1 --json")
    }

    /// Fails unless both ports of the running mirach are what was asked for.
    pub(crate) fn took_effect(self, site: &mut Booted) -> Result<()> {
        ports_say(site, &format!("numrxqueues {0} numtxqueues {0}", self.queues))?;
        ports_say(site, &format!("ring {} vfio {}", self.rings, self.interface.name()))
    }
}

/// How long a TCP stream runs.
const TCP_SECONDS: u32 = 3;

/// How many frames have to arrive in order and byte for byte.
const FRAMES: u64 = 100_000;

/// As many frames may be on their way as fit in one virtio-net ring of QEMU's default size, with room to spare.
const WINDOW: u64 = 128;

/// The checks of one point of the matrix, all with one run of mirach.
pub(crate) fn all(suite: &mut Suite, site: &mut Site, case: Case) {
    let prefix = format!("{}::{}-rings::{}-queue-pairs", case.interface.name(), case.rings, case.queues);
    suite
        .check(&format!("{prefix}::starts"), || forwarder::start(&mut site.up()?.guest, User::Root, &case.arguments()));
    suite.check(&format!("{prefix}::has-the-rings-and-the-interface-it-asked-for"), || case.took_effect(site.up()?));
    traffic(suite, site, &prefix, u64::from(case.queues), By::Mirach);
    suite.check(&format!("{prefix}::ends-on-sigterm"), || ends(site.up()?));
    suite.check(&format!("{prefix}::all-queues-were-used"), || used(site.up()?, case.queues));
}

/// Both ports have these words, one after the other, among their facts.
pub(crate) fn ports_say(site: &mut Booted, words: &str) -> Result<()> {
    forwarder::must_run(&mut site.guest)?;
    let facts = forwarder::facts(&mut site.guest)?;
    let wanted = format!(" {words} ");
    if facts.len() != DEVICES.len() || !facts.iter().all(|facts| format!(" {facts} ").contains(&wanted)) {
        bail!("not both ports say `{words}`: {facts:#?}");
    }
    Ok(())
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

/// Devices that offer neither packed rings nor several queues, and a run with no options.
pub(crate) fn defaults(suite: &mut Suite, site: &mut Site) {
    let prefix = "defaults::split-only";
    suite.check(&format!("{prefix}::bind"), || {
        site.up()?.guest.must(&format!("mirach bind {}", DEVICES.join(" "))).map(drop)
    });
    suite.check(&format!("{prefix}::starts"), || {
        let [left, right] = DEVICES.map(|device| format!("--port {device}"));
        forwarder::start(&mut site.up()?.guest, User::Root, &format!("{left} {right} --memory 32M"))
    });
    suite.check(&format!("{prefix}::takes-split-rings-and-the-newer-interface"), || {
        ports_say(site.up()?, "ring split vfio iommufd")
    });
    traffic(suite, site, prefix, 1, By::Mirach);
    suite.check(&format!("{prefix}::ends-on-sigterm"), || ends(site.up()?));
}

/// The same traffic through the guest's own bridge: shows that the lab loses nothing.
pub(crate) fn kernel_bridge(suite: &mut Suite, site: &mut Site) {
    suite.check("lab::bridge::starts", || {
        let guest = &mut site.up()?.guest;
        guest.must("brctl addbr bridge0 && ip link set bridge0 up")?;
        for interface in INTERFACES {
            guest.must(&format!("brctl addif bridge0 {interface} && ip link set {interface} up"))?;
        }
        Ok(())
    });
    traffic(suite, site, "lab::bridge", 2, By::Kernel);
    suite.check("lab::bridge::ends", || {
        let guest = &mut site.up()?.guest;
        for interface in INTERFACES {
            guest.must(&format!("ip link set {interface} down && brctl delif bridge0 {interface}"))?;
        }
        guest.must("ip link set bridge0 down && brctl delbr bridge0").map(drop)
    });
}

/// What passes the traffic on in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Mirach,
    Kernel,
}

fn traffic(suite: &mut Suite, site: &mut Site, prefix: &str, queues: u64, by: By) {
    let mut check = |name: &str, check: &dyn Fn(&mut Booted) -> Result<()>| {
        suite.check(&format!("{prefix}::{name}"), || {
            let site = site.up()?;
            if by == By::Mirach {
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
            By::Mirach if queues == 1 => 1,
            By::Mirach => 16,
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
pub(crate) fn ends(site: &mut Booted) -> Result<()> {
    let status = forwarder::signal(&mut site.guest, "TERM")?;
    if status != 0 {
        bail!("mirach ended with status {status} after SIGTERM: {}", forwarder::log(&mut site.guest)?);
    }
    site.no_iommu_fault()
}
