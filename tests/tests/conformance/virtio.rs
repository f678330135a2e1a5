//! Two software virtio-net cards in this process, joined by a cable.

use std::sync::Weak;

use anyhow::{Context, Result};
use drivers::nic::{MacAddress, Offloads};
use drivers::virtio::RingChoice;
use hugemem::{Iova, Region};
use lab::conformance::{Bus, Cards, Expected, Virtio};
use models::virtio_net::{self, Config, Control, Doorbells, Features, Function};

use crate::mover::Mover;

const EXPECTED: Expected = {
    const NO_TAGS: &str = "virtio-net puts tags neither in nor takes them out";
    const NO_COUNTERS: &str = "virtio-net has no counters of its own";
    Expected {
        not_offered: &[
            ("verdicts-are-given", "the cable does not carry verdicts, and the card looks at no checksum"),
            ("a-receiver-drops-and-counts-what-exceeds-its-mtu", "the MTU is the device's, and not the driver's"),
            ("tags-are-put-in", NO_TAGS),
            ("tags-are-put-in-beside-other-offloads", NO_TAGS),
            ("tags-are-taken-out", NO_TAGS),
            ("vlans-are-filtered", "the card has no VLAN filter"),
            ("the-card-counts-too", NO_COUNTERS),
            ("statistics-have-names", NO_COUNTERS),
        ],
        offloads: Offloads::all()
            .difference(Offloads::RSS)
            .difference(Offloads::VLAN_INSERT)
            .difference(Offloads::VLAN_STRIP)
            .difference(Offloads::TUNNEL_CUTTING),
        speed: Some(10_000),
        frames: 30_000,
        largest_mtu: 9000,
        is_patient: true,
    }
};

/// The rigs by name: both ring formats, on cards that poll and on cards that have to be rung.
pub(crate) fn rigs() -> [(&'static str, Cards<InProcess, Virtio>); 2] {
    let rig = |ring, features, doorbells| Cards {
        bus: InProcess { features, doorbells, cards: None, functions: [None, None], watches: Vec::new() },
        driver: Virtio(ring),
        expected: EXPECTED,
    };
    [
        ("virtio-split", rig(RingChoice::Split, Features::empty(), Doorbells::Suppressed)),
        ("virtio-packed", rig(RingChoice::Packed, Features::RING_PACKED, Doorbells::Needed)),
    ]
}

/// The bus.
pub(crate) struct InProcess {
    features: Features,
    doorbells: Doorbells,
    cards: Option<(Mover, [Control; 2])>,
    functions: [Option<Function>; 2],
    watches: Vec<(usize, Weak<()>)>,
}

impl InProcess {
    fn controls(&self) -> Result<&[Control; 2]> {
        Ok(&self.cards.as_ref().context("the cards are not there")?.1)
    }
}

impl Bus for InProcess {
    type Function = Function;

    fn prepare(&mut self) -> Result<()> {
        self.cards = None;
        self.watches.clear();
        let config = |name: &str, last| Config {
            name: name.to_owned(),
            features: Config::USUAL | Features::HASH_REPORT | self.features,
            pairs: 4,
            mtu: 9000,
            mac: MacAddress([2, 0, 0, 0, 1, last]),
            filtering: true,
            doorbells: self.doorbells,
            queue_size: 1024,
            ..Config::default()
        };
        let (left, right) = virtio_net::cable();
        let (first, mut first_card) = virtio_net::new(config("left", 1), left);
        let (second, mut second_card) = virtio_net::new(config("right", 2), right);
        let controls = [first_card.control(), second_card.control()];
        let mover = Mover::new(move || !(first_card.poll().is_idle() & second_card.poll().is_idle()));
        self.cards = Some((mover, controls));
        self.functions = [Some(first), Some(second)];
        Ok(())
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        let (region, watch) = models::watched_region(bytes, Iova::new(0x1000_0000 * (side as u64 + 1)));
        self.watches.push((side, watch));
        Ok(region)
    }

    fn function(&mut self, side: usize) -> Result<Function> {
        self.functions[side].take().context("the card is open")
    }

    fn set_link(&mut self, side: usize, up: bool) -> Result<bool> {
        self.controls()?[side].set_link(up);
        Ok(true)
    }

    fn complaints(&mut self) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        for control in self.controls()? {
            complaints.extend(control.violations());
            complaints.extend(control.faults().iter().map(|fault| format!("{fault:?}")));
        }
        Ok(complaints)
    }

    fn leftovers(&mut self) -> Result<Vec<String>> {
        let mut leftovers = Vec::new();
        for (side, control) in self.controls()?.iter().enumerate() {
            let (regions, vectors) = (control.mapped_regions(), control.enabled_vectors());
            if (regions, vectors) != (0, 0) {
                leftovers.push(format!("side {side}: {regions} maps, {vectors} interrupt vectors"));
            }
        }
        let held = self.watches.iter().filter(|(_, watch)| watch.upgrade().is_some());
        leftovers.extend(held.map(|(side, _)| format!("side {side}: its memory, of which a buffer was lost")));
        Ok(leftovers)
    }
}
