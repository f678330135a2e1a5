//! Two virtio-net cards in this process, driven by the real driver: a forwarder's work with no hardware.
//!
//! The cards are software models on a thread of their own. Each card's wire makes numbered, stamped frames as long as the card
//! has buffers for them, and checks what the card's driver sends. A card with full rings makes the wire wait; so whatever is
//! missing in the end was lost by the forwarder.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::port::nic::{self, NicPort};
use dataplane::port::open::BUFFER_ROOM;
use dataplane::port::{Port, PortKind};
use drivers::nic::{Config as NicConfig, MacAddress};
use drivers::virtio::{Config as DriverConfig, RingChoice, VirtioNet};
use hugemem::{HEADROOM, Iova, Region};
use models::WallClock;
use models::virtio_net::{
    self as card, Control, Device, Features, Incoming, Outgoing, Traffic, TrafficCounters, TrafficPlan, Wire,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Buffers of a queue pair: its full receive ring, as many in the other card's transmit ring, and as many on the way.
const BUFFERS: usize = 1024;
/// Empty polls after which the cards' thread lets others run.
const PATIENCE: u32 = 200;

/// What the cards are to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Bytes of a frame.
    pub(crate) frame_bytes: u16,
    /// Queue pairs of each card.
    pub(crate) queues: u16,
    /// Frames on their way in each direction at most; 0 fills all rings.
    pub(crate) window: u64,
    /// Ring format.
    pub(crate) ring: RingChoice,
    /// Whether the second card's wire makes frames too.
    pub(crate) both_ways: bool,
    /// Core for the cards' thread.
    pub(crate) core: Option<usize>,
}

/// A wire whose source can be shut.
struct Gate {
    traffic: Traffic,
    open: Arc<AtomicBool>,
}

impl Wire for Gate {
    #[inline]
    fn peek(&mut self) -> Option<Incoming<'_>> {
        if self.open.load(Ordering::Relaxed) { self.traffic.peek() } else { None }
    }

    #[inline]
    fn advance(&mut self) {
        self.traffic.advance();
    }

    #[inline]
    fn transmit(&mut self, frame: &Outgoing<'_>) -> bool {
        self.traffic.transmit(frame)
    }

    fn begin(&mut self) {
        self.traffic.begin();
    }
}

/// The cards' side: their thread and what it counts.
pub(crate) struct Cards {
    thread: Option<JoinHandle<()>>,
    open: Arc<AtomicBool>,
    end: Arc<AtomicBool>,
    /// Counters of the two wires.
    pub(crate) wires: [Arc<TrafficCounters>; 2],
    controls: [Control; 2],
}

impl Cards {
    /// Makes two cards and lets the driver take them. The wires are silent until [`Cards::begin`].
    pub(crate) fn plug(plan: Plan) -> anyhow::Result<(Self, Vec<Port>)> {
        let flows = TrafficPlan {
            frame_bytes: plan.frame_bytes.into(),
            flows: 64,
            window: plan.window,
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
        let open = Arc::new(AtomicBool::new(false));
        let make = |name: &str, traffic: Traffic, last: u8| {
            let features = match plan.ring {
                RingChoice::Split => card::Config::USUAL,
                _ => card::Config::USUAL | Features::RING_PACKED,
            };
            let config = card::Config {
                name: name.to_owned(),
                pairs: plan.queues,
                features,
                mac: MacAddress([0x52, 0x54, 0, 0, 0, last]),
                vectors: plan.queues.saturating_mul(2).saturating_add(2),
                ..card::Config::default()
            };
            card::new(config, Gate { traffic, open: Arc::clone(&open) })
        };
        let (left, left_card) = make("card0", first, 1);
        let (right, right_card) = make("card1", second, 2);
        let controls = [left_card.control(), right_card.control()];
        let end = Arc::new(AtomicBool::new(false));
        let thread = {
            let (end, core) = (Arc::clone(&end), plan.core);
            std::thread::Builder::new()
                .name("cards".to_owned())
                .spawn(move || play(left_card, right_card, core, &end))
                .context("cannot start a thread for the cards")?
        };
        let cards = Self { thread: Some(thread), open, end, wires, controls };

        let driver = DriverConfig {
            nic: NicConfig { queue_pairs: plan.queues, interrupts: true, ..NicConfig::default() },
            ring: plan.ring,
        };
        let pools = usize::from(plan.queues) * 2;
        let bytes = 2 * driver.ring_memory() + pools * (BUFFERS * (BUFFER_ROOM + HEADROOM) + 4096) + (1 << 20);
        let region = Region::on_heap(bytes, Iova::new(1 << 30)).context("cannot allocate packet memory")?;
        let mut ports = Vec::with_capacity(2);
        for (name, function) in [("card0", left), ("card1", right)] {
            let pools =
                (0..plan.queues).map(|_| region.packets(BUFFERS, BUFFER_ROOM)).collect::<Result<Vec<_>, _>>()?;
            let clock = Arc::new(WallClock::default());
            let nic = VirtioNet::open(function, clock, &region, pools, driver.clone())?;
            let details = format!("driver virtio-net ring {}", nic.summary().ring);
            let NicPort { queues, control, mac, notices } = nic::open(name, nic, true, details)?;
            ports.push(Port { name: name.to_owned(), kind: PortKind::Nic, mac: Some(mac), queues, control, notices });
        }
        Ok((cards, ports))
    }

    /// Lets the wires make frames.
    pub(crate) fn begin(&self) {
        self.open.store(true, Ordering::Release);
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
        self.open.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + limit;
        // A frame may be counted as made just after the gate was shut, so two equal readings in a row are wanted.
        let mut settled = 0;
        while settled < 2 && Instant::now() < deadline {
            settled = if self.made() == self.seen() { settled + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the cards hold against the driver: broken rules and accesses outside its memory. To be asked after the ports
    /// have stopped.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for (number, control) in self.controls.iter().enumerate() {
            complaints.extend(control.violations().into_iter().map(|text| format!("card{number}: {text}")));
            let faults = control.fault_count();
            if faults > 0 {
                complaints.push(format!("card{number}: {faults} accesses outside the memory that was mapped for it"));
            }
        }
        complaints
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

/// The cards at work, until they are to end.
fn play(mut left: Device<Gate>, mut right: Device<Gate>, core: Option<usize>, end: &AtomicBool) {
    if let Some(core) = core.filter(|core| *core < CpuSet::MAX_CPU) {
        let mut cores = CpuSet::new();
        cores.set(core);
        // Where it may not run there, it runs elsewhere: slower, not wrong.
        let _ = sched_setaffinity(None, &cores);
    }
    let mut idle = 0_u32;
    while !end.load(Ordering::Relaxed) {
        let work = [left.poll(), right.poll()];
        if !work.iter().all(|work| work.is_idle()) {
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
