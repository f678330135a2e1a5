//! Two cards in this process, driven by the real drivers: a forwarder's work with no hardware.
//!
//! The cards are software models on a thread of their own. Each card's wire makes numbered, stamped frames as long as the card
//! has buffers for them, and checks what the card's driver sends. A card with full rings makes the wire wait; so whatever is
//! missing in the end was lost by the forwarder.

use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use dataplane::port::nic::{self, NicPort};
use dataplane::port::open::BUFFER_ROOM;
use dataplane::port::{Port, PortKind};
use drivers::ixgbe::{self, Ixgbe};
use drivers::nic::{Config as NicConfig, MacAddress, Nic, NicError};
use drivers::virtio::{self, RingChoice, VirtioNet};
use hugemem::{HEADROOM, Iova, PacketPool, Region};
use models::wire::{Traffic, TrafficCounters, TrafficPlan};
use models::{WallClock, card, ixgbe as chip, virtio_net};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Buffers of a queue pair: its full receive ring, as many in the other card's transmit ring, and as many on the way.
const BUFFERS: usize = 1024;
/// Empty polls after which the cards' thread lets others run.
const PATIENCE: u32 = 200;

/// A driver, and the card that goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Driver {
    /// Intel 82599.
    Ixgbe,
    /// virtio-net with split rings.
    VirtioSplit,
    /// virtio-net with packed rings.
    VirtioPacked,
}

impl Driver {
    /// What its card is called.
    pub(crate) const fn card(self) -> &'static str {
        match self {
            Self::Ixgbe => "Intel 82599",
            Self::VirtioSplit | Self::VirtioPacked => "virtio-net",
        }
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ixgbe => "ixgbe",
            Self::VirtioSplit => "virtio-net, split ring",
            Self::VirtioPacked => "virtio-net, packed ring",
        })
    }
}

/// What the cards are to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Their driver.
    pub(crate) driver: Driver,
    /// Bytes of a frame.
    pub(crate) frame_bytes: u16,
    /// Queue pairs of each card.
    pub(crate) queues: u16,
    /// Frames on their way in each direction at most; 0 fills all rings.
    pub(crate) window: u64,
    /// Whether the second card's wire makes frames too.
    pub(crate) both_ways: bool,
    /// Core for the cards' thread.
    pub(crate) core: Option<usize>,
}

/// The device side of a card, whatever its chip.
struct Card {
    /// Moves it on; true when there was nothing to do.
    poll: Box<dyn FnMut() -> bool + Send>,
    /// What it holds against its driver.
    complaints: Complaints,
}

type Complaints = Box<dyn Fn() -> Vec<String> + Send + Sync>;

/// The cards' side: their thread and what it counts.
pub(crate) struct Cards {
    thread: Option<JoinHandle<()>>,
    end: Arc<AtomicBool>,
    /// Counters of the two wires.
    pub(crate) wires: [Arc<TrafficCounters>; 2],
    complaints: [Complaints; 2],
}

const NAMES: [&str; 2] = ["card0", "card1"];

impl Cards {
    /// Makes two cards and lets the driver take them. The wires are silent until [`Cards::begin`].
    pub(crate) fn plug(plan: Plan) -> anyhow::Result<(Self, Vec<Port>)> {
        let flows = TrafficPlan {
            frame_bytes: plan.frame_bytes.into(),
            flows: 64,
            window: plan.window,
            shut: true,
            ..TrafficPlan::default()
        };
        let back = TrafficPlan {
            source: flows.target,
            target: flows.source,
            count: if plan.both_ways { u64::MAX } else { 0 },
            ..flows
        };
        let (first, second) = Traffic::pair(flows, back);
        let wires = [first.counters(), second.counters()];
        let end = Arc::new(AtomicBool::new(false));
        let play = |cards: [Card; 2]| -> anyhow::Result<Self> {
            let [left, right] = cards;
            let complaints = [left.complaints, right.complaints];
            let (polls, core, ended) = ([left.poll, right.poll], plan.core, Arc::clone(&end));
            let thread = std::thread::Builder::new()
                .name("cards".to_owned())
                .spawn(move || play(polls, core, &ended))
                .context("cannot start a thread for the cards")?;
            Ok(Self { thread: Some(thread), end: Arc::clone(&end), wires, complaints })
        };
        let [name, other] = NAMES;
        let nic = NicConfig { queue_pairs: plan.queues, interrupts: true, ..NicConfig::default() };
        match plan.driver {
            Driver::Ixgbe => {
                let (left, left_card) = ixgbe_card(name, first, 1)?;
                let (right, right_card) = ixgbe_card(other, second, 2)?;
                // Drivers wait for their cards while they bring them up, so the cards have to be at work.
                let cards = play([left_card, right_card])?;
                let config = ixgbe::Config { nic, ..ixgbe::Config::default() };
                let open = |function, memory: &Region, pools| {
                    let clock = Arc::new(WallClock::default());
                    Ok((Ixgbe::open(function, clock, memory, pools, config.clone())?, "driver ixgbe".to_owned()))
                };
                Ok((cards, ports(plan, config.ring_memory(), [left, right], open)?))
            }
            Driver::VirtioSplit | Driver::VirtioPacked => {
                let packed = plan.driver == Driver::VirtioPacked;
                let (left, left_card) = virtio_card(name, first, 1, plan.queues, packed);
                let (right, right_card) = virtio_card(other, second, 2, plan.queues, packed);
                let cards = play([left_card, right_card])?;
                let ring = if packed { RingChoice::Packed } else { RingChoice::Split };
                let config = virtio::Config { nic, ring };
                let open = |function, memory: &Region, pools| {
                    let clock = Arc::new(WallClock::default());
                    let nic = VirtioNet::open(function, clock, memory, pools, config.clone())?;
                    let details = format!("driver virtio-net ring {}", nic.summary().ring);
                    Ok((nic, details))
                };
                Ok((cards, ports(plan, config.ring_memory(), [left, right], open)?))
            }
        }
    }

    /// Lets the wires make frames.
    pub(crate) fn begin(&self) {
        self.wires.iter().for_each(|wire| wire.open());
    }

    /// Frames made by both wires.
    pub(crate) fn made(&self) -> u64 {
        self.wires.iter().map(|wire| wire.made.load(Ordering::Acquire)).sum()
    }

    /// Frames that came out of the other card.
    pub(crate) fn seen(&self) -> u64 {
        self.wires.iter().map(|wire| wire.seen.load(Ordering::Acquire)).sum()
    }

    /// Frames that came out changed, or are of others.
    pub(crate) fn corrupt(&self) -> u64 {
        self.wires.iter().map(|wire| wire.foreign.load(Ordering::Acquire)).sum()
    }

    /// Frames that came out before or after their turn in their flow.
    pub(crate) fn reordered(&self) -> u64 {
        self.wires.iter().map(|wire| wire.disordered.load(Ordering::Acquire)).sum()
    }

    /// Makes no more frames, and waits until those on their way have arrived, at most `limit`.
    pub(crate) fn drain(&self, limit: Duration) {
        self.wires.iter().for_each(|wire| wire.shut());
        let deadline = Instant::now() + limit;
        // A frame may be counted as made just after the wire was shut, so two equal readings in a row are wanted.
        let mut settled = 0;
        while settled < 2 && Instant::now() < deadline {
            settled = if self.made() == self.seen() { settled + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the cards hold against the driver: broken rules and accesses outside its memory. To be asked after the ports
    /// have stopped.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let both = NAMES.into_iter().zip(&self.complaints);
        both.flat_map(|(name, complaints)| complaints().into_iter().map(move |text| format!("{name}: {text}")))
            .collect()
    }
}

impl Drop for Cards {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn mac(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, last])
}

/// The sentences of a card about its driver.
fn complaints(violations: Vec<String>, stray: u64) -> Vec<String> {
    let mut complaints = violations;
    if stray > 0 {
        complaints.push(format!("{stray} accesses outside the memory that was mapped for it"));
    }
    complaints
}

fn ixgbe_card(name: &str, wire: Traffic, last: u8) -> anyhow::Result<(card::Function<chip::Ixgbe>, Card)> {
    let config = chip::Config { mac: mac(last), link_delay: Duration::ZERO, ..chip::Config::default() };
    let (function, mut device) = card::new(card::Options::named(name), chip::Ixgbe::new(config), wire)?;
    let control = device.control();
    let card = Card {
        poll: Box::new(move || device.poll().is_idle()),
        complaints: Box::new(move || complaints(control.violations(), control.fault_count())),
    };
    Ok((function, card))
}

fn virtio_card(name: &str, wire: Traffic, last: u8, pairs: u16, packed: bool) -> (virtio_net::Function, Card) {
    let usual = virtio_net::Config::USUAL;
    let config = virtio_net::Config {
        name: name.to_owned(),
        pairs,
        features: if packed { usual | virtio_net::Features::RING_PACKED } else { usual },
        mac: mac(last),
        vectors: pairs.saturating_mul(2).saturating_add(2),
        ..virtio_net::Config::default()
    };
    let (function, mut device) = virtio_net::new(config, wire);
    let control = device.control();
    let card = Card {
        poll: Box::new(move || device.poll().is_idle()),
        complaints: Box::new(move || complaints(control.violations(), control.fault_count())),
    };
    (function, card)
}

/// Opens both cards as ports, with memory that they share.
fn ports<F, N>(
    plan: Plan,
    ring_memory: usize,
    functions: [F; 2],
    open: impl Fn(F, &Region, Vec<PacketPool>) -> Result<(N, String), NicError>,
) -> anyhow::Result<Vec<Port>>
where
    N: Nic + 'static,
    N::Interrupt: AsFd,
{
    let pools = usize::from(plan.queues) * 2;
    let bytes = 2 * ring_memory + pools * (BUFFERS * (BUFFER_ROOM + HEADROOM) + 4096) + (1 << 20);
    let region = Region::on_heap(bytes, Iova::new(1 << 30)).context("cannot allocate packet memory")?;
    let mut ports = Vec::with_capacity(2);
    for (name, function) in NAMES.into_iter().zip(functions) {
        let pools = (0..plan.queues).map(|_| region.packets(BUFFERS, BUFFER_ROOM)).collect::<Result<_, _>>()?;
        let (nic, details) = open(function, &region, pools)?;
        let NicPort { queues, control, mac, notices } = nic::open(name, nic, true, details)?;
        ports.push(Port { name: name.to_owned(), kind: PortKind::Nic, mac: Some(mac), queues, control, notices });
    }
    Ok(ports)
}

/// The cards at work, until they are to end.
fn play(mut polls: [Box<dyn FnMut() -> bool + Send>; 2], core: Option<usize>, end: &AtomicBool) {
    if let Some(core) = core.filter(|core| *core < CpuSet::MAX_CPU) {
        let mut cores = CpuSet::new();
        cores.set(core);
        // Where it may not run there, it runs elsewhere: slower, not wrong.
        let _ = sched_setaffinity(None, &cores);
    }
    let mut idle = 0_u32;
    while !end.load(Ordering::Relaxed) {
        let [left, right] = &mut polls;
        // Both have their turn.
        if !(left() & right()) {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        if idle < PATIENCE {
            std::hint::spin_loop();
        } else {
            // The forwarder may need this very core to go on.
            std::thread::yield_now();
        }
    }
}
