//! The machines. All of them are driven by one thread, on another core than the engine.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::control::Client;
use dataplane::port::RingChoice;
use lab::hostile::{Descriptor, Format, LAYOUT_BUFFERS, Machine, Setup};
use lab::leftovers;
use lab::peer_bench::scheduling::pin;
use lab::switch::{Program, Switch};
use lab::vm::{Check, Content, Plan, Seen, Series, Vm};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Machines that behave; the noisy one is joined to the first of them.
const OTHERS: usize = 7;
/// Frames of one of the others that may be on their way: its queue is never full.
const WINDOW: u64 = 128;
/// No frame for so long means that one is lost.
const PATIENCE: Duration = Duration::from_secs(20);
const ENGINE: &str = "0";
const DRIVER: usize = 1;

/// Where the noisy machine has the one frame that it sends again and again.
const BUFFER: u64 = LAYOUT_BUFFERS + (1 << 20);
/// Its beginning: Ethernet, IPv4 with a length of 64,986, TCP.
const TCP: [u8; 54] = [
    2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, //
    0x45, 0, 0xfd, 0xda, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, //
    0x27, 0x10, 0, 9, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
];

/// What the eighth machine sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Noise {
    /// Nothing.
    None,
    /// Frames of 64 bytes.
    Small,
    /// TCP segments of nearly 64 KiB, still to be cut.
    Large,
}

/// What was seen in a while.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Tally {
    /// Frames of the others that arrived.
    pub(crate) frames: usize,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// Frames of the noisy machine, each second.
    pub(crate) noise: u64,
}

/// What goes from one of the others to whom it is joined to.
struct Direction {
    from: usize,
    /// `None`: the noisy machine, which does not look at what it gets.
    to: Option<usize>,
    series: Series,
    check: Check,
    sent: u64,
    due: Instant,
}

/// Everybody, and mirach.
pub(crate) struct Scene {
    switch: Switch,
    control: Client,
    noisy: Machine,
    others: Vec<Vm>,
    directions: Vec<Direction>,
    began: Instant,
    /// Between two frames of one of the others.
    pace: Duration,
    frame: Vec<u8>,
    latencies: Vec<u32>,
    _folder: TempDir,
}

impl Scene {
    pub(crate) fn set(scheduler: &str) -> Result<Self> {
        let folder = leftovers::folder("noisy")?;
        let path = |name: &str| folder.path().join(name);
        let control = path("control").display().to_string();
        let names: Vec<String> =
            std::iter::once("noisy".to_owned()).chain((0..OTHERS).map(|number| format!("vm{number}"))).collect();
        let specs: Vec<String> =
            names.iter().map(|name| format!("vhost-user={},client=off,name={name}", path(name).display())).collect();
        let mut more = vec!["--cores", ENGINE, "--poll", "always", "--scheduler", scheduler, "--control", &control];
        specs.iter().for_each(|spec| more.extend(["--port", spec]));
        let switch = Switch::start(Program::Mirach, &[], &more)?;
        // Only now: mirach may run where who starts it may.
        pin(DRIVER).context("this suite needs two cores")?;
        let noisy = Machine::attach(&path("noisy"), Setup::new(Format::Split))?;
        let mut others = Vec::new();
        for name in names.iter().skip(1) {
            let plan = Plan { socket: path(name), listens: false, ring: RingChoice::Split, pairs: 1, mtu: None };
            others.push(Vm::attach(name, &plan).with_context(|| switch.log())?);
        }
        // Ports are joined two by two: the noisy machine and vm0, vm1 and vm2, and so on.
        let joined = [None, Some(2), Some(1), Some(4), Some(3), Some(6), Some(5)];
        let now = Instant::now();
        let directions = (1_u8..).zip(joined).enumerate().map(|(from, (id, to))| {
            let series = Series { id, content: Content::Plain(60, 60) };
            Direction { from, to, series, check: Check::new(series, 1), sent: 0, due: now }
        });
        let mut scene = Self {
            control: Client::connect(std::path::Path::new(&control))?,
            switch,
            noisy,
            others,
            directions: directions.collect(),
            began: now,
            pace: Duration::from_millis(1),
            frame: Vec::new(),
            latencies: Vec::new(),
            _folder: folder,
        };
        // What one machine alone gets through the engine is divided by all; of its share each of the others takes a tenth.
        scene.run(Noise::None, Duration::from_millis(300))?;
        let all = (0..5).map(|_| scene.run(Noise::Small, Duration::from_millis(100)).map(|tally| tally.noise));
        let most = all.collect::<Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        let rate = most / 8 / 10;
        ensure!(rate > 100, "only {most} frames a second pass");
        scene.pace = Duration::from_secs(1) / u32::try_from(rate)?;
        Ok(scene)
    }

    /// Frames that each of the others sends in a second.
    pub(crate) fn rate(&self) -> u64 {
        u64::try_from(Duration::from_secs(1).as_nanos() / self.pace.as_nanos().max(1)).unwrap_or(0)
    }

    /// Goes on for a while under noise, then until every frame of the others has arrived.
    pub(crate) fn run(&mut self, noise: Noise, time: Duration) -> Result<Tally> {
        self.latencies.clear();
        let started = Instant::now();
        let before = self.noisy.sent;
        self.directions.iter_mut().for_each(|direction| direction.due = started);
        // The first part is for the engine to get used to it.
        let counts = started + time / 3;
        let mut counted = false;
        while started.elapsed() < time {
            if !counted && Instant::now() >= counts {
                counted = true;
                self.latencies.clear();
            }
            self.make_noise(noise);
            self.turn(true)?;
        }
        let sent = self.noisy.sent - before;
        let noise = sent * 1000 / u64::try_from(started.elapsed().as_millis())?.max(1);
        self.latencies.sort_unstable();
        let at = |part: usize| {
            let index = self.latencies.len() * part / 100;
            Duration::from_nanos(self.latencies.get(index).copied().unwrap_or(u32::MAX).into())
        };
        let tally = Tally { frames: self.latencies.len(), p50: at(50), p99: at(99), noise };
        let ended = Instant::now();
        while self.arrived() != self.sent() || self.noisy.rings[1].out() > 0 {
            self.turn(false)?;
            if ended.elapsed() > PATIENCE {
                bail!("frames of the others are lost: {} of {} arrived", self.arrived(), self.sent());
            }
        }
        Ok(tally)
    }

    fn to_check(&self) -> impl Iterator<Item = &Direction> {
        self.directions.iter().filter(|direction| direction.to.is_some())
    }

    /// Frames that arrived: at the noisy machine, which has only counted them, too.
    fn arrived(&self) -> u64 {
        self.noisy.received + self.to_check().map(|direction| direction.check.received).sum::<u64>()
    }

    fn sent(&self) -> u64 {
        self.directions.iter().map(|direction| direction.sent).sum()
    }

    fn make_noise(&mut self, noise: Noise) {
        let (len, header) = match noise {
            Noise::None => return,
            Noise::Small => (64, [0; 12]),
            // Partial checksum from byte 34 at 16, TCP over IPv4, headers of 54 bytes, segments of 1448.
            Noise::Large => (65_000, [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]),
        };
        let Machine { rings: [_, ring], memory, sent, .. } = &mut self.noisy;
        memory.write(BUFFER, &header);
        memory.write(BUFFER + 12, &TCP);
        let frame = Descriptor { address: BUFFER, len: 12 + len, flags: 0 };
        let mut posted = false;
        while ring.free() > 0 && ring.post(memory, &[frame]) {
            *sent += 1;
            posted = true;
        }
        if posted {
            self.noisy.kick(1);
        }
    }

    /// Everybody receives, and, when `sends`, the others send what is due.
    fn turn(&mut self, sends: bool) -> Result<()> {
        self.noisy.take();
        self.noisy.refill();
        let now = Instant::now();
        let arrived = self.noisy.received;
        for direction in &mut self.directions {
            let Direction { from, to, series, check, sent, due } = direction;
            let received = if to.is_some() { check.received } else { arrived };
            let machine = self.others.get_mut(*from).context("no such machine")?;
            if sends && now >= *due {
                // What was missed while this thread did not run is not made up for.
                *due = if now.duration_since(*due) > self.pace * 4 { now } else { *due } + self.pace;
                if *sent - received < WINDOW {
                    let nanoseconds = u32::try_from(now.duration_since(self.began).as_nanos() & 0xffff_ffff)?;
                    let metadata = series.write(*sent, nanoseconds, &mut self.frame);
                    if machine.stage(0, &self.frame, metadata)? {
                        *sent += 1;
                    }
                }
            }
            machine.flush();
        }
        for (number, machine) in self.others.iter_mut().enumerate() {
            let from = self.directions.iter_mut().find(|direction| direction.to == Some(number));
            let Some(Direction { check, .. }) = from else {
                // All that comes here is noise.
                machine.receive(|_| Ok(()))?;
                continue;
            };
            let began = self.began;
            let latencies = &mut self.latencies;
            machine.receive(|packet| {
                match check.accept(packet)? {
                    Seen::Ours(then) => {
                        let now = u32::try_from(began.elapsed().as_nanos() & 0xffff_ffff)?;
                        latencies.push(now.wrapping_sub(then));
                    }
                    Seen::Stranger => bail!("a frame came that nobody sent"),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Sees who used how much of the engine, and ends everybody.
    pub(crate) fn close(mut self) -> Result<()> {
        let answer = self.control.call("port.stats", json!({}))?;
        let ports = answer.get("ports").and_then(Value::as_array).context("no statistics")?;
        let seconds = |port: &Value| port.get("cpu_seconds").and_then(Value::as_f64).unwrap_or(0.0);
        let name = |port: &Value| port.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        let usage: Vec<(String, f64)> = ports.iter().map(|port| (name(port), seconds(port))).collect();
        let text: Vec<String> = usage.iter().map(|(name, seconds)| format!("{name} {seconds:.3} s")).collect();
        println!("  processor time: {}", text.join(", "));
        // What comes from a machine is charged to it, and what goes to one to that: noise costs the two that are joined.
        let (noise, others): (Vec<_>, Vec<_>) =
            usage.iter().partition(|(name, _)| ["noisy", "vm0"].contains(&name.as_str()));
        let of_noise: f64 = noise.iter().map(|(_, seconds)| seconds).sum();
        let most = others.iter().map(|(_, seconds)| *seconds).fold(0.0, f64::max);
        ensure!(noise.len() == 2 && others.len() == OTHERS - 1, "a port has no statistics");
        ensure!(of_noise > most, "the noise took {of_noise} s of the processor, another machine {most} s");
        let large =
            ports.iter().find(|port| name(port) == "noisy").and_then(|port| port.pointer("/counters/rx_bad_header"));
        ensure!(large.and_then(Value::as_u64).unwrap_or(0) == 0, "its frames were not taken: {large:?}");
        for vm in self.others {
            ensure!(vm.dropped().is_empty(), "frames were dropped: {:?}", vm.dropped());
            vm.detach()?;
        }
        drop(self.noisy);
        self.switch.end().map(drop)
    }
}
