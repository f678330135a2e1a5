//! `mirach run` with a port for the offender, one for its partner, and two bystanders; and the law that holds after every case.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::control::Client;
use dataplane::port::RingChoice;
use lab::hostile::{Machine, Setup};
use lab::leftovers;
use lab::switch::{Program, Switch};
use lab::vm::{Content, Passage, Plan, Series, Vm};
use lab::wait;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::bystanders::Bystanders;
use crate::engine::Engine;
use crate::partner::Partner;

/// The port of the offender.
pub(crate) const OFFENDER: &str = "offender";
const PARTNER: &str = "partner";
const NEIGHBOURS: [&str; 2] = ["bystander0", "bystander1"];

/// How long anything may take that takes milliseconds on a machine with nothing else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause of a bystander's that may be mirach's fault.
const PAUSE: Duration = Duration::from_millis(1);
/// So often a case may be done again when a bystander had a longer one. What else this machine does, below what its kernel can tell, comes
/// and goes; what a case does to bystanders comes each time.
const ATTEMPTS: u32 = 6;
/// How long a thread that has answered may take to end.
const LINGER: Duration = Duration::from_secs(2);
/// What the heap may grow by while hundreds of sessions come and go, in KiB.
const GROWTH: u64 = 8 << 10;
/// Frames that a well-behaved visitor exchanges with the partner after a case: more than a queue has buffers for.
const VISIT: u64 = 1500;

/// What a process holds that an offender could leave behind.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Holdings {
    files: usize,
    /// Mappings of shared memory, with their lengths.
    guest_memory: Vec<u64>,
    threads: usize,
}

impl Holdings {
    fn of(process: u32) -> Result<Self> {
        let folder = PathBuf::from(format!("/proc/{process}"));
        let count = |name: &str| anyhow::Ok(std::fs::read_dir(folder.join(name))?.count());
        let maps = std::fs::read_to_string(folder.join("maps"))?;
        let shared = maps.lines().filter(|line| line.contains("memfd:") || line.contains("/dev/shm"));
        let mut guest_memory: Vec<u64> = shared.filter_map(length).collect();
        guest_memory.sort_unstable();
        let threads = threads(&folder.join("task"))?;
        Ok(Self { files: count("fd")?, guest_memory, threads })
    }
}

/// Threads of a process. The one that answered our own last question ends a moment after its answer, which is waited for.
fn threads(folder: &Path) -> Result<usize> {
    let deadline = Instant::now() + LINGER;
    let mut before = Vec::new();
    loop {
        let tasks = std::fs::read_dir(folder)?.collect::<std::io::Result<Vec<_>>>()?;
        // One that has ended meanwhile has no name any more, and one that begins has its parent's: the second look has to be as the first.
        let named = tasks.iter().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let mut names: Vec<String> = named.collect();
        names.sort_unstable();
        let answers = names.iter().any(|name| name.trim_end() == "request");
        if (!answers && names == before) || Instant::now() >= deadline {
            return Ok(names.len());
        }
        before = names;
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Length of a mapping, from its line in `/proc/PID/maps`.
fn length(line: &str) -> Option<u64> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(end, 16).ok()? - u64::from_str_radix(start, 16).ok()?)
}

/// Memory of a process that is no file's, in KiB.
fn heap(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The process under test and who is attached to it.
pub(crate) struct Scene {
    switch: Switch,
    control: Mutex<Client>,
    partner: Partner,
    bystanders: Bystanders,
    heap: u64,
    folder: TempDir,
    cases: u32,
}

impl Scene {
    /// Starts everything.
    pub(crate) fn set() -> Result<Self> {
        let folder = leftovers::folder("hostile")?;
        let path = |name: &str| folder.path().join(name);
        let specs = [OFFENDER, PARTNER, NEIGHBOURS[0], NEIGHBOURS[1]]
            .map(|name| format!("vhost-user={},client=off,name={name}", path(name).display()));
        let control = path("control");
        let control_text = control.display().to_string();
        // All on one engine, so that nothing else keeps them apart.
        let mut more = vec!["--cores", "0", "--control", &control_text];
        specs.iter().for_each(|spec| more.extend(["--port", spec]));
        let switch = Switch::start(Program::Mirach, &[], &more)?;
        let attach = |name: &str, ring| {
            let plan = Plan { socket: path(name), listens: false, ring, pairs: 1, mtu: None };
            Vm::attach(name, &plan).with_context(|| switch.log())
        };
        let partner = Partner::new(attach(PARTNER, RingChoice::Split)?);
        let neighbours = [attach(NEIGHBOURS[0], RingChoice::Split)?, attach(NEIGHBOURS[1], RingChoice::Packed)?];
        let bystanders = Bystanders::start(neighbours, Engine::of(switch.id())?)?;
        let control = Mutex::new(Client::connect(&control)?);
        let heap = 0;
        let mut scene = Self { switch, control, partner, bystanders, heap, folder, cases: 0 };
        // What is made once is made now, such as the connection to the control socket.
        scene.statistics(OFFENDER)?;
        scene.visit().context("before the first case")?;
        scene.heap = heap_of(&scene)?;
        Ok(scene)
    }

    /// The socket of the offender.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(OFFENDER)
    }

    /// A file of the scene's own.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Attaches a machine that has frames going both ways.
    pub(crate) fn machine(&self, setup: Setup) -> Result<Machine> {
        let mut machine = Machine::attach(&self.socket(), setup)?;
        machine.load()?;
        Ok(machine)
    }

    /// Has an offender do what it does, which `offend` ends without it; then sees that the law holds.
    pub(crate) fn case(&mut self, offend: impl Fn(&Case<'_>) -> Result<()>) -> Result<()> {
        let mut pauses = Vec::new();
        for _ in 0..ATTEMPTS {
            self.bystanders.pause();
            self.attempt(&offend)?;
            let pause = self.bystanders.pause();
            if pause <= PAUSE {
                return Ok(());
            }
            println!("  a bystander had a pause of {pause:?}: once more");
            pauses.push(pause);
        }
        bail!("each time a bystander had a pause: {pauses:?}")
    }

    /// Stops mirach for a moment, which is a pause that the bystanders have to notice.
    pub(crate) fn notices_pauses(&self) -> Result<()> {
        let process = Pid::from_raw(i32::try_from(self.switch.id())?).context("mirach has no process")?;
        self.bystanders.pause();
        kill_process(process, Signal::STOP)?;
        std::thread::sleep(100 * PAUSE);
        kill_process(process, Signal::CONT)?;
        wait::until("the pause to be noticed", PATIENCE, || Ok((self.bystanders.pause() > PAUSE).then_some(())))
    }

    fn attempt(&mut self, offend: impl Fn(&Case<'_>) -> Result<()>) -> Result<()> {
        self.cases += 1;
        let process = self.switch.id();
        let before = Holdings::of(process)?;
        let arrived = self.bystanders.arrived();
        let case = Case { scene: self, log: self.switch.log().len() };
        self.partner.send(true);
        let offended = offend(&case);
        let printed = case.printed();
        self.partner.send(false);
        offended.with_context(|| format!("mirach said: {}", only_text(&printed)))?;
        self.switch.must_run()?;
        let settled = wait::until("the offender is gone without a trace", PATIENCE, || {
            Ok((Holdings::of(process)? == before).then_some(()))
        });
        if let Err(error) = settled {
            bail!(
                "{error}: {:?} instead of {before:?}; it said: {}",
                Holdings::of(process)?,
                only_text(&self.switch.log())
            );
        }
        self.partner.quiet()?;
        self.conserved().with_context(|| "after the case".to_owned())?;
        self.visit().with_context(|| format!("after the case; it said: {}", only_text(&printed)))?;
        let grown = heap_of(self)?.saturating_sub(self.heap);
        ensure!(grown <= GROWTH, "the heap grew by {grown} KiB");
        let leaked = self.device(OFFENDER, "vm_leaked_mappings")?;
        ensure!(leaked == 0, "{leaked} mappings were leaked");
        self.bystanders.go_on(arrived)?;
        self.switch.must_run()
    }

    /// A well-behaved machine takes the offender's place, and exchanges frames with the partner.
    fn visit(&self) -> Result<()> {
        let before = Holdings::of(self.switch.id())?;
        let ring = if self.cases.is_multiple_of(2) { RingChoice::Split } else { RingChoice::Packed };
        let plan = Plan { socket: self.socket(), listens: false, ring, pairs: 1, mtu: None };
        let mut visitor = Vm::attach("visitor", &plan)?;
        let mut partner = self.partner.alone();
        let there = Series { id: 1, content: Content::Plain(60, 1514) };
        Passage::wait_for_path(there, &mut visitor, &mut partner)?;
        let passage = Passage { series: there, count: VISIT, window: 200, limit: PATIENCE };
        passage.run(&mut visitor, &mut partner).context("from the next machine")?;
        let back = Series { id: 2, ..there };
        Passage { series: back, ..passage }.run(&mut partner, &mut visitor).context("to the next machine")?;
        visitor.detach()?;
        drop(partner);
        let process = self.switch.id();
        // The partner, whose memory stays, has not come or gone.
        let gone =
            wait::until("the visitor is gone", PATIENCE, || Ok((Holdings::of(process)? == before).then_some(())));
        gone.with_context(|| format!("{:?} instead of {before:?}", Holdings::of(process)))?;
        self.conserved()
    }

    fn control(&self) -> MutexGuard<'_, Client> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics(&self, port: &str) -> Result<Value> {
        let answer = self.control().call("port.stats", json!({ "name": port }))?;
        answer.pointer("/ports/0").cloned().context("no statistics")
    }

    /// A counter of a port's device.
    pub(crate) fn device(&self, port: &str, name: &str) -> Result<u64> {
        // They are gathered once a second, and there are none before that.
        wait::until(&format!("the counter {name}"), PATIENCE, || {
            Ok(number(&self.statistics(port)?, "device", name).ok())
        })
    }

    /// A counter of a port.
    pub(crate) fn counter(&self, port: &str, name: &str) -> Result<u64> {
        number(&self.statistics(port)?, "counters", name)
    }

    /// What came in on one of a pair went out on the other, or was dropped and counted.
    fn conserved(&self) -> Result<()> {
        let mut found = Vec::new();
        wait::until("frames are conserved", PATIENCE, || {
            found.clear();
            for (from, to) in [(OFFENDER, PARTNER), (PARTNER, OFFENDER)] {
                let (from, to) = (self.statistics(from)?, self.statistics(to)?);
                let received = number(&from, "counters", "rx_packets")?;
                let sent = number(&to, "counters", "tx_packets")?;
                let dropped = number(&to, "counters", "tx_dropped")?;
                found.push((received, sent, dropped));
            }
            Ok(found.iter().all(|(received, sent, dropped)| *received == sent + dropped).then_some(()))
        })
        .with_context(|| format!("received, sent, dropped: {found:?}"))
    }

    /// Ends everybody, and prints what the bystanders saw.
    pub(crate) fn close(self) -> Result<()> {
        let (frames, longest) = self.bystanders.end()?;
        println!(
            "bystanders: {frames} frames, none lost; the longest was on its way for {longest:?}, whoever kept it waiting"
        );
        self.partner.end()?;
        self.switch.end().map(drop)
    }
}

fn heap_of(scene: &Scene) -> Result<u64> {
    heap(scene.switch.id())
}

fn number(statistics: &Value, group: &str, name: &str) -> Result<u64> {
    let value = statistics.get(group).and_then(|group| group.get(name)).and_then(Value::as_u64);
    value.with_context(|| format!("there is no counter {name}"))
}

/// What is meant for people in what mirach printed.
fn only_text(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().filter(|line| !line.starts_with('{')).collect();
    lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n")
}

/// A case under way.
pub(crate) struct Case<'s> {
    pub(crate) scene: &'s Scene,
    log: usize,
}

impl Case<'_> {
    /// What mirach has printed since the case began.
    pub(crate) fn printed(&self) -> String {
        self.scene.switch.log().get(self.log..).unwrap_or_default().to_owned()
    }

    /// Waits for a line that names the offender's port and has all of `words`.
    pub(crate) fn says(&self, words: &[&str]) -> Result<()> {
        self.says_since(0, words)
    }

    /// The same, in what was printed after the first `start` bytes of the case.
    pub(crate) fn says_since(&self, start: usize, words: &[&str]) -> Result<()> {
        wait::until(&format!("a line with {words:?}"), PATIENCE, || Ok(self.has_said(start, words).then_some(())))
    }

    /// Whether such a line is there.
    pub(crate) fn has_said(&self, start: usize, words: &[&str]) -> bool {
        let name = format!("port `{OFFENDER}`");
        let printed = self.printed();
        let mut lines = printed.get(start..).unwrap_or_default().lines();
        lines.any(|line| line.contains(&name) && words.iter().all(|word| line.contains(word)))
    }

    /// Lets a machine go on until a line is there as for [`says_since`](Self::says_since).
    pub(crate) fn turn_until_said(&self, machine: &mut Machine, start: usize, words: &[&str]) -> Result<()> {
        wait::until(&format!("a line with {words:?}"), PATIENCE, || {
            machine.turn();
            Ok(self.has_said(start, words).then_some(()))
        })
    }

    /// Lets a machine go on behaving well until what it has to do with `ring` goes on.
    pub(crate) fn still_works(&self, machine: &mut Machine, ring: usize) -> Result<()> {
        let started = Instant::now();
        let progress = |machine: &Machine| if ring == 0 { machine.received } else { machine.sent };
        let goal = progress(machine) + 300;
        while progress(machine) < goal {
            machine.turn();
            std::thread::sleep(Duration::from_micros(200));
            ensure!(started.elapsed() < PATIENCE, "ring {ring} stopped, too");
        }
        Ok(())
    }
}
