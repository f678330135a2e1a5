//! What the user wants, from flags and from a TOML file, checked before anything is touched.
//!
//! [`Settings`] holds what was said, each item optional. Flags lie over the file ([`Settings::over`]);
//! [`Settings::check`] fills in the defaults and gives a [`Config`] or a sentence about what is wrong.
//!
//! The file has the flags' names:
//!
//! ```toml
//! ports = ["0000:00:03.0,queues=2", "tap=tap0"]
//! cores = "1-3,8"
//! memory = "64M"
//! huge-page-size = "2M"
//! poll = "adaptive"
//! burst = 64
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use hugemem::PageChoice;
use serde::de::{Error as _, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::port::{NamedSpec, PortSpec};

mod control;
mod cores;
mod size;

pub use control::ControlSocket;
pub use cores::{CoreList, NotCoreList};
pub use size::{ByteSize, NotByteSize};

/// Largest burst of `mirach run`, in packets.
pub const LARGEST_BURST: usize = 128;
/// Burst when none is given, in packets.
pub const DEFAULT_BURST: usize = 64;
/// Packet memory when none is given, in bytes.
pub const DEFAULT_MEMORY: usize = 64 << 20;
/// How long packets wait for room on a full transmit queue when nothing else is said.
pub const DEFAULT_HOLD: Duration = Duration::from_millis(100);
/// Longest that packets may wait: a virtual machine that stops its ring waits for its frames that others hold, for a second.
pub const LONGEST_HOLD: Duration = Duration::from_millis(500);

/// How engines wait for packets.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Poll without end: lowest latency, one core always busy.
    Always,
    /// Poll while there is work, sleep until an interrupt when there is none.
    #[default]
    Adaptive,
}

impl fmt::Display for Poll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Adaptive => "adaptive",
        })
    }
}

/// The text was no way of polling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `always` or `adaptive`")]
pub struct NotPoll;

impl FromStr for Poll {
    type Err = NotPoll;

    fn from_str(text: &str) -> Result<Self, NotPoll> {
        match text {
            "always" => Ok(Self::Always),
            "adaptive" => Ok(Self::Adaptive),
            _ => Err(NotPoll),
        }
    }
}

/// The order in which engines deliver the packets that wait for several ports.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// First to the port that has used the least processor time of late, so that a noisy one delays nobody but itself.
    #[default]
    LeastCpu,
    /// All at once, in the order in which they were received.
    Off,
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeastCpu => "least-cpu",
            Self::Off => "off",
        })
    }
}

/// The text was no scheduler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `least-cpu` or `off`")]
pub struct NotScheduler;

impl FromStr for Scheduler {
    type Err = NotScheduler;

    fn from_str(text: &str) -> Result<Self, NotScheduler> {
        match text {
            "least-cpu" => Ok(Self::LeastCpu),
            "off" => Ok(Self::Off),
            _ => Err(NotScheduler),
        }
    }
}

/// The size of the pages that packets lie in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PageSize(pub PageChoice);

/// The text was no page size.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected `1G`, `2M` or `4K`")]
pub struct NotPageSize;

impl FromStr for PageSize {
    type Err = NotPageSize;

    fn from_str(text: &str) -> Result<Self, NotPageSize> {
        match text {
            "1G" => Ok(Self(PageChoice::Size1G)),
            "2M" => Ok(Self(PageChoice::Size2M)),
            "4K" => Ok(Self(PageChoice::Size4K)),
            _ => Err(NotPageSize),
        }
    }
}

impl<'de> Deserialize<'de> for PageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::invalid_value(Unexpected::Str(&text), &"`1G`, `2M` or `4K`"))
    }
}

/// What the user said. `None` and an empty list mean that nothing was said.
#[derive(Clone, PartialEq, Default, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Settings {
    /// The ports, in order: the first two are joined, then the next two, and so on.
    pub ports: Vec<NamedSpec>,
    /// Cores for the engines.
    pub cores: Option<CoreList>,
    /// Memory for packets and rings.
    pub memory: Option<ByteSize>,
    /// Page size of that memory.
    pub huge_page_size: Option<PageSize>,
    /// Use 4 KiB pages and no huge pages.
    pub no_huge: Option<bool>,
    /// NUMA node of that memory.
    pub node: Option<u32>,
    /// How engines wait for packets.
    pub poll: Option<Poll>,
    /// Most packets received at once.
    pub burst: Option<usize>,
    /// To whom packets are delivered first.
    pub scheduler: Option<Scheduler>,
    /// Where to listen for requests.
    pub control: Option<ControlSocket>,
    /// Stop after this many seconds.
    pub seconds: Option<u64>,
    /// How long packets wait for room on a full transmit queue before they are dropped, in milliseconds.
    pub hold_milliseconds: Option<u64>,
    /// Report in JSON.
    pub json: Option<bool>,
}

/// What the user wants cannot be. The text says what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's content is wrong.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// There are no ports.
    #[error(
        "no ports are given, and without a control socket none can be added; give two, such as --port 0000:00:03.0 --port \
         0000:00:04.0"
    )]
    NoPorts,
    /// The number of ports is odd.
    #[error(
        "{count} ports cannot be joined pairwise, port {last} is left over; add one (`--port null` discards what it is sent)"
    )]
    OddPorts {
        /// How many there are.
        count: usize,
        /// The last one.
        last: String,
    },
    /// A port is named twice.
    #[error("port {port} is given twice; a port can only be opened once")]
    DuplicatePort {
        /// The port.
        port: String,
    },
    /// Two ports have the same name.
    #[error("the name {name} is given to two ports; choose another for one of them")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A core that this process may not run on.
    #[error("core {core} is not available; this process may run on {available}")]
    CoreOutOfRange {
        /// The core.
        core: usize,
        /// The cores that there are.
        available: CoreList,
    },
    /// The burst is out of range.
    #[error("a burst of {burst} packets is not possible; give 1 to {LARGEST_BURST}")]
    Burst {
        /// What was asked for.
        burst: usize,
    },
    /// Packets would wait too long.
    #[error("hold-milliseconds = {milliseconds} is too long; give at most {}", LONGEST_HOLD.as_millis())]
    Hold {
        /// What was asked for.
        milliseconds: u128,
    },
    /// The memory is too small to hold anything.
    #[error("{bytes} bytes of packet memory are too little; give at least 4M")]
    Memory {
        /// What was asked for.
        bytes: usize,
    },
    /// Huge pages are both wanted and not.
    #[error("no-huge and a huge-page-size other than 4K contradict each other; give one of them")]
    Pages,
}

/// What to do, checked and complete.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The ports, an even number; none at all only with a control socket.
    pub ports: Vec<NamedSpec>,
    /// Cores for engines, at least one, ascending. With fewer groups of queues than cores, the last ones stay unused.
    pub cores: CoreList,
    /// Memory for packets and rings, in bytes.
    pub memory: usize,
    /// Page size of that memory.
    pub page: PageChoice,
    /// NUMA node of that memory; `None` leaves it to the system.
    pub node: Option<u32>,
    /// What the engines do.
    pub engine: EngineConfig,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Where to listen for requests.
    pub control: ControlSocket,
}

/// What every engine needs to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// Most packets received at once, at least 1.
    pub burst: usize,
    /// How to wait for packets.
    pub poll: Poll,
    /// How long packets wait for room on a full transmit queue before they are dropped as `tx_queue_full`. Meanwhile nothing is received from the
    /// queue that they came from; all other queues go on.
    pub hold: Duration,
    /// To whom packets are delivered first.
    pub scheduler: Scheduler,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { burst: DEFAULT_BURST, poll: Poll::default(), hold: DEFAULT_HOLD, scheduler: Scheduler::default() }
    }
}

impl Settings {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, or has an unknown key or an impossible value; the text names the line.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_toml(&text, path)
    }

    /// Reads the content of a file; `path` is for messages.
    ///
    /// # Errors
    /// As [`Settings::from_file`], but for reading.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::File {
            path: path.to_owned(),
            problem: error.to_string().trim_end().to_owned(),
        })
    }

    /// These settings, and those of `below` where these say nothing.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        Self {
            ports: if self.ports.is_empty() { below.ports } else { self.ports },
            cores: self.cores.or(below.cores),
            memory: self.memory.or(below.memory),
            // The two say the same thing in two ways, so the one on top hides both below it.
            huge_page_size: self.huge_page_size.or(if self.no_huge.is_some() { None } else { below.huge_page_size }),
            no_huge: self.no_huge.or(if self.huge_page_size.is_some() { None } else { below.no_huge }),
            node: self.node.or(below.node),
            poll: self.poll.or(below.poll),
            burst: self.burst.or(below.burst),
            scheduler: self.scheduler.or(below.scheduler),
            control: self.control.or(below.control),
            seconds: self.seconds.or(below.seconds),
            hold_milliseconds: self.hold_milliseconds.or(below.hold_milliseconds),
            json: self.json.or(below.json),
        }
    }

    /// Checks everything that can be checked without touching a device. `available` are the cores that this process may
    /// run on, ascending.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(self, available: &CoreList) -> Result<Config, ConfigError> {
        let control = self.control.unwrap_or_default();
        // Ports can still be added when there is a control socket.
        if !self.ports.is_empty() || control == ControlSocket::None {
            check_ports(&self.ports)?;
        }
        let cores = match self.cores {
            Some(cores) => {
                if let Some(core) = cores.iter().find(|core| !available.contains(*core)) {
                    return Err(ConfigError::CoreOutOfRange { core, available: available.clone() });
                }
                cores
            }
            None => available.without_first(),
        };
        let memory = self.memory.map_or(DEFAULT_MEMORY, |size| size.0);
        if memory < 4 << 20 {
            return Err(ConfigError::Memory { bytes: memory });
        }
        let burst = self.burst.unwrap_or(DEFAULT_BURST);
        if !(1..=LARGEST_BURST).contains(&burst) {
            return Err(ConfigError::Burst { burst });
        }
        let page = match (self.no_huge, self.huge_page_size) {
            (Some(true), None | Some(PageSize(PageChoice::Size4K))) => PageChoice::Size4K,
            (Some(true), Some(_)) => return Err(ConfigError::Pages),
            (_, Some(PageSize(page))) => page,
            (_, None) => PageChoice::Auto,
        };
        let hold = self.hold_milliseconds.map_or(DEFAULT_HOLD, Duration::from_millis);
        if hold > LONGEST_HOLD {
            return Err(ConfigError::Hold { milliseconds: hold.as_millis() });
        }
        Ok(Config {
            ports: self.ports,
            cores,
            memory,
            page,
            node: self.node,
            engine: EngineConfig {
                burst,
                poll: self.poll.unwrap_or_default(),
                hold,
                scheduler: self.scheduler.unwrap_or_default(),
            },
            control,
            duration: self.seconds.map(Duration::from_secs),
        })
    }
}

fn check_ports(ports: &[NamedSpec]) -> Result<(), ConfigError> {
    let Some(last) = ports.last() else { return Err(ConfigError::NoPorts) };
    if ports.len() % 2 == 1 {
        return Err(ConfigError::OddPorts { count: ports.len(), last: last.to_string() });
    }
    for (index, port) in ports.iter().enumerate() {
        let mut before = ports.iter().take(index);
        if let Some(name) =
            port.name.as_ref().filter(|name| before.clone().any(|other| other.name.as_ref() == Some(name)))
        {
            return Err(ConfigError::DuplicateName { name: name.to_string() });
        }
        let Some(identity) = identity(&port.spec) else { continue };
        if before.any(|other| self::identity(&other.spec).as_ref() == Some(&identity)) {
            return Err(ConfigError::DuplicatePort { port: identity });
        }
    }
    Ok(())
}

/// What must not be opened twice: the device or the file written to. `None` for ports that may exist any number of times.
fn identity(port: &PortSpec) -> Option<String> {
    match port {
        PortSpec::Pci(pci) => Some(pci.device.to_string()),
        PortSpec::Tap(tap) => Some(format!("tap={}", tap.name)),
        PortSpec::Pcap(pcap) => pcap.output.as_ref().map(|output| format!("pcap=..,out={}", output.display())),
        PortSpec::VhostUser(port) => Some(format!("vhost-user={}", port.socket.display())),
        PortSpec::VirtioUser(port) => Some(format!("virtio-user={}", port.socket.display())),
        _ => None,
    }
}

/// A number or a text, whichever the file has.
struct NumberOrText<T>(&'static str, std::marker::PhantomData<T>);

impl<T: FromStr + TryFrom<u64>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
        let converted = u64::try_from(number).ok().and_then(|number| T::try_from(number).ok());
        converted.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }
}

#[cfg(test)]
mod tests;
