//! The generator and sink: two virtio-user ports on one core, and what goes out of one is counted where it comes in.
//!
//! Throughput is counted in windows of some milliseconds. A window in which this thread, or one that it was told to watch, had to wait for
//! its core says nothing about the device under test, and is left out; the median of the others counts.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::clock::{CycleClock, cycles};
use dataplane::port::virtio_user::Device;
use dataplane::port::{PortControl, PortQueue, RingChoice, VirtioUserSpec};
use drivers::nic::{Offloads, RxQueue, TxQueue};
use hugemem::{Batch, IovaSpace, MemoryRequest, PacketPool, Region};
use serde_json::{Value, json};

use super::frame::{self, Template};
use super::histogram::Histogram;
use super::scheduling::{Patience, Thread, pin};

/// Frames that are sent and received at a time.
const BURST: usize = 32;
/// Buffers for frames of one direction, and for reception on one port.
const BUFFERS: usize = 4096;
/// The same for large frames.
const LARGE_BUFFERS: usize = 256;
/// Bytes of a buffer for reception.
const ROOM: usize = 2048;
/// Bytes of memory for the rings of both ports.
const RINGS: usize = 8 << 20;
/// How long the device under test may take to pass the first frame.
const LINK_LIMIT: Duration = Duration::from_secs(10);
/// How long a frame may be on its way, with a bounded number of them in flight.
const LOST: Duration = Duration::from_millis(50);
/// Part of a window that a thread may have waited for its core, in thousandths.
const DIRTY: u64 = 10;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The sockets of the two ports.
    pub sockets: [String; 2],
    /// Whether this side listens there.
    pub server: bool,
    /// Ring format.
    pub ring: RingChoice,
    /// Frames go in both directions.
    pub both_ways: bool,
    /// Bytes of a frame.
    pub size: usize,
    /// Frames are large TCP segments.
    pub large: bool,
    /// Frames in flight at most; `None`: as many as go.
    pub in_flight: Option<u64>,
    /// The core to run on.
    pub core: usize,
    /// Length of a window.
    pub window: Duration,
    /// Clean windows that are wanted.
    pub clean: usize,
    /// Windows after which it is enough, clean or not.
    pub most: usize,
    /// Time before the first window.
    pub warm: Duration,
    /// Threads of the device under test.
    pub watch: Vec<Thread>,
}

/// One direction: frames out of one port and, through the device under test, into the other.
struct Direction {
    tx: Box<dyn TxQueue>,
    rx: Box<dyn RxQueue>,
    pool: PacketPool,
    template: Template,
    waiting: Batch,
    arrived: Batch,
    sends: bool,
    sent: u64,
    received: u64,
    lost: u64,
    expected: u64,
    gaps: u64,
    strangers: u64,
    next: u64,
    full: u64,
    tries: u64,
    last: u64,
}

impl Direction {
    /// Takes in what has arrived.
    #[inline]
    fn receive(&mut self, latency: &mut Histogram) -> bool {
        let count = self.rx.receive(&mut self.arrived);
        if count == 0 {
            return false;
        }
        let now = cycles();
        self.last = now;
        self.received += count as u64;
        for frame in self.arrived.iter() {
            match self.template.read(frame) {
                Some((number, time)) => {
                    self.gaps += u64::from(number != self.expected);
                    self.expected = number + 1;
                    latency.add(now.wrapping_sub(time));
                }
                None => self.strangers += 1,
            }
        }
        self.arrived.clear();
        true
    }

    /// Sends as many as go, and as `in_flight` allows.
    #[inline]
    fn send(&mut self, in_flight: Option<u64>, lost_after: u64) -> bool {
        let now = cycles();
        let mut room = self.waiting.room();
        if let Some(most) = in_flight {
            let out = self.sent - self.received.min(self.sent) + self.waiting.len() as u64;
            let out = out.saturating_sub(self.lost);
            if out >= most {
                if now.saturating_sub(self.last) > lost_after {
                    self.lost += out;
                    self.last = now;
                }
                return false;
            }
            room = room.min(usize::try_from(most - out).unwrap_or(room));
        }
        // All are taken before the first is written, so that their lines travel together.
        let before = self.waiting.len();
        for _ in 0..room {
            let Some(frame) = Template::take(&mut self.pool) else { break };
            // There is room.
            let _ = self.waiting.push(frame);
        }
        let mut made = before;
        for frame in self.waiting.as_mut_slice().get_mut(before..).unwrap_or_default() {
            if self.template.fill(frame, &mut self.pool, self.next, now).is_none() {
                break;
            }
            self.next += 1;
            made += 1;
        }
        // The pool ran dry before the others were whole.
        self.waiting.truncate(made);
        let sent = self.tx.transmit(&mut self.waiting);
        self.sent += sent as u64;
        self.tries += 1;
        self.full += u64::from(!self.waiting.is_empty());
        sent > 0
    }
}

/// What a window counted.
#[derive(Clone, Copy, Debug)]
struct Window {
    packets_per_second: f64,
    clean: bool,
}

/// Runs the plan and gives what was measured.
///
/// # Errors
/// The device under test is not there, passes nothing, or damages frames.
pub fn run(plan: &Plan) -> Result<Value> {
    pin(plan.core)?;
    let own = Thread::current();
    // From the first message on: a device that is starved answers late.
    plan.watch.iter().chain([&own]).for_each(|thread| thread.prefer(true));
    let report = Ports::open(plan).and_then(|mut ports| {
        let report = ports.measure(plan);
        let stopped = ports.close();
        let report = report?;
        stopped.map(|()| report)
    });
    // Neither this thread nor a device that only polls must hold its core between measurements.
    plan.watch.iter().chain([&own]).for_each(|thread| thread.prefer(false));
    report
}

struct Ports {
    directions: Vec<Direction>,
    controls: Vec<Box<dyn PortControl>>,
    notice: Option<String>,
    description: String,
    clock: CycleClock,
}

impl Ports {
    fn open(plan: &Plan) -> Result<Self> {
        let ring = plan.ring;
        let mut devices = Vec::new();
        for (name, socket) in ["generator0", "generator1"].into_iter().zip(&plan.sockets) {
            let spec = VirtioUserSpec { ring, server: plan.server, ..VirtioUserSpec::new(socket) };
            let offloads = if plan.large { Offloads::all() } else { Offloads::empty() };
            devices.push(Device::open(name, &spec, offloads)?);
        }
        let mut space = IovaSpace::unlimited();
        for device in &devices {
            space.intersect(&device.iova_ranges());
        }
        let (count, room) = if plan.large { (LARGE_BUFFERS, frame::PIECE) } else { (BUFFERS, ROOM) };
        let slot = |room: usize| room + 2 * hugemem::HEADROOM;
        let bytes = 2 * (count * slot(room) + BUFFERS * slot(ROOM)) + (1 << 20);
        let memory = MemoryRequest { bytes, ..MemoryRequest::default() }.allocate(&mut space)?;
        let packets = memory.region;
        let rings = MemoryRequest { bytes: RINGS, ..MemoryRequest::default() }.allocate(&mut space)?.region;
        let (mut queues, mut controls, mut description) = (Vec::new(), Vec::new(), String::new());
        for mut device in devices {
            device.map(&packets)?;
            let mut receiving = packets.packets(BUFFERS, ROOM)?;
            frame::touch(&mut receiving)?;
            let mut port = device.start(&rings, vec![receiving])?;
            description = port.control.describe();
            queues.push(port.queues.pop().context("a port has no queues")?);
            controls.push(port.control);
        }
        let (Some(second), Some(first)) = (queues.pop(), queues.pop()) else { bail!("there are two ports") };
        let PortQueue { rx: first_rx, tx: first_tx, .. } = first;
        let PortQueue { rx: second_rx, tx: second_tx, .. } = second;
        let mut directions = Vec::new();
        for (tx, rx, from, to, sends) in
            [(first_tx, second_rx, 1, 2, true), (second_tx, first_rx, 2, 1, plan.both_ways)]
        {
            let template = Template::new(from, to, plan.size, plan.large);
            directions.push(direction(&packets, (count, room), tx, rx, template, sends)?);
        }
        let clock = CycleClock::calibrate();
        Ok(Self { directions, controls, notice: memory.notice, description, clock })
    }

    /// Sends a frame now and then until one has come through in each direction.
    fn wait_for_link(&mut self) -> Result<()> {
        let start = Instant::now();
        let mut latency = Histogram::default();
        let mut next = Instant::now();
        while self.directions.iter().any(|direction| direction.received == 0) {
            if start.elapsed() > LINK_LIMIT {
                let count = |direction: &Direction| (direction.sent, direction.received);
                let counts: Vec<_> = self.directions.iter().map(count).collect();
                bail!("the device under test passes nothing: sent and received each way {counts:?}");
            }
            for direction in &mut self.directions {
                direction.receive(&mut latency);
                if Instant::now() >= next {
                    let frame = direction.template.make(&mut direction.pool, direction.next, cycles());
                    direction.next += 1;
                    // A frame that does not fit is one of many.
                    let _ = frame.map(|frame| direction.waiting.push(frame));
                    direction.sent += direction.tx.transmit(&mut direction.waiting) as u64;
                    direction.waiting.clear();
                }
                direction.tx.reclaim();
            }
            if Instant::now() >= next {
                next = Instant::now() + Duration::from_millis(20);
            }
        }
        // What is still on its way.
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            for direction in &mut self.directions {
                direction.receive(&mut latency);
            }
        }
        for direction in &mut self.directions {
            ensure!(direction.strangers == 0, "frames arrive that were not sent, or are damaged");
            direction.sent = 0;
            direction.received = 0;
            direction.gaps = 0;
            direction.expected = direction.next;
        }
        Ok(())
    }

    fn measure(&mut self, plan: &Plan) -> Result<Value> {
        let mut patience = Vec::new();
        for thread in plan.watch.iter().chain([&Thread::current()]) {
            patience.push(Patience::of(*thread)?);
        }
        self.wait_for_link()?;
        let measured = self.windows(plan, &mut patience);
        self.report(plan, &measured)
    }

    fn windows(&mut self, plan: &Plan, patience: &mut [Patience]) -> Measured {
        let lost_after = self.clock.cycles_in(LOST);
        let length = self.clock.cycles_in(plan.window);
        let mut measured = Measured::default();
        let mut latency = Histogram::default();
        let mut start = cycles();
        let mut edge = start + self.clock.cycles_in(plan.warm);
        let (mut warm, mut before, mut steps) = (false, 0, 0_u64);
        self.directions.iter_mut().for_each(|direction| direction.last = start);
        loop {
            steps += 1;
            let mut busy = false;
            for direction in &mut self.directions {
                if direction.sends {
                    busy |= direction.receive(&mut latency);
                    busy |= direction.send(plan.in_flight, lost_after);
                } else if steps.is_multiple_of(1024) {
                    direction.receive(&mut latency);
                }
            }
            let now = cycles();
            measured.idle += u64::from(!busy);
            measured.steps += 1;
            if now < edge {
                continue;
            }
            let nanoseconds = self.clock.nanoseconds(now - start).max(1);
            let received: u64 = self.directions.iter().map(|direction| direction.received).sum();
            let waited = patience.iter_mut().map(Patience::since).max().unwrap_or(0);
            let clean = waited * 1000 <= nanoseconds * DIRTY;
            if warm {
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                let packets_per_second = (received - before) as f64 * 1e9 / nanoseconds as f64;
                measured.windows.push(Window { packets_per_second, clean });
                if clean {
                    measured.latency.join(&latency);
                }
            } else {
                (measured.idle, measured.steps) = (0, 0);
                self.directions.iter_mut().for_each(|direction| (direction.full, direction.tries) = (0, 0));
            }
            warm = true;
            latency.clear();
            let clean = measured.windows.iter().filter(|window| window.clean).count();
            if clean >= plan.clean || measured.windows.len() >= plan.most {
                return measured;
            }
            before = self.directions.iter().map(|direction| direction.received).sum();
            start = cycles();
            edge = start + length;
        }
    }

    fn report(&mut self, plan: &Plan, measured: &Measured) -> Result<Value> {
        // What is still on its way.
        let end = Instant::now() + Duration::from_millis(20);
        let mut latency = Histogram::default();
        while Instant::now() < end {
            for direction in &mut self.directions {
                direction.receive(&mut latency);
                direction.tx.reclaim();
            }
        }
        let sum = |count: fn(&Direction) -> u64| self.directions.iter().map(count).sum::<u64>();
        let strangers = sum(|direction| direction.strangers);
        ensure!(strangers == 0, "{strangers} frames arrived that were not sent, or were damaged");
        let clean: Vec<f64> = rates(&measured.windows, true);
        let rates = if clean.is_empty() { rates(&measured.windows, false) } else { clean.clone() };
        let (Some(low), Some(high)) = (rates.first(), rates.last()) else { bail!("no window was counted") };
        let median = rates.get(rates.len() / 2).copied().unwrap_or_default();
        let micros = |of_thousand| {
            let cycles = measured.latency.quantile(of_thousand);
            cycles.map(|cycles| {
                let nanoseconds = u32::try_from(self.clock.nanoseconds(cycles)).unwrap_or(u32::MAX);
                f64::from(nanoseconds) / 1000.0
            })
        };
        let (full, tries) = (sum(|direction| direction.full), sum(|direction| direction.tries));
        Ok(json!({
            "mpps": median / 1e6, "low": low / 1e6, "high": high / 1e6,
            "clean_windows": clean.len(), "windows": measured.windows.len(),
            "p50_us": micros(500), "p99_us": micros(990),
            "sent": sum(|direction| direction.sent), "received": sum(|direction| direction.received),
            "gaps": sum(|direction| direction.gaps), "lost": sum(|direction| direction.lost),
            "full_percent": percent(full, tries), "idle_percent": percent(measured.idle, measured.steps),
            "size": plan.size, "port": self.description, "notice": self.notice,
        }))
    }

    /// Takes the ports down, so that the device under test is ready for the next.
    fn close(self) -> Result<()> {
        let Self { directions, controls, .. } = self;
        drop(directions);
        for mut control in controls {
            // Its queues have gone home.
            control.stop(Vec::new())?;
        }
        Ok(())
    }
}

/// What all windows gave.
#[derive(Default)]
struct Measured {
    windows: Vec<Window>,
    latency: Histogram,
    idle: u64,
    steps: u64,
}

fn rates(windows: &[Window], clean: bool) -> Vec<f64> {
    let chosen = windows.iter().filter(|window| window.clean || !clean);
    let mut rates: Vec<f64> = chosen.map(|window| window.packets_per_second).collect();
    rates.sort_by(f64::total_cmp);
    rates
}

#[expect(clippy::cast_precision_loss, reason = "a percentage")]
fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 1000.0 / whole.max(1) as f64).round() / 10.0
}

fn direction(
    packets: &Region,
    (count, room): (usize, usize),
    tx: Box<dyn TxQueue>,
    rx: Box<dyn RxQueue>,
    template: Template,
    sends: bool,
) -> Result<Direction> {
    let mut pool = packets.packets(count, room)?;
    frame::touch(&mut pool)?;
    Ok(Direction {
        tx,
        rx,
        pool,
        template,
        waiting: Batch::new(BURST),
        arrived: Batch::new(BURST),
        sends,
        sent: 0,
        received: 0,
        lost: 0,
        expected: 0,
        gaps: 0,
        strangers: 0,
        next: 0,
        full: 0,
        tries: 0,
        last: 0,
    })
}
