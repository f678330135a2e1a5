//! What the user wants, from flags and from a TOML file, checked before anything is touched.
//!
//! [`Settings`] holds what was said about ports and engines, each item optional; [`network::Config`](crate::network::Config) what was said about the switch.
//! A file has both ([`Desired`]). Flags lie over it ([`Desired::under`]); [`Desired::check`] fills in the defaults and gives a [`Config`] or says what is
//! wrong, with file and line when it stands in the file.
//!
//! The file has the flags' names, and the sections of the switch:
//!
//! ```toml
//! ports = ["0000:00:03.0,queues=2,name=uplink", "tap=tap0", "tap=tap1", "tap=tap2"]
//! cores = "1-3,8"
//! memory = "64M"
//! huge-page-size = "2M"
//! poll = "adaptive"
//! burst = 64
//!
//! [[network]]
//! name = "blue"
//!
//! [[port]]
//! name = "tap0"
//! network = "blue"
//! anti-spoofing = false
//!
//! [[port]]
//! name = "uplink"
//! network = "blue"
//! anti-spoofing = false
//! ```
//!
//! Ports that the sections name are *switched*; the others are joined, the first to the second, the third to the fourth, and so on: here `tap1` to `tap2`.

use std::time::Duration;

use hugemem::PageChoice;

use crate::control::MetricsAddress;
use crate::copy::{DmaName, Threshold};
use crate::network;
use crate::port::{MemoryOptions, NamedSpec};

mod check;
mod control;
mod cores;
mod desired;
mod number;
mod settings;
mod size;
mod words;

pub use control::ControlSocket;
pub use cores::{CoreList, NotCoreList};
pub use desired::{ConfigError, Desired, schema};
pub use settings::Settings;
pub use size::{ByteSize, NotByteSize};
pub use words::{NotPageSize, NotPoll, NotScheduler, PageSize, Poll, Scheduler};

/// Largest burst of `mirach run`, in packets.
pub const LARGEST_BURST: usize = 128;
/// Burst when none is given, in packets.
pub const DEFAULT_BURST: usize = 64;
/// Packet memory when none is given, in bytes; [`DEFAULT_SWITCH_MEMORY`] comes on top.
pub const DEFAULT_MEMORY: usize = 64 << 20;
/// More of it for each core, as there may be a switch. What is granted is only taken when it is needed.
pub const DEFAULT_SWITCH_MEMORY: usize = 12 << 20;
/// How long packets wait for room on a full transmit queue when nothing else is said.
pub const DEFAULT_HOLD: Duration = Duration::from_millis(100);
/// Longest that packets may wait: a virtual machine that stops its ring waits for its frames that others hold, for a second.
pub const LONGEST_HOLD: Duration = Duration::from_millis(500);
/// Flows in the table of the switch when nothing else is said.
pub const DEFAULT_FLOWS: u32 = 131_072;
/// Most flows in the table of the switch.
pub const MOST_FLOWS: u32 = 1 << 24;
/// Most engines of a switch.
pub const MOST_ENGINES: usize = 64;

/// What to do, checked and complete.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The ports; none at all only with a control socket.
    pub ports: Vec<NamedSpec>,
    /// Their names, in the same order.
    pub names: Vec<String>,
    /// Places in `ports` of those that are joined.
    pub pairs: Vec<[usize; 2]>,
    /// They stand in a file, and go when they do not any more.
    pub ports_of_file: bool,
    /// The switch.
    pub network: network::Config,
    /// Most flows in its table.
    pub flows: u32,
    /// Cores for engines, at least one, ascending. With fewer groups of queues than cores, the last ones stay unused, unless there is a switch.
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
    /// The group whose members may read there.
    pub control_group: Option<String>,
    /// Where to serve metrics.
    pub metrics: Option<MetricsAddress>,
    /// The device that copies to virtual machines.
    pub dma: Option<DmaName>,
    /// From which length on, where ports say nothing.
    pub dma_threshold: Threshold,
    /// Report in JSON.
    pub json: bool,
}

impl Config {
    /// Ports that are joined, the first two, the next two, and so on, and nothing else.
    #[must_use]
    pub fn joined(engine: EngineConfig, cores: &CoreList, ports: &[NamedSpec], memory: &MemoryOptions) -> Self {
        Self {
            ports: ports.to_vec(),
            names: Vec::new(),
            pairs: (0..ports.len() / 2).map(|pair| [2 * pair, 2 * pair + 1]).collect(),
            ports_of_file: false,
            network: network::Config::default(),
            flows: DEFAULT_FLOWS,
            cores: cores.clone(),
            memory: memory.bytes,
            page: memory.page,
            node: memory.node,
            engine,
            duration: None,
            control: ControlSocket::None,
            control_group: None,
            metrics: None,
            dma: None,
            dma_threshold: Threshold::Auto,
            json: false,
        }
    }

    /// The memory for packets.
    #[must_use]
    pub fn memory(&self) -> MemoryOptions {
        MemoryOptions { bytes: self.memory, page: self.page, node: self.node }
    }
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

#[cfg(test)]
mod tests;
