//! The two ports, and the directions between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::clock::{CycleClock, cycles};
use dataplane::port::virtio_user::Device;
use dataplane::port::{PortControl, PortQueue, VirtioUserSpec};
use drivers::nic::Offloads;
use hugemem::{IovaSpace, MemoryRequest};

use super::Plan;
use super::direction::Direction;
use crate::peer_bench::frame::{self, Template};
use crate::peer_bench::histogram::Histogram;

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

pub(super) struct Ports {
    pub(super) directions: Vec<Direction>,
    controls: Vec<Box<dyn PortControl>>,
    pub(super) notice: Option<String>,
    pub(super) description: String,
    pub(super) clock: CycleClock,
}

impl Ports {
    pub(super) fn open(plan: &Plan) -> Result<Self> {
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
            let template = Template::new(from, to, plan.size, plan.large).with_flows(plan.flows);
            directions.push(Direction::new(&packets, (count, room), tx, rx, template, sends)?);
        }
        let clock = CycleClock::calibrate();
        Ok(Self { directions, controls, notice: memory.notice, description, clock })
    }

    /// Sends a frame now and then until one has come through in each direction.
    pub(super) fn wait_for_link(&mut self) -> Result<()> {
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
                    let frame = direction.template.make(&mut direction.pool, 0, direction.next, cycles());
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
        self.settle();
        self.start_over()
    }

    /// Takes in what is still on its way.
    pub(super) fn settle(&mut self) {
        let mut latency = Histogram::default();
        let end = Instant::now() + Duration::from_millis(20);
        while Instant::now() < end {
            for direction in &mut self.directions {
                direction.receive(&mut latency);
                direction.tx.reclaim();
            }
        }
    }

    /// Forgets what has passed so far.
    pub(super) fn start_over(&mut self) -> Result<()> {
        for direction in &mut self.directions {
            ensure!(direction.strangers == 0, "frames arrive that were not sent, or are damaged");
            direction.sent = 0;
            direction.received = 0;
            direction.gaps = 0;
            direction.expected = direction.next;
        }
        Ok(())
    }

    /// Takes the ports down, so that the device under test is ready for the next.
    pub(super) fn close(self) -> Result<()> {
        let Self { directions, controls, .. } = self;
        drop(directions);
        for mut control in controls {
            // Its queues have gone home.
            control.stop(Vec::new())?;
        }
        Ok(())
    }
}
