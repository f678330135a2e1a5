//! Two emulated machines, the ports between them, and the calls that an engine makes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use dataplane::bell::Bell;
use dataplane::clock::cycles;
use dataplane::copy::{Copier, Copying};
use dataplane::port::virtio_user::Device;
use dataplane::port::{Port, PortControl, PortQueue, VhostUserSpec, VirtioUserSpec, vhost_user};
use drivers::nic::Offloads;
use hugemem::{
    Batch, Checksum, HEADROOM, IovaSpace, MemoryRequest, Metadata, Packet, PacketPool, Segmentation, SegmentationKind,
};

use crate::machines::Folder;

/// Room of a machine's buffer: a page, as kernels have it.
const ROOM: usize = 4096;
/// Buffers that a machine receives into, and that it sends from.
const RECEIVING: usize = 512;
const SENDING: usize = 512;
/// Memory for a machine's rings.
const RINGS: usize = 4 << 20;
/// Largest payload of a frame that is none to be cut; longer ones are.
const MTU: u16 = 9000;
/// Headers of a TCP segment over IPv4.
const HEADERS: u16 = 54;
/// Payload of the segments that a long frame is to be cut into.
const SEGMENT: u16 = 1448;
/// Bytes that are underway at most, so that all of them find room.
const UNDERWAY: usize = 256 << 10;
/// A small frame.
const SMALL: usize = 60;
/// How long anything may take that should be done at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a small frame follows a large one.
const FOLLOWS: usize = 101;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) cycles_per_byte: f64,
    pub(super) copies_per_frame: f64,
    /// From the engine's look at a large frame and a small one behind it to the small one's being there, in cycles; the median.
    pub(super) small_behind: u64,
    pub(super) frames: u64,
}

/// A machine.
struct Machine {
    control: Box<dyn PortControl>,
    queue: PortQueue,
    sources: PacketPool,
}

/// Two machines, and the ports between them.
pub(super) struct Bed {
    size: usize,
    /// Sends and receives.
    machines: [Machine; 2],
    ports: [Box<dyn PortControl>; 2],
    queues: [PortQueue; 2],
    copier: Option<(Copier, Arc<Copying>)>,
    batch: Batch,
    arrived: Batch,
    _folder: Folder,
}

impl Bed {
    /// For frames of `size` bytes, copied by `copying`, or by the engine.
    pub(super) fn new(size: u32, copying: Option<&Arc<Copying>>) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let (mut ports, mut queues, mut machines) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..2_u16 {
            let socket = folder.socket(index);
            let spec = VhostUserSpec { client: false, mtu: Some(MTU), ..VhostUserSpec::new(&socket) };
            let port = vhost_user::open_with(&format!("vm{index}"), &spec, copying.map(|copying| &**copying))?;
            let Port { queues: mut pairs, control, .. } = port;
            queues.push(pairs.pop().context("a port without queues")?);
            ports.push(control);
            let spec = VirtioUserSpec { mtu: Some(MTU), ..VirtioUserSpec::new(&socket) };
            machines.push(Machine::start(&spec)?);
        }
        let machines = machines.try_into().map_err(|_| anyhow!("there are two machines"))?;
        let ports = ports.try_into().map_err(|_| anyhow!("there are two ports"))?;
        let queues = queues.try_into().map_err(|_| anyhow!("there are two queues"))?;
        let copier = match copying {
            Some(copying) => {
                let bell = Arc::new(Bell::new()?);
                let copier = copying.copier(&bell).context("the device has too few channels; measure fewer lengths")?;
                Some((copier, Arc::clone(copying)))
            }
            None => None,
        };
        let count = (UNDERWAY / size as usize).clamp(1, 64) + 1;
        let (batch, arrived) = (Batch::new(count), Batch::new(64));
        let mut bed = Self { size: size as usize, machines, ports, queues, copier, batch, arrived, _folder: folder };
        bed.wait_for_path()?;
        Ok(bed)
    }

    /// Sends frames until one arrives.
    fn wait_for_path(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.ports.iter_mut().any(|port| !port.link().up) {
            ensure!(started.elapsed() < PATIENCE, "the emulated machines do not come up");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.pass(&[SMALL], 0).map(drop)
    }

    /// Measures for about `limit` cycles of the engine, whose rounds take `round` cycles.
    #[expect(clippy::cast_precision_loss, reason = "numbers to look at")]
    pub(super) fn run(&mut self, limit: u64, round: u64) -> anyhow::Result<Cost> {
        let lengths = vec![self.size; self.batch.capacity() - 1];
        // To warm up.
        for _ in 0..20 {
            self.pass(&lengths, round)?;
        }
        let before = self.copies();
        let (mut spent, mut frames) = (0, 0);
        let begun = cycles();
        // However much of the time the machines take.
        while spent < limit && cycles().wrapping_sub(begun) < limit.saturating_mul(20) {
            spent += self.pass(&lengths, round)?.0;
            frames += lengths.len() as u64;
        }
        let copies = self.copies() - before;
        let mut follows = Vec::with_capacity(FOLLOWS);
        for _ in 0..FOLLOWS {
            follows.push(self.pass(&[self.size, SMALL], 0)?.1);
        }
        follows.sort_unstable();
        Ok(Cost {
            cycles_per_byte: spent as f64 / (frames * self.size as u64) as f64,
            copies_per_frame: copies as f64 / frames as f64,
            small_behind: follows.get(FOLLOWS / 2).copied().unwrap_or(0),
            frames,
        })
    }

    /// Copies that the device did.
    fn copies(&self) -> u64 {
        let [_, to] = &self.queues;
        to.desk.as_ref().map_or(0, |desk| desk.counts().copies)
    }

    /// Passes frames of these lengths. Cycles of all calls of the engine that did something, and from the first of them to the end. The engine looks
    /// for finished copies every `round` cycles.
    fn pass(&mut self, lengths: &[usize], round: u64) -> anyhow::Result<(u64, u64)> {
        let [sender, receiver] = &mut self.machines;
        // Whatever came before is gone by now: there is room.
        let mut outgoing = Batch::new(lengths.len());
        for length in lengths {
            let frame = sender.frame(*length)?;
            outgoing.push(frame).map_err(|_| anyhow!("a batch has less room than it says"))?;
        }
        let started = Instant::now();
        while !outgoing.is_empty() {
            ensure!(started.elapsed() < PATIENCE, "a machine's ring takes nothing");
            sender.queue.tx.transmit(&mut outgoing);
        }
        let [from, to] = &mut self.queues;
        let desks: Vec<_> = to.desk.iter().cloned().collect();
        let (mut spent, mut received, mut first, mut last) = (0, 0, None, 0);
        loop {
            let began = cycles();
            let mut did = if received < lengths.len() { from.rx.receive(&mut self.batch) } else { 0 };
            received += did;
            if !self.batch.is_empty() {
                did += to.tx.transmit(&mut self.batch);
            }
            if let Some((copier, _)) = &mut self.copier
                && copier.serve(&desks)
            {
                to.tx.reclaim();
                did += 1;
            }
            let now = cycles();
            if did > 0 {
                spent += now.wrapping_sub(began);
                first.get_or_insert(began);
                last = now;
            }
            let idle = self.copier.as_ref().is_none_or(|(copier, _)| copier.underway() == 0);
            // What was left on the desk and not begun with is underway, too.
            if received == lengths.len() && self.batch.is_empty() && idle && to.tx.reclaim() == 0 {
                break;
            }
            if !idle {
                while cycles().wrapping_sub(now) < round {
                    std::hint::spin_loop();
                }
            }
            ensure!(started.elapsed() < PATIENCE, "{received} of {} frames came to the engine", lengths.len());
        }
        to.tx.reclaim();
        let mut arrived = 0;
        while arrived < lengths.len() {
            arrived += receiver.queue.rx.receive(&mut self.arrived);
            self.arrived.clear();
            ensure!(started.elapsed() < PATIENCE, "{arrived} of {} frames arrived", lengths.len());
        }
        // The sender gets its buffers back.
        from.rx.underway();
        sender.queue.tx.reclaim();
        Ok((spent, last.wrapping_sub(first.unwrap_or(last))))
    }

    /// Takes it apart.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let Self { machines, ports, queues, copier, .. } = self;
        if let Some((copier, copying)) = copier {
            copying.take_back(copier);
        }
        for (mut port, queue) in ports.into_iter().zip(queues) {
            port.stop(vec![queue])?;
        }
        for Machine { mut control, queue, .. } in machines {
            // Its other side is gone already.
            let _ = control.stop(vec![queue]);
        }
        Ok(())
    }
}

impl Machine {
    fn start(spec: &VirtioUserSpec) -> anyhow::Result<Self> {
        let mut device = Device::open("machine", spec, Offloads::all())?;
        let mut space = IovaSpace::unlimited();
        space.intersect(&device.iova_ranges());
        let bytes = (RECEIVING + SENDING) * (ROOM + 2 * HEADROOM) + (1 << 20);
        let mut allocate = |bytes| -> anyhow::Result<_> {
            Ok(MemoryRequest { bytes, ..MemoryRequest::default() }.allocate(&mut space)?.region)
        };
        let (packets, rings) = (allocate(bytes)?, allocate(RINGS)?);
        device.map(&packets)?;
        let pools = vec![packets.packets(RECEIVING, ROOM)?];
        let sources = packets.packets(SENDING, ROOM)?;
        let mut port = device.start(&rings, pools)?;
        let queue = port.queues.pop().context("a machine without queues")?;
        Ok(Self { control: port.control, queue, sources })
    }

    /// A frame of so many bytes: one that is to be cut where it is longer than any other can be.
    fn frame(&mut self, length: usize) -> anyhow::Result<Packet> {
        let mut packet: Option<Packet> = None;
        let mut left = length;
        while left > 0 {
            let mut part = self.sources.take().context("the machine has too few buffers")?;
            let count = left.min(ROOM);
            part.resize(count)?;
            left -= count;
            match &mut packet {
                None => {
                    head(part.bytes_mut(), length);
                    packet = Some(part);
                }
                Some(packet) => packet.append(part).map_err(|_| anyhow!("the frame is too long"))?,
            }
        }
        let mut packet = packet.context("a frame without bytes")?;
        if length > usize::from(MTU) + 18 {
            let segmentation =
                Segmentation { kind: SegmentationKind::TcpV4, size: SEGMENT, header_len: HEADERS, ecn: false };
            *packet.metadata_mut() = Metadata {
                checksum: Checksum::Partial { start: 34, offset: 16 },
                segmentation: Some(segmentation),
                ..Metadata::default()
            };
        }
        Ok(packet)
    }
}

/// Writes the headers of a frame of `length` bytes: Ethernet, IPv4, TCP.
fn head(bytes: &mut [u8], length: usize) {
    let mut header = [0_u8; HEADERS as usize];
    header[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
    let total = u16::try_from(length.saturating_sub(14)).unwrap_or(u16::MAX);
    header[14..34].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    header[16..18].copy_from_slice(&total.to_be_bytes());
    // Data offset and the flag ACK.
    header[46..48].copy_from_slice(&[0x50, 0x10]);
    let count = bytes.len().min(header.len());
    if let (Some(to), Some(from)) = (bytes.get_mut(..count), header.get(..count)) {
        to.copy_from_slice(from);
    }
}
