//! The forwarder: ports joined pairwise by engines. What `run`, `demo`, `bench` and tests use.
//!
//! Life cycle: [`Ports::open`](crate::port::Ports::open) → [`Forwarder::start`] → [`Forwarder::statistics`], [`Forwarder::check`] about once a
//! second → [`Forwarder::stop`]. Dropping a forwarder stops it too, and then nobody hears of what went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::CycleClock;
use crate::config::{CoreList, EngineConfig};
use crate::engine::plan::{QueueId, Way, plan};
use crate::engine::{Engine, EngineError, Lane, Receiver, Running, Sender, Transmitter};
use crate::port::{GeneratorReport, Port, PortControl, PortError, PortKind, PortQueue, Supply};
use crate::stats::{PortCells, Statistics};

/// The forwarder failed. The text names ports or engines, the cause and what mends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwarderError {
    /// The ports cannot be joined pairwise.
    #[error("{0} ports cannot be joined pairwise; give an even number, at least two")]
    Unpaired(usize),
    /// A port failed.
    #[error(transparent)]
    Port(#[from] PortError),
    /// An engine could not be started.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An engine panicked.
    #[error("engine {engine} between {ports} failed: {said}; this is an error in mirach, please report it")]
    Panicked {
        /// Number of the engine.
        engine: usize,
        /// The ports that it served.
        ports: String,
        /// What it said.
        said: String,
    },
}

/// How two ports are joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Join {
    /// Names of the two ports.
    pub ports: [String; 2],
    /// Cores of the engines between them, ascending.
    pub cores: Vec<usize>,
}

impl fmt::Display for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [left, right] = &self.ports;
        let (engines, cores) = if self.cores.len() == 1 { ("engine", "core") } else { ("engines", "cores") };
        write!(f, "{left} <-> {right}, {} {engines}, {cores} ", self.cores.len())?;
        match CoreList::new(self.cores.iter().copied()) {
            Some(list) => list.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// What remains when a forwarder has stopped.
#[derive(Debug)]
pub struct Stopped {
    /// The final counters: received equals sent plus dropped.
    pub statistics: Statistics,
    /// What generators and their sinks counted, by port.
    pub generators: Vec<Option<GeneratorReport>>,
    /// What went wrong.
    pub problems: Vec<ForwarderError>,
    /// Some device had not finished sending when time ran out.
    pub unfinished: bool,
}

/// A port that fails once more after so many restarts within [`RESTART_WINDOW`] is given up: each restart pauses all ports.
const RESTARTS: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// A port without its queues, which are with the engines.
struct Station {
    name: String,
    kind: PortKind,
    control: Box<dyn PortControl>,
    queues: usize,
    /// Nothing will ever be received from it.
    silent: bool,
    /// It is stopped for good: at the end, or because it failed and did not come back.
    stopped: bool,
    /// What its device had counted when it was asked last.
    device: Vec<(&'static str, u64)>,
    /// When it was started anew, as far as that counts for [`RESTARTS`].
    restarts: Vec<Instant>,
}

/// A running engine and what it serves.
struct Serving {
    running: Running,
    ways: Vec<Way>,
    core: usize,
}

/// What [`Forwarder::check`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Health {
    /// All is well.
    Well,
    /// Ports had failed.
    Changed {
        /// These work again; why they had failed.
        restarted: Vec<String>,
        /// These do not come back, and their partners fall silent with them; why. The other pairs go on.
        lost: Vec<String>,
    },
    /// An engine failed, or no pair of ports is left. Only stopping is left; it tells why.
    Broken,
}

/// A running forwarder.
pub struct Forwarder {
    stations: Vec<Station>,
    engines: Vec<Serving>,
    /// Transmit queues that no engine uses because the partner has fewer queues.
    spare: BTreeMap<QueueId, Transmitter>,
    /// Queue pairs that no engine has at the moment.
    idle: BTreeMap<QueueId, PortQueue>,
    /// By port.
    cells: Vec<Arc<PortCells>>,
    config: EngineConfig,
    cores: CoreList,
    clock: CycleClock,
    started: Instant,
    problems: Vec<ForwarderError>,
    broken: bool,
    unfinished: bool,
}

impl Forwarder {
    /// Joins ports 0 and 1, 2 and 3, and so on, as [`Ports::open`](crate::port::Ports::open) has matched them, and starts
    /// engines on `cores`, as many as there is work for.
    ///
    /// # Errors
    /// When ports do not come in pairs or an engine cannot be started. All ports are stopped then.
    pub fn start(config: EngineConfig, cores: &CoreList, ports: Vec<Port>) -> Result<Self, ForwarderError> {
        let count = ports.len();
        let mut queues = BTreeMap::new();
        let mut stations = Vec::with_capacity(count);
        for (port, mut opened) in ports.into_iter().enumerate() {
            stations.push(Station {
                silent: opened.queues.iter_mut().all(is_silent),
                name: opened.name,
                kind: opened.kind,
                control: opened.control,
                queues: opened.queues.len(),
                stopped: false,
                device: Vec::new(),
                restarts: Vec::new(),
            });
            let ids = (0..).map(|queue| QueueId { port, queue });
            queues.extend(ids.zip(opened.queues));
        }
        let cells = stations
            .iter()
            .enumerate()
            .map(|(port, station)| Arc::new(PortCells::new(port, station.name.clone(), station.queues)))
            .collect();
        let mut forwarder = Self {
            stations,
            engines: Vec::new(),
            spare: BTreeMap::new(),
            idle: BTreeMap::new(),
            cells,
            config,
            cores: cores.clone(),
            clock: CycleClock::calibrate(),
            started: Instant::now(),
            problems: Vec::new(),
            broken: false,
            unfinished: false,
        };
        if count == 0 || !count.is_multiple_of(2) {
            // Dropping the forwarder stops the ports, with their queues.
            forwarder.idle = queues;
            return Err(ForwarderError::Unpaired(count));
        }
        forwarder.start_engines(queues)?;
        Ok(forwarder)
    }

    /// Divides the queues among engines and starts these. On failure some may run; stopping ends these too.
    fn start_engines(&mut self, mut queues: BTreeMap<QueueId, PortQueue>) -> Result<(), EngineError> {
        let served = |(port, station): (usize, &Station)| if self.is_lost(port) { 0 } else { station.queues };
        let counts: Vec<usize> = self.stations.iter().enumerate().map(served).collect();
        let plan = plan(&counts, self.cores.len());

        let mut transmitters: BTreeMap<QueueId, Transmitter> = BTreeMap::new();
        let mut receivers: BTreeMap<QueueId, Receiver> = BTreeMap::new();
        while let Some((id, PortQueue { rx, tx, wake })) = queues.pop_first() {
            transmitters.insert(id, Transmitter { id, tx, pool: None });
            receivers.insert(id, Receiver { id, rx, wake });
        }
        let mut failure = None;
        for (number, (ways, core)) in plan.engines.into_iter().zip(self.cores.iter()).enumerate() {
            let mut senders: Vec<Sender> = Vec::new();
            let mut lanes = Vec::with_capacity(ways.len());
            for way in &ways {
                let [from, to] = [way.from, way.to].map(|id| self.cells.get(id.port).map(Arc::clone));
                let (Some(from), Some(to)) = (from, to) else { continue };
                if let Some(transmitter) = transmitters.remove(&way.to) {
                    senders.push(Sender::new(transmitter, to));
                }
                let Some(receiver) = receivers.remove(&way.from) else { continue };
                lanes.push(Lane::new(receiver, way.to, self.config.burst, from));
            }
            let engine = Engine { number, core, config: self.config, lanes, senders, clock: self.clock };
            match engine.start() {
                Ok(running) => self.engines.push(Serving { running, ways, core }),
                Err((error, finished)) => {
                    receivers.extend(finished.receivers.into_iter().map(|receiver| (receiver.id, receiver)));
                    transmitters.extend(finished.transmitters.into_iter().map(|queue| (queue.id, queue)));
                    failure = Some(error);
                    break;
                }
            }
        }
        self.spare = transmitters;
        match failure {
            None => Ok(()),
            Some(error) => {
                let spare = std::mem::take(&mut self.spare);
                self.idle.append(&mut assemble(receivers, spare));
                Err(error)
            }
        }
    }

    /// What has been counted since the start.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut ports: Vec<_> = self.cells.iter().map(|cells| cells.read()).collect();
        for (index, port) in ports.iter_mut().enumerate() {
            port.latency =
                self.stations.get(index).and_then(|station| station.control.generator()).map(|report| report.latency);
            port.device = self.stations.get(index).map(|station| station.device.clone()).unwrap_or_default();
        }
        Statistics { elapsed: self.started.elapsed(), ports }
    }

    /// What generators and their sinks have counted so far, by port.
    #[must_use]
    pub fn generators(&self) -> Vec<Option<GeneratorReport>> {
        self.stations.iter().map(|station| station.control.generator()).collect()
    }

    /// How the ports are joined.
    #[must_use]
    pub fn joins(&self) -> Vec<Join> {
        let pairs = self.stations.chunks_exact(2).enumerate();
        pairs
            .filter_map(|(index, pair)| {
                let [left, right] = pair else { return None };
                let serves = |serving: &&Serving| serving.ways.iter().any(|way| way.from.port / 2 == index);
                let cores = self.engines.iter().filter(serves).map(|serving| serving.core).collect();
                Some(Join { ports: [left.name.clone(), right.name.clone()], cores })
            })
            .collect()
    }

    /// Name and facts of every port, a line each, in the words of `ip link`.
    pub fn describe(&mut self) -> Vec<(String, PortKind, String)> {
        self.stations
            .iter_mut()
            .map(|station| (station.name.clone(), station.kind, station.control.describe()))
            .collect()
    }

    /// The rate of the cycle counter, to convert what [`Statistics`] counts in cycles.
    #[must_use]
    pub fn clock(&self) -> CycleClock {
        self.clock
    }

    /// Every port that had packets to give has given out its last one: nothing more will come. Never so between ports that
    /// had none from the start.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let stations = self.stations.iter().enumerate().filter(|(port, _)| !self.is_lost(*port));
        let mut sources = stations.map(|(_, station)| station).filter(|station| !station.silent).peekable();
        sources.peek().is_some() && sources.all(|station| station.control.supply() == Supply::Exhausted)
    }

    /// Looks after engines and devices; to be called about once a second. A device that fails is stopped and started
    /// anew, which pauses all ports for a moment; one that does not come back is given up.
    pub fn check(&mut self) -> Health {
        if self.broken || self.engines.iter().any(|serving| serving.running.has_failed()) {
            self.broken = true;
            return Health::Broken;
        }
        let mut sick = Vec::new();
        for port in 0..self.stations.len() {
            if self.is_lost(port) {
                continue;
            }
            let Some(station) = self.stations.get_mut(port) else { continue };
            match station.control.check() {
                Ok(()) => station.device = station.control.statistics(),
                Err(error) => sick.push((port, error)),
            }
        }
        if sick.is_empty() { Health::Well } else { self.restart(sick) }
    }

    /// The port or its partner was given up: nothing is forwarded between them any more.
    fn is_lost(&self, port: usize) -> bool {
        [port, port ^ 1].iter().any(|port| self.stations.get(*port).is_some_and(|station| station.stopped))
    }

    /// Takes all queues back from the engines, starts the ports in `sick` anew, and starts the engines again. Ports that
    /// do not come back are given up.
    fn restart(&mut self, sick: Vec<(usize, PortError)>) -> Health {
        let mut queues = self.stop_engines();
        let (mut restarted, mut lost) = (Vec::with_capacity(sick.len()), Vec::new());
        for (port, error) in sick {
            let Some(station) = self.stations.get_mut(port) else { continue };
            let mut after = queues.split_off(&QueueId { port, queue: 0 });
            let mut others = after.split_off(&QueueId { port: port + 1, queue: 0 });
            let reason = error.to_string();
            match restart(station, after.into_values().collect(), error) {
                Ok(renewed) => {
                    let ids = (0..).map(|queue| QueueId { port, queue });
                    queues.extend(ids.zip(renewed));
                    restarted.push(reason);
                }
                Err(error) => {
                    station.stopped = true;
                    station.device = station.control.statistics();
                    let why = error.to_string();
                    // At once: to let go of a device that does not answer can take the kernel minutes.
                    tracing::error!("port `{}` is lost: {why}", station.name);
                    lost.push(if why == reason { why } else { format!("{reason}; starting it anew failed: {why}") });
                    self.problems.push(error.into());
                }
            }
            queues.append(&mut others);
        }
        self.broken |= (0..self.stations.len()).all(|port| self.is_lost(port));
        if self.broken {
            self.idle = queues;
            return Health::Broken;
        }
        // The queues of a lost port's partner wait for the end.
        let (idle, served) = queues.into_iter().partition(|(id, _)| self.is_lost(id.port));
        self.idle = idle;
        match self.start_engines(served) {
            Ok(()) => Health::Changed { restarted, lost },
            Err(error) => {
                self.problems.push(error.into());
                self.broken = true;
                Health::Broken
            }
        }
    }

    /// Stops: nothing more is received, what was received is sent, devices finish and are stopped.
    #[must_use]
    pub fn stop(mut self) -> Stopped {
        self.shut_down();
        Stopped {
            statistics: self.statistics(),
            generators: self.generators(),
            problems: std::mem::take(&mut self.problems),
            unfinished: self.unfinished,
        }
    }

    fn shut_down(&mut self) {
        let mut queues = self.stop_engines();
        for (port, station) in self.stations.iter_mut().enumerate() {
            if station.stopped {
                continue;
            }
            station.stopped = true;
            let after = queues.split_off(&QueueId { port: port + 1, queue: 0 });
            let own = std::mem::replace(&mut queues, after);
            if let Err(error) = station.control.stop(own.into_values().collect()) {
                self.problems.push(error.into());
            }
            // The device counts until it has stopped.
            station.device = station.control.statistics();
        }
    }

    /// Stops all engines at once, waits for them and gives all queues, those of no engine included.
    fn stop_engines(&mut self) -> BTreeMap<QueueId, PortQueue> {
        let engines = std::mem::take(&mut self.engines);
        for serving in &engines {
            serving.running.ask_to_stop();
        }
        let mut receivers = BTreeMap::new();
        let mut transmitters = std::mem::take(&mut self.spare);
        for (engine, serving) in engines.into_iter().enumerate() {
            let finished = serving.running.stop();
            if let Some(said) = finished.panic {
                let ports = self.names(&serving.ways);
                self.problems.push(ForwarderError::Panicked { engine, ports, said });
                self.broken = true;
            }
            self.unfinished |= finished.unfinished;
            receivers.extend(finished.receivers.into_iter().map(|receiver| (receiver.id, receiver)));
            transmitters.extend(finished.transmitters.into_iter().map(|queue| (queue.id, queue)));
        }
        let mut queues = assemble(receivers, transmitters);
        queues.append(&mut self.idle);
        queues
    }

    /// The ports that `ways` lead over, for messages.
    fn names(&self, ways: &[Way]) -> String {
        let ports: BTreeSet<usize> = ways.iter().map(|way| way.from.port).collect();
        let names: Vec<&str> =
            ports.iter().filter_map(|port| self.stations.get(*port)).map(|station| station.name.as_str()).collect();
        names.join(" and ")
    }
}

/// Starts the port of `station` anew, with as many queues as before.
fn restart(station: &mut Station, queues: Vec<PortQueue>, reason: PortError) -> Result<Vec<PortQueue>, PortError> {
    station.restarts.retain(|at| at.elapsed() < RESTART_WINDOW);
    if station.restarts.len() >= RESTARTS {
        let reason = format!("it failed again after {RESTARTS} restarts within a minute, and is given up");
        station.control.stop(queues)?;
        return Err(PortError::Device { port: station.name.clone(), reason });
    }
    station.restarts.push(Instant::now());
    let renewed = station.control.restart(queues, reason)?;
    if renewed.len() == station.queues {
        return Ok(renewed);
    }
    let reason = format!("came back with {} queue pairs instead of {}", renewed.len(), station.queues);
    station.control.stop(renewed)?;
    Err(PortError::Device { port: station.name.clone(), reason })
}

/// Whether nothing will ever come from the queue: it may be slept on, and yet has nothing to wake the sleeper.
fn is_silent(queue: &mut PortQueue) -> bool {
    let silent = queue.wake.is_none() && queue.rx.arm();
    queue.rx.disarm();
    silent
}

/// Joins the halves of queue pairs again. A half whose partner is missing is dropped.
fn assemble(
    receivers: BTreeMap<QueueId, Receiver>,
    mut transmitters: BTreeMap<QueueId, Transmitter>,
) -> BTreeMap<QueueId, PortQueue> {
    let pair = |(id, Receiver { rx, wake, .. }): (QueueId, Receiver)| {
        transmitters.remove(&id).map(|Transmitter { tx, .. }| (id, PortQueue { rx, tx, wake }))
    };
    receivers.into_iter().filter_map(pair).collect()
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder").field("joins", &self.joins()).field("config", &self.config).finish_non_exhaustive()
    }
}
