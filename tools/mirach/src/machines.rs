//! Emulated virtual machines in this process: each has memory of its own, our virtio-net driver on a vhost-user socket, and a
//! thread that makes numbered, stamped frames for its partner and checks those that come from there.
//!
//! A machine has so many frames on their way at most, and its driver takes every frame that arrives; so whatever is missing in
//! the end was lost by the forwarder.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::port::{
    FrameSize, GeneratorReport, GeneratorSpec, MemoryOptions, NamedSpec, PortControl, PortQueue, PortSpec, Ports, Rate,
    VhostUserSpec, VirtioUserSpec,
};
use hugemem::{Batch, PageChoice};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Frames that a machine has on their way at most: enough for bursts, few enough to show latency and not queueing.
const WINDOW: u64 = 64;
/// Most frames that a machine sends or receives at once.
const BURST: usize = 32;
/// Looks at an idle machine before it sleeps.
const PATIENCE: u32 = 50;
/// How long it sleeps.
const NAP: Duration = Duration::from_micros(20);
/// Memory of a machine: two pools of buffers.
const MEMORY: usize = 16 << 20;

/// A folder for sockets, which goes with this value.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new folder, for this user alone.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let base = std::env::temp_dir();
        for number in 0..1000 {
            let path = base.join(format!("mirach-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot make a folder for sockets in {}; name another with TMPDIR", base.display())
                    });
                }
            }
        }
        anyhow::bail!("{} is full of folders that mirach left; remove mirach-* there", base.display())
    }

    /// The forwarder's ports for so many machines, two by two.
    pub(crate) fn ports(&self, count: u16) -> anyhow::Result<Vec<NamedSpec>> {
        let port = |index| {
            let spec = VhostUserSpec { client: false, ..VhostUserSpec::new(self.socket(index)) };
            Ok(NamedSpec { name: Some(format!("vm{index}").parse()?), spec: PortSpec::VhostUser(spec) })
        };
        (0..count).map(port).collect()
    }

    /// The socket of machine `index`.
    pub(crate) fn socket(&self, index: u16) -> PathBuf {
        self.0.join(format!("vm{index}.sock"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is small.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the threads of all machines look at.
#[derive(Default)]
struct Signals {
    /// Frames are made.
    open: AtomicBool,
    /// The threads end.
    end: AtomicBool,
}

/// Frames of a machine, in its own cache lines.
#[derive(Default)]
#[repr(align(128))]
struct Gauge {
    made: AtomicU64,
    seen: AtomicU64,
}

/// A machine, as its keeper sees it.
struct Machine {
    thread: Option<JoinHandle<[PortQueue; 2]>>,
    card: Box<dyn PortControl>,
    generator: Box<dyn PortControl>,
}

/// Machines at work.
pub(crate) struct Machines {
    machines: Vec<Machine>,
    gauges: Arc<[Gauge]>,
    signals: Arc<Signals>,
}

/// What a machine counted.
pub(crate) struct Record {
    /// Of its own frames.
    pub(crate) sent: u64,
    /// Frames of its partner that did not arrive.
    pub(crate) lost: u64,
    /// What it checked.
    pub(crate) report: GeneratorReport,
}

impl Machines {
    /// Starts `count` machines on the sockets in `folder`, on which the forwarder listens. They are silent until [`Machines::begin`].
    pub(crate) fn start(folder: &Folder, count: u16, frame_bytes: u16, core: Option<usize>) -> anyhow::Result<Self> {
        let mut started = Self {
            machines: Vec::new(),
            gauges: (0..count).map(|_| Gauge::default()).collect(),
            signals: Arc::default(),
        };
        for index in 0..count {
            let machine = started.machine(&folder.socket(index), index, frame_bytes, core);
            started.machines.push(machine.with_context(|| format!("virtual machine {index}"))?);
        }
        Ok(started)
    }

    fn machine(&self, socket: &Path, index: u16, bytes: u16, core: Option<usize>) -> anyhow::Result<Machine> {
        let generator = GeneratorSpec {
            rate: Rate::Maximum,
            size: FrameSize { shortest: bytes, longest: bytes },
            count: None,
            flows: 16,
            queues: None,
        };
        let specs = [PortSpec::VirtioUser(VirtioUserSpec::new(socket)), PortSpec::Generator(generator)];
        let memory = MemoryOptions { bytes: MEMORY, page: PageChoice::Size4K, node: None };
        let ports = Ports::open(&specs.map(NamedSpec::from), &memory)?;
        let [card, generator] = <[_; 2]>::try_from(ports).map_err(|_| anyhow::anyhow!("it has not both its ports"))?;
        let pairs = card.queues.into_iter().zip(generator.queues).next();
        let (card_queue, generator_queue) = pairs.context("its card has no queues")?;
        let (gauges, signals) = (Arc::clone(&self.gauges), Arc::clone(&self.signals));
        let thread = std::thread::Builder::new()
            .name(format!("vm{index}"))
            .spawn(move || live([card_queue, generator_queue], index.into(), &gauges, &signals, core))
            .context("cannot start its thread")?;
        Ok(Machine { thread: Some(thread), card: card.control, generator: generator.control })
    }

    /// Lets them make frames.
    pub(crate) fn begin(&self) {
        self.signals.open.store(true, Ordering::Release);
    }

    /// Frames made, and frames that arrived.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let sum = |which: fn(&Gauge) -> &AtomicU64| {
            self.gauges.iter().map(|gauge| which(gauge).load(Ordering::Acquire)).sum()
        };
        (sum(|gauge| &gauge.made), sum(|gauge| &gauge.seen))
    }

    /// Makes no more frames, and waits until those on their way have arrived, at most `limit`.
    pub(crate) fn drain(&self, limit: Duration) {
        self.signals.open.store(false, Ordering::Release);
        let deadline = Instant::now() + limit;
        // A frame may be counted as made just after that, so two equal readings in a row are wanted.
        let mut settled = 0;
        while settled < 2 && Instant::now() < deadline {
            let (made, seen) = self.counts();
            settled = if made == seen { settled + 1 } else { 0 };
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What each has checked so far, in order. Exact when they are drained.
    pub(crate) fn records(&self) -> Vec<Record> {
        let reports: Vec<GeneratorReport> =
            self.machines.iter().filter_map(|machine| machine.generator.generator()).collect();
        let record = |(index, report): (usize, &GeneratorReport)| {
            let sent = reports.get(index ^ 1).map_or(0, |partner| partner.sent);
            Record { sent: report.sent, lost: sent.saturating_sub(report.received), report: report.clone() }
        };
        reports.iter().enumerate().map(record).collect()
    }

    /// Switches all machines off. Gives what went wrong.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        self.signals.end.store(true, Ordering::Release);
        let mut problems = Vec::new();
        for (index, mut machine) in self.machines.drain(..).enumerate() {
            let Some(thread) = machine.thread.take() else { continue };
            let (card, generator) = match thread.join() {
                Ok([card, generator]) => (vec![card], vec![generator]),
                Err(_) => {
                    problems
                        .push(format!("virtual machine {index} failed; this is an error in mirach, please report it"));
                    (Vec::new(), Vec::new())
                }
            };
            let stopped = machine.card.stop(card).and(machine.generator.stop(generator));
            problems.extend(stopped.err().map(|error| format!("virtual machine {index}: {error}")));
        }
        problems
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for problem in self.stop() {
            tracing::warn!("{problem}");
        }
    }
}

/// A machine's life: sends what its generator makes, and checks what arrives.
fn live(
    queues: [PortQueue; 2],
    index: usize,
    gauges: &[Gauge],
    signals: &Signals,
    core: Option<usize>,
) -> [PortQueue; 2] {
    if let Some(core) = core.filter(|core| *core < CpuSet::MAX_CPU) {
        let mut cores = CpuSet::new();
        cores.set(core);
        // Where it may not run there, it runs elsewhere: slower, not wrong.
        let _ = sched_setaffinity(None, &cores);
    }
    let [mut card, mut generator] = queues;
    let (Some(own), Some(partner)) = (gauges.get(index), gauges.get(index ^ 1)) else { return [card, generator] };
    let (mut outgoing, mut incoming) = (Batch::new(BURST), Batch::new(BURST));
    let (mut made, mut seen, mut idle) = (0_u64, 0_u64, 0_u32);
    while !signals.end.load(Ordering::Acquire) {
        let underway = made.saturating_sub(partner.seen.load(Ordering::Acquire));
        if outgoing.is_empty() && underway < WINDOW && signals.open.load(Ordering::Acquire) {
            made += generator.rx.receive(&mut outgoing) as u64;
            own.made.store(made, Ordering::Release);
        }
        let sent = if outgoing.is_empty() { 0 } else { card.tx.transmit(&mut outgoing) };
        let received = card.rx.receive(&mut incoming);
        if received > 0 {
            generator.tx.transmit(&mut incoming);
            seen += received as u64;
            own.seen.store(seen, Ordering::Release);
        }
        if sent > 0 || received > 0 {
            idle = 0;
            continue;
        }
        idle = idle.saturating_add(1);
        // Frames that were sent come home, or else there are none left to be made.
        card.tx.reclaim();
        if idle < PATIENCE {
            std::thread::yield_now();
        } else {
            std::thread::sleep(NAP);
        }
    }
    [card, generator]
}
