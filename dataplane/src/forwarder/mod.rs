//! The forwarder: ports joined pairwise by engines, or switched. What `run`, `demo`, `bench` and tests use.
//!
//! Life cycle: [`Forwarder::run`] or [`Forwarder::open`], or [`Forwarder::start`] with ports that are open → [`Forwarder::add`] and [`Forwarder::delete`] as one
//! likes, [`Forwarder::statistics`], [`Forwarder::check`] about once a second → [`Forwarder::stop`]. Dropping a forwarder stops
//! it too, and then nobody hears of what went wrong.
//!
//! To open, stop or restart a port can take as long as its device or the back-end behind a socket does. Whoever shares a forwarder
//! behind a mutex does not wait for that: ports are opened and stopped without the lock ([`add`] and [`delete`]), and
//! [`Forwarder::tend`] lets ports start anew on threads of their own, whose outcome [`Forwarder::collect`] picks up.
//!
//! A port is known by its name to users and by a number to engines; neither is given to two ports at a time, and a number never
//! again. Ports that are joined are a pair; their queues are divided into groups, and each group goes to the engine that has
//! least to do, or to a new engine while there are cores without one. A port that a network names is switched: its queues are divided between all
//! engines. A port that is neither keeps its queues: nothing is received
//! from it. Whatever happens to a pair or a switched port happens to that alone: the engines go on with the others' queues. What a file
//! wants is made so by [`apply`], all or nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::clock::CycleClock;
use crate::config::{Config, CoreList, EngineConfig};
use crate::copy::{CopyError, Copying};
use crate::engine::EngineError;
use crate::port::{GeneratorReport, MemoryOptions, NamedSpec, Opener, Port, PortError, Supply};
use crate::stats::{PortStatistics, QueueStatistics, Statistics};
use crate::vswitch::VswitchError;

mod access;
mod apply;
mod bond;
mod engines;
mod health;
mod join;
mod ports;
mod restart;
mod rewire;
mod station;
mod switch;

pub use access::Access;
pub use apply::{Applied, ApplyError, apply, change, plan};
use bond::Bond;
use engines::Serving;
pub use health::Health;
pub use ports::{Added, Listing, add, delete};
use restart::Restart;
use station::Station;
use switch::Switch;

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
    /// The switch failed, or was asked for what it cannot do.
    #[error(transparent)]
    Switch(#[from] VswitchError),
    /// The copy engine cannot be used.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// An engine could not be started, or does not do as it is told.
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
    /// A name that no port has.
    #[error("there is no port `{name}`; ports: {there}")]
    NoSuchPort {
        /// The name.
        name: String,
        /// The ports that there are.
        there: String,
    },
    /// The port to be joined to was deleted meanwhile.
    #[error("the port to be joined to was deleted meanwhile")]
    Gone,
    /// The port has a partner.
    #[error("port `{name}` is joined to `{partner}` already; delete one of them first, or choose another")]
    Joined {
        /// The port.
        name: String,
        /// Its partner.
        partner: String,
    },
    /// The port is switched.
    #[error("port `{name}` is switched, as a network names it; take it out of the networks first, or choose another")]
    Switched {
        /// The port.
        name: String,
    },
    /// The port failed and did not come back.
    #[error("port `{name}` has failed and forwards nothing any more; delete it and add it again")]
    Lost {
        /// The port.
        name: String,
    },
    /// An engine that does not answer still has the port's queues.
    #[error(
        "an engine that does not answer still has the queues of port `{name}`: its core is overloaded; try again in a moment"
    )]
    Held {
        /// The port.
        name: String,
    },
    /// The port is being started anew.
    #[error("port `{name}` is being started anew; try again in a moment")]
    Away {
        /// The port.
        name: String,
    },
    /// The forwarder stops.
    #[error("mirach is stopping; ports are no longer added")]
    Stopping,
    /// A port cannot be its own partner.
    #[error("port `{name}` cannot be joined to itself; name another")]
    Itself {
        /// The port.
        name: String,
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
    /// The final counters. Received and cut equals sent and dropped; with a switch, what it copied and what came back from control is added on the one side, and on the
    /// other what it dropped, what it gave to control and what waits.
    pub statistics: Statistics,
    /// What generators and their sinks counted, by port.
    pub generators: Vec<Option<GeneratorReport>>,
    /// What went wrong.
    pub problems: Vec<ForwarderError>,
    /// Some device had not finished sending when time ran out.
    pub unfinished: bool,
}

/// A running forwarder.
pub struct Forwarder {
    /// In the order in which they came.
    stations: Vec<Station>,
    /// What ports that are gone had received and sent.
    gone: [QueueStatistics; 2],
    /// Ports that forward.
    bonds: Vec<Bond>,
    engines: Vec<Serving>,
    switch: Option<Switch>,
    opener: Opener,
    /// Number of the next port.
    next: usize,
    /// As it was started.
    config: Config,
    clock: CycleClock,
    started: Instant,
    /// Ports that are being started anew.
    restarts: Vec<Restart>,
    problems: Vec<ForwarderError>,
    broken: bool,
    unfinished: bool,
    /// It has stopped.
    closed: bool,
}

impl Forwarder {
    /// Opens the ports that `specs` name, joins the first two, the next two, and so on, and starts engines on `cores`, as many as there is
    /// work for. No ports at all are fine: they can be added. Gives what the user should know too, a sentence each.
    ///
    /// # Errors
    /// When the number of ports is odd, or a port cannot be opened or an engine not be started. All ports are stopped then.
    pub fn open(
        config: EngineConfig,
        cores: &CoreList,
        specs: &[NamedSpec],
        memory: &MemoryOptions,
    ) -> Result<(Self, Vec<String>), ForwarderError> {
        if !specs.len().is_multiple_of(2) {
            return Err(ForwarderError::Unpaired(specs.len()));
        }
        Self::run(&Config::joined(config, cores, specs, memory))
    }

    /// Opens the ports that the configuration has, joins those that are to be joined, and switches the others. Gives what the user should know
    /// too, a sentence each.
    ///
    /// # Errors
    /// When a port cannot be opened, or an engine or the switch not be started. All ports are stopped then.
    pub fn run(config: &Config) -> Result<(Self, Vec<String>), ForwarderError> {
        let open = |name| Copying::open(name, config.cores.len(), config.dma_threshold);
        let copying = config.dma.as_ref().map(open).transpose()?;
        Self::run_with(config, copying)
    }

    /// As [`Forwarder::run`], with a copy engine that is open.
    ///
    /// # Errors
    /// As [`Forwarder::run`].
    pub fn run_with(config: &Config, copying: Option<Arc<Copying>>) -> Result<(Self, Vec<String>), ForwarderError> {
        let mut opener = Opener::new(config.memory()).with_copying(copying);
        let ports = opener.open(&config.ports, &config.pairs)?;
        let mut notices: Vec<String> = ports.iter().flat_map(|port| port.notices.clone()).collect();
        let mut forwarder = Self::empty(config.clone(), opener);
        let mut ids = Vec::with_capacity(ports.len());
        for (port, spec) in ports.into_iter().zip(&config.ports) {
            ids.push(forwarder.insert(port, Some(spec.clone()), config.ports_of_file));
        }
        // Dropping the forwarder stops the ports.
        let id = |place: usize| ids.get(place).copied().unwrap_or(usize::MAX);
        let pairs = config.pairs.iter().map(|pair| Bond::Pair(pair.map(id)));
        let named = forwarder.stations.iter().filter(|station| config.network.names_port(&station.name));
        let target: Vec<Bond> = pairs.chain(named.map(|station| Bond::Switched([station.id]))).collect();
        notices.extend(forwarder.rewire(&target, &config.network)?.notices);
        Ok((forwarder, notices))
    }

    /// As [`Forwarder::open`], with ports that are open. The memory of their packets is known to them alone: a card that is added later does
    /// not reach it.
    ///
    /// # Errors
    /// When ports do not come in pairs or an engine cannot be started. All ports are stopped then.
    pub fn start(config: EngineConfig, cores: &CoreList, ports: Vec<Port>) -> Result<Self, ForwarderError> {
        let count = ports.len();
        let memory = MemoryOptions::default();
        let mut forwarder = Self::empty(Config::joined(config, cores, &[], &memory), Opener::new(memory));
        let ids: Vec<usize> = ports.into_iter().map(|port| forwarder.insert(port, None, false)).collect();
        // Dropping the forwarder stops the ports.
        if count == 0 || !count.is_multiple_of(2) {
            return Err(ForwarderError::Unpaired(count));
        }
        for pair in ids.as_chunks().0 {
            let notices = forwarder.connect(Bond::Pair(*pair))?;
            notices.iter().for_each(|notice| tracing::info!("{notice}"));
        }
        Ok(forwarder)
    }

    fn empty(config: Config, opener: Opener) -> Self {
        Self {
            stations: Vec::new(),
            gone: Default::default(),
            bonds: Vec::new(),
            engines: Vec::new(),
            switch: None,
            clock: opener.clock(),
            opener,
            next: 0,
            config,
            started: Instant::now(),
            restarts: Vec::new(),
            problems: Vec::new(),
            broken: false,
            unfinished: false,
            closed: false,
        }
    }

    /// What has been counted since the start, of the ports that are there.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let ports = self.stations.iter().map(Station::statistics).collect();
        let copying = self.copying().map(|copying| copying.statistics()).unwrap_or_default();
        let (elapsed, switch) = (self.started.elapsed(), self.switch_statistics());
        Statistics { elapsed, ports, gone: self.gone, switch, copying }
    }

    /// What has been counted for the port `name` since it came.
    ///
    /// # Errors
    /// When there is no such port.
    pub fn statistics_of(&self, name: &str) -> Result<PortStatistics, ForwarderError> {
        let id = self.find(name)?;
        Ok(self.station(id).map(Station::statistics).unwrap_or_default())
    }

    /// What generators and their sinks have counted so far, by port.
    #[must_use]
    pub fn generators(&self) -> Vec<Option<GeneratorReport>> {
        self.stations.iter().map(|station| station.control.generator()).collect()
    }

    /// How the ports are joined, of those that are joined pairwise.
    #[must_use]
    pub fn joins(&self) -> Vec<Join> {
        let join = |bond: &Bond| {
            let Bond::Pair(pair) = bond else { return None };
            let ports = pair.map(|id| self.station(id).map(|station| station.name.clone()).unwrap_or_default());
            let serves = |serving: &&Serving| serving.bonds.contains(bond);
            let mut cores: Vec<usize> = self.engines.iter().filter(serves).map(|serving| serving.core).collect();
            cores.sort_unstable();
            Some(Join { ports, cores })
        };
        self.bonds.iter().filter_map(join).collect()
    }

    /// The device that copies to virtual machines, if there is one.
    #[must_use]
    pub fn copying(&self) -> Option<&Arc<Copying>> {
        self.opener.copying()
    }

    /// The rate of the cycle counter, to convert what [`Statistics`] counts in cycles.
    #[must_use]
    pub fn clock(&self) -> CycleClock {
        self.clock
    }

    /// Every port that forwards and had packets to give has given out its last one: nothing more will come. Never so between ports that
    /// had none from the start.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        let bonded = self.stations.iter().filter(|station| self.bond_of(station.id).is_some());
        let mut sources = bonded.filter(|station| !station.silent).peekable();
        sources.peek().is_some() && sources.all(|station| station.control.supply() == Supply::Exhausted)
    }

    /// Stops: nothing more is received, what was received is sent, devices finish and are stopped.
    #[must_use]
    pub fn stop(mut self) -> Stopped {
        self.halt()
    }

    /// As [`Forwarder::stop`], for a forwarder that others hold as well: it does nothing more for them.
    #[must_use]
    pub fn halt(&mut self) -> Stopped {
        self.shut_down();
        Stopped {
            statistics: self.statistics(),
            generators: self.generators(),
            problems: std::mem::take(&mut self.problems),
            unfinished: self.unfinished,
        }
    }

    fn shut_down(&mut self) {
        self.closed = true;
        self.stop_engines();
        if let Some(switch) = &mut self.switch {
            // With its thread go the packets that it had.
            switch.vswitch = None;
        }
        self.abandon_restarts();
        for station in self.stations.iter_mut().filter(|station| !station.stopped) {
            if let Err(error) = station.stop() {
                self.problems.push(error.into());
            }
        }
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shut_down();
    }
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forwarder")
            .field("joins", &self.joins())
            .field("config", &self.config.engine)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
