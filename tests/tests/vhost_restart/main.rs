//! `mirach run` is killed under load, fifty times, and started again: its virtual machines do not notice but by a pause.
//!
//! Four emulated machines are attached, two by split rings and two by packed ones; in each pair numbered frames go both ways. They
//! listen, as a VMM does, and mirach connects to them. After each kill every machine has to receive frames that were sent after it.
//! Of the frames that were under way some are lost, at most as many as rings and mirach hold; none comes twice, out of order, or changed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dataplane::port::RingChoice;
use lab::leftovers;
use lab::suite::Suite;
use lab::switch::{Port, Program, Switch};
use lab::vm::{Check, Content, Plan, Seen, Series, Vm};

/// How often mirach is killed.
const KILLS: u32 = 50;
/// Load between one kill and the next, once all machines have traffic again.
const LOAD: Duration = Duration::from_millis(150);
/// When nothing has come for so long after a kill, a queue is stuck. The machine may be busy with other things.
const STUCK: Duration = Duration::from_secs(60);
/// Frames of one direction that can be under way when mirach is killed: in the sender's ring, in the receiver's, and in what
/// mirach holds between them, each for 256 frames or one hundred milliseconds; with as much again for a receiver that pauses.
const UNDER_WAY: u64 = 4096;
/// Frames that the sender of a direction puts into its ring at a time.
const BURST: usize = 16;
/// The largest frame.
const FRAMES: Content = Content::Plain(60, 1514);

const MACHINES: usize = 4;

fn main() -> ExitCode {
    lab::leftovers::remove();
    if let Err(error) = lab::process::end_with_parent() {
        eprintln!("{error:#}: interrupted, this run would go on without its parent");
    }
    let mut suite = Suite::from_arguments();
    suite.check("mirach-is-killed-under-load-fifty-times", || {
        let mut scene = Scene::set()?;
        for _ in 0..KILLS {
            scene.strike()?;
        }
        scene.close()
    });
    suite.finish()
}

/// One direction of a pair.
struct Direction {
    from: usize,
    to: usize,
    series: Series,
    number: u64,
    check: Check,
    /// The epoch of the last frame that arrived.
    epoch: u32,
    /// What had been lost by the last kill.
    lost: u64,
    /// From each kill to the first frame that was sent after it.
    pauses: Vec<Duration>,
}

struct Scene {
    ports: Vec<Port>,
    switch: Switch,
    machines: Vec<Vm>,
    directions: Vec<Direction>,
    /// Grows with each kill; every frame says in which one it was sent.
    epoch: u32,
    started: Instant,
    frame: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn set() -> Result<Self> {
        let folder = leftovers::folder("restart")?;
        let ports: Vec<Port> = (0..MACHINES)
            .map(|number| Port { socket: folder.path().join(number.to_string()), listens: false, pairs: 1, mtu: None })
            .collect();
        let switch = start(&ports)?;
        let mut machines = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let ring = if number < 2 { RingChoice::Split } else { RingChoice::Packed };
            let plan = Plan { socket: port.socket.clone(), listens: true, ring, pairs: 1, mtu: None };
            let mut machine = Vm::attach(&format!("vm{number}"), &plan).with_context(|| switch.last_words())?;
            let wanted = if number < 2 { "ring split" } else { "ring packed" };
            let facts = machine.describe();
            ensure!(facts.contains(wanted), "machine {number} does not say `{wanted}`: {facts}");
            machines.push(machine);
        }
        let directions = (0_u8..4).map(|number| {
            let from = usize::from(number);
            let series = Series { id: number + 1, content: FRAMES };
            let mut check = Check::new(series, 1);
            check.may_lose = true;
            Direction { from, to: from ^ 1, series, number: 0, check, epoch: 0, lost: 0, pauses: Vec::new() }
        });
        let directions = directions.collect();
        let started = Instant::now();
        let mut scene =
            Self { ports, switch, machines, directions, epoch: 1, started, frame: Vec::new(), _folder: folder };
        scene.until_all_receive().context("before the first kill")?;
        Ok(scene)
    }

    /// Kills mirach and starts it again, as a service manager would, until all machines have traffic.
    fn strike(&mut self) -> Result<()> {
        let until = Instant::now() + LOAD;
        while Instant::now() < until {
            self.step()?;
        }
        self.switch.must_run()?;
        let before: Vec<u64> = self.directions.iter().map(|direction| direction.check.lost).collect();
        self.switch.kill()?;
        self.epoch += 1;
        let killed = Instant::now();
        self.switch = start(&self.ports)?;
        self.started = killed;
        self.until_all_receive().with_context(|| format!("after kill {}", self.epoch - 1))?;
        for (direction, before) in self.directions.iter_mut().zip(before) {
            let lost = direction.check.lost - before;
            ensure!(
                lost <= UNDER_WAY,
                "from machine {} to {}: kill {} cost {lost} frames, more than can have been under way",
                direction.from,
                direction.to,
                self.epoch - 1
            );
            direction.lost = direction.lost.max(lost);
        }
        Ok(())
    }

    /// Goes on until every machine has received a frame of this epoch.
    fn until_all_receive(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.directions.iter().any(|direction| direction.epoch != self.epoch) {
            self.step()?;
            if started.elapsed() > STUCK {
                let stuck: Vec<String> = (self.directions.iter())
                    .filter(|direction| direction.epoch != self.epoch)
                    .map(|direction| format!("{} to {}", direction.from, direction.to))
                    .collect();
                let ports: Vec<String> = self.machines.iter_mut().map(Vm::describe).collect();
                bail!(
                    "nothing passes from {} for {} s: {ports:#?}\n{}",
                    stuck.join(", "),
                    STUCK.as_secs(),
                    self.switch.last_words()
                );
            }
        }
        Ok(())
    }

    /// Everybody sends, receives and looks after its port once.
    fn step(&mut self) -> Result<()> {
        let mut idle = true;
        for machine in &mut self.machines {
            machine.mend()?;
        }
        for direction in &mut self.directions {
            let Direction { from, to, series, number, check, epoch, pauses, .. } = direction;
            for _ in 0..BURST {
                let metadata = series.write(*number, self.epoch, &mut self.frame);
                let machine = self.machines.get_mut(*from).context("no such machine")?;
                if !machine.stage(0, &self.frame, metadata)? {
                    break;
                }
                *number += 1;
            }
            idle &= self.machines.get_mut(*from).context("no such machine")?.flush() == 0;
            let machine = self.machines.get_mut(*to).context("no such machine")?;
            let received = machine.receive(|packet| {
                match check.accept(packet)? {
                    Seen::Ours(sent) if sent > *epoch => {
                        *epoch = sent;
                        pauses.push(self.started.elapsed());
                    }
                    Seen::Ours(_) => {}
                    Seen::Stranger => bail!("a frame came that nobody sent"),
                }
                Ok(())
            });
            idle &= received.with_context(|| format!("from machine {from} to {to}"))? == 0;
        }
        if idle {
            // Two processors: mirach needs one, and so may others.
            std::thread::sleep(Duration::from_micros(50));
        }
        Ok(())
    }

    /// Prints what it cost, and ends everybody.
    fn close(mut self) -> Result<()> {
        let mut pauses: Vec<Duration> =
            self.directions.iter().flat_map(|it| it.pauses.iter().skip(1).copied()).collect();
        pauses.sort();
        let at = |part: usize| pauses.get(pauses.len() * part / 100).map_or(0.0, |pause| pause.as_secs_f64() * 1e3);
        let received: u64 = self.directions.iter().map(|direction| direction.check.received).sum();
        let lost: u64 = self.directions.iter().map(|direction| direction.check.lost).sum();
        let most = self.directions.iter().map(|direction| direction.lost).max().unwrap_or(0);
        println!(
            "    time to traffic p50 {:.0} ms, p99 {:.0} ms, most {:.0} ms, of {} ports after {KILLS} kills",
            at(50),
            at(99),
            pauses.last().map_or(0.0, |pause| pause.as_secs_f64() * 1e3),
            self.directions.len(),
        );
        println!("    {received} frames arrived whole; {lost} were lost, at most {most} of one direction by one kill");
        self.switch.must_run()?;
        for machine in self.machines.drain(..) {
            machine.detach()?;
        }
        self.switch.end().map(drop)
    }
}

fn start(ports: &[Port]) -> Result<Switch> {
    Switch::start(Program::chosen(), ports, &[])
}
