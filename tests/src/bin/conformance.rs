//! The conformance suite on two real cards: `conformance 0000:00:03.0 0000:00:04.0 [type1|iommufd] [--list] [PART OF A NAME]...`
//!
//! Both cards are of one kind, bound to vfio-pci, and joined: what one sends, the other receives. Prints a line for each
//! check, `test kernel::NAME ... ok`, and libtest's closing line.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use drivers::bus::PciId;
use drivers::ixgbe;
use drivers::nic::Offloads;
use drivers::virtio::{self, RingChoice};
use lab::conformance::{Cards, Expected, IXGBE, Ixgbe, Kernel, Virtio, run};
use lab::suite::Suite;
use vfio::Interface;

/// QEMU's virtio-net devices on a hub, with `host_mtu=9000`.
const VIRTIO_ON_HUB: Expected = {
    // It sends on what waits at the port of the hub before what waits at the device.
    const HASTY: &str = "frames overtake each other on a hub as soon as a receiver stands still";
    const ONE_QUEUE: &str = "a device on a hub has one queue pair";
    const NO_HEADERS: &str = "frames on a hub have no header for offloads, so that the device offers none";
    const NO_TAGS: &str = "virtio-net puts tags neither in nor takes them out";
    const NO_COUNTERS: &str = "virtio-net has no counters of its own";
    Expected {
        not_offered: &[
            ("a-stalled-receiver-loses-nothing-unnamed", HASTY),
            ("an-empty-pool-stalls-and-recovers", HASTY),
            ("flows-use-all-queues-and-keep-to-one", ONE_QUEUE),
            ("both-directions-of-a-flow-hash-alike", ONE_QUEUE),
            ("the-hash-is-the-toeplitz-hash", ONE_QUEUE),
            ("every-queue-sends", ONE_QUEUE),
            ("receive-checksum-verdicts-are-true", NO_HEADERS),
            ("verdicts-are-given", NO_HEADERS),
            ("tcp-over-ipv4-is-cut-as-in-software", NO_HEADERS),
            ("tcp-over-ipv6-is-cut-as-in-software", NO_HEADERS),
            ("congestion-marks-stay-on-the-first-segment", NO_HEADERS),
            ("udp-is-cut-as-in-software", NO_HEADERS),
            ("a-receiver-drops-and-counts-what-exceeds-its-mtu", "the MTU is the device's, and not the driver's"),
            ("tags-are-put-in", NO_TAGS),
            ("tags-are-put-in-beside-other-offloads", NO_TAGS),
            ("tags-are-taken-out", NO_TAGS),
            ("vlans-are-filtered", "the driver has no VLAN filter to work with"),
            ("the-card-counts-too", NO_COUNTERS),
            ("statistics-have-names", NO_COUNTERS),
            ("the-link-goes-down-and-comes-up", "a guest cannot pull its own cable"),
        ],
        offloads: Offloads::empty(),
        speed: None,
        frames: 5000,
        largest_mtu: 9000,
        is_patient: false,
    }
};

/// 82599 cards on a cable.
const IXGBE_ON_CABLE: Expected = Expected {
    not_offered: &[("the-link-goes-down-and-comes-up", "a guest cannot pull its own cable")],
    frames: 5000,
    ..IXGBE
};

fn main() -> ExitCode {
    match try_main() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn try_main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1).peekable();
    let mut address =
        || arguments.next().context("usage: conformance PCI-ADDRESS PCI-ADDRESS [type1|iommufd] [PART]...");
    let addresses = vec![address()?.parse()?, address()?.parse()?];
    let interface =
        arguments.next_if(|word| !word.starts_with('-')).map_or(Ok(Interface::Auto), |name| name.parse())?;
    let mut suite = Suite::from(arguments);
    let mut bus = Kernel::new(addresses, interface)?;
    let id @ PciId { vendor, device, .. } = bus.id()?;
    if virtio::matches(id) {
        run(&mut suite, "kernel", &mut Cards { bus, driver: Virtio(RingChoice::Auto), expected: VIRTIO_ON_HUB });
    } else if ixgbe::matches(id) {
        run(&mut suite, "kernel", &mut Cards { bus, driver: Ixgbe, expected: IXGBE_ON_CABLE });
    } else {
        bail!("there is no driver for {vendor:04x}:{device:04x}");
    }
    Ok(suite.finish())
}
