//! Two software virtio-net cards in this process, joined by a cable.

use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use drivers::nic::{self, MacAddress, Offloads};
use drivers::virtio::{self, RingChoice, VirtioNet};
use hugemem::{Iova, PacketPool, Region};
use lab::conformance::{RealTime, Rig};
use models::virtio_net::{self, Config, Control, Doorbells, Features, Function};

/// The rigs by name: both ring formats, cards that have to be rung and cards that poll.
pub(crate) fn rigs() -> [(&'static str, Virtio); 2] {
    [
        ("virtio-split", Virtio::new(RingChoice::Split, Doorbells::Suppressed)),
        ("virtio-packed", Virtio::new(RingChoice::Packed, Doorbells::Needed)),
    ]
}

/// What of the pair lives as long as its thread.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    controls: [Control; 2],
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// The rig.
pub(crate) struct Virtio {
    ring: RingChoice,
    doorbells: Doorbells,
    running: Option<Running>,
    functions: [Option<Function>; 2],
    watches: Vec<(usize, Weak<()>)>,
}

impl Virtio {
    fn new(ring: RingChoice, doorbells: Doorbells) -> Self {
        Self { ring, doorbells, running: None, functions: [None, None], watches: Vec::new() }
    }

    fn controls(&self) -> Result<&[Control; 2]> {
        Ok(&self.running.as_ref().context("the cards are not running")?.controls)
    }
}

impl Rig for Virtio {
    type Nic = VirtioNet<Function>;

    fn not_offered(&self) -> &'static [(&'static str, &'static str)] {
        const NO_TAGS: &str = "virtio-net puts tags neither in nor takes them out";
        &[
            ("verdicts-are-given", "the cable does not carry verdicts, and the card looks at no checksum"),
            ("a-receiver-drops-and-counts-what-exceeds-its-mtu", "the MTU is the device's, and not the driver's"),
            ("tags-are-put-in", NO_TAGS),
            ("tags-are-put-in-beside-other-offloads", NO_TAGS),
            ("tags-are-taken-out", NO_TAGS),
            ("vlans-are-filtered", "the card has no VLAN filter"),
            ("the-card-counts-too", "virtio-net has no counters of its own"),
            ("statistics-have-names", "virtio-net has no counters of its own"),
        ]
    }

    fn offloads(&self) -> Offloads {
        Offloads::all() - Offloads::RSS - Offloads::VLAN_INSERT - Offloads::VLAN_STRIP
    }

    fn speed(&self) -> Option<u32> {
        Some(10_000)
    }

    fn frames(&self) -> u64 {
        30_000
    }

    fn ring_memory(&self, config: &nic::Config) -> usize {
        virtio::Config { nic: config.clone(), ring: self.ring }.ring_memory()
    }

    fn memory(&mut self, side: usize, bytes: usize) -> Result<Region> {
        let (region, watch) = models::watched_region(bytes, Iova::new(0x1000_0000 * (side as u64 + 1)));
        self.watches.push((side, watch));
        Ok(region)
    }

    fn prepare(&mut self) -> Result<()> {
        self.running = None;
        self.watches.clear();
        let packed = if self.ring == RingChoice::Packed { Features::RING_PACKED } else { Features::empty() };
        let config = |name: &str, last| Config {
            name: name.to_owned(),
            features: Config::USUAL | Features::HASH_REPORT | packed,
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
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                if first_card.poll().is_idle() & second_card.poll().is_idle() {
                    std::thread::yield_now();
                }
            }
        });
        self.running = Some(Running { stop, thread: Some(thread), controls });
        self.functions = [Some(first), Some(second)];
        Ok(())
    }

    fn open(&mut self, side: usize, nic: nic::Config, memory: &Region, pools: Vec<PacketPool>) -> Result<Self::Nic> {
        let function = self.functions[side].take().context("the card is open")?;
        let config = virtio::Config { nic, ring: self.ring };
        Ok(VirtioNet::open(function, RealTime::shared(), memory, pools, config)?)
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
